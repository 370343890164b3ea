"""The plain way to localize with MASt3R, to compare with: both images of every pair encoded, one pair at a time.

Everything in float32, all heads of both views, and reciprocal matching as its paper describes it: every search
for neighbours compares the chosen pixels with all others and finds the best in both directions. Measured, not
imitated with pauses: it runs the same network and gives the same matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.frames import PosedFrame
from mast3r_ros.matching.stopwatch import Stopwatch
from mast3r_ros.network import PointmapNetwork, ViewPrediction
from mast3r_ros.network.preprocessing import prepare_for_localization

#: Spacing of the start grid, most rounds, and rows and columns of a block of similarities, as published.
SUBSAMPLE, ROUNDS, BLOCK = 8, 10, 8192


@dataclass(frozen=True, eq=False)
class PlainPair:
    """What the plain path finds of one pair: all maps of both views, and matched network pixels (N, 2)."""

    reference: ViewPrediction
    query: ViewPrediction
    xy1: NDArray[np.int64]
    xy2: NDArray[np.int64]


@torch.inference_mode()
def plain_pair(network: PointmapNetwork, reference: PosedFrame, query: PosedFrame, stopwatch: Stopwatch) -> PlainPair:
    """Predict and match one pair; view 1 is the reference.

    Args:
        stopwatch: is charged with encode, decode, heads and match.
    """
    first, second = plain_prediction(network, reference, query, stopwatch)
    with stopwatch.stage("match"):
        assert first.desc is not None and second.desc is not None
        xy1, xy2 = published_matches(first.desc[0], second.desc[0])
    return PlainPair(first, second, xy1.cpu().numpy(), xy2.cpu().numpy())


@torch.inference_mode()
def plain_prediction(
    network: PointmapNetwork, reference: PosedFrame, query: PosedFrame, stopwatch: Stopwatch
) -> tuple[ViewPrediction, ViewPrediction]:
    """All maps of both views of one pair."""
    size = max(network.config.img_size)
    device = network.patch_embed.proj.weight.device
    with stopwatch.stage("encode"):
        images = [prepare_for_localization(posed.frame.image, size).tensor for posed in (reference, query)]
        both = network.encode(torch.cat(images).to(device))
        tokens1, tokens2 = both[:1], both[1:]
    with stopwatch.stage("decode"):
        layers1, layers2 = network.decode(tokens1, tokens2)
    with stopwatch.stage("heads"):
        return (
            ViewPrediction(*network.points(1, layers1, tokens1), *network.descriptors(1, layers1, tokens1)),
            ViewPrediction(*network.points(2, layers2, tokens2), *network.descriptors(2, layers2, tokens2)),
        )


def published_matches(desc1: Tensor, desc2: Tensor) -> tuple[Tensor, Tensor]:
    """Fast reciprocal matches (N, 2) of (H, W, D) maps, the published way."""
    (height, width), width2 = desc1.shape[:2], desc2.shape[1]
    flat1, flat2 = desc1.flatten(0, 1), desc2.flatten(0, 1)
    y = torch.arange(SUBSAMPLE // 2, height, SUBSAMPLE, device=desc1.device)
    x = torch.arange(SUBSAMPLE // 2, width, SUBSAMPLE, device=desc1.device)
    index1 = (y[:, None] * width + x).flatten()
    index2 = torch.full_like(index1, -1)
    active = torch.ones_like(index1, dtype=torch.bool)
    for _ in range(ROUNDS):
        previous1, previous2 = index1.clone(), index2.clone()
        index2[active] = _both_ways(flat1[index1[active]], flat2)[0]
        active &= index2 != previous2
        index1[active] = _both_ways(flat2[index2[active]], flat1)[0]
        active &= index1 != previous1
        if not active.any():
            break
    pairs = torch.stack((index1, index2), dim=1)[~active].unique(dim=0)
    xy1 = torch.stack((pairs[:, 0] % width, pairs[:, 0] // width), dim=1)
    return xy1, torch.stack((pairs[:, 1] % width2, pairs[:, 1] // width2), dim=1)


def _both_ways(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Most similar row of ``b`` for every row of ``a``, and the other way round, block by block."""
    best_a, index_a = a.new_full((len(a),), -torch.inf), a.new_zeros(len(a), dtype=torch.int64)
    best_b, index_b = b.new_full((len(b),), -torch.inf), b.new_zeros(len(b), dtype=torch.int64)
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            similarity = a[i : i + BLOCK] @ b[j : j + BLOCK].T
            for best, index, dim, own, other in ((best_a, index_a, 1, i, j), (best_b, index_b, 0, j, i)):
                value, position = similarity.max(dim=dim)
                mine = slice(own, own + len(value))
                better = value > best[mine]
                best[mine] = torch.where(better, value, best[mine])
                index[mine] = torch.where(better, position + other, index[mine])
    return index_a, index_b
