"""Scale and similarity between two sets of corresponding points, and the metric scale of a network's points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def fit_similarity(
    source: NDArray[np.floating], target: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> tuple[float, Array, Array]:
    """Weighted least-squares similarity (Umeyama, PAMI 1991).

    Args:
        source, target: (..., 3) corresponding points.
        weights: (...) of each pair.

    Returns:
        s, R (3, 3), t (3,) with ``target ~ s * R @ source + t``.
    """
    x = np.asarray(source, dtype=np.float64).reshape(-1, 3)
    y = np.asarray(target, dtype=np.float64).reshape(-1, 3)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    w = w / w.sum()
    mean_x, mean_y = w @ x, w @ y
    x, y = x - mean_x, y - mean_y
    U, S, Vt = np.linalg.svd((y * w[:, None]).T @ x)
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ np.diag(mirror) @ Vt
    s = float((S * mirror).sum() / (w @ (x * x).sum(axis=1)))
    return s, R, np.asarray(mean_y - s * R @ mean_x)


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
