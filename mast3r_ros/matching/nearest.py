"""Mutual nearest neighbours with a ratio test, for one query against many references in one product.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004, section 7.1 (ratio test).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.matching.half_precision import multiplies_bfloat16

#: Rows of the query, rows of the reference, distance ratio of each pair.
NearestPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def fast_dtype(device: torch.device) -> torch.dtype:
    """Type for similarity products: bfloat16 where the machine has matrix units for it, else float32.

    Candidates found in bfloat16 are scored again in float32, so the type changes speed, not scores.
    """
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32


def mutual_nearest(
    query: NDArray[Any], references: Sequence[NDArray[Any]], ratio: float, device: torch.device | None = None
) -> list[NearestPairs]:
    """Mutual nearest neighbours of ``query`` in each reference that pass the ratio test.

    Args:
        query: (N, D) descriptors of equal length (the larger the product, the more similar).
        references: descriptors (M_k, D) of each reference.
        ratio: largest accepted nearest / second nearest distance within one reference.

    Returns:
        for each reference: rows of the query, rows of the reference, distance ratio of each pair.
    """
    device = device or torch.device("cpu")
    sizes = [len(reference) for reference in references]
    nothing: NearestPairs = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    if len(query) == 0 or sum(sizes) == 0:
        return [nothing] * len(sizes)
    dtype = fast_dtype(device)
    queries = torch.from_numpy(np.ascontiguousarray(query)).to(device)
    stacked = torch.from_numpy(np.concatenate(references)).to(device)
    fast_queries, fast_stacked = queries.to(dtype), stacked.to(dtype)
    similarity = fast_queries @ fast_stacked.T
    squares = _squared_lengths(queries), _squared_lengths(stacked)
    found: list[NearestPairs] = []
    for block, start, size in zip(similarity.split(sizes, dim=1), np.cumsum([0, *sizes]), sizes, strict=False):
        if size < 2:
            found.append(nothing)
            continue
        values, candidates = block.topk(2, dim=1)
        rows = _promising(values, squares[0], squares[1][candidates + int(start)], ratio)
        candidates = candidates[rows]
        distance = _distances(queries[rows].float(), stacked[candidates + int(start)].float())
        distance_ratio = distance[:, 0] / distance[:, 1].clamp_min(1e-9)
        passed = distance_ratio < ratio
        rows, columns, distance_ratio = rows[passed], candidates[passed, 0], distance_ratio[passed]
        # Only what passed the ratio test is asked the way back: most columns never need their maximum.
        mutual = block[:, columns].max(dim=0).indices == rows
        found.append((rows[mutual].cpu().numpy(), columns[mutual].cpu().numpy(), distance_ratio[mutual].cpu().numpy()))
    return found


def _promising(values: torch.Tensor, query: torch.Tensor, candidates: torch.Tensor, ratio: float) -> torch.Tensor:
    """Rows whose two nearest neighbours may pass the ratio test, judged by rounded similarities (N, 2)."""
    squared = (query[:, None] + candidates - 2 * values.float()).clamp_min(0)
    # Rounding to eight bits moves a squared distance by at most this.
    doubt = values.float().abs() * 2**-7
    return torch.nonzero(squared[:, 0] - doubt[:, 0] < ratio**2 * (squared[:, 1] + doubt[:, 1])).flatten()


def _squared_lengths(descriptors: torch.Tensor) -> torch.Tensor:
    """(N, D) -> (N,)."""
    return descriptors.float().square().sum(dim=1)


def _distances(query: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """(N, D) to (N, C, D) -> Euclidean distances (N, C)."""
    distances: torch.Tensor = (query[:, None] - candidates).norm(dim=2)
    return distances


def mutual_hamming(
    query: NDArray[np.uint8], references: Sequence[NDArray[np.uint8]], ratio: float
) -> list[NearestPairs]:
    """The same for binary descriptors (N, B) uint8 and the Hamming distance."""
    nothing: NearestPairs = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    found: list[NearestPairs] = []
    for reference in references:
        if len(query) == 0 or len(reference) < 2:
            found.append(nothing)
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
