"""Where a person says that the robot is: RViz's 2D Pose Estimate, or the ``initial_pose`` parameters."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped

from mast3r_ros.errors import UserError
from mast3r_ros.localization.initial_pose import POSITION_SIGMA_M, ROTATION_SIGMA_RAD, map_T_base
from mast3r_ros.ros import conversions
from mast3r_ros.ros.frame_processor import BasePrior
from mast3r_ros.settings import InitialPose


def from_message(message: PoseWithCovarianceStamped, global_frame_id: str) -> BasePrior:
    """A prior from the topic ``initialpose``; any non-zero quaternion is normalised.

    Raises:
        UserError: for another frame, NaN, or a zero quaternion.
    """
    frame_id = message.header.frame_id.lstrip("/")
    if frame_id != global_frame_id:
        raise UserError(f"it is in frame '{frame_id}', but must be in '{global_frame_id}' (set RViz's fixed frame)")
    try:
        pose = conversions.matrix_from_pose(message.pose.pose)
    except ValueError as error:
        raise UserError(str(error)) from error
    covariance = np.asarray(message.pose.covariance, dtype=np.float64).reshape(6, 6)
    if not np.isfinite(covariance).all():
        raise UserError("its covariance contains NaN or infinity")
    position, rotation = (float(np.sqrt(max(np.diag(covariance)[part].max(), 0))) for part in (slice(3), slice(3, 6)))
    stamp_ns = conversions.stamp_ns(message.header.stamp)
    return BasePrior(pose, position or POSITION_SIGMA_M, rotation or ROTATION_SIGMA_RAD, stamp_ns)


def from_settings(start: InitialPose) -> BasePrior:
    """A prior from ``initial_pose.*``; it holds when the first image comes."""
    return BasePrior(map_T_base(start), POSITION_SIGMA_M, ROTATION_SIGMA_RAD, 0)
