"""Pose of a camera whose focal length is unknown: square pixels, principal point in the image centre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import AbsolutePose, Array, refine_pose, solve_pose
from mast3r_ros.settings import SolverSettings

#: Focal lengths tried first, as shares of the longer image side: 127 to 19 degrees of view.
FIRST_GUESSES = np.geomspace(0.25, 3.0, 13)


def solve_pose_and_focal(
    centred_xy: Array, points: Array, weights: Array, longer_side: int, settings: SolverSettings = SolverSettings()
) -> AbsolutePose | None:
    """Absolute pose and focal length from 2-D to 3-D matches.

    Args:
        centred_xy: (N, 2) pixels relative to the image centre.
        points: (N, 3) map points, metres.
        weights: (N,) relative trust in (0, 1].
        longer_side: of the image, pixels; focal lengths from 0.25 to 3 times of it are searched.

    Returns:
        the pose with ``focal_px`` set, or None where nothing fits. A flat scene seen face-on leaves the focal
        length open; the covariance does not show that, so callers gate on agreement between frames.
    """
    quick = replace(settings, iterations=min(300, settings.iterations))
    tried = {
        focal: pose
        for focal in FIRST_GUESSES * longer_side
        if (pose := solve_pose(centred_xy / focal, points, weights, focal, quick)) is not None
    }
    if not tried:
        return None
    start = min(tried, key=lambda focal: tried[focal].cost)
    found = tried[start]
    depth = float(np.median(se3.apply(found.camera_T_map, points[found.inlier])[:, 2]))

    def pose_at(focal: float) -> Array:
        """A longer lens shows the same from further away."""
        pose: Array = found.map_T_camera
        pose[:3, 3] -= pose[:3, 2] * depth * (focal / start - 1)
        return pose

    def cost(log_focal: float) -> float:
        focal = float(np.exp(log_focal))
        refined = refine_pose(pose_at(focal), centred_xy / focal, points, weights, focal, settings)
        return refined.cost if refined is not None else np.inf

    step = np.log(FIRST_GUESSES[1] / FIRST_GUESSES[0])
    best = minimize_scalar(
        cost, bounds=(np.log(start) - step, np.log(start) + step), method="bounded", options={"xatol": 1e-3}
    )
    focal = float(np.exp(best.x))
    return solve_pose(centred_xy / focal, points, weights, focal, settings, initial=pose_at(focal))
