"""One pose from several views that belong together: cameras of a rig, or one camera at moments with odometry between.

RANSAC over all views at once is PoseLib's for generalized cameras. The refinement gives every view a pose of its own,
held to the others by how sure the way between them is, so that odometry that drifts bends instead of being believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import (
    MINIMUM,
    AbsolutePose,
    middle_and_size,
    pose_at,
    ransac_options,
)
from mast3r_ros.geometry.reprojection import moved
from mast3r_ros.geometry.spread import well_spread
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

#: RANSAC scores hypotheses on so many matches of all views together.
MOST_SAMPLED = 800
#: RANSAC takes the views for rigid: what odometry is off by must fit into this many thresholds.
LOOSE = 2.0
#: A rig's own calibration is this sure, metres and radians.
RIGID_M, RIGID_RAD = 1e-4, 1e-4


@dataclass(frozen=True, eq=False)
class RigView:
    """Matches of one view, and where it was taken from.

    Attributes:
        rig_T_camera: (4, 4) in the frame whose pose is asked for; identity for the first view.
        ideal, points, weights, focal_px: as of :func:`ransac_pose`.
        position_sigma_m, rotation_sigma_rad: how sure ``rig_T_camera`` is.
    """

    rig_T_camera: Array
    ideal: Array
    points: Array
    weights: Array
    focal_px: float
    position_sigma_m: float = RIGID_M
    rotation_sigma_rad: float = RIGID_RAD

    @property
    def certainty(self) -> Array:
        """(6, 6) information about a small motion of the view, in fixed map axes."""
        return np.diag(
            [max(self.position_sigma_m, RIGID_M) ** -2] * 3 + [max(self.rotation_sigma_rad, RIGID_RAD) ** -2] * 3
        )


@dataclass(frozen=True, eq=False)
class RigPose:
    """Poses of all views, and the first one's with everything that is known of it.

    Attributes:
        map_T_cameras: (V, 4, 4) each view's own.
        pose: of the first view; its inliers, residuals and pulls are those of all views' matches, one after the other.
    """

    map_T_cameras: Array
    pose: AbsolutePose


def ransac_rig_pose(views: Sequence[RigView], settings: SolverSettings = SolverSettings()) -> Array | None:
    """Pose (4, 4) of the first view that explains most matches of all views, taken for rigid.

    Returns:
        None where there are fewer than four matches, or no pose is found.
    """
    if sum(len(view.points) for view in views) < MINIMUM:
        return None
    chosen = [well_spread(view.ideal, view.weights, MOST_SAMPLED // len(views)) for view in views]
    middle, size = middle_and_size(np.concatenate([v.points[k] for v, k in zip(views, chosen, strict=True)]))
    cameras, extrinsics = [], []
    for view in views:
        camera_T_rig = se3.inverse(view.rig_T_camera)
        extrinsic = poselib.CameraPose()
        extrinsic.R, extrinsic.t = camera_T_rig[:3, :3], camera_T_rig[:3, 3] / size
        extrinsics.append(extrinsic)
        cameras.append({"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [view.focal_px, 0.0, 0.0]})
    pose, _ = poselib.estimate_generalized_absolute_pose(
        [v.ideal[k] * v.focal_px for v, k in zip(views, chosen, strict=True)],
        [(v.points[k] - middle) / size for v, k in zip(views, chosen, strict=True)],
        extrinsics,
        cameras,
        ransac_options(replace(settings, threshold_px=LOOSE * settings.threshold_px)),
        {"max_iterations": 20},
    )
    map_T_rig = se3.inverse(se3.make(pose.R, pose.t))
    map_T_rig[:3, 3] = map_T_rig[:3, 3] * size + middle
    return map_T_rig if np.isfinite(map_T_rig).all() else None


def refine_rig_pose(
    map_T_rig: Array, views: Sequence[RigView], settings: SolverSettings = SolverSettings(), iterations: int = 15
) -> RigPose | None:
    """Levenberg-Marquardt over the poses of all views: their matches, and the ways between them.

    Args:
        map_T_rig: (4, 4) of the first view.

    Returns:
        None where the matches do not determine the pose.
    """
    poses = [map_T_rig @ view.rig_T_camera for view in views]
    loose = replace(settings, threshold_px=LOOSE * settings.threshold_px)
    state, damping = _Joint.at(poses, views, loose), 1e-4
    for round_ in range(iterations):
        if round_ == iterations // 3:  # drift is taken up by now
            state = _Joint.at(poses, views, settings)
        try:
            step = -np.asarray(
                np.linalg.solve(state.hessian + damping * np.diag(np.diag(state.hessian)), state.gradient),
                dtype=np.float64,
            )
        except np.linalg.LinAlgError:
            return None
        tried = [moved(pose, part) for pose, part in zip(poses, step.reshape(-1, 6), strict=True)]
        trial = _Joint.at(tried, views, settings if round_ >= iterations // 3 else loose)
        if trial.cost <= state.cost:
            poses, state, damping = tried, trial, damping / 5
        else:
            damping *= 10
    return _rig_pose(poses, views, state)


@dataclass(frozen=True, eq=False)
class _Joint:
    """Half the cost of all poses together, and its quadratic model."""

    cost: float
    gradient: Array
    hessian: Array
    each: list[AbsolutePose]

    @classmethod
    def at(cls, poses: Sequence[Array], views: Sequence[RigView], settings: SolverSettings) -> _Joint:
        """At the poses of all views."""
        each = [
            pose_at(pose, v.ideal, v.points, v.weights, v.focal_px, settings)
            for pose, v in zip(poses, views, strict=True)
        ]
        cost, size = sum(found.cost for found in each) / 2, 6 * len(views)
        gradient, hessian = np.zeros(size), np.zeros((size, size))
        for k, (pose, view, found) in enumerate(zip(poses, views, each, strict=True)):
            own = slice(6 * k, 6 * k + 6)
            gradient[own] += found.pulls.sum(axis=0)
            hessian[own, own] += found.information
            if k == 0:
                continue
            expected = poses[0] @ view.rig_T_camera
            off, carried = se3.difference(pose, expected), _carried(poses[0], expected)
            pull, certainty = view.certainty @ off, view.certainty
            cost += float(off @ pull) / 2
            gradient[own] += pull
            gradient[:6] -= carried.T @ pull
            hessian[own, own] += certainty
            hessian[:6, :6] += carried.T @ certainty @ carried
            hessian[:6, own] -= carried.T @ certainty
            hessian[own, :6] -= certainty @ carried
        return cls(cost, gradient, hessian, each)


def _carried(map_T_first: Array, map_T_other: Array) -> Array:
    """(6, 6) how a small motion of the first view, in fixed map axes, moves one that is rigidly attached to it."""
    motion = np.eye(6)
    motion[:3, 3:] = -se3.skew(map_T_other[:3, 3] - map_T_first[:3, 3])
    return motion


def _rig_pose(poses: Sequence[Array], views: Sequence[RigView], state: _Joint) -> RigPose | None:
    """What all matches say about the first view's pose, the others' poses being unknown themselves."""
    if sum(int(found.inlier.sum()) for found in state.each) < MINIMUM:
        return None
    information, pulls = state.each[0].information.copy(), [state.each[0].pulls]
    for pose, view, found in zip(poses[1:], views[1:], state.each[1:], strict=True):
        carried = _carried(poses[0], pose)
        # (H^-1 + W^-1)^-1: the view's own information, weakened by the uncertain motion between the two.
        passed_on = view.certainty @ np.linalg.inv(found.information + view.certainty)
        information += carried.T @ passed_on @ found.information @ carried
        pulls.append(found.pulls @ passed_on.T @ carried)
    weight = [max(float(np.sum(found.inlier)), 1e-9) for found in state.each]
    pose = AbsolutePose(
        camera_T_map=se3.inverse(poses[0]),
        inlier=np.concatenate([found.inlier for found in state.each]),
        residual_px=np.concatenate([found.residual_px for found in state.each]),
        information=(information + information.T) / 2,
        pulls=np.concatenate(pulls),
        variance_factor=float(np.average([found.variance_factor for found in state.each], weights=weight)),
        cost=2 * state.cost,
        focal_px=views[0].focal_px,
    )
    return RigPose(np.stack(poses), pose)
