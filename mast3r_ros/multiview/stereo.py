"""Multi-view stereo: depth of every matched pixel by triangulation from known cameras (MASt3R, section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.multiview.dense_view import DenseView
from mast3r_ros.multiview.matched_pairs import Grids
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.pair_graph import Pair
from mast3r_ros.multiview.pair_similarity import triangulated
from mast3r_ros.multiview.pointmap_pairs import PointmapPairs

Array = NDArray[np.float64]

#: Rays that meet at less than this tell no distance, degrees; that pass each other by more are no match, pixels of the
#: matcher's image.
LEAST_DEG, MOST_PX = 1.0, 1.5
#: A pixel's depths from several images agree to within this share.
AGREE = 0.03
#: Images that must agree on a pixel, where so many were matched with it.
LEAST_VIEWS = 2


def stereo(model: Model, pairs: Sequence[Pair], store: PointmapPairs, grids: Grids) -> Callable[[int], DenseView]:
    """Depth of the model's images by triangulation, made when asked for; the model must be as it was aligned.

    Args:
        pairs: believed ones.
    """
    return lambda n: _depth(n, model, [pair for pair in pairs if n in pair], store, grids)


def _depth(n: int, model: Model, pairs: Sequence[Pair], store: PointmapPairs, grids: Grids) -> DenseView:
    height, width = grids.shape(n)
    depths, weights = np.full((len(pairs), height, width), np.nan, np.float32), np.zeros((len(pairs), height, width))
    for row, pair in enumerate(pairs):
        other = pair[1] if pair[0] == n else pair[0]
        xy_i, xy_j, confidence = store.matches(*pair)
        here, there = (xy_i, xy_j) if pair[0] == n else (xy_j, xy_i)
        depth = _triangulated(model, n, other, grids, here, there)
        good = np.isfinite(depth)
        depths[row, here[good, 1], here[good, 0]] = depth[good]
        weights[row, here[good, 1], here[good, 0]] = confidence[good]
    known = np.isfinite(depths)
    middle = np.zeros((height, width), np.float32)
    any_known = known.any(axis=0)
    if any_known.any():
        middle[any_known] = np.nanmedian(depths[:, any_known], axis=0)
    agrees = known & (np.abs(depths - middle) < AGREE * middle)
    total = (weights * agrees).sum(axis=0)
    mean = (weights * np.where(agrees, depths, 0)).sum(axis=0) / np.maximum(total, 1e-9)
    enough = agrees.sum(axis=0) >= min(LEAST_VIEWS, len(pairs))
    return DenseView(np.where(enough, mean, 0).astype(np.float32), total.astype(np.float32), grids.of(n))


def _triangulated(
    model: Model, n: int, other: int, grids: Grids, here: NDArray[np.int64], there: NDArray[np.int64]
) -> Array:
    """(N,) depth in image n of its pixels that match pixels of another image; NaN where the rays tell none."""
    cameras = model.cameras[n], model.cameras[other]
    rays = cameras[0].rays(grids.at(n, here)), cameras[1].rays(grids.at(other, there))
    pose = se3.inverse(model.world_T_camera[other]) @ model.world_T_camera[n]
    a, b = triangulated(*rays, pose)
    local = se3.apply(pose, a[:, None] * np.c_[rays[0], np.ones(len(a))])
    focal = cameras[1].focal / grids.pixel(other)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.linalg.norm(local[:, :2] / local[:, 2:] - rays[1], axis=1) * focal
        centre = pose[:3, 3]
        to_here = local / np.linalg.norm(local, axis=1, keepdims=True)
        from_first = (local - centre) / np.linalg.norm(local - centre, axis=1, keepdims=True)
        angle = np.degrees(np.arccos(np.clip((to_here * from_first).sum(axis=1), -1, 1)))
        good = (a > 0) & (b > 0) & (off < MOST_PX) & (angle > LEAST_DEG)
    return np.where(good, a, np.nan)
