"""Nearest neighbours on a GPU by fused kernels: no similarity ever reaches the card's memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mast3r_ros.matching.gpu.kernel_use import kernels

#: Pixels and rows of one program that looks at them one by one.
BLOCK, ROWS = 128, 4
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

    def shared(self, row_bytes: int) -> int:
        """Fast memory in bytes that it takes, with rows of so many bytes."""
        return row_bytes * (self.stages * max(self.tiles, 1) * self.columns + self.rows)


#: Measured on an H200, 4 pairs of 3072 pixels against 196608 of 24 channels: 0.43 ms; best columns of tiles 0.68 ms.
#: Later ones are for rows (of float32, of more channels) whose tiles do not fit into a card's fast memory.
PRODUCTS = tuple(Tiling(128, 64, *rest) for rest in ((8, 16, 4, 3), (4, 16, 4, 3), (2, 16, 4, 3), (0, 16, 4, 2)))
DISTANCES = Tiling(64, 64, 0, 16, 4, 2)
#: Tiles of points of which one is looked at beforehand (no divisor of an image's width), and tiles of a group.
COARSE, GROUP = 17, 32
#: Later rounds have few rows: so many more programs share the columns.
LATER = 4
#: Fast memory of the smallest card, for versions of PyTorch that do not tell.
LEAST_SHARED = 64 << 10


@dataclass(frozen=True, eq=False)
class DeviceMaps:
    """K maps of one image size, as the kernels read them; made by :meth:`of`.

    Attributes:
        rows: (K, H * W, P) all pixels, P - D zeros behind them; or (K, D, H * W) channel by channel, where
            distances are measured in float32.
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
    def of(
        cls, maps: Tensor, products: torch.dtype, metric: str = "dot", stride: int = 1, unit: bool = True,
    ) -> DeviceMaps:  # fmt: skip
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
        height, width, channels = maps.shape[1:]
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"descriptors of {channels} channels: kernels are for 1 to {MOST_CHANNELS}")
        by_channel = metric == "l2" and products == torch.float32 and stride == 1
        rows = _arranged(maps, products, by_channel, unit and metric == "dot")
        thinned = rows
        if stride > 1:
            thinned = rows.unflatten(1, (height, width))[:, ::stride, ::stride].flatten(1, 2).contiguous()
        return cls(rows, thinned, (height, width), -(-width // stride), stride, metric, by_channel)

    @property
    def pixels(self) -> int:
        """H * W."""
        return self.size[0] * self.size[1]

    @property
    def tiling(self) -> Tiling:
        """How its type is searched on its card."""
        if self.by_channel:
            return DISTANCES
        room, row_bytes = _shared_bytes(self.rows.device), self.rows.shape[2] * self.rows.element_size()
        return next((t for t in PRODUCTS if t.shared(row_bytes) <= room), PRODUCTS[-1])


def _arranged(maps: Tensor, products: torch.dtype, by_channel: bool, unit: bool) -> Tensor:
    """(K, H, W, D) as ``rows`` of :class:`DeviceMaps`."""
    K, height, width, channels = maps.shape
    lanes = max(LEAST_CHANNELS, 1 << (channels - 1).bit_length())
    wide = channels if by_channel else lanes
    shape = (K, wide, height * width) if by_channel else (K, height * width, wide)
    rows = torch.empty(shape, dtype=products, device=maps.device)
    pair, one, other = rows.stride()
    strides = (pair, other, one) if by_channel else (pair, one, other)
    if rows.numel():
        kernels().arrange[(-(-height * width // BLOCK), K)](
            maps, rows, height * width, width, *maps.stride(), *strides,
            D=channels, WIDE=wide, LANES=lanes, UNIT=unit, BLOCK=BLOCK,
        )  # fmt: skip
    return rows


@cache
def _shared_bytes(device: torch.device) -> int:
    """Fast memory that one program may have."""
    if device.type != "cuda":
        return LEAST_SHARED
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", LEAST_SHARED))


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


def search(
    own: DeviceMaps, other: DeviceMaps, queue: Queue | None, table: Tensor, tiling: Tiling | None = None,
) -> None:  # fmt: skip
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
        if own.rows.shape[1] == 3:
            _search_points(own, other, arguments, queued, tiling)
        else:
            code.search_distances[grid](*arguments, span, own.rows.shape[1], QUEUED=queued, **tile, **launch)
        return
    wide = own.rows.shape[2]
    kind = {"D": wide, "L2": own.metric == "l2", "QUEUED": queued}
    products = {**kind, **tile, **launch, "EVEN": searched % piece == 0, "PRECISION": "tf32x3"}
    if tiling.tiles:
        code.search_pieces[grid](*arguments, span, TILES=tiling.tiles, **products)
        code.resolve_pieces[(-(-capacity // ROWS), K)](
            *arguments, piece, BN=min(128, piece), ROWS=ROWS, num_warps=2, **kind
        )
    else:
        code.search_products[grid](*arguments, span, **products)
    if other.stride > 1:
        if queue is None:
            raise ValueError("a search by stride needs a queue")
        code.look_around[(-(-capacity // 32), K)](
            own.rows, other.rows, pixels, count, table, own.pixels, other.thin_width, *other.size, capacity,
            D=wide, STRIDE=other.stride, BM=32, L2=own.metric == "l2",
        )  # fmt: skip


def _search_points(
    own: DeviceMaps, other: DeviceMaps, arguments: tuple[Any, ...], queued: bool, tiling: Tiling
) -> None:
    """Points of space, of which most tiles are too far away to be looked at."""
    K, _, size = other.rows.shape
    tiles = -(-size // tiling.columns)
    boxes = _boxes(other.rows, other.rows, tiling.columns)
    groups = _boxes(*boxes, GROUP)
    grid = (-(-arguments[-1] // tiling.rows), K)
    kernels().search_points[grid](
        *arguments, *(torch.cat(b, dim=1).mT.contiguous() for b in (boxes, groups)), tiles,
        COARSE=COARSE, GROUP=GROUP, BM=tiling.rows, BN=tiling.columns, QUEUED=queued,
        num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip


def _boxes(lowest: Tensor, highest: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates (K, 3, ceil(n / count)) of so many neighbours of (K, 3, n); NaN is nowhere."""
    fill = -lowest.shape[2] % count
    low = F.pad(lowest.nan_to_num(nan=torch.inf), (0, fill), value=torch.inf)
    high = F.pad(highest.nan_to_num(nan=-torch.inf), (0, fill), value=-torch.inf)
    return low.unflatten(2, (-1, count)).amin(dim=3), high.unflatten(2, (-1, count)).amax(dim=3)


@torch.no_grad()
def nearest_by_kernels(
    queries: Tensor, database: Tensor, metric: str = "dot", products: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """As :func:`mast3r_ros.matching.neighbours.nearest`, of vectors as they are, but what is NaN is nobody's nearest.

    A query that compares with nothing gets 0.
    """
    own, other = (DeviceMaps.of(v[:, None], products, metric, unit=False) for v in (queries, database))
    table = unasked(own)
    search(own, other, None, table)
    return columns_of(table)
