"""Few of many matches: the most trusted ones of every part of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Columns and rows that a picture is cut into.
COLUMNS, ROWS = 8, 6
#: What a weight is rounded to, a share of the largest, and more rows than any picture has pixels.
TRUST_STEPS, MOST_ROWS = 2**20 - 1, 2**28


def well_spread(ideal: Array, weights: Array, count: int) -> NDArray[np.int64]:
    """Rows of at most ``count`` matches: the most trusted of every part of what was seen, then the second of each, ...

    Args:
        ideal: (N, 2) image coordinates at z = 1, however wide the lens.
        weights: (N,) relative trust in (0, 1].
    """
    if len(ideal) <= count:
        return np.argsort(-weights, kind="stable")
    x, y = ideal.T / np.sqrt(1 + ideal[:, 0] ** 2 + ideal[:, 1] ** 2)
    return best_of_each(_part(x, COLUMNS) + COLUMNS * _part(y, ROWS), weights, count)


def _part(values: Array, count: int) -> NDArray[np.int64]:
    """Which of so many equal parts of their range values (N,) lie in."""
    low, high = values.min(), values.max()
    part: NDArray[np.int64] = ((values - low) * (count / max(high - low, 1e-12))).astype(np.int64)
    return np.minimum(part, count - 1)


def best_of_each(part: NDArray[np.int64], weights: Array, count: int) -> NDArray[np.int64]:
    """Rows of at most ``count``: the most trusted of every part in turn, then the second of each, and so on.

    Args:
        part: (N,) number of the part that each belongs to, from 0.
        weights: (N,) relative trust, positive.
    """
    # One whole number says part, distrust and row, in this order of weight: no comparison of pairs, and no ties.
    distrust = (TRUST_STEPS * (1 - weights / max(float(weights.max(initial=0.0)), 1e-300))).astype(np.int64)
    order = (part.astype(np.int64) * (TRUST_STEPS + 1) + distrust) * MOST_ROWS + np.arange(len(part))
    order.sort()
    order %= MOST_ROWS
    sizes = np.bincount(part)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Sixteen bits are sorted without any comparison.
    return order[np.argsort(np.minimum(rank, 65535).astype(np.uint16), kind="stable")[:count]]
