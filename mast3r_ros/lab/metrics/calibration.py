"""Whether covariances keep their promise: normalised errors, and how often ellipsoids hold the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from mast3r_ros.geometry import se3
from mast3r_ros.lab.metrics.intervals import Interval, share_interval
from mast3r_ros.lab.metrics.statistics import finite

Array = NDArray[np.float64]

#: Directions a pose can err in: three of position, three of rotation.
POSE_FREEDOM = 6
#: Ellipsoids that calibration is reported for.
ELLIPSOIDS = (0.5, 0.9, 0.99)


def normalised_error(estimate: Array, truth: Array, covariance: Array) -> float:
    """Squared Mahalanobis distance of a pose (4, 4) from the truth under its covariance (6, 6).

    ``e^T C^-1 e`` with e = (translation difference, rotation vector of R_estimate R_truth^T), both in fixed map
    axes: the normalised estimation error squared of Bar-Shalom, Li and Kirubarajan, "Estimation with Applications
    to Tracking and Navigation", 2001, section 5.4. Chi-square with 6 degrees of freedom where C is right.
    """
    error = se3.difference(estimate, truth)
    return float(error @ np.linalg.solve(covariance, error))


def coverage(normalised_errors: ArrayLike, confidence: float) -> float:
    """Share of poses whose truth lies inside the ellipsoid that claims to hold it with this confidence."""
    values = finite(normalised_errors)
    return float(np.mean(values <= chi2.ppf(confidence, df=POSE_FREEDOM))) if values.size else float("nan")


def calibration(normalised_errors: ArrayLike, ellipsoids: Sequence[float] = ELLIPSOIDS) -> dict[str, float]:
    """:func:`coverage` of several ellipsoids: ``{"0.50": .., "0.90": .., "0.99": ..}``."""
    return {f"{share:.2f}": coverage(normalised_errors, share) for share in ellipsoids}


def calibration_intervals(
    normalised_errors: ArrayLike, ellipsoids: Sequence[float] = ELLIPSOIDS, confidence: float = 0.95
) -> dict[str, Interval]:
    """Clopper-Pearson intervals of :func:`calibration`; too narrow where errors of neighbouring frames are alike."""
    values = finite(normalised_errors)
    return {
        f"{share:.2f}": share_interval(int(np.sum(values <= chi2.ppf(share, df=POSE_FREEDOM))), values.size, confidence)
        for share in ellipsoids
    }


@dataclass(frozen=True)
class CovarianceConsistency:
    """Mean normalised error squared of a run, and where it lies if the covariances are right.

    Attributes:
        nees: the mean; 6 where the covariances are right, more where they promise too much.
        low, high: bounds that right covariances keep with the chosen confidence.
        poses: how many it rests on.
    """

    nees: float
    low: float
    high: float
    poses: int

    @property
    def consistent(self) -> bool:
        """Whether the mean lies within its bounds."""
        return self.low <= self.nees <= self.high


def consistency(normalised_errors: ArrayLike, confidence: float = 0.95) -> CovarianceConsistency:
    """The NEES test (Bar-Shalom et al. 2001, section 5.4.2): N times the mean is chi-square with 6 N degrees.

    Args:
        normalised_errors: of :func:`normalised_error`; NaN is left out.
    """
    values = finite(normalised_errors)
    if not values.size:
        return CovarianceConsistency(float("nan"), float("nan"), float("nan"), 0)
    tail = (1 - confidence) / 2
    low, high = chi2.ppf([tail, 1 - tail], df=POSE_FREEDOM * values.size) / values.size
    return CovarianceConsistency(float(values.mean()), float(low), float(high), values.size)
