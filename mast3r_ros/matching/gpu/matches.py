"""Reciprocal matches of all pairs of a batch: found, merged and judged on the device, with one copy back."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.gpu.kernel_use import with_kernels
from mast3r_ros.matching.gpu.replays import Replays
from mast3r_ros.matching.gpu.search import DeviceMaps
from mast3r_ros.matching.gpu.walk import walk
from mast3r_ros.matching.pair_matches import MatchOptions, PairMatches, confident_matches
from mast3r_ros.matching.reciprocal import MAX_ROUNDS, MAX_STRIDED_ROUNDS, grid_starts

#: Graphs of :func:`packed_matches`.
_replays = Replays()


def matches_on_device(
    desc1: Tensor,
    desc2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    options: MatchOptions,
    products: torch.dtype = torch.float16,
) -> list[PairMatches]:
    """As :func:`~mast3r_ros.matching.pair_matches.confident_matches`, by kernels where they run.

    Args:
        desc1, desc2: of any floating type, length and strides: what a head leaves needs no pass of its own.
        products: type in which descriptors are multiplied; sums are float32.
    """

    def fused() -> list[PairMatches]:
        maps = desc1, desc2, conf1, conf2
        find = partial(packed_matches, options=options, products=products)
        found = _replays.run((options, products), find, maps, Tensor.cpu) if desc1.is_cuda else find(*maps)
        return unpacked(found, desc1.shape[2], desc2.shape[2])

    def plain() -> list[PairMatches]:
        unit1, unit2 = (F.normalize(d.float(), dim=-1) if options.stride == 1 else d for d in (desc1, desc2))
        return confident_matches(unit1, unit2, conf1, conf2, options)

    return with_kernels(desc1.device, fused, plain)


@torch.no_grad()
def packed_matches(
    desc1: Tensor,
    desc2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    options: MatchOptions,
    products: torch.dtype = torch.float16,
) -> Tensor:
    """:func:`matches_on_device` before the copy: waits for nothing, and its shapes depend on no value.

    Returns:
        (3, K, S) int32: linear pixels of image 1 (-1 where there is no match) and 2, the bits of the confidence.
    """
    K, height, width, _ = desc1.shape
    maps1, maps2 = (DeviceMaps.of(maps, products, stride=options.stride) for maps in (desc1, desc2))
    begin = grid_starts(height, width, options.subsample, desc1.device).expand(K, -1)
    at1, at2, arrived = walk(maps1, maps2, begin, MAX_ROUNDS if options.stride == 1 else MAX_STRIDED_ROUNDS)
    # Walks that end alike are one match; those that do not arrive are sorted to the end.
    key = torch.where(arrived, at1.long() * maps2.pixels + at2, torch.iinfo(torch.int64).max)
    key, order = key.sort(dim=1)
    at1, at2, arrived = (values.gather(1, order) for values in (at1, at2, arrived))
    fresh = torch.diff(key, dim=1, prepend=key.new_full((K, 1), -1)) != 0
    conf = [c.flatten(1).gather(1, at.clamp_min(0).long()) for c, at in ((conf1, at1), (conf2, at2))]
    least = torch.minimum(*conf).float()
    return packed(arrived & fresh & (least >= options.min_confidence), at1, at2, least)


def packed(good: Tensor, index1: Tensor, index2: Tensor, conf: Tensor) -> Tensor:
    """(K, S) of what are matches, of int32 pixels and float32 confidences as one (3, K, S) int32."""
    return torch.stack((torch.where(good, index1, -1), index2, conf.contiguous().view(torch.int32)))


def unpacked(packed: Tensor, width1: int, width2: int) -> list[PairMatches]:
    """Matches per pair of what :func:`packed` put together, in that order; on the host."""
    index1, index2, bits = packed.numpy()
    matches = []
    for first, second, conf in zip(index1, index2, bits.view(np.float32)):
        rows = np.flatnonzero(first >= 0)
        matches.append(PairMatches(_to_xy(first[rows], width1), _to_xy(second[rows], width2), conf[rows]))
    return matches


def _to_xy(index: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    """Linear pixels (N,) -> (N, 2) as x, y."""
    y, x = np.divmod(index, width)
    return np.stack((x, y), axis=-1).astype(np.int64)
