"""One component placed by MASt3R's sparse alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.multiview.alignment_start import similarity_of_poses
from mast3r_ros.multiview.matched_pairs import MatchedPair
from mast3r_ros.multiview.photos import Photo, with_focal
from mast3r_ros.multiview.placed import PlacedImages, metres_of
from mast3r_ros.multiview.sim3_graph import JoinedFrames
from mast3r_ros.multiview.sparse_alignment import (
    MatchSide,
    SparseProblem,
    SparseSettings,
    align_sparsely,
)
from mast3r_ros.multiview.surfaces import Surfaces

Array = NDArray[np.float64]


def place_sparsely(
    images: Sequence[int],
    frames: JoinedFrames,
    pairs: Mapping[int, MatchedPair],
    surfaces: Surfaces,
    photos: Sequence[Photo],
    known: Mapping[int, Array],
    metric: bool,
    settings: SparseSettings = SparseSettings(),
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PlacedImages:
    """Cameras, depth and scale of images that the pairs connect.

    Args:
        frames: where the images are about, in their order.
        pairs: by number.
        known: (4, 4) world_T_camera by image number; where two and more are known they are kept as they are.
        metric: the matcher's unit is the metre.
    """
    problem, unit = _problem(images, frames, pairs, surfaces, photos, known)
    result = align_sparsely(problem, settings, device, progress)
    place = {n: row for row, n in enumerate(images)}
    first = np.concatenate([[0], np.cumsum([len(surfaces.of[n].anchors) for n in images])])
    focal = {n: float(result.focals[problem.lens[row]]) for n, row in place.items()}
    of_anchors = {n: unit * result.anchors[first[row] : first[row + 1]] for n, row in place.items()}
    poses = {
        n: se3.make(result.world_T_camera[row][:3, :3], unit * result.world_T_camera[row][:3, 3])
        for n, row in place.items()
    }
    cameras = {
        n: photos[n].camera if photos[n].calibrated else with_focal(photos[n], focal[n] * surfaces.of[n].pixel).camera
        for n in images
    }

    def depth_at(n: int, anchor: NDArray[np.integer], ratio: NDArray[np.floating]) -> Array:
        return np.asarray(of_anchors[n][anchor] * (1 + (ratio - 1) * surfaces.of[n].told / focal[n]))

    def depths_of(n: int, number: int) -> Array:
        side = surfaces.of[n].sides[number]
        return depth_at(n, side.anchor, side.ratio)

    def dense(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        view = surfaces.canonical(n)
        height, width = view.depth.shape
        y, x = np.mgrid[:height, :width]
        anchor = view.anchor_of(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(height, width)
        depth = depth_at(n, anchor, view.ratio)
        return np.where(depth > 0, depth, 0).astype(np.float32), view.confidence

    return PlacedImages(
        cameras,
        poses,
        {number: tuple(depths_of(n, number) for n in pair.images) for number, pair in pairs.items()},  # type: ignore[misc]
        dense,
        metres_of({n: surfaces.of[n].anchors for n in images}, of_anchors) if metric else None,
    )


def _problem(
    images: Sequence[int],
    frames: JoinedFrames,
    pairs: Mapping[int, MatchedPair],
    surfaces: Surfaces,
    photos: Sequence[Photo],
    known: Mapping[int, Array],
) -> tuple[SparseProblem, float]:
    """What is aligned, with a depth of about one; and how many units of the result that is."""
    own = [surfaces.of[n] for n in images]
    place = {n: row for row, n in enumerate(images)}
    first = np.concatenate([[0], np.cumsum([len(surface.anchors) for surface in own])])
    names = [
        f"{photos[n].camera.focal if photos[n].calibrated else photos[n].lens} {surfaces.of[n].pixel:.6f}"
        for n in images
    ]
    lenses = {name: row for row, name in enumerate(dict.fromkeys(names))}
    lens = np.array([lenses[name] for name in names], dtype=np.int64)
    focals, free = np.zeros(len(lenses)), np.zeros(len(lenses), bool)
    for row, n, surface in zip(lens, images, own, strict=True):
        focals[row], free[row] = surface.focal, not photos[n].calibrated
    s, R, t, fixed = _started(images, frames, known)
    unit = float(np.median([s[row] * np.median(surface.anchors) for row, surface in enumerate(own)]))
    sides = []
    for which in range(2):
        parts = [(pair.images[which], surfaces.of[pair.images[which]].sides[number]) for number, pair in pairs.items()]
        sides.append(
            MatchSide(
                np.concatenate([np.full(len(side.anchor), place[n]) for n, side in parts]),
                np.concatenate([side.anchor + first[place[n]] for n, side in parts]),
                np.concatenate([side.ratio for _, side in parts]),
                np.concatenate([side.rays * surfaces.of[n].focal for n, side in parts]),
            )
        )
    problem = SparseProblem(
        (sides[0], sides[1]),
        np.concatenate([pair.confidence for pair in pairs.values()]),
        np.concatenate([surface.anchors for surface in own]),
        np.repeat(np.arange(len(images)), np.diff(first)),
        lens,
        focals,
        free,
        np.array([surface.told for surface in own]),
        np.array([float(np.hypot(*surface.shape)) for surface in own]),
        s / unit,
        R,
        t / unit,
        fixed,
    )
    return problem, unit


def _started(
    images: Sequence[int], frames: JoinedFrames, known: Mapping[int, Array]
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """First scales, rotations and centres: the graph's, moved to where cameras are known."""
    rows = [row for row, n in enumerate(images) if n in known]
    fixed = np.zeros(len(images), bool)
    if len(rows) < 2:
        return frames.s, frames.R, frames.t, fixed
    here = np.array([se3.make(frames.R[row], frames.t[row]) for row in rows])
    moved = similarity_of_poses(here, np.array([known[images[row]] for row in rows]))
    scales, turns, places = moved.scale * frames.s, moved.R @ frames.R, moved.points(frames.t)
    for row in rows:
        turns[row], places[row] = known[images[row]][:3, :3], known[images[row]][:3, 3]
    fixed[rows] = True
    return scales, turns, places, fixed
