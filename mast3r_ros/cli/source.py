"""Options that say how a source of frames is read: the same words in every command that reads one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mast3r_ros.frames import Camera

IntrinsicsOption = Annotated[
    Path | None,
    typer.Option(
        "--intrinsics",
        help="Calibration of the images instead of the source's: a file of ROS's camera_calibration, ros2 topic echo "
        "camera_info, OpenCV, or Kalibr (FILE#cam1 names one of several cameras).",
    ),
]


@dataclass(frozen=True)
class BagOptions:
    """How a recording is read."""

    intrinsics: IntrinsicsOption = None
    image_topic: Annotated[str | None, typer.Option(help="Bag: colour images.")] = None
    camera_info_topic: Annotated[str | None, typer.Option(help="Bag: calibration.")] = None
    depth_topic: Annotated[str | None, typer.Option(help="Bag: depth images.")] = None
    pose_topic: Annotated[str | None, typer.Option(help="Bag: poses from this topic instead of TF.")] = None
    map_frame: Annotated[str | None, typer.Option(help="Bag: the fixed frame.")] = None
    camera_frame: Annotated[str | None, typer.Option(help="Bag: the camera's optical frame.")] = None
    depth: Annotated[bool, typer.Option("--depth/--no-depth", help="Whether depth is used where there is any.")] = True

    def given(self) -> dict[str, Any]:
        """Keyword arguments for ``open_source``: those that were given.

        Raises:
            DatasetError: if the calibration file cannot be read.
        """
        options = {name: value for name, value in asdict(self).items() if value is not None}
        if options.pop("intrinsics", None) is not None:
            options["camera"] = calibration(self.intrinsics, self.image_topic or "")
        if not options.pop("depth"):
            options["use_depth"] = False
        return options


@dataclass(frozen=True)
class SourceOptions(BagOptions):
    """How a recording or a data set is read."""

    layout: Annotated[str | None, typer.Option(help="Kind of source, where it is not recognised.")] = None
    split: Annotated[str | None, typer.Option(help="7-Scenes: train or test.")] = None
    scale: Annotated[float | None, typer.Option(help="COLMAP: metres for each unit of the model.")] = None
    images: Annotated[
        Path | None, typer.Option(help="COLMAP: folder of the images, where it is not beside the model.")
    ] = None
    depth_scale: Annotated[float | None, typer.Option(help="Units of depth images per metre.")] = None


def calibration(file: Path | None, image_topic: str = "") -> Camera | None:
    """The camera of a calibration file. Raises DatasetError."""
    if file is None:
        return None
    from mast3r_ros.io.datasets.camera_file import read_camera

    return read_camera(file, image_topic)
