"""Microsoft's 7-Scenes RGB-D relocalization data set (Shotton et al., CVPR 2013).

    seq-01/frame-000000.color.png   640x480 RGB (.jpg is read too)
           frame-000000.depth.png   640x480, 16 bits, millimetres; 0 and 65535 are invalid
           frame-000000.pose.txt    4x4 depth camera to world, metres
    TrainSplit.txt, TestSplit.txt   lines "sequence1" ...

Depth is not registered to colour, and the pose is the depth camera's. The geometry below fits the
frames best (depth edges on image edges, PnP residuals); other files in circulation give 585 for
both cameras, which is off by up to 30 px at the image border.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import read_table
from mast3r_ros.io.datasets.frame_files import FrameFiles, RgbdRig, colour_files, holds_frames

log = logging.getLogger(__name__)

#: The geometry of the Kinect that took the scenes, as the module says.
DEPTH_CAMERA = Camera.pinhole(640, 480, 585, 585, 320, 240)
COLOUR_CAMERA = Camera.pinhole(640, 480, 525, 525, 320, 240)
COLOUR_T_DEPTH = se3.make(np.eye(3), [-0.025, 0, 0])


class SevenScenes(FrameFiles):
    """A scene (folder with seq-* folders) or one sequence (folder with frame-* files).

    Args:
        split: "train" or "test" reads the sequences that TrainSplit.txt or TestSplit.txt name; None reads all.
        use_depth: False leaves depth away and saves its time.
        camera: calibration of another camera in the same layout, whose depth and poses are its own: registered, no
            second camera beside it.
        colour_camera, depth_camera, colour_T_depth: geometry of another sensor with two cameras.

    Raises:
        DatasetError: for a missing split file, sequence or frame.
    """

    layout = "sevenscenes"

    def __init__(
        self,
        path: Path,
        split: str | None = None,
        use_depth: bool = True,
        camera: Camera | None = None,
        colour_camera: Camera = COLOUR_CAMERA,
        depth_camera: Camera = DEPTH_CAMERA,
        colour_T_depth: NDArray[np.float64] = COLOUR_T_DEPTH,
    ) -> None:
        files = [file for folder in _sequences(path, split) for file in colour_files(folder)]
        if not files:
            raise DatasetError(f"{path} has no frames: expected frame-000000.color.png or .jpg, ...")
        name = path.name if split is None else f"{path.name} ({split})"
        rig = RgbdRig(colour_camera, depth_camera, colour_T_depth)
        if camera is not None:
            rig = RgbdRig(camera, camera, np.eye(4))
            log.info("%s: the calibration is given: depth and poses are taken as those of the same camera", path)
        super().__init__(name, files, rig, use_depth)


def _sequences(path: Path, split: str | None) -> list[Path]:
    if split is None:
        return [path] if holds_frames(path) else sorted(folder for folder in path.glob("seq-*") if folder.is_dir())
    names = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
    if split not in names:
        raise DatasetError(f"unknown split '{split}': use train or test")
    file = path / names[split]
    if not file.exists():
        raise DatasetError(f"{path} has no {file.name}: open it without a split, or open the scene's folder")
    folders = []
    for line, words in read_table(file):
        match = re.fullmatch(r"sequence(\d+)", words[0])
        if not match:
            raise DatasetError(f"{file}, line {line}: expected 'sequence<number>', got '{words[0]}'")
        folders.append(path / f"seq-{int(match[1]):02d}")
        if not folders[-1].is_dir():
            raise DatasetError(f"{file}, line {line}: the folder {folders[-1]} does not exist")
    return folders
