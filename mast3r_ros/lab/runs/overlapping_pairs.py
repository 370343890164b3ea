"""Image pairs from any posed recording: the views that share a given part of what they see.

ScanNet-1500 takes pairs whose overlap is 0.4 to 0.8 (Sarlin et al., CVPR 2020, section 5.2). Overlap here is the share
of one view's depth that the other view sees at the same distance, the smaller of both directions; of recordings without
depth it is guessed from the poses (:func:`view_overlap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets import FrameList, Source
from mast3r_ros.lab.datasets.image_pairs import ImagePair, PairList, StoredImage, write_pair_list
from mast3r_ros.mapping.blob import encode_image
from mast3r_ros.mapping.overlap import assumed_depth, view_overlap
from mast3r_ros.matching.network_view import rectified, rectified_camera
from mast3r_ros.surface import depth_points

Array = NDArray[np.float64]

#: Depth is read at every so many pixels along both axes.
STRIDE = 24
#: A surface counts as seen by another view where the depths differ by less than this share.
SAME_SURFACE = 0.1
#: A view whose depth is known at fewer points says little about overlap.
LEAST_POINTS = 30


@dataclass(frozen=True)
class OverlapSettings:
    """Which pairs are made.

    Attributes:
        pairs: at most this many, drawn at random from those that qualify.
        least, most: overlap, 0 to 1.
        frames: at most this many frames, evenly spread over the recording.
        seed: of the draw.
    """

    pairs: int = 200
    least: float = 0.4
    most: float = 0.8
    frames: int = 150
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _View:
    """A frame without its pixels: ``points`` (N, 3) are in its camera frame, None where it has no depth."""

    number: int
    camera: Camera
    map_T_camera: Array
    points: Array | None


def make_pairs(
    source: Source,
    folder: Path,
    settings: OverlapSettings = OverlapSettings(),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> PairList:
    """Write a list of pairs and their images (rectified, as PNG) into a folder: ``pairs.txt``, ``images/``.

    Args:
        progress: called with (what is being done, done, total).

    Returns:
        the pairs, which know their overlap.

    Raises:
        DatasetError: if the source has no calibration, or no two of its views overlap so much.
    """
    views = _views(source, settings.frames, progress)
    chosen = _chosen(views, settings, progress)
    if not chosen:
        raise DatasetError(
            f"{source.name}: of {len(views)} frames no two overlap by {settings.least:.0%} to {settings.most:.0%}: "
            "allow more overlap, or more frames"
        )
    used = sorted({number for i, j, _ in chosen for number in (i, j)})
    stored = {}
    for done, (number, posed) in enumerate(_frames(source, [views[i].number for i in used]), start=1):
        name = f"{number:06d}.png"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(encode_image(rectified(posed.frame), "png").read())
        assert posed.frame.camera is not None
        stored[number] = StoredImage(name, 0, rectified_camera(posed.frame.camera).K)
        progress("writing images", done, len(used))
    pairs = [_pair(views[i], views[j], stored, overlap) for i, j, overlap in chosen]
    write_pair_list(folder / "pairs.txt", pairs)
    made = PairList(folder / "pairs.txt", folder / "images")
    made.name, made.pairs = source.name, pairs
    return made


def overlaps(view: _View, others: list[_View]) -> Array:
    """Share (N,) of one view's surface that others see too, 0 to 1; guessed from poses without depth."""
    if view.points is None or any(other.points is None for other in others):
        poses = np.array([other.map_T_camera for other in others])
        return view_overlap(view.map_T_camera, poses, assumed_depth(np.concatenate([view.map_T_camera[None], poses])))
    return np.array([min(_seen(view, other), _seen(other, view)) for other in others])


def _seen(view: _View, other: _View) -> float:
    """Share of a view's points that lie in another view's image and are not hidden there."""
    assert view.points is not None and other.points is not None
    in_other = se3.apply(se3.inverse(other.map_T_camera) @ view.map_T_camera, view.points)
    xy, inside = other.camera.seen(in_other)
    if not inside.any():
        return 0.0
    # The other view's depth is known on a coarse grid: its nearest point stands for what lies there.
    grid = other.camera.project(other.points)
    nearest = np.linalg.norm(xy[inside, None] - grid[None], axis=2).argmin(axis=1)
    there, here = other.points[nearest, 2], in_other[inside, 2]
    return float(np.sum(np.abs(here - there) < SAME_SURFACE * there) / len(view.points))


def _views(source: Source, most: int, progress: Callable[[str, int, int], None]) -> list[_View]:
    """At most so many views, evenly spread."""
    if isinstance(source, FrameList):
        numbers = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int)).tolist()
        views = []
        for done, (number, posed) in enumerate(_frames(source, numbers), start=1):
            views.append(_view(number, posed, source.name))
            progress("reading frames", done, len(numbers))
        return views
    views, step = [], 1
    for number, posed in enumerate(source):
        if number % step == 0:
            views.append(_view(number, posed, source.name))
        if len(views) > most:  # its length is known only at its end: keep every second from now on
            views, step = views[::2], 2 * step
        progress("reading frames", number + 1, number + 1)
    return views


def _view(number: int, posed: PosedFrame, source: str) -> _View:
    frame = posed.frame
    if frame.camera is None:
        raise DatasetError(f"{source}: frame {frame.name or number} has no calibration, which pairs need")
    points: Array | None = None
    if frame.depth is not None:
        found = depth_points(frame, STRIDE, first=STRIDE // 2).points
        points = found if len(found) >= LEAST_POINTS else np.zeros((0, 3))
    return _View(number, frame.camera, posed.map_T_camera, points)


def _chosen(
    views: list[_View], settings: OverlapSettings, progress: Callable[[str, int, int], None]
) -> list[tuple[int, int, float]]:
    """Rows of two views and their overlap, of a random sample of all pairs that qualify, in order."""
    seeing = [row for row, view in enumerate(views) if view.points is None or len(view.points)]
    found = []
    for done, row in enumerate(seeing[:-1], start=1):
        later = seeing[done:]
        shares = overlaps(views[row], [views[other] for other in later])
        found += [
            (row, other, float(share))
            for other, share in zip(later, shares, strict=True)
            if settings.least <= share <= settings.most
        ]
        progress("comparing views", done, len(seeing) - 1)
    if len(found) <= settings.pairs:
        return found
    drawn = np.random.default_rng(settings.seed).choice(len(found), settings.pairs, replace=False)
    return [found[k] for k in np.sort(drawn)]


def _frames(source: Source, numbers: list[int]) -> Iterator[tuple[int, PosedFrame]]:
    """Frames by their number in the source, in ascending order."""
    if isinstance(source, FrameList):
        yield from ((number, source[number]) for number in numbers)
        return
    wanted = set(numbers)
    for number, posed in enumerate(source):
        if number in wanted:
            yield number, posed


def _pair(view1: _View, view2: _View, stored: dict[int, StoredImage], overlap: float) -> ImagePair:
    camera2_T_camera1 = se3.inverse(view2.map_T_camera) @ view1.map_T_camera
    return ImagePair(stored[view1.number], stored[view2.number], camera2_T_camera1, overlap)
