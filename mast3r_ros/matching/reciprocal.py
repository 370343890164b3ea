"""Reciprocal matches between dense descriptor maps (MASt3R, Leroy et al., ECCV 2024, section 3.3).

A pixel and its nearest neighbour in the other image match when each is the other's nearest neighbour. The fast
search walks from a sparse grid back and forth between the images until it arrives at such pairs.
Descriptor maps are (H, W, D) float32, numpy or torch on any device; results are of the same kind.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.searched import Searched

ArrayLike = TypeVar("ArrayLike", Tensor, NDArray[Any])

#: Walks that have not arrived after this many round trips are given up.
MAX_ROUNDS = 10
#: The same for searches by stride: 1 % of their walks are longer, and a round of few costs as many calls as one of all.
MAX_STRIDED_ROUNDS = 4


def fast_reciprocal_matches(
    desc1: ArrayLike,
    desc2: ArrayLike,
    *,
    subsample: int = 8,
    starts: tuple[ArrayLike, ArrayLike] | None = None,
    pixel_tolerance: float = 0.0,
    metric: str = "dot",
) -> tuple[ArrayLike, ArrayLike]:
    """Reciprocal matches reached from a sparse set of pixels of image 1.

    Args:
        desc1, desc2: (H1, W1, D) and (H2, W2, D) descriptors of unit length.
        subsample: spacing of the starting grid in pixels.
        starts: x and y (N,) of starting pixels in image 1 instead of the grid; they make one round trip only.
        pixel_tolerance: 0 for exact pairs. Otherwise every start whose single round trip ends closer than this is
            kept as it is, with its neighbour in image 2.
        metric: ``dot`` or ``l2``, see :func:`~mast3r_ros.matching.neighbours.nearest`.

    Returns:
        xy1, xy2: (N, 2) int64 pixels as x, y; one row per match, without repetitions, sorted by pixel of image 1
        (row-major), then of image 2.
    """
    maps1, maps2 = _tensor(desc1)[None], _tensor(desc2)[None]
    chosen = None if starts is None else (_tensor(starts[0]), _tensor(starts[1]))
    ((xy1, xy2),) = fast_reciprocal_matches_batch(
        maps1, maps2, subsample=subsample, starts=chosen, pixel_tolerance=pixel_tolerance, metric=metric
    )
    return _like(desc1, xy1), _like(desc1, xy2)


def fast_reciprocal_matches_batch(
    desc1: Tensor,
    desc2: Tensor,
    *,
    subsample: int = 8,
    starts: tuple[Tensor, Tensor] | None = None,
    pixel_tolerance: float = 0.0,
    metric: str = "dot",
    stride: int = 1,
) -> list[tuple[Tensor, Tensor]]:
    """:func:`fast_reciprocal_matches` of K pairs at once.

    Args:
        desc1, desc2: (K, H1, W1, D) and (K, H2, W2, D); with a stride above 1 of any length and floating type.
        stride: 1 for exact neighbours. Otherwise only every n-th row and column is searched, and then what lies around
            the best: n^2 times cheaper, and nearly the same where descriptors change little from pixel to pixel.

    Returns:
        xy1, xy2 of every pair.
    """
    K, height1, width1, _ = desc1.shape
    begin = grid_starts(height1, width1, subsample, desc1.device) if starts is None else starts[1] * width1 + starts[0]
    begin = begin.long().unique().expand(K, -1)
    most = MAX_ROUNDS if stride == 1 else MAX_STRIDED_ROUNDS
    rounds = most if starts is None and pixel_tolerance == 0 else 1
    maps = Searched.of(desc1, stride, metric), Searched.of(desc2, stride, metric)
    index1, index2, arrived = _walk(*maps, begin, rounds)
    if pixel_tolerance > 0:
        apart = (to_xy(index1, width1) - to_xy(begin, width1)).double().norm(dim=-1)
        index1, arrived = begin, apart < pixel_tolerance
    matches = []
    for k in range(K):
        first, second, _ = merge_matches(index1[k, arrived[k]], index2[k, arrived[k]])
        matches.append((to_xy(first, width1), to_xy(second, desc2.shape[2])))
    return matches


def merge_matches(index1: Tensor, index2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matches as linear pixel indices (N,), without repetitions and sorted by the first, then the second index.

    Returns:
        index1, index2 and the position of each one's first occurrence in the input.
    """
    span = int(index2.max()) + 1 if len(index2) else 1
    key, order = (index1.long() * span + index2.long()).sort(stable=True)
    first = order[torch.diff(key, prepend=key.new_full((1,), -1)) != 0]
    return index1[first], index2[first], first


def grid_starts(height: int, width: int, subsample: int, device: torch.device | None = None) -> Tensor:
    """Linear indices (S,) int64 of a pixel grid that starts half a step from the corner, row-major.

    Raises:
        ValueError: for a step below one pixel.
    """
    if subsample < 1:
        raise ValueError(f"subsample = {subsample} must be at least 1")
    y = torch.arange(subsample // 2, height, subsample, device=device)
    x = torch.arange(subsample // 2, width, subsample, device=device)
    return (y[:, None] * width + x).flatten()


def to_xy(index: Tensor, width: int) -> Tensor:
    """Linear pixel indices (...) of an image of this width -> pixels (..., 2) as x, y."""
    return torch.stack((index % width, index // width), dim=-1)


def _walk(maps1: Searched, maps2: Searched, begin: Tensor, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """Walk from image 1 to nearest neighbours in image 2 and back until nothing changes.

    Args:
        maps1, maps2: K maps of N1 and of N2 pixels.
        begin: (K, S) linear indices into those of image 1.

    Returns:
        (K, S) indices into image 1 and 2, and which walks have arrived.
    """
    index1, index2 = begin.clone(), torch.full_like(begin, -1)
    active = torch.ones_like(begin, dtype=torch.bool)
    known12, known21 = _unknown(maps1), _unknown(maps2)
    for _ in range(rounds):
        previous1, previous2 = index1.clone(), index2.clone()
        rows = _active_rows(active)
        index2.scatter_(1, rows, _partners(maps1, index1.gather(1, rows), maps2, known12))
        active &= index2 != previous2
        rows = _active_rows(active)
        index1.scatter_(1, rows, _partners(maps2, index2.gather(1, rows), maps1, known21))
        active &= index1 != previous1
        if not active.any():
            break
    return index1, index2, ~active


def _active_rows(active: Tensor) -> Tensor:
    """(K, S) -> (K, n) columns with all that are active, filled up with others to equal counts.

    Walking on from where a walk has arrived changes nothing, so the fill does no harm.
    """
    order = active.int().argsort(dim=1, descending=True, stable=True)
    return order[:, : int(active.sum(dim=1).max())] if active.numel() else order


def _unknown(maps: Searched) -> Tensor:
    """(K, N) partners that :func:`_partners` has found so far: none. A GPU keeps no account."""
    return torch.full((0, 0) if maps.flat.is_cuda else maps.flat.shape[:2], -1, dtype=torch.int64)


def _partners(own: Searched, index: Tensor, other: Searched, known: Tensor) -> Tensor:
    """Nearest neighbours in ``other`` of the pixels ``index`` (K, n) of ``own``, -> (K, n).

    Walks meet, so on a CPU every pixel is asked for once only, what was found goes into ``known`` (K, N);
    looking there would make a GPU wait.
    """
    if own.flat.is_cuda:
        return other.nearest(own.at(index))
    for k, pixels in enumerate(index):
        new = pixels[known[k, pixels] < 0].unique()
        if len(new):
            known[k, new] = other[k].nearest(own[k].at(new[None]))[0]
    return known.gather(1, index)


def _tensor(array: Tensor | NDArray[Any]) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))


def _like(example: ArrayLike, result: Tensor) -> ArrayLike:
    return result if isinstance(example, Tensor) else result.numpy()
