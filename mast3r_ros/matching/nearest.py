"""Mutual nearest neighbours with a ratio test, for one query against many references.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004, section 7.1 (ratio test).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

#: Rows of the query, rows of the reference, distance ratio of each pair.
NearestPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
NO_PAIRS: NearestPairs = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def mutual_nearest(query: NDArray[Any], references: Sequence[NDArray[Any]], ratio: float) -> list[NearestPairs]:
    """Mutual nearest neighbours of ``query`` in each reference that pass the ratio test.

    Args:
        query: (N, D) descriptors of equal length (the larger the product, the more similar).
        references: descriptors (M_k, D) of each reference.
        ratio: largest accepted nearest / second nearest distance within one reference.

    Returns:
        for each reference: rows of the query, rows of the reference, distance ratio of each pair.
    """
    sizes = [len(reference) for reference in references]
    if len(query) == 0 or sum(sizes) == 0:
        return [NO_PAIRS] * len(sizes)
    mine, theirs = np.asarray(query, np.float32), np.concatenate(references).astype(np.float32, copy=False)
    # One product, which BLAS shares out among the threads that it was given; the searches are side by side.
    similarity, ends = mine @ theirs.T, np.cumsum(sizes)

    def pairs(number: int) -> NearestPairs:
        block = slice(ends[number] - sizes[number], ends[number])
        return _mutual(mine, theirs[block], similarity[:, block], ratio) if sizes[number] > 1 else NO_PAIRS

    with ThreadPoolExecutor(min(len(sizes), os.cpu_count() or 1)) as pool:
        return list(pool.map(pairs, range(len(sizes))))


def _mutual(
    query: NDArray[np.float32], reference: NDArray[np.float32], similarity: NDArray[np.float32], ratio: float
) -> NearestPairs:
    """Of one reference, given the products (N, M) of all pairs, which are left as they were."""
    every = np.arange(len(query))
    nearest = similarity.argmax(axis=1)
    largest = similarity[every, nearest]
    similarity[every, nearest] = -np.inf
    second = similarity.argmax(axis=1)
    similarity[every, nearest] = largest
    distance_ratio = _distances(query, reference[nearest]) / np.maximum(_distances(query, reference[second]), 1e-9)
    rows = np.flatnonzero(distance_ratio < ratio)
    columns = nearest[rows]
    # Only what passed the ratio test is asked the way back: most columns never need their maximum.
    mutual = similarity[:, columns].argmax(axis=0) == rows
    rows = rows[mutual]
    return rows, columns[mutual], distance_ratio[rows]


def _distances(query: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) to (N, D) -> Euclidean distances (N,)."""
    apart = query - others
    distances: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", apart, apart))
    return distances


def mutual_hamming(
    query: NDArray[np.uint8], references: Sequence[NDArray[np.uint8]], ratio: float
) -> list[NearestPairs]:
    """The same for binary descriptors (N, B) uint8 and the Hamming distance."""
    found: list[NearestPairs] = []
    for reference in references:
        if len(query) == 0 or len(reference) < 2:
            found.append(NO_PAIRS)
            continue
        distance, nearest = _hamming(query, reference, 2)
        rows = np.flatnonzero(distance[:, 0] < ratio * distance[:, 1])
        columns = nearest[rows, 0]
        mutual = _hamming(reference[columns], query, 1)[1][:, 0] == rows if len(rows) else np.zeros(0, bool)
        rows, columns = rows[mutual], columns[mutual].astype(np.int64)
        found.append((rows, columns, (distance[rows, 0] / distance[rows, 1]).astype(np.float32)))
    return found


def _hamming(
    query: NDArray[np.uint8], reference: NDArray[np.uint8], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Distances and rows (N, count) of the nearest references, best first."""
    distance, rows = cv2.batchDistance(query, reference, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=count)
    return distance, rows
