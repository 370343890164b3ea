"""Nearest neighbours on a GPU by fused kernels: no similarity ever reaches the card's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mast3r_ros.matching.gpu.kernel_use import kernels

#: Most channels of a descriptor that a row of the kernels holds.
MOST_CHANNELS = 64
#: Matrix units multiply at least this many at once.
LEAST_CHANNELS = 16
UNASKED, LAST = -(2**63), 2**31 - 1


class Tiling(NamedTuple):
    """How one search is cut up.

    Attributes:
        rows, columns: of a tile whose products are in registers at once.
        tiles: of a piece, whose best product alone is kept; 0 keeps the best column of every tile.
        splits: programs that share the columns of one block of rows.
        warps, stages: of one program, and tiles that are loaded ahead.
    """

    rows: int
    columns: int
    tiles: int
    splits: int
    warps: int
    stages: int


#: Products in half precision, products in float32, and distances in float32.
HALF = Tiling(128, 64, 0, 16, 4, 3)
FULL = Tiling(32, 64, 0, 16, 4, 2)
DISTANCES = Tiling(64, 64, 0, 16, 4, 2)
#: Later rounds have few rows: more programs share the columns.
LATER = 4


@dataclass(frozen=True, eq=False)
class DeviceMaps:
    """K maps of one image size, as the kernels read them; made by :meth:`of`.

    Attributes:
        rows: (K, H * W, P) all pixels, unit vectors for ``dot``, P - D zeros behind them; or (K, D, H * W) float32,
            channel by channel, where distances are measured in float32.
        thinned: every n-th row and column of them, which are searched first; the same where the stride is 1.
        size: (H, W).
        thin_width: columns of the thinned map.
        stride: from one row and column of the thinned map to the next.
        metric: ``dot`` or ``l2``.
        by_channel: which of the two layouts it is.
    """

    rows: Tensor
    thinned: Tensor
    size: tuple[int, int]
    thin_width: int
    stride: int
    metric: str
    by_channel: bool

    @classmethod
    def of(cls, maps: Tensor, products: torch.dtype, metric: str = "dot", stride: int = 1, unit: bool = True) -> DeviceMaps:  # fmt: skip # noqa: E501
        """From maps (K, H, W, D) of any floating type and strides.

        Args:
            products: type in which descriptors are multiplied, sums are float32.
            unit: make descriptors unit vectors; only for ``dot``.

        Raises:
            ValueError: for more than 64 channels, a stride below 1, or an unknown metric.
        """
        if metric not in ("dot", "l2"):
            raise ValueError(f"metric '{metric}' is not one of dot, l2")
        if stride < 1:
            raise ValueError(f"stride = {stride} must be at least 1")
        K, height, width, channels = maps.shape
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"descriptors of {channels} channels: kernels are for 1 to {MOST_CHANNELS}")
        by_channel = metric == "l2" and products == torch.float32 and stride == 1
        if by_channel:
            rows = maps.flatten(1, 2).mT.float().contiguous()
            return cls(rows, rows, (height, width), width, 1, metric, True)
        wide = max(LEAST_CHANNELS, 1 << (channels - 1).bit_length())
        rows = torch.empty((K, height * width, wide), dtype=products, device=maps.device)
        if rows.numel():
            block = 128
            kernels().unit_rows[(-(-height * width // block), K)](
                maps, rows, height * width, width, *maps.stride(), D=channels, DP=wide,
                UNIT=unit and metric == "dot", BLOCK=block,
            )  # fmt: skip
        grid = rows.unflatten(1, (height, width))
        thinned = rows if stride == 1 else grid[:, ::stride, ::stride].flatten(1, 2).contiguous()
        return cls(rows, thinned, (height, width), -(-width // stride), stride, metric, False)

    @property
    def pixels(self) -> int:
        """H * W."""
        return self.size[0] * self.size[1]

    @property
    def tiling(self) -> Tiling:
        """The tiling that its type is searched with."""
        if self.by_channel:
            return DISTANCES
        return FULL if self.rows.dtype == torch.float32 else HALF


class Queue(NamedTuple):
    """Pixels (K, S) int32 that wait to be searched for, and how many of each pair (K,) int32."""

    pixels: Tensor
    waiting: Tensor


def unasked(maps: DeviceMaps) -> Tensor:
    """(K, H * W) int64 keys of a map's pixels, before any was searched for."""
    return torch.full((len(maps.rows), maps.pixels), UNASKED, dtype=torch.int64, device=maps.rows.device)


def columns_of(table: Tensor) -> Tensor:
    """Linear pixel indices (int64) of the best that keys stand for."""
    return LAST - (table & LAST)


def search(own: DeviceMaps, other: DeviceMaps, queue: Queue | None, table: Tensor, tiling: Tiling | None = None) -> None:  # fmt: skip # noqa: E501
    """Write the keys of the queued pixels' nearest neighbours in ``other`` into ``table``; waits for nothing.

    Args:
        own, other: K maps each, of one metric and type.
        queue: None for all pixels of ``own``.
        table: (K, H * W) of ``own``'s pixels, see :func:`unasked`.
    """
    tiling = tiling or own.tiling
    K, capacity = table.shape if queue is None else queue.pixels.shape
    searched = other.thinned.shape[2 if other.by_channel else 1]
    if not K or not capacity:
        return
    if not searched:
        raise ValueError("a search among no pixels at all")
    piece = tiling.columns * max(tiling.tiles, 1)
    span = -(-searched // (piece * tiling.splits)) * piece
    grid = (-(-searched // span), -(-capacity // tiling.rows), K)
    pixels, count = queue or (table, table)  # not read without a queue
    arguments = (own.rows, other.thinned, pixels, count, table, own.pixels, searched, capacity)
    queued = queue is not None
    launch = {"num_warps": tiling.warps, "num_stages": tiling.stages}
    code, tile = kernels(), {"BM": tiling.rows, "BN": tiling.columns}
    if own.by_channel:
        code.search_distances[grid](*arguments, span, D=own.rows.shape[1], QUEUED=queued, **tile, **launch)
        return
    wide = own.rows.shape[2]
    kind = {"D": wide, "L2": own.metric == "l2", "QUEUED": queued}
    products = {**kind, **tile, **launch, "EVEN": searched % piece == 0, "PRECISION": "ieee"}
    if tiling.tiles:
        code.search_pieces[grid](*arguments, span, TILES=tiling.tiles, **products)
        code.resolve_pieces[(capacity, K)](*arguments, piece, BN=min(128, piece), num_warps=2, **kind)
    else:
        code.search_products[grid](*arguments, span, **products)
    if other.stride > 1:
        if queue is None:
            raise ValueError("a search by stride needs a queue")
        code.look_around[(-(-capacity // 32), K)](
            own.rows, other.rows, pixels, count, table, own.pixels, other.thin_width, *other.size, capacity,
            D=wide, STRIDE=other.stride, BM=32, L2=own.metric == "l2",
        )  # fmt: skip


@torch.no_grad()
def nearest_by_kernels(queries: Tensor, database: Tensor, metric: str = "dot", products: torch.dtype = torch.float32) -> Tensor:  # fmt: skip # noqa: E501
    """As :func:`mast3r_ros.matching.neighbours.nearest`, of vectors as they are, but what is NaN is nobody's nearest.

    A query that compares with nothing gets 0.
    """
    own, other = (DeviceMaps.of(v[:, None], products, metric, unit=False) for v in (queries, database))
    table = unasked(own)
    search(own, other, None, table)
    return columns_of(table)
