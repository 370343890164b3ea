"""Points of tracks whose cameras are known, though some observations are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Rays that meet at less than this tell no distance, degrees.
LEAST_ANGLE = 1.5
#: Observations of a track that pairs are formed of: the first ones.
PAIRED = 10


@dataclass(frozen=True, eq=False)
class Points:
    """Tracks that have a point.

    Attributes:
        track: (P,) numbers of the tracks.
        points: (P, 3).
        inlier: rows of the observations that agree.
    """

    track: Index
    points: Array
    inlier: Index


def best_points(poses: Array, uv: Array, focals: Array, pixel: Array, track: Index, threshold_px: float) -> Points:
    """The point of each track that most of its observations agree with, of those that two of them make.

    Args:
        poses: (M, 4, 4) camera_T_world of each observation; observations of a track stand together.
        uv: (M, 2) undistorted pixels about the principal point.
        focals: (M,) pixels.
        pixel: (M,) side of a pixel of the images that were matched.
        track: (M,) of each observation.
        threshold_px: largest error of an agreeing observation, in pixels of the images that were matched.
    """
    nothing = Points(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0, np.int64))
    if len(track) < 2:
        return nothing
    first, second = _pairs(track)
    if not len(first):
        return nothing
    R = poses[:, :3, :3]
    centres = -np.einsum("mji,mj->mi", R, poses[:, :3, 3])
    rays = np.einsum("mji,mj->mi", R, np.concatenate([uv / focals[:, None], np.ones((len(uv), 1))], axis=1))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    points, angle = _midpoints(centres[first], rays[first], centres[second], rays[second])
    good = np.isfinite(points).all(axis=1) & (angle > LEAST_ANGLE)
    for side in (first, second):
        good[good] = _error(points[good], poses, uv, focals, pixel, side[good]) < threshold_px
    first, points, angle = first[good], points[good], angle[good]
    if not len(first):
        return nothing
    # Every hypothesis against all observations of its track.
    _, begin, size = np.unique(track, return_index=True, return_counts=True)
    group = np.searchsorted(begin, first, side="right") - 1
    hypothesis = np.repeat(np.arange(len(first)), size[group])
    inside = np.arange(len(hypothesis)) - np.repeat(np.cumsum(size[group]) - size[group], size[group])
    observation = begin[group][hypothesis] + inside
    agrees = _error(points[hypothesis], poses, uv, focals, pixel, observation) < threshold_px
    votes = np.bincount(hypothesis, weights=agrees, minlength=len(first))
    order = np.lexsort((-angle, -votes, group))
    best = order[np.unique(group[order], return_index=True)[1]]
    chosen = np.zeros(len(first), bool)
    chosen[best] = True
    inlier = observation[agrees & chosen[hypothesis]]
    return Points(track[begin[group[best]]], points[best], inlier)


def _pairs(track: Index) -> tuple[Index, Index]:
    """Rows of all pairs of observations of the same track, of the first ones of each."""
    _, begin, size = np.unique(track, return_index=True, return_counts=True)
    first, second = [], []
    for a in range(PAIRED):
        for b in range(a + 1, PAIRED):
            has = begin[size > b]
            first.append(has + a)
            second.append(has + b)
    return np.concatenate(first), np.concatenate(second)


def _midpoints(c1: Array, d1: Array, c2: Array, d2: Array) -> tuple[Array, Array]:
    """Points (N, 3) nearest to two rays each, NaN behind a camera, and the angle (N,) between the rays in degrees."""
    cosine = (d1 * d2).sum(axis=1)
    between = c2 - c1
    along1, along2 = (between * d1).sum(axis=1), (between * d2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (along1 - cosine * along2) / (1 - cosine**2)
        t = (cosine * along1 - along2) / (1 - cosine**2)
    points = (c1 + s[:, None] * d1 + c2 + t[:, None] * d2) / 2
    points[~((s > 0) & (t > 0))] = np.nan
    return points, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _error(points: Array, poses: Array, uv: Array, focals: Array, pixel: Array, rows: Index) -> Array:
    """(N,) reprojection error of points in observations; infinite behind the camera."""
    T = poses[rows]
    local = np.einsum("nij,nj->ni", T[:, :3, :3], points) + T[:, :3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.linalg.norm(focals[rows][:, None] * local[:, :2] / local[:, 2:] - uv[rows], axis=1) / pixel[rows]
    return np.where(local[:, 2] > 0, off, np.inf)
