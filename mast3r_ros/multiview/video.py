"""Frames of a film that are worth reconstructing: sharp ones, each showing somewhat more than the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera, PosedFrame

#: Frames are compared at this width, pixels.
WIDTH = 320
#: Corners that are followed from the last chosen frame; with fewer left the view is a new one.
CORNERS, FEWEST = 200, 25
#: Whoever walks around a thing keeps it in the middle of the picture: what moves most tells.
MOVING = 0.8


@dataclass(frozen=True)
class VideoSettings:
    """Which frames are taken.

    Attributes:
        nearest, farthest: how far a fifth of the picture must have moved since the last chosen frame, and may at most,
            as shares of its width; between them the sharpest frame is taken.
        most: frames that are taken at most; the video is thinned evenly beyond.
    """

    nearest: float = 0.03
    farthest: float = 0.07
    most: int = 1000


def frames_of_video(
    path: Path,
    folder: Path,
    settings: VideoSettings = VideoSettings(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the chosen frames as ``frame_000123.jpg`` (number in the video); returns how many.

    Raises:
        DatasetError: if the video cannot be decoded, or not a single frame of it.
    """
    video = cv2.VideoCapture(str(path))
    total = int(max(video.get(cv2.CAP_PROP_FRAME_COUNT), 0)) if video.isOpened() else 0
    folder.mkdir(parents=True, exist_ok=True)
    chooser, number, written = _Chooser(settings), 0, []
    while video.isOpened():
        read, frame = video.read()
        if not read:
            break
        for at, image in chooser.next(number, frame):
            written.append(_write(folder, at, image))
        number += 1
        progress(number, total)
    video.release()
    for at, image in chooser.rest():
        written.append(_write(folder, at, image))
    if number == 0:
        raise DatasetError(
            f"{path}: no frame can be decoded: it is damaged, no video, or in a format that OpenCV does not know; turn "
            "it into images (ffmpeg -i VIDEO -r 5 images/%06d.jpg) and give their folder"
        )
    for file in np.array(written, dtype=object)[_too_many(len(written), settings.most)]:
        file.unlink()
    return min(len(written), settings.most)


def frames_of_recording(
    source: Iterable[PosedFrame],
    folder: Path,
    settings: VideoSettings = VideoSettings(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Camera], dict[str, NDArray[np.float64]]]:
    """Write the chosen frames of a recording with odometry; returns calibration and odometry pose (4, 4) by file name.

    Raises:
        DatasetError: for a recording without frames or without calibration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chooser = _Chooser(settings)
    cameras, poses = dict[str, Camera](), dict[str, NDArray[np.float64]]()

    def keep(found: list[tuple[int, NDArray[np.uint8]]]) -> None:
        for at, image in found:
            name, camera = _write(folder, at, image).name, cameras_of[at]
            poses[name] = poses_of[at]
            if camera is None:
                raise DatasetError(f"frame {at} of the recording has no calibration: give one with --intrinsics")
            cameras[name] = camera

    cameras_of, poses_of = dict[int, "Camera | None"](), dict[int, NDArray[np.float64]]()
    for number, posed in enumerate(source):
        cameras_of[number], poses_of[number] = posed.frame.camera, posed.map_T_camera
        keep(chooser.next(number, np.ascontiguousarray(posed.frame.image[..., ::-1])))
        progress(number + 1, 0)
    keep(chooser.rest())
    if not poses:
        raise DatasetError("the recording has no frame with a pose")
    return cameras, poses


class _Chooser:
    """Remembers the last chosen frame, and the sharpest one since it moved far enough."""

    def __init__(self, settings: VideoSettings) -> None:
        self._settings = settings
        self._grey: NDArray[np.uint8] | None = None
        self._corners: NDArray[np.float32] = np.zeros((0, 1, 2), np.float32)
        self._best: tuple[float, int, NDArray[np.uint8]] | None = None

    def next(self, number: int, frame: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.uint8]]]:
        """Frames that are decided once this one is seen."""
        grey = _small(frame)
        moved = self._moved(grey)
        chosen = []
        if moved > self._settings.farthest:
            if self._best is None:
                self._best = 0.0, number, frame
            chosen = self.rest()
            moved = self._moved(grey)
        if moved >= self._settings.nearest:
            sharp = float(cv2.Laplacian(grey, cv2.CV_64F).var())
            if self._best is None or sharp > self._best[0]:
                self._best = sharp, number, frame.copy()
        return chosen

    def rest(self) -> list[tuple[int, NDArray[np.uint8]]]:
        """The frame that is the best so far, if there is one; what comes is held against it."""
        if self._best is None:
            return []
        _, number, frame = self._best
        self._grey = _small(frame)
        corners = cv2.goodFeaturesToTrack(self._grey, CORNERS, 0.01, 5)
        self._corners = np.zeros((0, 1, 2), np.float32) if corners is None else corners
        self._best = None
        return [(number, frame)]

    def _moved(self, grey: NDArray[np.uint8]) -> float:
        """How far a fifth of the picture moved, as a share of its width; infinite for a new view."""
        if self._grey is None:
            return np.inf
        if len(self._corners) < FEWEST:  # nothing to follow, as on a white wall
            return 0.0 if float(np.abs(grey.astype(float) - self._grey).mean()) < 8 else np.inf
        found, seen, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, self._corners, None)
        kept = seen.ravel() == 1
        if kept.sum() < FEWEST:
            return np.inf
        return float(np.quantile(np.linalg.norm((found - self._corners)[kept, 0], axis=1), MOVING) / WIDTH)


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    size = (WIDTH, max(1, round(WIDTH * grey.shape[0] / grey.shape[1])))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))


def _write(folder: Path, number: int, image: NDArray[np.uint8]) -> Path:
    path = folder / f"frame_{number:06d}.jpg"
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise DatasetError(f"{path}: cannot be written")
    return path


def _too_many(count: int, most: int) -> NDArray[np.bool_]:
    """(N,) which of them go, so that at most so many are left, evenly spread."""
    gone = np.ones(count, bool)
    gone[np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(int))] = False
    return gone
