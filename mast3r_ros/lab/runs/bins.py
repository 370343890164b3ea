"""Things sorted into bins by a value, for breakdowns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def binned(
    items: Sequence[T], values: Sequence[float], edges: Sequence[float]
) -> Iterator[tuple[float, float, list[T]]]:
    """Lower edge, upper edge and contents of each bin that holds something.

    An edge belongs to the bin that it closes. What lies outside is in the outermost bins, NaN in none.
    """
    number = np.clip(np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="left"), 1, len(edges) - 1)
    for k in range(1, len(edges)):
        inside = [i for i, n, v in zip(items, number, values, strict=True) if n == k and not math.isnan(v)]
        if inside:
            yield edges[k - 1], edges[k], inside
