"""Which images of a set are compared with which: lists of pairs (i, j) of their numbers.

The graphs of DUSt3R and MASt3R (Wang et al., CVPR 2024; Leroy et al., ECCV 2024; Duisterhof et al., MASt3R-SfM, 3DV
2025, section 3.1). ``complete`` grows with the square of the images, all others linearly.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: Numbers of two images.
Pair = tuple[int, int]


def complete(count: int) -> list[Pair]:
    """Every image with every earlier one."""
    return [(i, j) for i in range(count) for j in range(i)]


def sliding_window(count: int, width: int = 3, cyclic: bool = True) -> list[Pair]:
    """Every image with the next ``width``; a cyclic graph goes on from the last image to the first."""
    return _offsets(count, range(1, width + 1), cyclic)


def log_window(count: int, width: int = 3, cyclic: bool = True) -> list[Pair]:
    """Every image with those 1, 2, 4, ..., 2^(width - 1) further on."""
    return _offsets(count, (2**power for power in range(width)), cyclic)


def one_reference(count: int, reference: int = 0) -> list[Pair]:
    """One image with all others.

    Raises:
        ValueError: if there is no such image.
    """
    if not 0 <= reference < count:
        raise ValueError(f"image {reference} cannot be the reference: there are {count} images")
    return [(reference, j) for j in range(count) if j != reference]


def nearest(similarity: NDArray[np.floating], neighbours: int = 10, key_images: int = 0) -> list[Pair]:
    """Every image with those that look most like it.

    Args:
        similarity: (N, N), the larger the more alike; NaN and negative infinity are never paired.
        neighbours: of each image.
        key_images: this many images that are far from each other (farthest-point sampling from the most typical
            one) are all paired with each other, and each of the others with its nearest key image.

    Returns:
        sorted pairs (i, j), i < j, each once.
    """
    distance = np.where(np.isfinite(similarity), 1.0 - np.asarray(similarity, np.float64), np.inf)
    np.fill_diagonal(distance, np.inf)
    pairs: set[Pair] = set()
    keys = _far_apart(distance, key_images)
    pairs |= {(i, j) for i in keys for j in keys if i < j}
    for i, row in enumerate(distance):
        if keys and i not in keys:
            pairs.add(_sorted(i, min(keys, key=lambda key: float(row[key]))))
        order = np.argsort(row, kind="stable")[:neighbours]
        pairs |= {_sorted(i, int(j)) for j in order if np.isfinite(row[j])}
    return sorted(pairs)


def both_ways(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, and behind them all reversed: networks treat their two views differently."""
    pairs = list(pairs)
    return pairs + [(j, i) for i, j in pairs]


def components(count: int, pairs: Iterable[Pair]) -> list[list[int]]:
    """Images that hang together by pairs, the largest group first; single images are groups too."""
    group = list(range(count))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for i, j in pairs:
        group[max(root(i), root(j))] = min(root(i), root(j))
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(root(i), []).append(i)
    return sorted(members.values(), key=lambda images: (-len(images), images))


def _offsets(count: int, offsets: Iterable[int], cyclic: bool) -> list[Pair]:
    pairs: set[Pair] = set()
    for offset in offsets:
        for i in range(count):
            j = i + offset
            if cyclic or j < count:
                pairs.add(_sorted(i, j % count))
    return sorted((i, j) for i, j in pairs if i != j)


def _sorted(i: int, j: int) -> Pair:
    return (i, j) if i < j else (j, i)


def _far_apart(distance: NDArray[np.float64], count: int) -> list[int]:
    if count <= 0 or not len(distance):
        return []
    finite = np.where(np.isfinite(distance), distance, 2.0)
    chosen = [int(finite.sum(axis=1).argmin())]
    while len(chosen) < min(count, len(distance)):
        gap = finite[:, chosen].min(axis=1)
        gap[chosen] = -np.inf
        chosen.append(int(gap.argmax()))
    return chosen
