"""Matches from pointmaps alone (DUSt3R, Wang et al., CVPR 2024): points that are each other's nearest in space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def reciprocal_points(
    points1: NDArray[np.floating], points2: NDArray[np.floating], workers: int = -1
) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """Mutual nearest neighbours of two point sets.

    Args:
        points1, points2: (N, 3) and (M, 3) finite points in one frame.
        workers: threads of the search, -1 for all cores.

    Returns:
        reciprocal: (M,) which points of the second set have a mutual neighbour.
        nearest1: (M,) nearest point of the first set, mutual or not.
        count: how many are mutual.
    """
    if len(points1) == 0 or len(points2) == 0:
        return np.zeros(len(points2), dtype=bool), np.zeros(len(points2), dtype=np.int64), 0
    _, nearest1 = cKDTree(points1).query(points2, workers=workers)
    _, nearest2 = cKDTree(points2).query(points1, workers=workers)
    reciprocal = nearest2[nearest1] == np.arange(len(points2))
    return reciprocal, nearest1.astype(np.int64), int(reciprocal.sum())


def pointmap_matches(
    pts1: NDArray[np.floating],
    pts2: NDArray[np.floating],
    valid1: NDArray[np.bool_] | None = None,
    valid2: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of two views whose points are mutual nearest neighbours.

    Args:
        pts1, pts2: (H1, W1, 3) and (H2, W2, 3) in one frame.
        valid1, valid2: (H1, W1) and (H2, W2) pixels that take part, e.g. confident ones; finite ones by default.

    Returns:
        xy1, xy2: (N, 2) int64 pixels as x, y, in row-major order of view 2.
    """
    pixels = []
    for pts, valid in ((pts1, valid1), (pts2, valid2)):
        y, x = np.nonzero(np.isfinite(pts).all(axis=-1) if valid is None else valid)
        pixels.append(np.stack([x, y], axis=-1))
    points1, points2 = (pts[xy[:, 1], xy[:, 0]] for pts, xy in zip((pts1, pts2), pixels))
    reciprocal, nearest1, _ = reciprocal_points(points1, points2)
    return pixels[0][nearest1[reciprocal]], pixels[1][reciprocal]
