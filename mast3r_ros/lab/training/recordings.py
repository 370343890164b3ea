"""Real RGB-D recordings with poses as training scenes, for fine-tuning: a bag, 7-Scenes, TUM or any other data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.io.datasets.base import Source
from mast3r_ros.io.datasets.detect import open_source
from mast3r_ros.lab.training.views import SceneFile, View, save_scene
from mast3r_ros.matching.network_view import view_of

#: Frames of one scene file: pairs come from within it.
FRAMES = 96
#: The last part of every recording is held out.
HELD_OUT = 0.15
#: Fewer frames make no pairs.
LEAST_FRAMES = 8
CONVERTED_VERSION = 1


class Recordings:
    """Scenes cut from recordings, kept in files.

    Attributes:
        files: of the scenes.
        size: (height, width) of the images.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        height, width = SceneFile(files[0])[0].depth.shape
        self.size = (height, width)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> SceneFile:
        return SceneFile(self.files[number])


def open_recordings(paths: list[Path], cache: Path, size: int) -> tuple[Recordings, Recordings]:
    """Scenes to train on and held-out ones.

    Args:
        paths: recordings and data sets with depth, poses and calibration.
        cache: folder of converted scenes.
        size: longer side of the images in pixels.

    Raises:
        DatasetError: for a recording that cannot be used, or with too few frames.
    """
    training: list[Path] = []
    held_out: list[Path] = []
    for path in paths:
        first, second = _converted(open_source(path), path, cache, size)
        training += first
        held_out += second
    return Recordings(training), Recordings(held_out)


def _converted(source: Source, path: Path, cache: Path, size: int) -> tuple[list[Path], list[Path]]:
    """Scene files of one recording: its beginning for training, its end held out."""
    key = hashlib.sha256(f"{path.resolve()} {size} {CONVERTED_VERSION}".encode()).hexdigest()[:12]
    folder = cache / f"recording-{path.stem}-{key}"
    if not (folder / "complete").exists():
        views = list(_views(source, size))
        if len(views) < 2 * LEAST_FRAMES:
            raise DatasetError(
                f"{path} has {len(views)} frames with depth, pose and calibration, "
                f"at least {2 * LEAST_FRAMES} are needed"
            )
        if len({view.depth.shape for view in views}) > 1:
            raise DatasetError(f"{path} holds images of several shapes: train on one camera at a time")
        held = max(LEAST_FRAMES, round(len(views) * HELD_OUT))
        _save(views[:-held], folder, "train")
        _save(views[-held:], folder, "held_out")
        (folder / "complete").touch()
    return sorted(folder.glob("train-*.safetensors")), sorted(folder.glob("held_out-*.safetensors"))


def _save(views: list[View], folder: Path, name: str) -> None:
    """Scene files with frames from all over the recording: views of one place come at different times."""
    count = -(-len(views) // FRAMES)
    for number in range(count):
        save_scene(folder / f"{name}-{number:03d}.safetensors", views[number::count])


def _views(source: Source, size: int) -> Iterator[View]:
    for posed in source:
        view = _view(posed, size)
        if view is not None:
            yield view


def _view(posed: PosedFrame, size: int) -> View | None:
    """A frame at network size; None for one without depth or calibration."""
    frame = posed.frame
    if frame.depth is None or frame.camera is None:
        return None
    seen, image = view_of(frame, size)
    (x0, y0), (x1, y1) = seen.rays(np.array([[0, 0], [1, 1]]))
    fx, fy = 1 / (x1 - x0), 1 / (y1 - y0)
    K = np.array([[fx, 0, -x0 * fx], [0, fy, -y0 * fy], [0, 0, 1]])
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    return View(pixels, seen.depth, posed.map_T_camera, K)
