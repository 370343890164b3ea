"""Confident reciprocal matches of a batch of pairs: the contract, and the plain search that keeps it anywhere.

``matching/gpu`` keeps it on a GPU, faster.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.reciprocal import fast_reciprocal_matches_batch


class PairMatches(NamedTuple):
    """Matches of one pair, without repetitions.

    Attributes:
        xy1, xy2: (N, 2) int64 pixels as x, y.
        conf: (N,) float32, the smaller confidence of the two.
    """

    xy1: NDArray[np.int64]
    xy2: NDArray[np.int64]
    conf: NDArray[np.float32]


class MatchOptions(NamedTuple):
    """What is searched for.

    Attributes:
        subsample: spacing in pixels of the grid in image 1 that walks start from.
        stride: 1 for exact neighbours, see :func:`~mast3r_ros.matching.reciprocal.fast_reciprocal_matches_batch`.
        min_confidence: both pixels of a match have at least this confidence.
    """

    subsample: int = 8
    stride: int = 1
    min_confidence: float = -float("inf")


def confident_matches(
    desc1: Tensor, desc2: Tensor, conf1: Tensor, conf2: Tensor, options: MatchOptions
) -> list[PairMatches]:
    """Fast reciprocal matches of each pair, sorted by pixel of image 1 (row-major), then of image 2.

    Args:
        desc1, desc2: (K, H1, W1, D) and (K, H2, W2, D): float32 unit vectors; with a stride above 1 of any length and
            floating type.
        conf1, conf2: (K, H1, W1) and (K, H2, W2).
    """
    matched = []
    found = fast_reciprocal_matches_batch(desc1, desc2, subsample=options.subsample, stride=options.stride)
    for k, (xy1, xy2) in enumerate(found):
        conf = torch.minimum(conf1[k, xy1[:, 1], xy1[:, 0]], conf2[k, xy2[:, 1], xy2[:, 0]])
        sure = conf >= options.min_confidence
        xy1, xy2, conf = (values[sure].cpu() for values in (xy1, xy2, conf))
        matched.append(PairMatches(xy1.numpy(), xy2.numpy(), conf.numpy()))
    return matched
