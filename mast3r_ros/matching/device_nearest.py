"""The search of :mod:`~mast3r_ros.matching.nearest` on the device of a network, for all references in one product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.matching.half_precision import multiplies_bfloat16
from mast3r_ros.matching.nearest import NO_PAIRS, NearestPairs


def fast_dtype(device: torch.device) -> torch.dtype:
    """Type for similarity products: bfloat16 where the machine has matrix units for it, else float32.

    Candidates found in bfloat16 are scored again in float32, so the type changes speed, not scores.
    """
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32


def mutual_nearest_on(
    device: torch.device, query: NDArray[Any], references: Sequence[NDArray[Any]], ratio: float
) -> list[NearestPairs]:
    """As :func:`~mast3r_ros.matching.nearest.mutual_nearest`, which says what goes in and comes out."""
    sizes = [len(reference) for reference in references]
    if len(query) == 0 or sum(sizes) == 0:
        return [NO_PAIRS] * len(sizes)
    dtype = fast_dtype(device)
    queries = torch.from_numpy(np.ascontiguousarray(query)).to(device)
    stacked = torch.from_numpy(np.concatenate(references)).to(device)
    fast_queries, fast_stacked = queries.to(dtype), stacked.to(dtype)
    similarity = fast_queries @ fast_stacked.T
    squares = _squared_lengths(queries), _squared_lengths(stacked)
    found: list[NearestPairs] = []
    for block, start, size in zip(similarity.split(sizes, dim=1), np.cumsum([0, *sizes]), sizes, strict=False):
        if size < 2:
            found.append(NO_PAIRS)
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
