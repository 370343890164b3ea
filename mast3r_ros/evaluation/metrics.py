"""How good poses are: errors, recall, medians with intervals, and whether covariances keep their promise.

Pure functions on numbers. Queries without an accepted pose have NaN errors and count as misses in recall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

Array = NDArray[np.float64]

#: (metres, degrees) that recall is reported at.
THRESHOLDS: tuple[tuple[float, float], ...] = ((0.05, 5.0), (0.10, 5.0), (0.25, 10.0))
#: An accepted pose further off than this is wrong: metres, degrees.
WRONG_M, WRONG_DEG = 0.25, 10.0


def threshold_name(metres: float, degrees: float) -> str:
    """Key of a recall figure: (0.1, 5) -> ``0.10m_5deg``."""
    return f"{metres:.2f}m_{degrees:g}deg"


def recall(
    metres: ArrayLike, degrees: ArrayLike, queries: int, thresholds: Sequence[tuple[float, float]] = THRESHOLDS
) -> dict[str, float]:
    """Share of all queries whose pose is within both limits (Shotton et al., CVPR 2013, section 5.1).

    Args:
        metres, degrees: errors of the accepted poses, in the same order.
        queries: number of all queries, rejected ones included; what was not answered is missed.
    """
    metres, degrees = np.asarray(metres, dtype=np.float64), np.asarray(degrees, dtype=np.float64)
    return {
        threshold_name(m, d): float(np.sum((metres <= m) & (degrees <= d)) / queries) if queries else float("nan")
        for m, d in thresholds
    }


def is_wrong(metres: ArrayLike, degrees: ArrayLike) -> NDArray[np.bool_]:
    """Which poses are off by more than 25 cm or 10 degrees; an unknown error is not called wrong."""
    return (np.asarray(metres, dtype=np.float64) > WRONG_M) | (np.asarray(degrees, dtype=np.float64) > WRONG_DEG)


def median(values: ArrayLike) -> float:
    """Median of the finite values; NaN where there are none."""
    values = finite(values)
    return float(np.median(values)) if values.size else float("nan")


def percentiles(values: ArrayLike, ranks: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """``{"p50": ..}`` of the finite values by linear interpolation; NaN where there are none."""
    values = finite(values)
    return {f"p{rank:g}": float(np.percentile(values, rank)) if values.size else float("nan") for rank in ranks}


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[Array], float] = median,
    confidence: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (Efron, Annals of Statistics 7, 1979).

    Queries of one recording are not independent, so the true interval is wider.

    Returns:
        lower and upper bound; NaN for fewer than two finite values.
    """
    values = finite(values)
    if values.size < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, values.size, values.size)]) for _ in range(rounds)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def normalised_error(estimate: Array, truth: Array, covariance: Array) -> float:
    """Squared Mahalanobis distance of a pose (4, 4) from the truth under its covariance (6, 6).

    ``e^T C^-1 e`` with e = (translation difference, rotation vector of R_estimate R_truth^T), both in fixed map
    axes: the normalised estimation error squared of Bar-Shalom, Li and Kirubarajan, "Estimation with Applications
    to Tracking and Navigation", 2001, section 5.4. Chi-square with 6 degrees of freedom where C is right.
    """
    turn = Rotation.from_matrix(estimate[:3, :3] @ truth[:3, :3].T).as_rotvec()
    error = np.concatenate([estimate[:3, 3] - truth[:3, 3], turn])
    return float(error @ np.linalg.solve(covariance, error))


def coverage(normalised_errors: ArrayLike, confidence: float) -> float:
    """Share of poses whose truth lies inside the ellipsoid that claims to hold it with this confidence."""
    values = finite(normalised_errors)
    return float(np.mean(values <= chi2.ppf(confidence, df=6))) if values.size else float("nan")


def finite(values: ArrayLike) -> Array:
    """The finite ones among the values, flat."""
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    return values[np.isfinite(values)]
