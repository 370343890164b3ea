"""Pairs of images whose matches one motion explains, with the pixels of the matcher's images they were found at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.pointmap import estimate_focal
from mast3r_ros.matching.pair_maps import PointmapMatcher
from mast3r_ros.multiview.pair_graph import Pair
from mast3r_ros.multiview.photos import Photo, with_focal
from mast3r_ros.multiview.pointmap_pairs import PointmapPairs
from mast3r_ros.multiview.verification import VerifiedPair, verify
from mast3r_ros.multiview.work_folder import DescribedImages

Array = NDArray[np.float64]

#: Pairs of an image that its focal length is estimated from.
ASKED = 4
#: A network matches what it sees in any two images. Those of one place agree on one motion by this share and more; of
#: images with nothing in common 0.4 to 0.7 of a small network's matches follow the best motion there is (castle).
LEAST_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """A verified pair.

    Attributes:
        verified: with pixels of the photos.
        xy_i, xy_j: (K, 2) the same, pixels of the matcher's images.
        confidence: (K,).
        share: of all matches that the motion explains.
    """

    verified: VerifiedPair
    xy_i: NDArray[np.int64]
    xy_j: NDArray[np.int64]
    confidence: NDArray[np.float32]
    share: float

    @property
    def images(self) -> Pair:
        """Numbers of the images."""
        return self.verified.i, self.verified.j


class Grids:
    """Where the pixels of the matcher's images lie in the photos, made when asked for."""

    def __init__(self, described: DescribedImages, matcher: PointmapMatcher) -> None:
        self.of: Callable[[int], Array] = lru_cache(maxsize=32)(lambda n: matcher.pixel_grid(described[n]))

    def at(self, number: int, xy: NDArray[np.int64]) -> Array:
        """(N, 2) pixels of the photo."""
        return self.of(number)[xy[:, 1], xy[:, 0]]

    def pixel(self, number: int) -> float:
        """Side of a pixel of the matcher's image in pixels of the photo."""
        grid = self.of(number)
        middle = grid[grid.shape[0] // 2]
        return float(np.nanmedian(np.linalg.norm(np.diff(middle, axis=0), axis=1)))

    def shape(self, number: int) -> tuple[int, int]:
        """(H, W) of the matcher's image."""
        height, width = self.of(number).shape[:2]
        return height, width


def with_told_focals(photos: Sequence[Photo], pairs: PointmapPairs, grids: Grids) -> list[Photo]:
    """The photos; those without calibration with the focal length that pointmaps tell, the median of their lens."""
    told: dict[str, list[float]] = {}
    asked = np.zeros(len(photos), np.int64)
    for i, j in pairs.pairs:
        want = [not photos[n].calibrated and asked[n] < ASKED for n in (i, j)]
        if not any(want):
            continue
        for n, wanted, view in zip((i, j), want, pairs.both_ways(i, j), strict=True):
            if wanted:
                asked[n] += 1
                told.setdefault(photos[n].lens, []).append(
                    estimate_focal(view.points_i, limits=(0.5, 3.5)) * grids.pixel(n)
                )
    focals = {lens: float(np.median(values)) for lens, values in told.items()}
    return [with_focal(photo, focals[photo.lens]) if photo.lens in focals else photo for photo in photos]


def matched_pairs(
    photos: Sequence[Photo],
    pairs: PointmapPairs,
    grids: Grids,
    most: int,
    progress: Callable[[int, int], None],
) -> list[MatchedPair]:
    """The pairs that one motion of the camera explains.

    Args:
        most: matches that are kept of a pair, drawn at random.
    """
    found = []
    for done, (i, j) in enumerate(pairs.pairs, start=1):
        xy_i, xy_j, confidence = pairs.matches(i, j)
        raw_i, raw_j = grids.at(i, xy_i), grids.at(j, xy_j)
        seen = np.isfinite(raw_i).all(axis=1) & np.isfinite(raw_j).all(axis=1)
        rows = np.flatnonzero(seen)
        pixel = max(grids.pixel(i), grids.pixel(j))
        pair = verify(i, j, (photos[i], photos[j]), raw_i[rows], raw_j[rows], pixel)
        share = 0.0 if pair is None else len(pair) / len(rows)
        if pair is not None and share >= LEAST_SHARE:
            kept = _drawn(len(pair), most, i, j)
            rows = rows[pair.rows[kept]]
            found.append(MatchedPair(pair.part(kept), xy_i[rows], xy_j[rows], confidence[rows], share))
        progress(done, len(pairs.pairs))
    return found


def _drawn(count: int, most: int, i: int, j: int) -> NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng((i, j)).choice(count, most, replace=False))
