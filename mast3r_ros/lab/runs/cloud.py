"""A reconstructed cloud against a true one, as DTU's multi-view benchmark does it (Aanaes et al., IJCV 2016).

Of the reconstruction only what lies in the observed volume counts, of the truth only what stands on the table; the
nearest neighbours of both are looked for among all points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from mast3r_ros.errors import DatasetError
from mast3r_ros.lab import metrics
from mast3r_ros.lab.metrics.clouds import CloudDistances, cloud_distances, cloud_figures

Array = NDArray[np.float64]

#: Intervals come from drawing blocks of space, this many along the longest side: neighbouring points err alike.
BLOCKS = 12


@dataclass(frozen=True, eq=False)
class ObservedVolume:
    """Where a reconstruction is judged.

    Attributes:
        mask: (X, Y, Z) bool voxels.
        low: (3,) centre of the first voxel.
        voxel: side of a voxel, in the clouds' unit.
    """

    mask: NDArray[np.bool_]
    low: Array
    voxel: float

    @classmethod
    def read(cls, path: Path) -> ObservedVolume:
        """DTU's ``ObsMask<scan>_10.mat`` (ObsMask, BB, Res). Raises DatasetError."""
        content = _matlab(path, ("ObsMask", "BB", "Res"))
        mask, box = np.asarray(content["ObsMask"]), np.asarray(content["BB"], dtype=np.float64)
        if mask.ndim != 3 or box.shape != (2, 3):
            raise DatasetError(f"{path}: expected ObsMask with three axes and BB (2, 3), got {mask.shape}, {box.shape}")
        return cls(mask > 0, box[0], float(np.asarray(content["Res"]).ravel()[0]))

    def holds(self, points: Array) -> NDArray[np.bool_]:
        """Which points (N, 3) lie in it."""
        index = np.rint((points - self.low) / self.voxel).astype(int)
        inside = np.all((index >= 0) & (index < np.array(self.mask.shape)), axis=1)
        inside[inside] = self.mask[tuple(index[inside].T)]
        return inside


def read_plane(path: Path) -> Array:
    """DTU's ``Plane<scan>.mat``: (4,) with a x + b y + c z + d > 0 above the table. Raises DatasetError."""
    plane = np.asarray(_matlab(path, ("P",))["P"], dtype=np.float64).ravel()
    if plane.size != 4:
        raise DatasetError(f"{path}: expected P with 4 numbers, got {plane.size}")
    return plane


def thinned(points: Array, spacing: float) -> Array:
    """The first point (N, 3) of every cube of this side: dense regions do not count more than others."""
    _, first = np.unique(np.floor(points / spacing).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def compare_clouds(
    estimate: Array,
    truth: Array,
    *,
    max_distance: float = math.inf,
    observed: ObservedVolume | None = None,
    plane: Array | None = None,
) -> tuple[CloudDistances, Array, Array]:
    """Distances of the points that count, and these points (N, 3) of the estimate and (M, 3) of the truth.

    Args:
        estimate, truth: (N', 3), (M', 3) finite points in one frame and unit.
        max_distance: points further away are left out of means, and missed in precision and recall.
        observed: where the estimate is judged; None judges all of it.
        plane: (4,) what of the truth is asked for, see :func:`read_plane`; None asks for all of it.
    """
    distances = cloud_distances(estimate, truth, max_distance)
    judged = np.ones(len(estimate), dtype=bool) if observed is None else observed.holds(estimate)
    asked = np.ones(len(truth), dtype=bool) if plane is None else truth @ plane[:3] + plane[3] > 0
    kept = CloudDistances(distances.to_truth[judged], distances.to_estimate[asked])
    return kept, estimate[judged], truth[asked]


def cloud_summary(
    distances: CloudDistances, estimate: Array, truth: Array, threshold: float | None = None
) -> dict[str, Any]:
    """The figures of `evaluate cloud --json` in the clouds' unit; intervals hold 95 %, drawn by blocks of space.

    Args:
        distances, estimate, truth: see :func:`compare_clouds`.
        threshold: distance of precision, recall and F-score; None leaves these out.
    """
    figures = cloud_figures(distances, threshold)
    left_out = distances.left_out
    return {
        "evaluation": "cloud",
        "points": len(estimate),
        "true_points": len(truth),
        **figures,
        **{f"{name}_interval": bounds for name, bounds in _intervals(distances, estimate, truth, threshold).items()},
        "threshold": threshold,
        "left_out": left_out[0],
        "true_left_out": left_out[1],
    }


def _intervals(
    distances: CloudDistances, estimate: Array, truth: Array, threshold: float | None
) -> dict[str, metrics.Interval]:
    """Of everything that follows from sums over blocks: means and shares, no medians."""
    if not len(estimate) or not len(truth):
        return {}
    both = np.concatenate([estimate, truth])
    low = both.min(axis=0)
    side = max(float((both.max(axis=0) - low).max()) / BLOCKS, 1e-12)
    _, block = np.unique(np.floor((both - low) / side).astype(int), axis=0, return_inverse=True)
    columns = []
    for values, blocks in (
        (distances.to_truth, block[: len(estimate)]),
        (distances.to_estimate, block[len(estimate) :]),
    ):
        known = np.isfinite(values)
        near = np.zeros(len(values)) if threshold is None else values < threshold
        weights = (np.where(known, values, 0.0), known.astype(float), near.astype(float), np.ones(len(values)))
        columns += [np.bincount(blocks.ravel(), weight, block.max() + 1) for weight in weights]
    return metrics.intervals(lambda *sums: _of_sums(sums, threshold), *columns, rounds=400)


def _of_sums(sums: tuple[Array, ...], threshold: float | None) -> Mapping[str, float]:
    distance, known, near, count, true_distance, true_known, true_near, true_count = (float(s.sum()) for s in sums)
    accuracy = distance / known if known else math.nan
    completeness = true_distance / true_known if true_known else math.nan
    figures = {"accuracy": accuracy, "completeness": completeness, "chamfer": (accuracy + completeness) / 2}
    if threshold is not None and count and true_count:
        precision, recall = near / count, true_near / true_count
        both = precision + recall
        figures |= {"precision": precision, "recall": recall, "f_score": 2 * precision * recall / both if both else 0.0}
    return figures


def _matlab(path: Path, names: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        content = loadmat(path, variable_names=names)
    except Exception as error:  # SciPy's versions answer a file that is none with whatever they stumble on
        raise DatasetError(f"{path} is no readable MATLAB file with {', '.join(names)} ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DatasetError(f"{path}: expected the variables {', '.join(names)}; it lacks {', '.join(missing)}")
    return content
