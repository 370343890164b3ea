"""The plain layout for one's own data: images, a list of poses, and a calibration.

    images/          JPEG, PNG, ...
    poses.txt        one line for each image, camera (optical frame) to map, metres, either
                     "name qw qx qy qz tx ty tz"         name: file in images/, or path from the data set's folder
                     "stamp tx ty tz qx qy qz qw"        TUM trajectory; the image is images/<stamp>.<suffix>
    intrinsics.txt   "width height fx fy cx cy" for all images, or "name fx fy cx cy width height" for each
    camera.yaml      instead of it: the file that ROS's camera calibration writes, with distortion
    depth/           optional: <image's path in images/>.png, or <its stem>.png where no two images share one;
                     16 bits, millimetres, registered to the image

Without a calibration the frames have no camera. Lines that start with # are comments.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import (
    IMAGE_SUFFIXES,
    FrameList,
    depth_file,
    named_values,
    numbers,
    pose_of,
    read_depth,
    read_table,
)
from mast3r_ros.io.datasets.camera_file import read_camera
from mast3r_ros.io.datasets.stamps import stamps_ns
from mast3r_ros.io.datasets.trajectory_file import TUM, is_number

NAMED = "name qw qx qy qz tx ty tz"


class _Entry(NamedTuple):
    file: Path
    inside: Path  # its path in images/, or in the data set's folder
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
        self._stems = Counter(entry.file.stem for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> tuple[str, ...]:
        """What poses.txt calls the images, in its order."""
        return tuple(entry.name for entry in self._entries)

    def read(self, index: int) -> PosedFrame:
        """One image with its pose."""
        entry = self._entries[index]
        camera = next((self._cameras[n] for n in (entry.name, str(entry.inside), "") if n in self._cameras), None)
        if camera is None and self._cameras:
            raise DatasetError(f"intrinsics.txt has no line for {entry.name}")
        image, camera = self._read_image(entry.file, camera)
        depth = None
        if self._depth_folder:
            file = depth_file(self._depth_folder, entry.inside, alone=self._stems[entry.file.stem] == 1)
            depth = None if file is None else read_depth(file, self._depth_scale)
        return PosedFrame(Frame(image, camera, entry.stamp_ns, depth, name=entry.name), entry.map_T_camera)


def _read_poses(path: Path, inverse: bool) -> list[_Entry]:
    file = path / "poses.txt"
    found: list[_Entry] = []
    stamps: dict[int, tuple[int, str]] = {}  # by place in the list
    for number, (line, words) in enumerate(read_table(file)):
        if number == 0 and not any(map(is_number, words)):
            continue  # a header that is no comment
        name, values = named_values(words, 7)
        if len(values) != 7:
            raise DatasetError(f"{file}, line {line}: expected '{NAMED}' or '{TUM}', got {len(words)} values")
        image = _named(path, name)
        if image is not None:
            w, x, y, z, *translation = numbers(file, line, values, "qw qx qy qz tx ty tz")
            pose = pose_of(file, line, translation, [x, y, z, w], NAMED)
        else:
            image = _stamped(path, name)
            if image is None:
                raise DatasetError(f"{file}, line {line}: there is no image '{name}' in {path / 'images'}")
            *translation, x, y, z, w = numbers(file, line, values, "tx ty tz qx qy qz qw")
            pose = pose_of(file, line, translation, [x, y, z, w], TUM)
            stamps[len(found)] = line, name
        folder = path / "images" if image.is_relative_to(path / "images") else path
        found.append(_Entry(image, image.relative_to(folder), name, 0, se3.inverse(pose) if inverse else pose))
    if not found:
        raise DatasetError(f"{file} is empty: expected lines '{NAMED}'")
    for place, stamp in zip(stamps, stamps_ns(file, list(stamps.values())), strict=True):
        found[place] = found[place]._replace(stamp_ns=stamp)
    return found


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
    return read_intrinsics(file) if file.exists() else {}


def read_intrinsics(file: Path) -> dict[str, Camera]:
    """Pinhole cameras by image name of an ``intrinsics.txt``; "" is for all images.

    Raises:
        DatasetError: for a missing or malformed file.
    """
    cameras = {}
    for line, words in read_table(file):
        if len(words) == 6:
            name = ""
            width, height, fx, fy, cx, cy = numbers(file, line, words, "width height fx fy cx cy")
        else:
            name, rest = named_values(words, 6)
            fx, fy, cx, cy, width, height = numbers(file, line, rest, "fx fy cx cy width height")
        try:
            cameras[name] = Camera.pinhole(int(width), int(height), fx, fy, cx, cy)
        except CalibrationError as error:
            raise DatasetError(f"{file}, line {line}: {error}") from error
    return cameras
