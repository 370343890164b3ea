"""Where a person says that the robot is, as a belief about the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry import se3
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.settings import InitialPose

Array = NDArray[np.float64]

#: Standard deviations taken where none are given: RViz's own, metres and radians.
POSITION_SIGMA_M, ROTATION_SIGMA_RAD = 0.5, 0.26


def map_T_base(start: InitialPose) -> Array:
    """(4, 4) pose of the robot that the settings name."""
    return se3.make(Rotation.from_euler("z", start.yaw).as_matrix(), (start.x, start.y, start.z))


def initial_prior(start: InitialPose, base_T_camera: Array | None) -> PosePrior:
    """The belief about the camera that follows from the robot's initial pose.

    Args:
        base_T_camera: (4, 4) where the camera is on the robot; None takes the robot's pose for the camera's.
    """
    pose = map_T_base(start)
    return PosePrior(pose if base_T_camera is None else pose @ base_T_camera, POSITION_SIGMA_M, ROTATION_SIGMA_RAD)
