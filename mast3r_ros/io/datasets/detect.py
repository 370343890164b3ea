"""Which layout a path has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mast3r_ros.errors import DatasetError
from mast3r_ros.io.bags.reader import is_bag
from mast3r_ros.io.datasets.base import Source
from mast3r_ros.io.datasets.colmap import Colmap, find_model
from mast3r_ros.io.datasets.frame_files import holds_frames
from mast3r_ros.io.datasets.posed_images import PosedImages
from mast3r_ros.io.datasets.rosbag import RosBag
from mast3r_ros.io.datasets.sevenscenes import SevenScenes
from mast3r_ros.io.datasets.tum import TumRgbd
from mast3r_ros.io.datasets.twelvescenes import TwelveScenes, is_twelvescenes

#: Layout name -> reader.
LAYOUTS: dict[str, Callable[..., Source]] = {
    reader.layout: reader for reader in (RosBag, SevenScenes, TwelveScenes, TumRgbd, Colmap, PosedImages)
}

EXPECTED = """expected one of
  a rosbag: a folder with metadata.yaml, or a .bag, .mcap or .db3 file
  7-Scenes: frame-*.color.png or .jpg with .pose.txt, in seq-* folders or directly
  12-Scenes: info.txt and data/frame-*.color.jpg with .pose.txt
  TUM RGB-D: rgb.txt and groundtruth.txt
  COLMAP: cameras, images and points3D (.txt or .bin) in it, in sparse/ or in sparse/0/
  images and poses: images/ and poses.txt"""


def open_source(path: Path | str, layout: str | None = None, **options: Any) -> Source:
    """Open a data set or recording of posed frames.

    Args:
        layout: "rosbag", "sevenscenes", "twelvescenes", "tum", "colmap" or "posed_images"; None finds out.
        options: keyword arguments of the layout's reader.

    Raises:
        DatasetError: if the path is none of these, or a file in it is missing or malformed.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path} does not exist: {EXPECTED}")
    layout = layout or detect(path)
    if layout not in LAYOUTS:
        raise DatasetError(f"unknown layout '{layout}': use {', '.join(LAYOUTS)}")
    known = [name for name in inspect.signature(LAYOUTS[layout]).parameters if name != "path"]
    if "camera" in options and "camera" not in known:
        raise DatasetError(f"{path}: {layout} has a calibration of its own: leave --intrinsics out")
    if unknown := sorted(set(options) - set(known)):
        raise DatasetError(f"{layout} has no option {', '.join(unknown)}: it has {', '.join(known)}")
    return LAYOUTS[layout](path, **options)


def detect(path: Path) -> str:
    """Layout of a path, by the files in it. Raises DatasetError."""
    if is_bag(path):
        return RosBag.layout
    if path.is_dir():
        if holds_frames(path) or any(holds_frames(folder) for folder in path.glob("seq-*")):
            return SevenScenes.layout
        if is_twelvescenes(path):
            return TwelveScenes.layout
        if (path / "rgb.txt").exists():
            return TumRgbd.layout
        if find_model(path) is not None:
            return Colmap.layout
        if (path / "poses.txt").exists():
            return PosedImages.layout
    raise DatasetError(f"{path} has no layout that is known: {EXPECTED}")
