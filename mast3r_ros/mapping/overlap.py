"""How much two views probably have in common, from their poses alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Distance at which a camera is taken to look where no depth says better, metres.
TYPICAL_DEPTH_M = 2.5
#: The other view's point of interest must lie within this angle of one's own axis, degrees.
FIELD_DEG = 60.0
#: Views whose axes differ by more than this see different sides of things, degrees.
AXES_DEG = 90.0
#: How fast the score falls with these angles (degrees) and with distance (in scene depths).
ANGLE_SIGMA_DEG, DISTANCE_SIGMA = 25.0, 1.0


def view_overlap(
    map_T_camera: NDArray[np.float64], map_T_keyframes: NDArray[np.float64], depth_m: float = TYPICAL_DEPTH_M
) -> NDArray[np.float64]:
    """Plausibility in [0, 1] that a camera and each of N keyframes see the same surface; 0 where they cannot.

    Each view is taken to look at the point ``depth_m`` ahead of it. With a the angle at which the camera
    sees the keyframe's point, b the angle at which the keyframe sees the camera's, and t the distance
    between the two centres, the score is

        exp(-(a^2 + b^2) / (2 sigma^2) - (t / depth_m)^2 / 2)

    so turning away costs as much as moving away in proportion to the scene.

    Args:
        map_T_camera: (4, 4).
        map_T_keyframes: (N, 4, 4).
        depth_m: typical distance of the scene, metres.
    """
    centre, axis = map_T_camera[:3, 3], map_T_camera[:3, 2]
    centres, axes = map_T_keyframes[:, :3, 3], map_T_keyframes[:, :3, 2]
    a = _angles(centres + depth_m * axes - centre, axis)
    b = _angles(centre + depth_m * axis - centres, axes)
    between = _angles(axes, axis)
    distance = np.linalg.norm(centres - centre, axis=1) / depth_m
    score = np.exp(-(a**2 + b**2) / (2 * np.radians(ANGLE_SIGMA_DEG) ** 2) - 0.5 * (distance / DISTANCE_SIGMA) ** 2)
    possible = (np.maximum(a, b) < np.radians(FIELD_DEG)) & (between < np.radians(AXES_DEG))
    return np.where(possible, score, 0.0)


def _angles(vectors: NDArray[np.float64], units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles (N,) in radians between vectors (N, 3) and unit vectors (N, 3) or (3,)."""
    cosine = (vectors * units).sum(axis=-1) / np.maximum(np.linalg.norm(vectors, axis=-1), 1e-9)
    return np.arccos(np.clip(cosine, -1, 1))
