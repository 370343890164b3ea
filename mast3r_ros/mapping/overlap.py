"""How much two views probably have in common, from their poses alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

#: Views of a map of which no depth is known are taken to be this far apart, in scene depths: as far as keyframes of a
#: recording are (see :mod:`selection`).
USUAL_SPACING = 0.08
#: The other view's point of interest must lie within this angle of one's own axis, degrees.
FIELD_DEG = 60.0
#: Views whose axes differ by more than this see different sides of things, degrees.
AXES_DEG = 90.0
#: How fast the score falls with these angles (degrees) and with distance (in scene depths).
ANGLE_SIGMA_DEG, DISTANCE_SIGMA = 25.0, 1.0


def view_overlap(
    map_T_camera: NDArray[np.float64], map_T_keyframes: NDArray[np.float64], depth_m: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Plausibility in [0, 1] that a camera and each of N keyframes see the same surface; 0 where they cannot.

    Both views are taken to look at points ``depth_m`` ahead of them. With a the angle at which the camera
    sees the keyframe's point, b the angle at which the keyframe sees the camera's, and t the distance
    between the two centres, the score is

        exp(-(a^2 + b^2) / (2 sigma^2) - (t / depth_m)^2 / 2)

    so turning away costs as much as moving away in proportion to the scene.

    Args:
        map_T_camera: (4, 4).
        map_T_keyframes: (N, 4, 4).
        depth_m: (N,) typical distance of what each keyframe sees, or one for all, metres.
    """
    depth = np.broadcast_to(np.asarray(depth_m, dtype=np.float64), len(map_T_keyframes))
    centre, axis = map_T_camera[:3, 3], map_T_camera[:3, 2]
    centres, axes = map_T_keyframes[:, :3, 3], map_T_keyframes[:, :3, 2]
    a = _angles(centres + depth[:, None] * axes - centre, axis)
    b = _angles(centre + depth[:, None] * axis - centres, axes)
    between = _angles(axes, axis)
    distance = np.linalg.norm(centres - centre, axis=1) / depth
    score = np.exp(-(a**2 + b**2) / (2 * np.radians(ANGLE_SIGMA_DEG) ** 2) - 0.5 * (distance / DISTANCE_SIGMA) ** 2)
    possible = (np.maximum(a, b) < np.radians(FIELD_DEG)) & (between < np.radians(AXES_DEG))
    return np.where(possible, score, 0.0)


def assumed_depth(map_T_keyframes: NDArray[np.float64]) -> float:
    """Typical distance of what keyframes (N, 4, 4) see where nothing is known of it: told by how densely they stand.

    1 where all stand on one spot: then no distance depends on it.
    """
    centres = map_T_keyframes[:, :3, 3]
    if len(centres) < 2:
        return 1.0
    nearest, _ = cKDTree(centres).query(centres, k=2)
    apart = nearest[:, 1][nearest[:, 1] > 0]
    return float(np.median(apart)) / USUAL_SPACING if len(apart) else 1.0


def _angles(vectors: NDArray[np.float64], units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles (N,) in radians between vectors (N, 3) and unit vectors (N, 3) or (3,)."""
    cosine = (vectors * units).sum(axis=-1) / np.maximum(np.linalg.norm(vectors, axis=-1), np.finfo(float).tiny)
    angles: NDArray[np.float64] = np.arccos(np.clip(cosine, -1, 1))
    return angles
