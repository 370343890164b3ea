"""Reciprocal matches of all pairs of a batch: found, merged and judged on the device, with one copy back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.gpu.search import DeviceMaps
from mast3r_ros.matching.gpu.walk import walk
from mast3r_ros.matching.reciprocal import MAX_ROUNDS, MAX_STRIDED_ROUNDS, grid_starts


class PairMatches(NamedTuple):
    """Matches of one pair, sorted by pixel of image 1 (row-major), then of image 2, without repetitions.

    Attributes:
        xy1, xy2: (N, 2) int64 pixels as x, y.
        conf: (N,) float32, the smaller confidence of the two.
    """

    xy1: NDArray[np.int64]
    xy2: NDArray[np.int64]
    conf: NDArray[np.float32]


def matches_on_device(
    desc1: Tensor,
    desc2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    *,
    subsample: int = 8,
    stride: int = 1,
    min_confidence: float = -float("inf"),
    products: torch.dtype = torch.float16,
) -> list[PairMatches]:
    """Fast reciprocal matches (``matching/reciprocal.py``) of K pairs, started in image 1.

    Args:
        desc1, desc2: (K, H1, W1, D) and (K, H2, W2, D) on one device, of any floating type, length and strides.
        conf1, conf2: (K, H1, W1) and (K, H2, W2).
        subsample: spacing of the starting grid in pixels.
        stride: see :func:`~mast3r_ros.matching.reciprocal.fast_reciprocal_matches_batch`.
        min_confidence: both pixels of a match have at least this confidence.
        products: type in which descriptors are multiplied.
    """
    options = {"subsample": subsample, "stride": stride, "min_confidence": min_confidence, "products": products}
    packed = packed_matches(desc1, desc2, conf1, conf2, **options)  # type: ignore[arg-type]
    return unpacked(packed.cpu(), desc1.shape[2], desc2.shape[2])


@torch.no_grad()
def packed_matches(
    desc1: Tensor,
    desc2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    *,
    subsample: int,
    stride: int,
    min_confidence: float,
    products: torch.dtype,
) -> Tensor:
    """:func:`matches_on_device` before they are copied: waits for nothing, and its shapes depend on no value.

    Returns:
        (3, K, S) int32: linear pixels of image 1 (-1 where there is no match) and 2, the bits of the confidence.
    """
    K, height, width, _ = desc1.shape
    maps1, maps2 = (DeviceMaps.of(maps, products, stride=stride) for maps in (desc1, desc2))
    begin = grid_starts(height, width, subsample, desc1.device).expand(K, -1)
    at1, at2, arrived = walk(maps1, maps2, begin, MAX_ROUNDS if stride == 1 else MAX_STRIDED_ROUNDS)
    # Walks that end alike are one match; those that do not arrive are sorted to the end.
    key = torch.where(arrived, at1.long() * maps2.pixels + at2, torch.iinfo(torch.int64).max)
    key, order = key.sort(dim=1)
    at1, at2, arrived = (values.gather(1, order) for values in (at1, at2, arrived))
    fresh = torch.diff(key, dim=1, prepend=key.new_full((K, 1), -1)) != 0
    conf = [c.flatten(1).gather(1, at.clamp_min(0).long()) for c, at in ((conf1, at1), (conf2, at2))]
    conf = torch.minimum(*conf).float()
    good = arrived & fresh & (conf >= min_confidence)
    return torch.stack((torch.where(good, at1, -1), at2, conf.contiguous().view(torch.int32)))


def unpacked(packed: Tensor, width1: int, width2: int) -> list[PairMatches]:
    """What :func:`packed_matches` found, per pair; ``packed`` on the host."""
    index1, index2, bits = packed.numpy()
    matches = []
    for first, second, conf in zip(index1, index2, bits.view(np.float32)):
        rows = first >= 0
        matches.append(PairMatches(_to_xy(first[rows], width1), _to_xy(second[rows], width2), conf[rows]))
    return matches


def _to_xy(index: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    """Linear pixels (N,) -> (N, 2) as x, y."""
    return np.stack((index % width, index // width), axis=-1).astype(np.int64)
