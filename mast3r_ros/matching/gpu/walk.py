"""The reciprocal walk of all pairs as one batch: a fixed number of rounds, nothing waited for."""

from __future__ import annotations

import torch
from torch import Tensor

from mast3r_ros.matching.gpu.kernel_use import kernels
from mast3r_ros.matching.gpu.search import LATER, DeviceMaps, Queue, Tiling, search, unasked

BLOCK = 256
#: What walks do, as in the kernels.
LOST, ARRIVED, WALKING = -1, 0, 1


def walk(
    maps1: DeviceMaps,
    maps2: DeviceMaps,
    begin: Tensor,
    rounds: int,
    active: Tensor | None = None,
    tilings: tuple[Tiling, Tiling] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``_walk`` of ``matching/reciprocal.py``: from image 1 to nearest neighbours in image 2 and back.

    No pixel is searched for twice, though walks meet: each round's kernels queue what nobody has asked for yet, and
    programs without rows end at once.

    Args:
        maps1, maps2: K maps each.
        begin: (K, S) linear indices into those of image 1.
        active: (K, S) which of them walk; all by default. The others never arrive.
        tilings: of the first round trip and of later ones.

    Returns:
        (K, S) int32 indices into image 1 and 2, and (K, S) bool which walks have arrived.
    """
    K, S = begin.shape
    if not K or not S:
        nothing = begin.new_zeros((K, S), dtype=torch.int32)
        return nothing, nothing, nothing.bool()
    at1 = begin.to(torch.int32).contiguous()
    at2 = torch.full_like(at1, -1)
    state = torch.full_like(at1, WALKING, dtype=torch.int8)
    if active is not None:
        state = torch.where(active, state, LOST)
    table1, table2 = unasked(maps1), unasked(maps2)
    pixels = torch.empty_like(at1)
    counts = torch.zeros((2 * rounds, K), dtype=torch.int32, device=begin.device)
    queues = [Queue(pixels, count) for count in counts]
    first, later = tilings or _tilings(maps1)
    step, grid = kernels().step, (-(-S // BLOCK), K)
    sizes = maps1.pixels, maps2.pixels
    step[grid](table1, at1, at1, state, table1, *queues[0], *sizes[:1] * 2, S, FIRST=True, LAST_STEP=False, BLOCK=BLOCK)
    for half in range(2 * rounds):
        forth = half % 2 == 0
        own, other, here, there = (maps1, maps2, table1, table2) if forth else (maps2, maps1, table2, table1)
        source, target = (at1, at2) if forth else (at2, at1)
        search(own, other, queues[half], here, first if half < 2 else later)
        last = half + 1 == 2 * rounds
        step[grid](
            here, source, target, state, there, *queues[half if last else half + 1], own.pixels, other.pixels, S,
            FIRST=False, LAST_STEP=last, BLOCK=BLOCK,
        )  # fmt: skip
    return at1, at2, state == ARRIVED


def _tilings(maps: DeviceMaps) -> tuple[Tiling, Tiling]:
    tiling = maps.tiling
    return tiling, tiling._replace(splits=LATER * tiling.splits)
