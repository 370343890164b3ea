"""What a pose error does to the picture: virtual correspondence reprojection error, and precision by confidence.

The metrics of the Map-free benchmark (Arnold et al., "Map-free Visual Relocalization: Metric Pose Relative to a Single
Image", ECCV 2022, section 5), as its evaluation computes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]


def virtual_points() -> Array:
    """(196, 3) points in front of a camera: 7 wide, 4 high, 7 deep, 30 cm apart, from 1.8 m on."""
    x, y, z = np.meshgrid((np.arange(7) - 3) * 0.3, (np.arange(4) - 1.5) * 0.3, 1.8 + 0.3 * np.arange(7), indexing="ij")
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def vcre(estimate: Array, truth: Array, K: Array, width: int, height: int) -> float:
    """Virtual correspondence reprojection error of a pose, pixels.

    The mean distance in the query's image between :func:`virtual_points` in front of the true camera and where
    the estimated camera would see them. Pixels are clamped to the image, so that a lost pose costs at most its
    diagonal; points behind the estimated camera are projected through it, as the benchmark does.

    Args:
        estimate, truth: (4, 4) world_T_camera of the query.
        K: (3, 3) intrinsics.
        width, height: the image, pixels.
    """
    points = virtual_points()
    moved = se3.apply(se3.inverse(estimate) @ truth, points)
    between = _clamped(points, K, width, height) - _clamped(moved, K, width, height)
    return float(np.linalg.norm(between, axis=1).mean())


def centre_distance(estimate: Array, truth: Array) -> float:
    """Distance of two camera centres, metres; of (4, 4) world_T_camera."""
    return float(np.linalg.norm(estimate[:3, 3] - truth[:3, 3]))


def turn(estimate_xyzw: ArrayLike, truth_xyzw: ArrayLike) -> float:
    """Angle between two rotations given as quaternions of any norm, degrees 0 to 180.

    ``2 asin |vec(q1 q2^-1)|``: exact for small angles, which a rotation matrix holds to 1e-6 degrees only. Where the
    benchmark's sine is rounded to more than 1 it has no angle; here such a turn has 180 degrees.
    """
    between = Rotation.from_quat(np.asarray(estimate_xyzw)) * Rotation.from_quat(np.asarray(truth_xyzw)).inv()
    return float(np.degrees(between.magnitude()))


def precision_by_confidence(confidence: ArrayLike, accepted: ArrayLike, failures: int = 0) -> tuple[Array, Array]:
    """Precision of the estimates against the share of all queries that has one, most confident first.

    At every distinct confidence c: ``precision = accepted estimates with confidence >= c / estimates with it`` and
    ``recall = estimates with it / (all estimates + failures)``; then the point (recall 0, precision 1).

    Args:
        confidence: (N,) of the estimates; equal ones are let in together.
        accepted: (N,) whether each is good enough.
        failures: queries without an estimate.

    Returns:
        precision and recall, recall falling.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, accepted = confidence[order], np.asarray(accepted, dtype=bool)[order]
    last_of_equals = np.append(confidence[1:] != confidence[:-1], True)[: confidence.size]
    count = np.arange(1, confidence.size + 1)[last_of_equals]
    precision = np.cumsum(accepted)[last_of_equals] / count
    recall = count / (confidence.size + failures)
    return np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0)


def average_precision(confidence: ArrayLike, accepted: ArrayLike, failures: int = 0) -> float:
    """The benchmark's AUC: area in steps under :func:`precision_by_confidence`; 0 without an estimate."""
    precision, recall = precision_by_confidence(confidence, accepted, failures)
    return float(-np.diff(recall) @ precision[:-1])


def _clamped(points: Array, K: Array, width: int, height: int) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = points @ K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
    return np.clip(pixels, 0, [width, height])
