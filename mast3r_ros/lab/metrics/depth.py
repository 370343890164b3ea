"""How good predicted depth is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Powers k of the ratio 1.25 that delta is reported for.
DELTA_POWERS = (1, 2, 3)


def median_scale(predicted: ArrayLike, truth: ArrayLike) -> float:
    """The factor that brings the median of a prediction to that of the truth; NaN where no pixel has both.

    For networks without a metric scale (Zhou et al., CVPR 2017, section 4.1): figures after it say nothing of scale.
    """
    predicted, truth = _both_known(predicted, truth)
    return float(np.median(truth) / np.median(predicted)) if truth.size else float("nan")


def abs_rel(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean of ``|d - d*| / d*`` over pixels where both are known (Eigen et al., NIPS 2014, section 4)."""
    predicted, truth = _both_known(predicted, truth)
    return float(np.mean(np.abs(predicted - truth) / truth)) if truth.size else float("nan")


def delta(predicted: ArrayLike, truth: ArrayLike, powers: Sequence[int] = DELTA_POWERS) -> dict[str, float]:
    """Share of pixels with ``max(d / d*, d* / d) < 1.25^k``, by ``"1.25^k"`` (Eigen et al., NIPS 2014, section 4).

    Ratios of anything positive will do, e.g. of the lengths of translations.
    """
    predicted, truth = _both_known(predicted, truth)
    ratio = np.maximum(predicted / truth, truth / predicted)
    return {f"1.25^{k}": float(np.mean(ratio < 1.25**k)) if ratio.size else float("nan") for k in powers}


def depth_figures(predicted: ArrayLike, truth: ArrayLike, *, scaled: bool = False) -> dict[str, float]:
    """AbsRel, the deltas, and how many of the true pixels they rest on.

    Args:
        predicted, truth: (...) depth along the optical axis; 0, NaN and infinity are unknown.
        scaled: multiply the prediction with :func:`median_scale` first.

    Returns:
        ``abs_rel``, ``delta_1.25^k``, ``predicted`` (share of the pixels with a true depth that also have a
        predicted one: a prediction may not hide its worst pixels) and, where ``scaled``, the factor as ``scale``.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    figures = {}
    if scaled:
        figures["scale"] = median_scale(predicted, truth)
        predicted = predicted * figures["scale"]
    true_pixels = int(_known(truth).sum())
    return {
        "abs_rel": abs_rel(predicted, truth),
        **{f"delta_{name}": share for name, share in delta(predicted, truth).items()},
        "predicted": _both_known(predicted, truth)[1].size / true_pixels if true_pixels else float("nan"),
        **figures,
    }


def _both_known(predicted: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = _known(predicted) & _known(truth)
    return predicted[known], truth[known]


def _known(depth: Array) -> NDArray[np.bool_]:
    return np.isfinite(depth) & (depth > 0)
