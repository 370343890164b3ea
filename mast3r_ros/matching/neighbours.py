"""Nearest neighbours by brute force, exact ones tile by tile: the full similarity matrix never exists."""

from __future__ import annotations

from functools import partial

import faiss
import torch
from torch import Tensor

from mast3r_ros.matching.gpu.kernel_use import with_kernels
from mast3r_ros.matching.gpu.search import nearest_by_kernels

#: Rows and columns of a tile of similarities. On a CPU large ones (24 MiB) pay, because threads meet after each one.
#: Measured inside the pipeline, two cores, 3072 rows: 0.27 s with 2048 x 512, 0.16 s with this.
CPU_TILE = (3072, 2048)
#: Fewer rows than this make a tile smaller, not wider any more: small maps are searched in the inner caches.
FEW_ROWS = 1024
#: Columns among which a row's best is looked up, once it is known which of these pieces holds it.
PIECE = 2048
#: Rows of a GPU's tile where no kernel runs, and similarities of all pairs together: 128 MiB.
GPU_ROWS, GPU_TILE = 4096, 2**25

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
        fused = partial(nearest_by_kernels, queries, database, metric)
        return with_kernels(queries.device, fused, partial(tile_by_tile, queries, database, metric))
    # One pair after the other, so that a tile fits into the cache; fewer rows make it wider, as far as FEW_ROWS.
    rows = min(CPU_TILE[0], max(1, queries.shape[1]))
    wide = min(max(rows, FEW_ROWS) * CPU_TILE[1] // rows, database.shape[1])
    columns = max(wide // PIECE, 1) * PIECE
    return torch.stack([_in_best_piece(q, d, metric, rows, columns) for q, d in zip(queries, database)])


@torch.no_grad()
def roughly_nearest(queries: Tensor, database: Tensor) -> Tensor:
    """The closest database entry of every query on a CPU, but for rounding where several are as good.

    Closest in space, which for unit vectors is the most similar one as well. faiss keeps the distances in registers
    while it looks for the least: half the time of :func:`nearest`.

    Args:
        queries, database: (K, n, D) and (K, m, D) float32, m > 0.

    Returns:
        (K, n) int64 indices into the database.
    """
    found = [faiss.knn(q.contiguous().numpy(), d.contiguous().numpy(), 1)[1][:, 0] for q, d in zip(queries, database)]
    return torch.stack([torch.from_numpy(index) for index in found])


@torch.no_grad()
def tile_by_tile(queries: Tensor, database: Tensor, metric: str = "dot") -> Tensor:
    """As :func:`nearest`, (K, n, D) in (K, m, D), on a GPU without kernels: no synchronisation, bounded memory."""
    blocks = queries.split(GPU_ROWS, dim=1)
    columns = max(GPU_TILE // max(len(queries) * min(GPU_ROWS, queries.shape[1]), 1), 1)
    return torch.cat([_running_best(block, database, metric, columns) for block in blocks], dim=1)


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


def _in_best_piece(queries: Tensor, database: Tensor, metric: str, rows: int, columns: int) -> Tensor:
    """All rows (n, D) of one search: first which piece of the columns has the maximum, then where in it that is.

    On a CPU a maximum is several times cheaper than its index, which is asked for in one piece for each row only.
    """
    # One piece of memory for all tiles: asking the system for it each time can take longer than the product.
    room = queries.new_empty(rows * columns)
    tiles = database.split(columns)
    best = []
    for block in queries.split(rows):
        maxima = [_maxima_of_pieces(_similarity(block, tile, metric, room)) for tile in tiles]
        best.append(torch.cat(maxima, dim=1).argmax(dim=1))
    return _within(torch.cat(best), queries, database, metric)


def _maxima_of_pieces(similarity: Tensor) -> Tensor:
    """(n, m) -> (n, pieces), the last piece may be shorter."""
    whole = similarity.shape[1] // PIECE * PIECE
    maxima = similarity[:, :whole].unflatten(1, (-1, PIECE)).amax(dim=2) if whole else similarity[:, :0]
    if whole == similarity.shape[1]:
        return maxima
    return torch.cat((maxima, similarity[:, whole:].amax(dim=1, keepdim=True)), dim=1)


def _within(piece: Tensor, queries: Tensor, database: Tensor, metric: str) -> Tensor:
    """Index of the most similar entry of each row, given the piece (n,) that holds it."""
    index = torch.zeros(len(queries), dtype=torch.int64)
    pieces = database.split(PIECE)
    order = piece.argsort(stable=True)
    for number, members in enumerate(order.split(piece.bincount(minlength=len(pieces)).tolist())):
        if len(members):
            similarity = _similarity(queries[members], pieces[number], metric)
            index[members] = similarity.argmax(dim=1) + number * PIECE
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
