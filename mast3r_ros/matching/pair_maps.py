"""What a matcher knows of two images together, seen from either: pointmaps of both and matched pixels.

The symmetric inference of MASt3R's alignment (Leroy et al., ECCV 2024; Duisterhof et al., MASt3R-SfM, 3DV 2025, section
3.2): both are encoded once, and decoded in either order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.matching.base import Features, Matcher, capabilities


class ViewPoints(NamedTuple):
    """Points (H, W, 3) of every pixel, and their confidence (H, W) of at least 1."""

    points: NDArray[np.floating]
    confidence: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class PairMaps:
    """Two images i and j together. Pixels are those of the matcher's own images (``pixel_grid``).

    Attributes:
        ii, ji: points of i and of j, both in the frame of camera i.
        jj, ij: points of j and of i, both in the frame of camera j.
        xy_i, xy_j: (N, 2) int64 matched pixels.
        confidence: (N,) of the matches, positive.
    """

    ii: ViewPoints
    ji: ViewPoints
    jj: ViewPoints
    ij: ViewPoints
    xy_i: NDArray[np.int64]
    xy_j: NDArray[np.int64]
    confidence: NDArray[np.float32]


class PointmapMatcher(Matcher, Protocol):
    """A matcher with the capability ``pointmaps``."""

    def pixel_grid(self, features: Features) -> NDArray[np.float64]:
        """(H, W, 2) where each pixel of the matcher's image lies in the image of the frame; NaN where nowhere."""

    def predict_pairs(self, first: Features, others: Sequence[Features]) -> list[PairMaps]:
        """The first image as i with each of the others as j."""


def predicts_pointmaps(matcher: Matcher) -> TypeGuard[PointmapMatcher]:
    """Whether :meth:`PointmapMatcher.predict_pairs` may be asked for."""
    return capabilities(matcher).pointmaps


def merged_matches(
    first: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Matches (xy_i, xy_j, confidence) of both orders of decoding, each once, with its first confidence."""
    xy_i, xy_j, confidence = (np.concatenate([a, b]) for a, b in zip(first, second, strict=True))
    _, rows = np.unique(np.concatenate([xy_i, xy_j], axis=1), axis=0, return_index=True)
    return xy_i[rows].astype(np.int64), xy_j[rows].astype(np.int64), confidence[rows].astype(np.float32)
