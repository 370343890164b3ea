"""Medians, percentiles and means of what was measured; what was not measured is NaN and left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def finite(values: ArrayLike) -> Array:
    """The finite ones among the values, flat."""
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    return values[np.isfinite(values)]


def median(values: ArrayLike) -> float:
    """Median of the finite values; NaN where there are none."""
    values = finite(values)
    return float(np.median(values)) if values.size else float("nan")


def mean(values: ArrayLike) -> float:
    """Mean of the finite values; NaN where there are none."""
    values = finite(values)
    return float(np.mean(values)) if values.size else float("nan")


def rmse(errors: ArrayLike) -> float:
    """Root of the mean square of the finite errors; NaN where there are none."""
    return float(np.sqrt(mean(np.square(np.asarray(errors, dtype=np.float64)))))


def percentiles(values: ArrayLike, ranks: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """``{"p50": ..}`` of the finite values by linear interpolation; NaN where there are none."""
    values = finite(values)
    return {f"p{rank:g}": float(np.percentile(values, rank)) if values.size else float("nan") for rank in ranks}
