"""Exact nearest neighbours by brute force, tile by tile: the full similarity matrix never exists."""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows and columns of a tile of similarities. On a CPU one fits into the cache of a core (4 MiB); high tiles
#: were measured to be twice as fast as wide ones of the same size (two cores, 24 values a descriptor).
CPU_TILE = (2048, 512)
GPU_TILE = (4096, 16384)

METRICS = ("dot", "l2")


@torch.no_grad()
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
    if queries.is_cuda:
        rows, columns = GPU_TILE
        blocks = queries.split(rows, dim=1)
        return torch.cat([_running_best(block, database, metric, columns) for block in blocks], dim=1)
    # One pair after the other, so that a tile fits into the cache.
    return torch.stack([_in_best_tile(q, d, metric, *CPU_TILE) for q, d in zip(queries, database)])


def _running_best(queries: Tensor, database: Tensor, metric: str, columns: int) -> Tensor:
    """One block of rows (K, n, D) against all tiles of columns, keeping the best of every row. Waits for nothing."""
    best = torch.full(queries.shape[:2], -torch.inf, device=queries.device)
    index = torch.zeros(queries.shape[:2], dtype=torch.int64, device=queries.device)
    for number, tile in enumerate(database.split(columns, dim=1)):
        value, position = _similarity(queries, tile, metric).max(dim=2)
        improved = value > best
        index = torch.where(improved, position + number * columns, index)
        best = torch.where(improved, value, best)
    return index


def _in_best_tile(queries: Tensor, database: Tensor, metric: str, rows: int, columns: int) -> Tensor:
    """All rows (n, D) of one search: first which tile of columns has the maximum, then where in that tile it is.

    On a CPU a maximum is several times cheaper than its index, which is asked for in one tile of each row only.
    """
    tiles = database.split(columns)
    # One piece of memory for all tiles: asking the system for 4 MiB each time can take longer than the product.
    room = queries.new_empty(rows * columns)
    maxima = [[_similarity(block, tile, metric, room).amax(dim=1) for tile in tiles] for block in queries.split(rows)]
    best = torch.cat([torch.stack(of_block, dim=1).argmax(dim=1) for of_block in maxima])
    index = torch.zeros(len(queries), dtype=torch.int64)
    order = best.argsort(stable=True)
    for number, members in enumerate(order.split(best.bincount(minlength=len(tiles)).tolist())):
        for chosen in members.split(rows):
            similarity = _similarity(queries[chosen], tiles[number], metric, room)
            index[chosen] = similarity.argmax(dim=1) + number * columns
    return index


def _similarity(queries: Tensor, database: Tensor, metric: str, room: Tensor | None = None) -> Tensor:
    """(..., n, D), (..., m, D) -> (..., n, m), larger is closer; of single searches written into ``room``."""
    if metric == "dot":
        if room is None:
            return queries @ database.mT
        out = room[: len(queries) * len(database)].view(len(queries), len(database))
        return torch.mm(queries, database.T, out=out)
    # The product form of cdist cancels where points are close, which is where it matters.
    return -torch.cdist(queries, database, compute_mode="donot_use_mm_for_euclid_dist")
