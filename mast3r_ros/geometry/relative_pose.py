"""The motion between two calibrated cameras from matched pixels alone: rotation, and translation up to its length.

LO-RANSAC over five-point essential matrices (Nister, PAMI 26, 2004), from PoseLib.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Fewest matches that are tried: five decide the motion, more tell the solutions apart.
MINIMUM = 8


@dataclass(frozen=True)
class EssentialSettings:
    """How a motion is found.

    Attributes:
        threshold_px: distance from the epipolar line (Sampson) up to which a match is an inlier.
        iterations: most RANSAC rounds.
        seed: of RANSAC; the same matches always give the same motion.
    """

    threshold_px: float = 1.0
    iterations: int = 10_000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RelativePose:
    """A motion and the matches that support it.

    Attributes:
        camera2_T_camera1: (4, 4) with a translation of length 1, its sign from points in front of both cameras.
        inlier: (N,) which matches it explains.
    """

    camera2_T_camera1: Array
    inlier: NDArray[np.bool_]


def solve_relative_pose(
    ideal1: Array, ideal2: Array, focals_px: tuple[float, float], settings: EssentialSettings = EssentialSettings()
) -> RelativePose | None:
    """Motion that explains most matches.

    Args:
        ideal1, ideal2: (N, 2) undistorted image coordinates at z = 1 of both cameras.
        focals_px: focal lengths that turn them into pixels for the threshold.

    Returns:
        the motion, or None where fewer than eight matches agree on one.
    """
    if len(ideal1) < MINIMUM:
        return None
    cameras = [{"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [f, 0.0, 0.0]} for f in focals_px]
    ransac = {
        "max_epipolar_error": settings.threshold_px,
        "max_iterations": settings.iterations,
        "min_iterations": min(500, settings.iterations),
        "seed": settings.seed,
    }
    pose, found = poselib.estimate_relative_pose(
        ideal1 * focals_px[0], ideal2 * focals_px[1], cameras[0], cameras[1], ransac
    )
    inlier = np.asarray(found["inliers"], dtype=bool)
    length = float(np.linalg.norm(pose.t))
    if inlier.sum() < MINIMUM or not np.isfinite(pose.R).all() or not 0 < length < np.inf:
        return None
    return RelativePose(se3.make(pose.R, np.asarray(pose.t) / length), inlier)
