"""Matches of pointmaps (DUSt3R) on the device: points that are each other's nearest, the surest of each square."""

from __future__ import annotations

import torch
from torch import Tensor

from mast3r_ros.matching.gpu.matches import packed, unpacked
from mast3r_ros.matching.gpu.search import LAST, DeviceMaps, columns_of
from mast3r_ros.matching.gpu.walk import walk
from mast3r_ros.matching.pair_matches import PairMatches


@torch.no_grad()
def point_matches_on_device(
    points1: Tensor, points2: Tensor, conf1: Tensor, conf2: Tensor, *, cell: int, min_confidence: float
) -> list[PairMatches]:
    """Mutual nearest neighbours of K pairs of pointmaps; of those in a square of image 1 the most confident.

    Args:
        points1, points2: (K, H1, W1, 3) and (K, H2, W2, 3) in one frame; those that are not finite match nothing.
        conf1, conf2: (K, H1, W1) and (K, H2, W2).
        cell: side of a square in pixels.
        min_confidence: both pixels of a match have at least this confidence.

    Returns:
        matches in row-major order of image 2.
    """
    sure1, sure2 = (
        (p.isfinite().all(dim=-1) & (c >= min_confidence)).flatten(1) for p, c in ((points1, conf1), (points2, conf2))
    )
    maps1, maps2 = (
        DeviceMaps.of(p.masked_fill(~s.view(p.shape[:3])[..., None], torch.nan), torch.float32, "l2")
        for p, s in ((points1, sure1), (points2, sure2))
    )
    every = torch.arange(maps2.pixels, device=points2.device, dtype=torch.int32).expand(len(points2), -1)
    _, at1, mutual = walk(maps2, maps1, every, 1, active=sure2)
    at1 = at1.clamp_min(0)
    conf = torch.minimum(conf1.flatten(1).gather(1, at1.long()), conf2.flatten(1)).float()
    best, there = _best_of_cells(at1, every, conf, mutual, points1.shape[2], points1.shape[1], cell)
    chosen = [values.gather(1, best) for values in (at1, every, conf)]
    found = unpacked(packed(there, *chosen).cpu(), points1.shape[2], points2.shape[2])
    return [_in_order_of_image_2(matches, points2.shape[2]) for matches in found]


def _best_of_cells(
    index1: Tensor, index2: Tensor, conf: Tensor, good: Tensor, width: int, height: int, cell: int
) -> tuple[Tensor, Tensor]:
    """(K, C) index2 (int64) of the surest match in each square of image 1, of equals the first; and where one is."""
    across, down = -(-width // cell), -(-height // cell)
    where = (index1 // width // cell) * across + index1 % width // cell
    bits = (conf + 0.0).view(torch.int32)
    # One number whose order is that of the confidence, then that of image 2 from its end.
    ordered = torch.where(bits < 0, bits ^ LAST, bits).long() * 2**32 + (LAST - index2)
    nothing = torch.iinfo(torch.int64).min
    keys = torch.where(good, ordered, nothing)
    table = keys.new_full((len(keys), across * down), nothing).scatter_reduce(1, where.long(), keys, "amax")
    there = table != nothing
    return torch.where(there, columns_of(table), 0), there


def _in_order_of_image_2(matches: PairMatches, width: int) -> PairMatches:
    order = (matches.xy2[:, 1] * width + matches.xy2[:, 0]).argsort(kind="stable")
    return PairMatches(*(values[order] for values in matches))
