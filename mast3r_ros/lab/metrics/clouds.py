"""How well a reconstructed cloud covers a true one: accuracy, completeness, Chamfer distance, F-score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.lab.metrics.statistics import mean, median

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CloudDistances:
    """Distances between two clouds, in their unit.

    Attributes:
        to_truth: (N,) from every reconstructed point to the nearest true one; infinite beyond ``max_distance``.
        to_estimate: (M,) from every true point to the nearest reconstructed one.
    """

    to_truth: Array
    to_estimate: Array

    @property
    def accuracy(self) -> float:
        """Mean distance of the reconstruction from the truth (Seitz et al., CVPR 2006, section 5)."""
        return mean(self.to_truth)

    @property
    def completeness(self) -> float:
        """Mean distance of the truth from the reconstruction."""
        return mean(self.to_estimate)

    @property
    def median_accuracy(self) -> float:
        """Median distance of the reconstruction from the truth."""
        return median(self.to_truth)

    @property
    def median_completeness(self) -> float:
        """Median distance of the truth from the reconstruction."""
        return median(self.to_estimate)

    @property
    def chamfer(self) -> float:
        """Mean of accuracy and completeness ("overall" of DTU; others publish the sum, or squared distances)."""
        return (self.accuracy + self.completeness) / 2

    @property
    def left_out(self) -> tuple[float, float]:
        """Share of the reconstruction, and of the truth, that is further away than ``max_distance``."""
        return 1 - _share(np.isfinite(self.to_truth)), 1 - _share(np.isfinite(self.to_estimate))

    def precision(self, threshold: float) -> float:
        """Share of the reconstruction within a distance of the truth (Knapitsch et al., ToG 2017, section 3)."""
        return _share(self.to_truth < threshold)

    def recall(self, threshold: float) -> float:
        """Share of the truth within a distance of the reconstruction."""
        return _share(self.to_estimate < threshold)

    def f_score(self, threshold: float) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        precision, recall = self.precision(threshold), self.recall(threshold)
        return 2 * precision * recall / (precision + recall) if precision + recall != 0 else 0.0


def cloud_distances(
    estimate: NDArray[np.floating], truth: NDArray[np.floating], max_distance: float = np.inf
) -> CloudDistances:
    """Nearest-neighbour distances both ways.

    Args:
        estimate, truth: (N, 3), (M, 3) points in one frame; those with NaN are left out.
        max_distance: points further away count as infinitely far: the means leave them out, as DTU's protocol does
            (Aanaes et al., IJCV 2016, section 4), and precision and recall count them as missed.

    Returns:
        all distances infinite where the other cloud is empty.
    """
    estimate, truth = _points(estimate), _points(truth)
    return CloudDistances(_nearest(estimate, truth, max_distance), _nearest(truth, estimate, max_distance))


def cloud_figures(distances: CloudDistances, threshold: float | None = None) -> dict[str, float]:
    """The figures by name, for reports; those of a threshold where there is one."""
    figures = {
        "accuracy": distances.accuracy,
        "completeness": distances.completeness,
        "chamfer": distances.chamfer,
        "median_accuracy": distances.median_accuracy,
        "median_completeness": distances.median_completeness,
    }
    if threshold is not None:
        figures |= {
            "precision": distances.precision(threshold),
            "recall": distances.recall(threshold),
            "f_score": distances.f_score(threshold),
        }
    return figures


def _nearest(points: Array, others: Array, max_distance: float) -> Array:
    if not len(others):
        return np.full(len(points), np.inf)
    # The tree only returns neighbours that are strictly nearer than the bound.
    distances, _ = cKDTree(others).query(points, distance_upper_bound=np.nextafter(max_distance, np.inf))
    return np.asarray(distances, dtype=np.float64).reshape(-1)


def _points(cloud: NDArray[np.floating]) -> Array:
    points = np.asarray(cloud, dtype=np.float64).reshape(-1, 3)
    return points[np.isfinite(points).all(axis=1)]


def _share(inside: NDArray[np.bool_]) -> float:
    return float(np.mean(inside)) if inside.size else float("nan")
