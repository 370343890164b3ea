"""Pointmaps and matches of all pairs, streamed to disk, and what each image is on its own after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.matching.pair_maps import PairMaps, PointmapMatcher, ViewPoints
from mast3r_ros.multiview.canonical import CanonicalView, canonical_view
from mast3r_ros.multiview.pair_graph import Pair
from mast3r_ros.multiview.pointmap_pair import PointmapPair
from mast3r_ros.multiview.similar_views import BATCH, Progress
from mast3r_ros.multiview.work_folder import DescribedImages, Tensors, WorkFolder

#: What half precision can hold.
LIMIT = float(np.finfo(np.float16).max)


class PointmapPairs:
    """The predictions of a list of pairs.

    Args:
        pairs: numbers (i, j) of images, i < j.
    """

    def __init__(self, work: WorkFolder, described: DescribedImages, pairs: Sequence[Pair]) -> None:
        self._work, self._described, self.pairs = work, described, list(pairs)

    def predict(self, matcher: PointmapMatcher, progress: Progress) -> None:
        """Whatever is not on disk yet; every image's features are read, not computed again."""
        lacking: dict[int, list[int]] = {}
        for i, j in self.pairs:
            if not self._work.holds(*self._key(i, j)):
                lacking.setdefault(i, []).append(j)
        done = len(self.pairs) - sum(map(len, lacking.values()))
        for i, others in sorted(lacking.items()):
            for start in range(0, len(others), BATCH):
                batch = others[start : start + BATCH]
                found = matcher.predict_pairs(self._described[i], [self._described[j] for j in batch])
                for j, maps in zip(batch, found, strict=True):
                    self._work.keep(_packed(maps), *self._key(i, j))
                done += len(batch)
                progress(done, len(self.pairs))

    def matches(self, i: int, j: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Matched pixels (N, 2) of both matcher's images, and their confidence (N,)."""
        found = self._read(i, j)
        return found["xy_i"].astype(np.int64), found["xy_j"].astype(np.int64), np.array(found["confidence"])

    def canonical(self, number: int, among: Sequence[Pair]) -> CanonicalView | None:
        """What the pairs among these say of an image, see :func:`canonical_view`."""

        def own() -> Iterator[ViewPoints]:
            for i, j in among:
                if number in (i, j):
                    yield _view(self._read(i, j), "ii" if number == i else "jj")

        return canonical_view(own())

    def both_ways(self, i: int, j: int, step: int = 1) -> tuple[PointmapPair, PointmapPair]:
        """The pair and its reverse, every ``step``-th pixel of them, as DUSt3R's alignment takes them."""
        found = self._read(i, j)
        ii, ji, jj, ij = (_view(found, name, step) for name in ("ii", "ji", "jj", "ij"))
        return (
            PointmapPair(i, j, ii.points, ji.points, ii.confidence, ji.confidence),
            PointmapPair(j, i, jj.points, ij.points, jj.confidence, ij.confidence),
        )

    def _read(self, i: int, j: int) -> Tensors:
        found = self._work.find(*self._key(i, j))
        if found is None:
            raise KeyError(f"pair {i}, {j}")
        return found

    def _key(self, i: int, j: int) -> tuple[str, ...]:
        return "pair", self._described.digest(i), self._described.digest(j)


def _packed(maps: PairMaps) -> dict[str, NDArray[np.generic]]:
    packed: dict[str, NDArray[np.generic]] = {
        "xy_i": maps.xy_i.astype(np.int16),
        "xy_j": maps.xy_j.astype(np.int16),
        "confidence": maps.confidence,
    }
    for name in ("ii", "ji", "jj", "ij"):
        view: ViewPoints = getattr(maps, name)
        both = np.concatenate([view.points, view.confidence[..., None]], axis=-1)
        packed[name] = np.nan_to_num(both, nan=0.0).clip(-LIMIT, LIMIT).astype(np.float16)
    return packed


def _view(found: Tensors, name: str, step: int = 1) -> ViewPoints:
    both = found[name][step // 2 :: step, step // 2 :: step].astype(np.float32)
    return ViewPoints(both[..., :3], np.maximum(both[..., 3], 1.0))
