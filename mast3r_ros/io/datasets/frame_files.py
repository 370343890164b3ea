"""What 7-Scenes and 12-Scenes have in common: each frame as three files, depth from a camera of its own.

frame-000000.color.png   or .jpg, RGB
frame-000000.depth.png   16 bits, millimetres; 0 and 65535 are invalid
frame-000000.pose.txt    4x4 depth camera to world, metres
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec import fit_camera_to_image
from mast3r_ros.io.datasets.base import FrameList, read_depth, read_pose
from mast3r_ros.registration import register_depth

#: Frames per second: the files are numbered and have no times.
FRAME_RATE = 30

_COLOUR_FILE = re.compile(r"frame-(\d+)\.color\.(png|jpg|jpeg)")


@dataclass(frozen=True, eq=False)
class RgbdRig:
    """A colour camera, a depth camera, and how they are mounted.

    Attributes:
        colour_T_depth: (4, 4) depth camera frame -> colour camera frame, metres.
    """

    colour: Camera
    depth: Camera
    colour_T_depth: NDArray[np.float64]


class FrameFiles(FrameList):
    """Frames of one or more folders.

    Args:
        files: the colour images, in their order.
        use_depth: False leaves depth away and saves its time.
        with_folder: whether a frame's name begins with its folder's.
    """

    def __init__(self, name: str, files: list[Path], rig: RgbdRig, use_depth: bool, with_folder: bool = True) -> None:
        super().__init__(name)
        self._files, self._rig, self._use_depth, self._with_folder = files, rig, use_depth, with_folder

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> PosedFrame:
        """One frame: colour, depth registered to it, and the colour camera's pose."""
        file = self._files[index]
        stem = stem_of(file)
        world_T_depth = read_pose(file.with_name(stem + ".pose.txt"))
        image, camera = self._read_image(file, self._rig.colour)
        assert camera is not None
        frame = Frame(
            image,
            camera,
            stamp_ns=(number_of(file) or 0) * 1_000_000_000 // FRAME_RATE,
            depth=self._registered(file.with_name(stem + ".depth.png"), camera) if self._use_depth else None,
            name=f"{file.parent.name}/{stem}" if self._with_folder else stem,
        )
        return PosedFrame(frame, world_T_depth @ se3.inverse(self._rig.colour_T_depth))

    def _registered(self, file: Path, camera: Camera) -> NDArray[np.float32] | None:
        if not file.exists():
            return None
        depth = read_depth(file)
        height, width = depth.shape
        depth_camera = fit_camera_to_image(self._rig.depth, width, height)
        return register_depth(depth, depth_camera, camera, self._rig.colour_T_depth)


def colour_files(folder: Path) -> list[Path]:
    """Colour images of a folder by their number: numbers have gaps, the files are the list."""
    found = [(number, file) for file in folder.iterdir() if (number := number_of(file)) is not None]
    return [file for _, file in sorted(found)]


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds frames of this kind."""
    return any(next(folder.glob(f"frame-*.color.{suffix}"), None) for suffix in ("png", "jpg", "jpeg"))


def number_of(file: Path) -> int | None:
    """Number of a colour image, None for other files."""
    match = _COLOUR_FILE.fullmatch(file.name)
    return int(match[1]) if match else None


def stem_of(file: Path) -> str:
    """``frame-000000`` of any of a frame's files."""
    return file.name.split(".")[0]
