"""Rigid motions as (4, 4) matrices. ``a_T_b`` maps coordinates of frame b into frame a.

Twists are 6-vectors (translation, rotation vector): metres and radians, in ROS covariance order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

#: A quaternion whose norm is off by more than this share was not written as one: rounding to two digits stays below it.
NORM_TOLERANCE = 0.02


def make(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """(3, 3) rotation and (3,) translation -> (4, 4)."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def from_quaternion(translation: ArrayLike, xyzw: ArrayLike) -> Array:
    """Translation (3,) and quaternion (4,) x, y, z, w of any non-zero norm -> (4, 4).

    Raises:
        ValueError: if a value is not finite or the quaternion has no direction.
    """
    t, q = np.asarray(translation, dtype=np.float64), np.asarray(xyzw, dtype=np.float64)
    if not (np.isfinite(t).all() and np.isfinite(q).all()):
        raise ValueError("pose contains NaN or infinity")
    norm = float(np.linalg.norm(q))
    if norm < 1e-6:
        raise ValueError("quaternion is zero")
    return make(Rotation.from_quat(q / norm).as_matrix(), t)


def from_unit_quaternion(translation: ArrayLike, xyzw: ArrayLike) -> Array:
    """:func:`from_quaternion`, (3,) and (4,), for poses of files: there another norm than 1 means other numbers.

    Raises:
        ValueError: if a value is not finite, or the norm is off by more than :data:`NORM_TOLERANCE`.
    """
    pose = from_quaternion(translation, xyzw)
    norm = float(np.linalg.norm(np.asarray(xyzw, dtype=np.float64)))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise ValueError(f"the norm of the quaternion is {norm:.3g} and not 1")
    return pose


def quaternion(T: Array) -> Array:
    """(4, 4) -> unit quaternion (4,) x, y, z, w with w >= 0."""
    q: Array = Rotation.from_matrix(T[:3, :3]).as_quat()
    return -q if q[3] < 0 else q


def inverse(T: Array) -> Array:
    """Inverse of a rigid motion (4, 4), exact for rotation matrices."""
    return make(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])


def apply(T: Array, points: NDArray[np.floating]) -> Array:
    """``a_T_b`` (4, 4) applied to points (..., 3) in frame b -> the same points in frame a."""
    return np.asarray(points) @ T[:3, :3].T + T[:3, 3]


def homogeneous(ideal: NDArray[np.floating]) -> Array:
    """Image coordinates (..., 2) at z = 1 -> directions (..., 3)."""
    return np.concatenate([ideal, np.ones((*ideal.shape[:-1], 1))], axis=-1)


def orthonormalised(T: ArrayLike) -> Array:
    """The closest rigid motion to a (4, 4) whose rotation is slightly off (pose files, long products)."""
    T = np.asarray(T, dtype=np.float64)
    U, _, Vt = np.linalg.svd(T[:3, :3])
    return make(U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt, T[:3, 3])


def exp(twist: ArrayLike) -> Array:
    """Left-perturbation chart: (6,) translation, rotation vector -> (4, 4), uncoupled."""
    twist = np.asarray(twist, dtype=np.float64)
    return make(Rotation.from_rotvec(twist[3:]).as_matrix(), twist[:3])


def log(T: Array) -> Array:
    """Inverse of :func:`exp`: (4, 4) -> (6,) translation, rotation vector."""
    return np.concatenate([T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_rotvec()])


def angle(T: Array) -> float:
    """Rotation angle of a (4, 4) in radians, 0 to pi."""
    return float(Rotation.from_matrix(T[:3, :3]).magnitude())


def pose_error(estimate: Array, truth: Array) -> tuple[float, float]:
    """Distance of two camera centres in metres, and angle between the rotations of the (4, 4) in degrees."""
    between = inverse(truth) @ estimate
    return float(np.linalg.norm(between[:3, 3])), float(np.degrees(angle(between)))


def difference(estimate: Array, truth: Array) -> Array:
    """(6,) translation difference and rotation vector from ``truth`` to ``estimate`` (4, 4), both in fixed map axes.

    What a pose's covariance in ROS order speaks of.
    """
    turn = Rotation.from_matrix(estimate[:3, :3] @ truth[:3, :3].T).as_rotvec()
    return np.concatenate([estimate[:3, 3] - truth[:3, 3], turn])


def skew(v: ArrayLike) -> Array:
    """(3,) -> (3, 3) with ``skew(v) @ w == cross(v, w)``."""
    x, y, z = np.asarray(v, dtype=np.float64)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def interpolate(T0: Array, T1: Array, alpha: float) -> Array:
    """Pose (4, 4) a fraction ``alpha`` of the way from ``T0`` to ``T1``: straight in translation, slerp in rotation."""
    step = Rotation.from_matrix(T0[:3, :3].T @ T1[:3, :3]).as_rotvec()
    rotation = T0[:3, :3] @ Rotation.from_rotvec(alpha * step).as_matrix()
    return make(rotation, (1 - alpha) * T0[:3, 3] + alpha * T1[:3, 3])


def carry_covariance(covariance: Array, map_T_a: Array, a_T_b: Array) -> Array:
    """Covariance (6, 6) of the pose of b, which is rigidly attached to a, from that of the pose of a.

    Both are in fixed map axes (ROS order): turning a swings b around it, so rotation uncertainty becomes
    position uncertainty with the lever arm between the two.
    """
    lever = map_T_a[:3, :3] @ a_T_b[:3, 3]
    J = np.eye(6)
    J[:3, 3:] = -skew(lever)
    return J @ covariance @ J.T
