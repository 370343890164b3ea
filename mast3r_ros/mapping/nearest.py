"""The nearest of many vectors: faiss's inverted lists of 8-bit codes find candidates, the vectors themselves decide.

What is kept on disk are faiss's numbers as plain arrays, never faiss's own files: maps come from strangers, and faiss
reads an index file that is damaged on purpose without a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

#: Lists for a number of vectors, relative to its square root; the share of them that a query looks into, and at least.
LISTS, PROBED, FEWEST_PROBED = 2.0, 1 / 24, 16
#: Vectors that each list's centre is learned from, and rounds of learning.
TRAINED_ON, ROUNDS = 40, 6
#: Vectors that are sorted into lists at once.
BATCH = 16_384
SEED = 20


@dataclass(frozen=True, eq=False)
class Coarse:
    """Codes of the first N vectors, sorted into lists.

    Attributes:
        centres: (L, D) of the lists.
        sizes: (L,) vectors in each.
        rows: (N,) int64, whose code it is, list by list.
        codes: (N, D) uint8.
        ranges: (2 D,) what the codes of 0 and 255 stand for, as faiss keeps it.
        index: faiss's, made of these.
    """

    centres: Array
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]
    ranges: Array
    index: Any

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def train(cls, blocks: list[Array]) -> Coarse | None:
        """Of unit vectors in blocks of (n, D); None without faiss."""
        try:
            import faiss
        except ImportError:
            return None
        count, length = sum(map(len, blocks)), blocks[0].shape[1]
        lists = max(1, int(LISTS * np.sqrt(count)))
        step = max(1, count // (lists * TRAINED_ON))
        sample = np.concatenate([np.asarray(block[::step]) for block in blocks])
        kmeans = faiss.Kmeans(length, lists, niter=ROUNDS, seed=SEED, spherical=True, min_points_per_centroid=1)
        kmeans.train(sample)
        centres = np.ascontiguousarray(kmeans.centroids)
        index = _empty(centres)
        index.train(sample)
        nearest = np.empty(count, np.int64)
        codes = np.empty((count, length), np.uint8)
        at = 0
        for block in blocks:
            for begin in range(0, len(block), BATCH):
                part = np.ascontiguousarray(block[begin : begin + BATCH])
                nearest[at : at + len(part)] = index.quantizer.search(part, 1)[1][:, 0]
                codes[at : at + len(part)] = index.sq.compute_codes(part)
                at += len(part)
        rows = np.argsort(nearest, kind="stable")
        sizes = np.bincount(nearest, minlength=lists).astype(np.int64)
        ranges = np.array(faiss.vector_to_array(index.sq.trained))
        return cls.of(centres, sizes, rows, codes[rows], ranges)

    @classmethod
    def of(
        cls, centres: Array, sizes: NDArray[np.int64], rows: NDArray[np.int64], codes: NDArray[np.uint8], ranges: Array
    ) -> Coarse | None:
        """Of its numbers, which are checked; None without faiss.

        Raises:
            ValueError: for numbers that do not fit each other.
        """
        count, length = len(rows), centres.shape[-1]
        fits = centres.ndim == 2 and sizes.shape == (len(centres),) and codes.shape == (count, length)
        fits = fits and ranges.shape == (2 * length,) and bool((sizes >= 0).all()) and int(sizes.sum()) == count
        if not fits or not np.array_equal(np.sort(rows), np.arange(count)):
            raise ValueError("its lists do not fit its vectors")
        try:
            import faiss
        except ImportError:
            return None
        index = _empty(centres)
        faiss.copy_array_to_vector(np.ascontiguousarray(ranges, np.float32), index.sq.trained)
        index.is_trained = True
        codes, rows, begin = np.ascontiguousarray(codes), np.ascontiguousarray(rows), 0
        for number, size in enumerate(sizes.tolist()):
            if size:
                part, ids = codes[begin : begin + size], rows[begin : begin + size]
                index.invlists.add_entries(number, size, faiss.swig_ptr(ids), faiss.swig_ptr(part))
            begin += size
        index.ntotal = count
        return cls(centres, sizes, rows, codes, ranges, index)

    def candidates(self, query: Array, count: int) -> NDArray[np.int64]:
        """Rows that are probably among the nearest ``count`` of a unit vector (D,)."""
        self.index.nprobe = min(len(self.centres), max(FEWEST_PROBED, int(PROBED * len(self.centres))))
        found: NDArray[np.int64] = self.index.search(query[None], min(count, len(self)))[1][0]
        return found[found >= 0]


def _empty(centres: Array) -> Any:
    import faiss

    length = centres.shape[1]
    quantizer = faiss.IndexFlatIP(length)
    quantizer.add(np.ascontiguousarray(centres, np.float32))
    metric, kind = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexIVFScalarQuantizer(quantizer, length, len(centres), kind, metric, False)
