"""Lens distortion of sensor_msgs/CameraInfo: plumb_bob, rational_polynomial, equidistant (REP 104).

Everything here works on image coordinates at z = 1 (pixels with the intrinsics taken off).
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError

Array = NDArray[np.float64]

#: How many coefficients OpenCV accepts for each model.
COEFFICIENTS = {"none": (0,), "plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
#: Names other tools write for the same models; librealsense's are taken as its ROS driver publishes them.
ALIASES = {
    "": "none",
    "radtan": "plumb_bob",
    "brown conrady": "plumb_bob",
    "modified brown conrady": "plumb_bob",
    "inverse brown conrady": "plumb_bob",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala brandt4": "equidistant",
}

#: A forward distortion that misses its target by more than this (at z = 1) did not converge.
CONVERGED = 1e-5
#: Newton's method needs 3 to 6 steps; more mean that there is no solution.
NEWTON_STEPS = 20
#: Rays steeper than this (about 80 degrees off the axis) have no useful pinhole coordinates.
STEEPEST = 6.0
#: Samples of a lens's radius between the axis and STEEPEST, to find where it stops growing.
RADII = 4096


def canonical(model: str, D: Array) -> tuple[str, Array]:
    """Name and coefficients (N,) in one form: all-zero coefficients mean no distortion at all.

    Raises:
        CalibrationError: for a model ROS does not define or a wrong number of coefficients.
    """
    name = ALIASES.get(model.strip().lower(), model.strip().lower())
    if name not in COEFFICIENTS:
        raise CalibrationError(
            f"unknown distortion model '{model}': use plumb_bob, rational_polynomial or equidistant, or rectify first"
        )
    if name == "equidistant":  # a zero fisheye polynomial is still a fisheye
        return name, _four(D)
    if D.size == 0 or not D.any():
        return "none", np.zeros(0)
    if name == "plumb_bob" and D.size in COEFFICIENTS["rational_polynomial"]:
        name = "rational_polynomial"  # a common mislabelling; the coefficient order is the same
    if D.size not in COEFFICIENTS[name]:
        allowed = " or ".join(map(str, COEFFICIENTS[name]))
        raise CalibrationError(f"distortion model {name} needs {allowed} coefficients, got {D.size}")
    return name, D


def _four(D: Array) -> Array:
    """The equidistant model's four coefficients: simulators write none for none, drivers a fifth that is 0."""
    if D.size == 0:
        return np.zeros(4)
    if D.size < 4 or D[4:].any():
        raise CalibrationError(f"distortion model equidistant needs 4 coefficients, got {D.size}")
    return D[:4]


def turned(model: str, D: Array) -> Array:
    """Coefficients of the same lens in an image that is turned by a quarter, counter-clockwise: x becomes y, y is -x.

    What is radial stays; tangential and thin-prism terms are directions, and turn. A tilted sensor does not.
    """
    D = D.copy()
    if model in ("plumb_bob", "rational_polynomial"):
        D[2:4] = -D[3], D[2]
        if D.size >= 12:
            D[8:12] = D[10], D[11], -D[8], -D[9]
    return D


def distort(ideal: Array, model: str, D: Array) -> Array:
    """Ideal coordinates (N, 2) -> where the lens puts them (N, 2).

    NaN stays NaN, and is what a ray becomes that lies beyond :func:`widest`: no lens sees it there.
    """
    if model == "none" or len(ideal) == 0:
        return ideal
    limit = widest(model, tuple(D.tolist()))
    with np.errstate(invalid="ignore"):
        beyond = np.einsum("ij,ij->i", ideal, ideal) > limit * limit
    bent = _distorted(ideal, model, D)
    return np.where(beyond[:, None], np.nan, bent) if beyond.any() else bent


@lru_cache(maxsize=256)
def widest(model: str, D: tuple[float, ...]) -> float:
    """Radius at z = 1 up to which the lens moves rays outwards that lie further out; infinite without distortion.

    Polynomials are fitted to the calibrated field of view. Beyond it they may turn back, and would put what is far
    beside the camera into the middle of its image.
    """
    if model == "none":
        return math.inf
    radius = np.linspace(0, STEEPEST, RADII + 1)
    if model == "equidistant":
        theta = np.arctan(radius)
        t2 = theta**2
        bent = theta * (1 + t2 * (D[0] + t2 * (D[1] + t2 * (D[2] + t2 * D[3]))))
    else:
        k1, k2, _, _, k3, k4, k5, k6 = (*D, 0.0, 0.0, 0.0, 0.0)[:8]
        r2 = radius**2
        below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        # Where a denominator passes through zero the formula has a pole: no radius beyond is valid.
        below = np.where(np.minimum.accumulate(below) > 0, below, np.nan)
        bent = radius * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / below
    folds = np.flatnonzero(~(np.diff(bent) > 0))
    return float(radius[folds[0]]) if len(folds) else math.inf


def _distorted(ideal: Array, model: str, D: Array) -> Array:
    """What the model's formula says, wherever it is asked."""
    tilted = D.size == 14 and bool(D[12:].any())
    if model != "equidistant" and not tilted:
        return _bend(ideal, D)
    ok = np.isfinite(ideal).all(axis=1)
    bent = np.full_like(ideal, np.nan)
    if not ok.any():
        return bent
    eye = np.eye(3)
    if model == "equidistant":
        bent[ok] = cv2.fisheye.distortPoints(ideal[ok][:, None], eye, D)[:, 0]
    else:
        rays = np.concatenate([ideal[ok], np.ones((int(ok.sum()), 1))], axis=1)
        bent[ok] = cv2.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), eye, D)[0][:, 0]
    return bent


def _bend(ideal: Array, D: Array) -> Array:
    """Radial, tangential and thin-prism terms; ten times faster than OpenCV, which always derives them too."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.pad(D[:12], (0, 12 - len(D[:12])))
    x, y = ideal.T
    xx, xy, yy = x * x, x * y, y * y
    r2 = xx + yy
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if k4 or k5 or k6:
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    u = x * radial + 2 * p1 * xy + p2 * (r2 + 2 * xx) + r2 * (s1 + r2 * s2)
    v = y * radial + p1 * (r2 + 2 * yy) + 2 * p2 * xy + r2 * (s3 + r2 * s4)
    return np.stack([u, v], axis=-1)


def undistort(bent: Array, model: str, D: Array) -> Array:
    """Inverse of :func:`distort`, (N, 2) at z = 1; NaN where the inverse does not exist or did not converge.

    Polynomial models fold back outside their calibrated field of view. A pixel out there has no
    ray, so the result is checked by distorting it again instead of being believed.
    """
    if model == "none" or len(bent) == 0:
        return bent
    ideal = np.full_like(bent, np.nan)
    ok = np.isfinite(bent).all(axis=1)
    if not ok.any():
        return ideal
    if model == "equidistant":
        ideal[ok] = _straighten_fisheye(bent[ok], D)
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        ideal[ok] = cv2.undistortPointsIter(bent[ok][:, None], np.eye(3), D, None, None, criteria)[:, 0]
    steep = np.linalg.norm(ideal, axis=1) > STEEPEST
    ideal[steep] = np.nan
    error = np.linalg.norm(distort(ideal, model, D) - bent, axis=1)
    ideal[~(error < CONVERGED)] = np.nan
    return ideal


def _straighten_fisheye(bent: Array, D: Array) -> Array:
    """Inverse of the equidistant model by Newton's method; NaN where no angle below 90 degrees is found.

    OpenCV takes a number of iterations only from 4.6 on; earlier versions have not converged at the image's border.
    """
    bent_angle = np.linalg.norm(bent, axis=1)
    angle = np.minimum(bent_angle, np.pi / 2)
    k1, k2, k3, k4 = D
    with np.errstate(all="ignore"):  # a polynomial that folds back leads anywhere: what did not converge is NaN
        for _ in range(NEWTON_STEPS):
            a2 = angle * angle
            value = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4)))) - bent_angle
            slope = 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))
            step = value / slope
            angle = angle - step
            if not (np.abs(step) > 1e-12).any():
                break
        angle = np.where((angle >= 0) & (angle < np.pi / 2), angle, np.nan)
        scale = np.where(bent_angle > 1e-12, np.tan(angle) / bent_angle, 1.0)
    ideal: NDArray[np.float64] = bent * scale[:, None]
    return ideal
