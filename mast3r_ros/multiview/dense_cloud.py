"""One cloud of many images' points: averaged in voxels, without what stands alone, with normals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

#: Rows held before voxels are joined: bounds the memory.
ROWS = 2_000_000
#: Points whose mean distance to their neighbours is larger than the mean of all by this many standard deviations go.
NEIGHBOURS, DEVIATIONS = 12, 2.0


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points with colours and normals.

    Attributes:
        points: (N, 3).
        colours: (N, 3) uint8 RGB.
        normals: (N, 3) of unit length, towards the cameras.
    """

    points: Array
    colours: NDArray[np.uint8]
    normals: Array


def fused(
    views: Iterable[tuple[Array, NDArray[np.uint8], Array, Array]], voxel: float, least_weight: float = 0.0
) -> Cloud:
    """The weighted mean of the points in each voxel.

    Args:
        views: points (N, 3), colours (N, 3), weights (N,) and camera centre (3,) of one image each.
        voxel: side, in the points' unit.
        least_weight: voxels of less in all are left out.
    """
    sums, pending, held = np.zeros((0, 13)), list[Array](), 0
    for points, colours, weights, centre in views:
        towards = centre - points
        towards = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
        rows = np.concatenate([np.floor(points / voxel), _weighted(weights, points, colours, towards)], axis=1)
        pending.append(_joined(rows))
        held += len(pending[-1])
        if held > ROWS:
            sums, pending, held = _joined(np.concatenate([sums, *pending])), [], 0
    sums = _joined(np.concatenate([sums, *pending]))
    sums = sums[sums[:, 3] > least_weight]
    mean = sums[:, 4:] / sums[:, 3:4]
    points, colours, towards = mean[:, :3], mean[:, 3:6], mean[:, 6:9]
    kept = _not_alone(points)
    points, towards = points[kept], towards[kept]
    return Cloud(points, colours[kept].round().astype(np.uint8), _normals(points, towards))


def _weighted(weights: Array, points: Array, colours: NDArray[np.uint8], towards: Array) -> Array:
    values = np.concatenate([points, colours, towards], axis=1)
    return np.concatenate([weights[:, None], weights[:, None] * values], axis=1)


def _joined(rows: Array) -> Array:
    """One row for each voxel (first three columns): the sums of its rows."""
    if not len(rows):
        return rows
    order = np.lexsort(rows[:, :3].T)
    first = np.flatnonzero(np.r_[True, (np.diff(rows[order, :3], axis=0) != 0).any(axis=1)])
    return np.concatenate([rows[order[first], :3], np.add.reduceat(rows[order, 3:], first, axis=0)], axis=1)


def _not_alone(points: Array) -> NDArray[np.bool_]:
    """(N,) statistical outlier removal (Rusu et al., RAS 2008)."""
    if len(points) <= NEIGHBOURS:
        return np.ones(len(points), bool)
    near, _ = cKDTree(points).query(points, NEIGHBOURS + 1)
    mean = near[:, 1:].mean(axis=1)
    return np.asarray(mean <= mean.mean() + DEVIATIONS * mean.std())


def _normals(points: Array, towards: Array) -> Array:
    """(N, 3) of the planes through each point's neighbours, on the side of the cameras that saw it."""
    if len(points) <= NEIGHBOURS:
        return towards
    _, rows = cKDTree(points).query(points, NEIGHBOURS)
    normals = np.empty_like(points)
    for start in range(0, len(points), 100_000):
        part = slice(start, start + 100_000)
        around = points[rows[part]]
        around = around - around.mean(axis=1, keepdims=True)
        _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
        normals[part] = vectors[:, :, 0]
    return np.asarray(normals * np.where((normals * towards).sum(axis=1, keepdims=True) < 0, -1.0, 1.0))
