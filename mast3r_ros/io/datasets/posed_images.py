"""The plain layout for one's own data: images, a list of poses, and a calibration.

    images/          JPEG, PNG, ...
    poses.txt        one line for each image, camera (optical frame) to map, metres, either
                     "name qw qx qy qz tx ty tz"         name: file in images/, or path from the data set's folder
                     "stamp tx ty tz qx qy qz qw"        TUM trajectory; the image is images/<stamp>.<suffix>
    intrinsics.txt   "width height fx fy cx cy" for all images, or "name fx fy cx cy width height" for each
    camera.yaml      instead of it: the file that ROS's camera calibration writes, with distortion
    depth/           optional: <image's stem>.png, 16 bits, millimetres, registered to the image

Without a calibration the frames have no camera. Lines that start with # are comments.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec import fit_camera_to_image
from mast3r_ros.io.datasets.base import (
    IMAGE_SUFFIXES,
    FrameList,
    numbers,
    pose_of,
    read_depth,
    read_image,
    read_table,
)
from mast3r_ros.io.datasets.camera_file import read_camera


class _Entry(NamedTuple):
    file: Path
    name: str
    stamp_ns: int
    map_T_camera: NDArray[np.float64]


class PosedImages(FrameList):
    """A folder of images with poses.

    Args:
        camera: calibration of all images; None reads intrinsics.txt or camera.yaml.
        world_to_camera: the poses in poses.txt are inverse (as COLMAP and Map-free write them).
        depth_scale: units of the depth images per metre.
        use_depth: False leaves depth away.

    Raises:
        DatasetError: for a missing or malformed file.
    """

    layout = "posed_images"

    def __init__(
        self,
        path: Path,
        camera: Camera | None = None,
        world_to_camera: bool = False,
        depth_scale: float = 1000.0,
        use_depth: bool = True,
    ) -> None:
        super().__init__(path.name)
        self._depth_folder = path / "depth" if use_depth else None
        self._depth_scale = depth_scale
        self._cameras = {"": camera} if camera else _read_cameras(path)
        self._entries = _read_poses(path, world_to_camera)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> tuple[str, ...]:
        """What poses.txt calls the images, in its order."""
        return tuple(entry.name for entry in self._entries)

    def read(self, index: int) -> PosedFrame:
        """One image with its pose."""
        entry = self._entries[index]
        image = read_image(entry.file)
        camera = self._cameras.get(entry.name, self._cameras.get(""))
        if camera is None and self._cameras:
            raise DatasetError(f"intrinsics.txt has no line for {entry.name}")
        if camera is not None:
            camera = fit_camera_to_image(camera, image.shape[1], image.shape[0])
        depth = None
        if self._depth_folder and (depth_file := self._depth_folder / (entry.file.stem + ".png")).exists():
            depth = read_depth(depth_file, self._depth_scale)
        return PosedFrame(Frame(image, camera, entry.stamp_ns, depth, name=entry.name), entry.map_T_camera)


def _read_poses(path: Path, inverse: bool) -> list[_Entry]:
    file = path / "poses.txt"
    entries = []
    for line, words in read_table(file):
        if len(words) != 8:
            raise DatasetError(
                f"{file}, line {line}: expected 'name qw qx qy qz tx ty tz' or 'stamp tx ty tz qx qy qz qw', "
                f"got {len(words)} values"
            )
        image = _named(path, words[0])
        if image is not None:
            w, x, y, z, *translation = numbers(file, line, words[1:], "qw qx qy qz tx ty tz")
            pose, stamp_ns = pose_of(file, line, translation, [x, y, z, w]), 0
        else:
            image = _stamped(path, words[0])
            if image is None:
                raise DatasetError(f"{file}, line {line}: there is no image '{words[0]}' in {path / 'images'}")
            stamp, *values = numbers(file, line, words, "stamp tx ty tz qx qy qz qw")
            pose, stamp_ns = pose_of(file, line, values[:3], values[3:]), round(stamp * 1e9)
        entries.append(_Entry(image, words[0], stamp_ns, se3.inverse(pose) if inverse else pose))
    if not entries:
        raise DatasetError(f"{file} is empty: expected lines 'name qw qx qy qz tx ty tz'")
    return entries


def _named(path: Path, name: str) -> Path | None:
    return next((file for file in (path / "images" / name, path / name) if file.is_file()), None)


def _stamped(path: Path, stamp: str) -> Path | None:
    files = (path / "images" / (stamp + suffix) for suffix in IMAGE_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _read_cameras(path: Path) -> dict[str, Camera]:
    """Calibration by image name; "" is for all images."""
    if (path / "camera.yaml").exists():
        return {"": read_camera(path / "camera.yaml")}
    file = path / "intrinsics.txt"
    cameras = {}
    for line, words in read_table(file) if file.exists() else ():
        if len(words) == 6:
            name = ""
            width, height, fx, fy, cx, cy = numbers(file, line, words, "width height fx fy cx cy")
        else:
            name, *rest = words
            fx, fy, cx, cy, width, height = numbers(file, line, rest, "fx fy cx cy width height")
        try:
            cameras[name] = Camera.pinhole(int(width), int(height), fx, fy, cx, cy)
        except CalibrationError as error:
            raise DatasetError(f"{file}, line {line}: {error}") from error
    return cameras
