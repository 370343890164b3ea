"""The metric scale of a network's points by measured depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MetricScale:
    """What predicted lengths must be multiplied with to become metres, and how sure that is.

    Attributes:
        factor: weighted median of measured over predicted depth.
        spread: half the width of the middle half of these ratios, relative to ``factor``.
        count: pixels it rests on.
    """

    factor: float
    spread: float
    count: int


def metric_scale_from_depth(
    predicted: NDArray[np.floating], measured: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> MetricScale | None:
    """Correct a network's scale by measured depth.

    Args:
        predicted: (H, W) or (N,) depth of predicted points along the optical axis, any unit.
        measured: of the same shape, metres; 0 or NaN is unknown.
        weights: of the same shape, for example the network's confidence.

    Returns:
        None where fewer than ten pixels have both.
    """
    known = np.isfinite(predicted) & np.isfinite(measured) & (predicted > 0) & (measured > 0)
    if known.sum() < 10:
        return None
    ratio = np.asarray(measured[known] / predicted[known], dtype=np.float64)
    w = np.ones(len(ratio)) if weights is None else np.asarray(weights, dtype=np.float64)[known]
    order = np.argsort(ratio)
    cumulative = np.cumsum(w[order]) / w.sum()
    low, middle, high = ratio[order][np.searchsorted(cumulative, [0.25, 0.5, 0.75]).clip(max=len(ratio) - 1)]
    return MetricScale(float(middle), float((high - low) / 2 / middle), int(known.sum()))
