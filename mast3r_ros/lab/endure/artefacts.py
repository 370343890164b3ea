"""One good file or folder of every kind that is read, small, and how each is read to its end."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter, open_bag
from mast3r_ros.io.codec.picture_files import encode_jpeg
from mast3r_ros.io.datasets import open_source
from mast3r_ros.io.datasets.camera_file import read_camera
from mast3r_ros.lab.endure.scene import BASE_T_CAMERA, CAMERA, CAMERA_FRAME, STAMP_NS, VIEWS, small_map, view
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.export import export_colmap
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.repair import repair
from mast3r_ros.matching import create
from mast3r_ros.network.checkpoint import convert_checkpoint, inspect_checkpoint, load_model, save_network
from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.settings import Settings

#: Pixels of a camera whose rays are computed as well.
ORDINARY_PIXELS = 2**24
#: Side of the picture that claims to be huge: more than a gigabyte when it is decoded.
BOMB_SIDE = 21_000


@dataclass(frozen=True)
class Artefact:
    """A kind of file: where a good one lies, and how it is read to its end (gives the outcome)."""

    name: str
    good: Path
    read: Callable[[Path], str]


def artefacts(folder: Path) -> list[Artefact]:
    """Good files of every kind, made in a folder."""
    keyframes = small_map()
    keyframes.prepare(create("fake"))
    keyframes.save(folder / "map")
    export_colmap(keyframes, folder / "colmap")
    points = folder / "colmap" / "points3D.txt"
    points.write_text("".join(points.read_text().splitlines(keepends=True)[:50]))
    binary_colmap(folder / "colmap", folder / "colmap_binary")
    for name in ("bag.mcap", "bag.db3", "bag"):
        _bag(folder / name)
    _checkpoint(folder / "checkpoint")
    _calibrations(folder / "calibrations")
    (folder / "settings").mkdir()
    Settings().write(folder / "settings" / "robot.yaml")
    found = [
        Artefact("map", folder / "map", read_map),
        Artefact("map repair", folder / "map", repair_map),
        Artefact("colmap text", folder / "colmap", read_source),
        Artefact("colmap binary", folder / "colmap_binary", read_source),
        Artefact("checkpoint", folder / "checkpoint", read_checkpoint),
        Artefact("calibration", folder / "calibrations", read_calibrations),
        Artefact("settings", folder / "settings", read_settings),
    ]
    return found + [Artefact("bag", folder / name, read_bag) for name in ("bag.mcap", "bag.db3", "bag")]


def read_map(path: Path) -> str:
    """Load, read every pixel, describe, and localize a view in it."""
    keyframes, matcher = KeyframeMap.load(path), create("fake")
    for keyframe in keyframes.keyframes:
        keyframes.frame(keyframe.id)
    keyframes.prepare(matcher)
    image, _ = view(1)
    from mast3r_ros.frames import Frame

    Localizer(keyframes, matcher).localize(Frame(image, CAMERA))
    return "map read"


def repair_map(path: Path) -> str:
    """A repaired map is a whole map."""
    repair(path)
    read_map(path)
    return "map repaired"


def read_source(path: Path) -> str:
    """Every frame of a data set."""
    kept = 0
    for posed in open_source(path):
        assert isinstance(posed, PosedFrame)
        if not np.isfinite(posed.map_T_camera).all():
            raise AssertionError("a pose that is not finite")
        kept += 1
    return "source read" if kept == VIEWS else "source read in part"


def read_bag(path: Path) -> str:
    """Every frame of a recording, and its transforms."""
    with open_bag(path) as bag:
        bag.transforms().frames  # noqa: B018  built when asked for
        kept = sum(1 for _ in bag.frames())
    return "bag read" if kept == VIEWS else "bag read in part"


def read_checkpoint(path: Path) -> str:
    """Inspect, load, and convert the pickled one."""
    for file in sorted(path.glob("*.safetensors")):
        inspect_checkpoint(file)
        load_model(file)
    for file in sorted(path.glob("*.pth")):
        convert_checkpoint(file, path / "converted.safetensors")
    return "checkpoint read"


def read_calibrations(path: Path) -> str:
    """Every calibration file."""
    for file in sorted(path.iterdir()):
        camera = read_camera(file)
        if not (np.isfinite(camera.K).all() and np.isfinite(camera.D).all()):
            raise AssertionError("a calibration that is not finite")
        if camera.width * camera.height <= ORDINARY_PIXELS:
            _ = camera.pixel_rays
    return "calibration read"


def read_settings(path: Path) -> str:
    """The parameter file."""
    Settings.read(path / "robot.yaml")
    return "settings read"


def bomb() -> bytes:
    """A PNG of 1 MB that becomes more than a gigabyte."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    packer, row = zlib.compressobj(9), bytes(1 + 3 * BOMB_SIDE)
    data = b"".join(packer.compress(row) for _ in range(BOMB_SIDE)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


class Malicious:
    """What a pickle can hold: something that is run when it is read."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self._marker}",)


def malicious_pickle(marker: Path) -> bytes:
    """A pickle that makes a file when something reads it as pickles are read."""
    return pickle.dumps({"model": Malicious(marker)})


def binary_colmap(text: Path, target: Path) -> None:
    """The COLMAP model of :func:`export_colmap` in its binary form; the images are linked."""
    target.mkdir()
    (target / "images").mkdir()
    for image in (text / "images").iterdir():
        (target / "images" / image.name).write_bytes(image.read_bytes())
    K = CAMERA.K
    camera = struct.pack("<Iiqqdddd", 1, 1, CAMERA.width, CAMERA.height, K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
    (target / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    rows = [line.split() for line in (text / "images.txt").read_text().splitlines() if line and line[0] != "#"]
    images = struct.pack("<Q", len(rows))
    for number, *pose, _camera, name in rows:
        images += struct.pack("<I7dI", int(number), *map(float, pose), 1) + name.encode() + b"\0"
        images += struct.pack("<Q2dq", 1, 40.0, 30.0, 1)
    (target / "images.bin").write_bytes(images)
    points = struct.pack("<QQ3d3BdQII", 1, 1, 1.0, 2.0, 3.0, 9, 9, 9, 0.5, 1, 1, 0)
    (target / "points3D.bin").write_bytes(points)


def _bag(path: Path) -> None:
    with BagWriter(path) as bag:
        bag.transform("base_link", CAMERA_FRAME, BASE_T_CAMERA, STAMP_NS, static=True)
        for number in range(VIEWS):
            image, depth = view(number)
            stamp = STAMP_NS + number * 10**8
            bag.transform("odom", "base_link", se3.make(np.eye(3), [0.5 * number, 0, 0]), stamp)
            bag.camera_info("/camera/camera_info", CAMERA, stamp, CAMERA_FRAME)
            bag.depth("/camera/depth/image_raw", depth, stamp, CAMERA_FRAME)
            bag.compressed_image("/camera/image_raw/compressed", image, stamp, CAMERA_FRAME)


def _checkpoint(folder: Path) -> None:
    folder.mkdir()
    config = NetworkConfig(8, 1, 1, 8, 1, 1, "linear")
    save_network(random_network(config), folder / "network.safetensors", torch.float32)


def _calibrations(folder: Path) -> None:
    folder.mkdir()
    w, h, (fx, fy, cx, cy) = CAMERA.width, CAMERA.height, CAMERA.K[[0, 1, 0, 1], [0, 1, 2, 2]]
    K, P = f"[{fx}, 0, {cx}, 0, {fy}, {cy}, 0, 0, 1]", f"[{fx}, 0, {cx}, 0, 0, {fy}, {cy}, 0, 0, 0, 1, 0]"
    (folder / "ros.yaml").write_text(
        f"image_width: {w}\nimage_height: {h}\ncamera_name: c\ncamera_matrix:\n  rows: 3\n  cols: 3\n  data: {K}\n"
        "distortion_model: plumb_bob\ndistortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [0.1, -0.05, 0, 0, 0]\n"
        f"projection_matrix:\n  rows: 3\n  cols: 4\n  data: {P}\n"
    )
    (folder / "kalibr.yaml").write_text(
        f"cam0:\n  camera_model: pinhole\n  intrinsics: [{fx}, {fy}, {cx}, {cy}]\n  resolution: [{w}, {h}]\n"
        "  distortion_model: radtan\n  distortion_coeffs: [0.1, -0.05, 0.0, 0.0]\n  rostopic: /camera/image_raw\n"
    )
    (folder / "opencv.yaml").write_text(
        f"%YAML:1.0\n---\nimage_width: {w}\nimage_height: {h}\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n"
        f"   dt: d\n   data: {K}\ndistortion_coefficients: !!opencv-matrix\n   rows: 1\n   cols: 5\n   dt: d\n"
        "   data: [0.1, -0.05, 0., 0., 0.]\n"
    )


def picture() -> bytes:
    """A small JPEG that nothing may read."""
    return encode_jpeg(np.full((CAMERA.height, CAMERA.width, 3), 7, np.uint8), 90)
