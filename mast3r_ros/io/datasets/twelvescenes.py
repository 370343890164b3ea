"""The 12-Scenes RGB-D relocalization data set (Valentin et al., "Learning to Navigate the Energy Landscape", 3DV 2016).

    apt1/kitchen/info.txt       calibration, lines "m_colorWidth = 1296" ...
    split.txt                   lines "sequence0 [frames=357] [start=0 ; end=356]", of which the first is the test
    data/frame-000000.color.jpg 1296x968 RGB
    data/frame-000000.depth.png 640x480, 16 bits, millimetres
    data/frame-000000.pose.txt  4x4 camera to world, metres; INF where tracking was lost

Depth and colour come from one calibrated rig (a structure sensor on a tablet); both extrinsics are the identity in the
published scenes. Frames whose pose is INF are left out.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import read_table, read_text
from mast3r_ros.io.datasets.frame_files import FrameFiles, RgbdRig, colour_files, holds_frames, number_of, stem_of

log = logging.getLogger(__name__)

_START_END = re.compile(r"\[\s*start\s*=\s*(\d+)\s*;\s*end\s*=\s*(\d+)\s*\]")


class TwelveScenes(FrameFiles):
    """One scene, e.g. ``apt1/kitchen``.

    Args:
        split: "test" reads the first sequence of split.txt, "train" all others; None reads every frame.
        use_depth: False leaves depth away and saves its time.

    Raises:
        DatasetError: for a missing or malformed file.
    """

    layout = "twelvescenes"

    def __init__(self, path: Path, split: str | None = None, use_depth: bool = True) -> None:
        data = path / "data"
        files = colour_files(data) if data.is_dir() else []
        if not files:
            raise DatasetError(f"{path} has no frames: expected data/frame-000000.color.jpg, ...")
        if split is not None:
            inside = _test_numbers(path / "split.txt", split)
            files = [file for file in files if (number_of(file) in inside) == (split == "test")]
        posed = [file for file in files if not _is_lost(file.with_name(stem_of(file) + ".pose.txt"))]
        name = "/".join(path.resolve().parts[-2:])
        name = name if split is None else f"{name} ({split})"
        if not posed:
            raise DatasetError(f"{name}: none of {len(files)} frames has a pose")
        if len(posed) < len(files):
            log.info("%s: %d of %d frames have no pose and are left out", name, len(files) - len(posed), len(files))
        super().__init__(name, posed, _rig(path / "info.txt"), use_depth, with_folder=False)


def is_twelvescenes(path: Path) -> bool:
    """Whether a folder is a scene of this layout."""
    return (path / "info.txt").exists() and (path / "data").is_dir() and holds_frames(path / "data")


def _is_lost(pose: Path) -> bool:
    return "INF" in read_text(pose).upper()


def _test_numbers(file: Path, split: str) -> range:
    """Frame numbers of the first sequence."""
    if split not in ("train", "test"):
        raise DatasetError(f"unknown split '{split}': use train or test")
    expected = "expected 'sequence0 [frames=357] [start=0 ; end=356]'"
    line, words = next(read_table(file), (1, []))
    found = _START_END.search(" ".join(words))
    if found is None:
        raise DatasetError(f"{file}, line {line}: {expected}, got '{' '.join(words)}'")
    return range(int(found[1]), int(found[2]) + 1)


def _rig(file: Path) -> RgbdRig:
    """The cameras of info.txt."""
    facts = {}
    for line, text in enumerate(read_text(file).splitlines(), start=1):
        name, equals, value = text.partition("=")
        if text.strip() and not equals:
            raise DatasetError(f"{file}, line {line}: expected 'name = value', got '{text.strip()}'")
        facts[name.strip()] = value.split()
    colour, depth = (_camera(file, facts, name) for name in ("color", "depth"))
    identity = [str(value) for value in np.eye(4).ravel()]
    facts = {"m_calibrationColorExtrinsic": identity, "m_calibrationDepthExtrinsic": identity} | facts
    rig_T_colour, rig_T_depth = (
        se3.orthonormalised(_matrix(file, facts, f"m_calibration{name}Extrinsic")) for name in ("Color", "Depth")
    )
    return RgbdRig(colour, depth, se3.inverse(rig_T_colour) @ rig_T_depth)


def _camera(file: Path, facts: dict[str, list[str]], name: str) -> Camera:
    width, height = (_pixels(file, facts, f"m_{name}{side}") for side in ("Width", "Height"))
    K = _matrix(file, facts, f"m_calibration{name.capitalize()}Intrinsic")[:3, :3]
    try:
        return Camera(width, height, K)
    except CalibrationError as error:
        raise DatasetError(f"{file}, m_calibration{name.capitalize()}Intrinsic: {error}") from error


def _pixels(file: Path, facts: dict[str, list[str]], name: str) -> int:
    words = facts.get(name, [])
    if len(words) != 1 or not words[0].isdigit():
        raise DatasetError(f"{file}: expected '{name} = <pixels>', got '{' '.join(words)}'")
    return int(words[0])


def _matrix(file: Path, facts: dict[str, list[str]], name: str) -> NDArray[np.float64]:
    words = facts.get(name, [])
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise DatasetError(f"{file}: {name} should be 16 numbers ({error})") from error
    if values.size != 16 or not np.isfinite(values).all():
        raise DatasetError(f"{file}: expected '{name} = <16 numbers of a 4x4 matrix>', got {values.size}")
    return values.reshape(4, 4)
