"""Exact nearest neighbours by brute force, tile by tile: the full similarity matrix never exists."""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows and columns of a tile of similarities. On a CPU one fits into the cache of a core (4 MiB).
CPU_TILE = (512, 2048)
GPU_TILE = (4096, 16384)

METRICS = ("dot", "l2")


def nearest(queries: Tensor, database: Tensor, metric: str = "dot") -> Tensor:
    """The most similar database entry of every query; of equals the one with the lowest index.

    Args:
        queries: (K, n, D) float32, K independent searches.
        database: (K, m, D), m > 0.
        metric: ``dot`` (largest product, for unit vectors) or ``l2`` (smallest Euclidean distance).

    Returns:
        (K, n) int64 indices into the database.
    """
    if metric not in METRICS:
        raise ValueError(f"metric '{metric}' is not one of {', '.join(METRICS)}")
    if len(queries) > 1 and not queries.is_cuda:  # one after the other, so that a tile fits into the cache
        return torch.cat([nearest(q, d, metric) for q, d in zip(queries.split(1), database.split(1))])
    rows, columns = GPU_TILE if queries.is_cuda else CPU_TILE
    return torch.cat([_nearest(block, database, metric, columns) for block in queries.split(rows, dim=1)], dim=1)


def _nearest(queries: Tensor, database: Tensor, metric: str, columns: int) -> Tensor:
    """One block of rows against all tiles of columns, keeping the running best of every row."""
    best = torch.full(queries.shape[:2], -torch.inf, device=queries.device)
    index = torch.zeros(queries.shape[:2], dtype=torch.int64, device=queries.device)
    for start in range(0, database.shape[1], columns):
        tile = _similarity(queries, database[:, start : start + columns], metric)
        value = tile.amax(dim=2)
        # A maximum is several times cheaper than its index, and after a few tiles hardly a row improves.
        improved = torch.nonzero(value > best, as_tuple=True)
        index[improved] = tile[improved].argmax(dim=1) + start
        best = torch.maximum(best, value)
    return index


def _similarity(queries: Tensor, database: Tensor, metric: str) -> Tensor:
    """(K, n, D), (K, m, D) -> (K, n, m), larger is closer."""
    if metric == "dot":
        return queries @ database.transpose(1, 2)
    # The product form of cdist cancels where points are close, which is where it matters.
    return -torch.cdist(queries, database, compute_mode="donot_use_mm_for_euclid_dist")
