"""Which calibration belongs to an image, by the options of `localize`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.common import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mast3r_ros.frames import Camera
    from mast3r_ros.io.codec.image_files import ImageFiles
    from mast3r_ros.mapping.keyframe_map import KeyframeMap


@dataclass(frozen=True)
class CalibrationOptions:
    """What is known of the camera that images come from; at most one way to say it."""

    camera: Annotated[
        str | None,
        typer.Option(
            metavar="map|unknown|FILE",
            help="Calibration of the images: the map's own camera (default where the size fits), a ROS camera_info "
            "YAML file, or unknown: the focal length is estimated.",
        ),
    ] = None
    fx: Annotated[float | None, typer.Option(min=1e-6, help="Intrinsics in pixels, all four.")] = None
    fy: Annotated[float | None, typer.Option(min=1e-6)] = None
    cx: Annotated[float | None, typer.Option()] = None
    cy: Annotated[float | None, typer.Option()] = None
    focal: Annotated[
        float | None, typer.Option(min=1e-6, help="Focal length in pixels; principal point in the middle.")
    ] = None

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.fx, self.fy, self.cx, self.cy)]
        if any(given) and not all(given):
            raise typer.BadParameter("--fx, --fy, --cx and --cy belong together: give all four, or --focal alone")
        if sum([self.camera is not None, any(given), self.focal is not None]) > 1:
            raise typer.BadParameter("give one of --camera, --focal, and --fx --fy --cx --cy")


@dataclass
class CameraChoice:
    """Intrinsics given in pixels, a calibration file, the map's own camera, or none.

    Attributes:
        keyframe_map: whose camera is taken for images of its size where nothing else was asked for.
        given: what is known of the camera. Without ``--camera`` it is the map's where that fits, and unknown elsewhere.
    """

    keyframe_map: KeyframeMap
    given: CalibrationOptions = CalibrationOptions()
    _camera: Camera | None = None
    _said: set[str] = field(default_factory=set)
    _image_files: ImageFiles | None = None

    def __post_init__(self) -> None:
        if self.given.camera not in (None, "unknown"):
            self._camera = self._from_map() if self.given.camera == "map" else self._from_file()

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """An image file (H, W, 3) as RGB: as the camera that it is expected from stored it, else upright by its EXIF.

        Raises:
            DatasetError: if it cannot be read.
        """
        from mast3r_ros.io.codec.image_files import ImageFiles
        from mast3r_ros.io.datasets.base import read_expected

        self._image_files = self._image_files or ImageFiles()
        camera = self._camera
        if camera is None and self.given.camera is None:
            cameras = self.keyframe_map.cameras
            camera = cameras[0] if len(cameras) == 1 else None
        return read_expected(path, camera, self._image_files)

    def of_image(self, width: int, height: int) -> Camera | None:
        """The camera of an image of this size, or None where its focal length is to be estimated.

        Raises:
            CalibrationError: if the given calibration cannot belong to such an image.
        """
        from mast3r_ros.frames import Camera
        from mast3r_ros.io.codec import fit_camera_to_image

        given = self.given
        if given.focal is not None:
            return Camera.pinhole(width, height, given.focal, given.focal, (width - 1) / 2, (height - 1) / 2)
        if given.fx is not None and given.fy is not None and given.cx is not None and given.cy is not None:
            return Camera.pinhole(width, height, given.fx, given.fy, given.cx, given.cy)
        if self._camera is not None:
            return fit_camera_to_image(self._camera, width, height)
        return None if self.given.camera == "unknown" else self._if_it_fits(width, height)

    def _from_file(self) -> Camera:
        from mast3r_ros.io.datasets.camera_file import read_camera

        return read_camera(Path(str(self.given.camera)))

    def _from_map(self) -> Camera:
        from mast3r_ros.errors import CalibrationError

        cameras = self.keyframe_map.cameras
        if len(cameras) != 1:
            raise CalibrationError(f"the map has {len(cameras)} cameras, not one: give --camera FILE.yaml or --focal")
        return cameras[0]

    def _if_it_fits(self, width: int, height: int) -> Camera | None:
        camera = self.keyframe_map.camera_of_size(width, height)
        if camera is not None:
            self._say(f"{width}x{height} images: taken with the map's own camera (--camera tells otherwise)")
            return camera
        self._say(
            f"{width}x{height} images: the calibration is unknown, so the focal length is estimated (see --camera)"
        )
        return None

    def _say(self, text: str) -> None:
        """Each sentence once."""
        if text not in self._said:
            self._said.add(text)
            note(text)
