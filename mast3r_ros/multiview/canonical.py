"""One pointmap of each image out of all its pairs (MASt3R-SfM, section 3.2).

Duisterhof et al., "MASt3R-SfM: a Fully-Integrated Solution for Unconstrained Structure-from-Motion", 3DV 2025: the
depth of a pixel is that of its block's anchor times a constant ratio, so that a few hundred depths of an image can be
optimised and all pixels follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.pointmap import estimate_focal, lower_median
from mast3r_ros.matching.pair_maps import ViewPoints

#: Side of a block, pixels.
BLOCK = 8
#: A confidence of 1 says nothing.
NOTHING = 0.999
#: Focal lengths of more or less than this share of that of 60 degrees of view are none.
FOCALS = (0.5, 3.5)
#: A pointmap of fewer pixels in front of the camera is none.
LEAST_AHEAD = 0.5
#: Depths within a block differ by no more than these factors.
RATIOS = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class CanonicalView:
    """What all pairs say of one image, in its own camera.

    Attributes:
        depth: (H, W) along the optical axis, the matcher's unit.
        ratio: (H, W) depth by that of the block's anchor, as the pointmaps' slopes tell it.
        confidence: (H, W).
        focal: pixels of the matcher's image.
        spread: how far the pairs' units differ, one standard deviation of their logarithm.
        maps: number of pointmaps.
    """

    depth: NDArray[np.float32]
    ratio: NDArray[np.float32]
    confidence: NDArray[np.float32]
    focal: float
    spread: float
    maps: int

    @property
    def anchors(self) -> NDArray[np.float32]:
        """(A,) depth at the anchors, row by row."""
        return np.ascontiguousarray(self.depth[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK]).ravel()

    def anchor_of(self, xy: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) number of the anchor of pixels (N, 2)."""
        across = self.depth.shape[1] // BLOCK
        below = self.depth.shape[0] // BLOCK
        column, row = (xy // BLOCK).T
        return np.asarray(np.minimum(row, below - 1) * across + np.minimum(column, across - 1))

    def ratio_of(self, xy: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N,) depth of pixels (N, 2) by that of their anchors."""
        return self.ratio[xy[:, 1], xy[:, 0]]


def canonical_view(views: Iterable[ViewPoints]) -> CanonicalView | None:
    """The confident mean of an image's pointmaps, each in the image's own camera and at a unit of its own.

    Returns:
        None where no pointmap has points in front of the camera.
    """
    mean: _Mean | None = None
    for points, confidence in views:
        finite = np.isfinite(points).all(axis=-1)
        X = np.where(finite[..., None], points, 0).astype(np.float32)
        w = np.where(finite, np.maximum(confidence - NOTHING, 1e-3), 0).astype(np.float32)
        if (X[..., 2] > 0).mean() < LEAST_AHEAD:
            continue
        mean = mean or _Mean(X)
        mean.add(X, w)
    return None if mean is None else mean.view()


class _Mean:
    """Sums over the pointmaps of one image; the first one's unit is that of the sums."""

    def __init__(self, first: NDArray[np.float32]) -> None:
        self._reference = first[..., 2]
        self._points = np.zeros_like(first)
        self._weights, self._squares, self._angles, self._radii = np.zeros((4, *first.shape[:2]), np.float32)
        self._units: list[float] = []

    def add(self, X: NDArray[np.float32], w: NDArray[np.float32]) -> None:
        """Points (H, W, 3) with weights (H, W)."""
        both = (X[..., 2] > 0) & (self._reference > 0)
        unit = lower_median(X[..., 2][both] / self._reference[both])
        radius, angle = _slopes(X / unit)
        self._points += w[..., None] * X / unit
        self._weights += w
        self._squares += w * w
        self._angles += w * angle
        self._radii += radius
        self._units.append(unit)

    def view(self) -> CanonicalView:
        """What they say together, in their median unit."""
        weights = np.maximum(self._weights, 1e-9)
        points = self._points / weights[..., None]
        anchor = np.maximum(_of_anchors(points)[..., 2], 1e-6)
        ratio = 1 + self._radii / len(self._units) * np.tan(self._angles / weights) / anchor
        units = np.log(self._units)
        return CanonicalView(
            (points[..., 2] * np.exp(np.median(units))).astype(np.float32),
            np.clip(np.nan_to_num(ratio, nan=1.0), *RATIOS).astype(np.float32),
            (self._squares / weights).astype(np.float32),
            estimate_focal(points, limits=FOCALS),
            float(np.std(units)),
            len(units),
        )


def _slopes(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance across the axis from each pixel's point to its anchor's, and the angle of the surface between them."""
    anchor = _of_anchors(X)
    radius = np.maximum(np.linalg.norm(X[..., :2] - anchor[..., :2], axis=-1), 1e-8)
    return radius, np.arctan2(X[..., 2] - np.maximum(anchor[..., 2], 1e-6), radius)


def _of_anchors(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, 3) for each pixel the point of its block's anchor."""
    rows, columns = (np.minimum(np.arange(n) // BLOCK * BLOCK + BLOCK // 2, _last(n)) for n in X.shape[:2])
    return X[np.ix_(rows, columns)]


def _last(side: int) -> int:
    """Of the last whole block its anchor: pixels beyond it belong to it."""
    return max(side // BLOCK * BLOCK - BLOCK + BLOCK // 2, 0)
