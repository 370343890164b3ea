"""How good relative poses of image pairs are, where the translation's length may be unknown.

Errors are degrees. NaN and infinity say that a pair was not answered and count as failures everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

#: Degrees that pose AUC is reported at.
AUC_THRESHOLDS = (5.0, 10.0, 20.0)
#: Degrees that RRA and RTA are reported at.
ACCURACY_THRESHOLDS = (5.0, 15.0, 30.0)


def rotation_angle(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """Angle between rotations (..., 3, 3), degrees 0 to 180; NaN where one holds NaN."""
    between = np.swapaxes(np.asarray(estimate, dtype=np.float64), -1, -2) @ np.asarray(truth, dtype=np.float64)
    known = np.isfinite(between).all(axis=(-1, -2))
    angles = np.full(known.shape, np.nan)
    if known.any():
        angles[known] = np.degrees(Rotation.from_matrix(between[known]).magnitude())
    return angles


def direction_angle(estimate: ArrayLike, truth: ArrayLike, signed: bool = True) -> Array:
    """Angle between translations (..., 3), degrees; NaN where one has no direction.

    Args:
        signed: False takes opposite directions for the same, min(a, 180 - a): an essential matrix cannot tell them
            apart without points in front of both cameras, and published figures are often given this way (say which
            in every report).
    """
    a, b = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = a / np.linalg.norm(a, axis=-1, keepdims=True)
        b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    # Kahan's form: exact for small angles, where the arc cosine loses half of the digits.
    angle = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))
    return angle if signed else np.minimum(angle, 180 - angle)


def accuracy_at(errors_deg: ArrayLike, thresholds: Sequence[float] = ACCURACY_THRESHOLDS) -> dict[str, float]:
    """Share of pairs whose error is below each threshold, by its name in degrees; NaN without pairs.

    RRA@t of rotation angles and RTA@t of direction angles, as in Wang, Rupprecht and Novotny, "PoseDiffusion",
    ICCV 2023, section 4.
    """
    errors = np.asarray(errors_deg, dtype=np.float64).reshape(-1)
    return {f"{t:g}": float(np.mean(errors < t)) if errors.size else float("nan") for t in thresholds}


def mean_average_accuracy(rotation_deg: ArrayLike, direction_deg: ArrayLike, up_to: int = 30) -> float:
    """mAA(30): mean over t = 1, 2 .. 30 degrees of the share of pairs with both errors below t; NaN without pairs.

    Jin et al., "Image Matching across Wide Baselines", IJCV 2021, section 4, with PoseDiffusion's thresholds.
    """
    return float(np.mean(list(accuracy_at(pose_errors(rotation_deg, direction_deg), range(1, up_to + 1)).values())))


def pose_auc(errors_deg: ArrayLike, thresholds: Sequence[float] = AUC_THRESHOLDS) -> dict[str, float]:
    """Area under the share of pairs against their error, up to each threshold; 0 to 1, NaN without pairs.

    The exact area of Sarlin et al., "SuperGlue", CVPR 2020, section 5.2: the curve goes in straight lines through
    (0, 0) and (k-th smallest error, k / N), and stays level from the last error below the threshold on.

    Args:
        errors_deg: of each pair max(rotation angle, direction angle); see :func:`pose_errors`. Any other unit will
            do, e.g. metres with thresholds in metres.
    """
    errors = np.sort(np.nan_to_num(np.asarray(errors_deg, dtype=np.float64).reshape(-1), nan=np.inf))
    if not errors.size:
        return {f"{t:g}": float("nan") for t in thresholds}
    errors, share = np.append(0.0, errors), np.linspace(0, 1, errors.size + 1)
    areas = {}
    for t in thresholds:
        below = max(int(np.searchsorted(errors, t)), 1)
        x, y = np.append(errors[:below], t), np.append(share[:below], share[below - 1])
        areas[f"{t:g}"] = float(np.diff(x) @ (y[1:] + y[:-1]) / 2 / t)
    return areas


def pose_errors(rotation_deg: ArrayLike, direction_deg: ArrayLike) -> Array:
    """The larger of the two errors of each pair, degrees; infinite where one is unknown."""
    worse = np.maximum(np.asarray(rotation_deg, dtype=np.float64), np.asarray(direction_deg, dtype=np.float64))
    return np.where(np.isfinite(worse), worse, np.inf)
