"""The pose of one camera from pixels matched to points of a map, over all keyframes at once.

RANSAC with local optimisation comes from PoseLib; the refinement here weights every match by what is
known of it and yields the covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.reprojection import (
    LEAST_CURVATURE,
    MatchedPoints,
    curvature,
    gauss_newton,
    moved,
    residuals_at,
    turned,
)
from mast3r_ros.geometry.spread import well_spread
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

#: RANSAC scores hypotheses on so many matches, the most trusted of every part of the image: a fifth of its time goes
#: into hypotheses, and the rest grows with the matches. All of them take part in the refinement.
SAMPLED = 320
#: Fewest rounds, and how many times as many as it takes to draw three right matches once with a probability of 99.99 %.
FEWEST_ROUNDS, ROUNDS = 30, 1.5
#: A round that lowers the cost by less than this, where the noise is as assumed, moves the pose by less than a tenth of
#: the standard deviation that the matches leave; where the noise is larger, so is what is left.
SETTLED = 0.01
#: A round that lowers the cost by more than this share of it came from so far away that the Hessian is made anew.
FAR = 0.01
#: Fewest matches a pose is attempted from: three decide it, a fourth tells the solutions apart.
MINIMUM = 4


@dataclass(frozen=True, eq=False)
class RobustPose:
    """A pose and the matches that it explains.

    Attributes:
        camera_T_map: (4, 4).
        inlier: (N,) which matches the pose explains.
        focal_px: focal length used.
    """

    camera_T_map: Array
    inlier: NDArray[np.bool_]
    focal_px: float

    @property
    def map_T_camera(self) -> Array:
        """(4, 4) pose of the camera in the map."""
        return se3.inverse(self.camera_T_map)


@dataclass(frozen=True, eq=False)
class AbsolutePose(RobustPose):
    """A pose and how well the matches support it.

    Attributes:
        residual_px: (N,) reprojection errors; infinite behind the camera.
        information: (6, 6) Gauss-Newton Hessian of the whitened, robustly weighted residuals with respect to
            a twist of ``map_T_camera`` in fixed map axes (translation of the camera centre, rotation).
        pulls: (N, 6) each match's share of the gradient; zero for outliers, and in sum at the optimum.
        variance_factor: weighted mean square of the whitened residuals; 1 where the noise is as assumed.
        cost: robust cost over all matches, outliers included; smaller is better.
    """

    residual_px: Array
    information: Array
    pulls: Array
    variance_factor: float
    cost: float

    def gradient_by(self, group: NDArray[np.int64], groups: int) -> Array:
        """(groups, 6) gradient contributed by each group of matches, given the group (N,) of every match."""
        return np.stack([np.bincount(group, pulls, groups) for pulls in self.pulls.T], axis=1)


def solve_pose(
    ideal: Array,
    points: Array,
    weights: Array,
    focal_px: float,
    settings: SolverSettings = SolverSettings(),
    initial: Array | None = None,
) -> AbsolutePose | None:
    """Pose of a calibrated camera from N 2-D to 3-D matches, most of which may be wrong, refined.

    Args and returns as :func:`ransac_pose`: (N, 2) image coordinates, (N, 3) metres in the map, (N,) weights.
    """
    pose = ransac_pose(ideal, points, weights, focal_px, settings, initial)
    if pose is None:
        return None
    return refine_pose(pose.map_T_camera, ideal, points, weights, focal_px, settings)


def ransac_pose(
    ideal: Array,
    points: Array,
    weights: Array,
    focal_px: float,
    settings: SolverSettings = SolverSettings(),
    initial: Array | None = None,
) -> RobustPose | None:
    """Pose that explains most matches (LO-RANSAC of PoseLib), before any weighting of them.

    Args:
        ideal: (N, 2) undistorted image coordinates at z = 1.
        points: (N, 3) map points, metres.
        weights: (N,) relative trust in (0, 1].
        focal_px: focal length that turns image coordinates into pixels for thresholds and noise.
        initial: (4, 4) map_T_camera to try before random samples.

    Returns:
        the pose, or None where no pose explains at least four matches.
    """
    if len(ideal) < MINIMUM:
        return None
    rows = well_spread(ideal, weights, SAMPLED)
    map_T_camera = _sampled(ideal[rows], points[rows], focal_px, ransac_options(settings), initial)
    if not np.isfinite(map_T_camera).all():
        return None
    inlier = _explained(map_T_camera, ideal, points, focal_px, settings.threshold_px)
    return RobustPose(se3.inverse(map_T_camera), inlier, focal_px) if inlier.sum() >= MINIMUM else None


def _sampled(ideal: Array, points: Array, focal_px: float, options: dict[str, float], initial: Array | None) -> Array:
    """map_T_camera (4, 4) by RANSAC over all of these matches, args as :func:`ransac_pose`."""
    # About their own middle and at their own size: what is found depends neither on units nor on where zero is.
    middle, size = middle_and_size(points)
    start = None
    if initial is not None:
        camera_T_map = se3.inverse(initial)
        start = poselib.CameraPose()
        start.R, start.t = camera_T_map[:3, :3], (camera_T_map[:3, :3] @ middle + camera_T_map[:3, 3]) / size
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal_px, 0.0, 0.0]}
    unpolished = {"max_iterations": 0}  # beyond the local optimisation of every best hypothesis
    pose, _ = poselib.estimate_absolute_pose(
        ideal * focal_px, (points - middle) / size, camera, options, unpolished, start
    )
    map_T_camera = se3.inverse(se3.make(pose.R, pose.t))
    map_T_camera[:3, 3] = map_T_camera[:3, 3] * size + middle
    return map_T_camera


def _explained(
    map_T_camera: Array, ideal: Array, points: Array, focal_px: float, threshold_px: float
) -> NDArray[np.bool_]:
    """Which matches (N,) a pose explains."""
    x, y, z = map_T_camera[:3, :3].T @ (points - map_T_camera[:3, 3]).T
    front = z > 0
    inverse = focal_px / np.where(front, z, 1.0)
    off_x, off_y = x * inverse - focal_px * ideal[:, 0], y * inverse - focal_px * ideal[:, 1]
    explained: NDArray[np.bool_] = front & (off_x * off_x + off_y * off_y < threshold_px**2)
    return explained


def ransac_options(settings: SolverSettings) -> dict[str, float]:
    """The settings as PoseLib names them."""
    return {
        "max_reproj_error": settings.threshold_px,
        "max_iterations": settings.iterations,
        "min_iterations": min(FEWEST_ROUNDS, settings.iterations),
        "dyn_num_trials_mult": ROUNDS,
        "seed": settings.seed,
    }


def middle_and_size(points: Array) -> tuple[Array, float]:
    """Median (3,) of points (N, 3) and their median distance from it; 1 where they are one point."""
    half = len(points) // 2
    middle = np.partition(points, half, axis=0)[half]
    size = float(np.partition(np.linalg.norm(points - middle, axis=1), half)[half])
    return middle, size if size > 0 and np.isfinite(size) else 1.0


def refine_pose(
    map_T_camera: Array,
    ideal: Array,
    points: Array,
    weights: Array,
    focal_px: float,
    settings: SolverSettings = SolverSettings(),
    iterations: int = 10,
) -> AbsolutePose | None:
    """Least Cauchy cost of the whitened residuals of the inliers, which are chosen anew every round.

    By quasi-Newton steps: where residuals are larger than assumed, and weights fall with every round, Gauss and
    Newton's are a third of what they should be. What a residual is held against stays as it is at the first pose, so
    that all rounds lower the same cost.

    Args:
        map_T_camera: (4, 4) pose to start from; the other arguments as in :func:`ransac_pose`.
        iterations: most rounds.

    Returns:
        None when fewer than four matches remain or they do not determine the pose.
    """
    problem = MatchedPoints.of(ideal, points, weights, focal_px, settings)
    state = residuals_at(map_T_camera, problem)
    pulls = state.pulls
    variance, damping, hessian = state.variance, 0.0, curvature(state, pulls, focal_px)
    gradient = focal_px * (pulls @ state.robust)
    settled = SETTLED * max(1.0, state.variance_factor)
    for _ in range(iterations):
        if state.inlier.sum() < MINIMUM:
            return None
        try:
            step = -np.asarray(np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient))
        except np.linalg.LinAlgError:
            return None
        further = moved(map_T_camera, turned(map_T_camera, step))
        trial = residuals_at(further, problem, variance)
        gained = state.cost - trial.cost
        if gained < 0:
            damping = max(4 * damping, 1.0)
        else:
            pulls = trial.pulls
            changed = focal_px * (pulls @ trial.robust)
            near = gained < FAR * state.cost
            hessian = _updated(hessian, step, changed - gradient) if near else curvature(trial, pulls, focal_px)
            map_T_camera, state, gradient, damping = further, trial, changed, damping / 10
        if abs(gained) < settled:
            break
    return _pose(map_T_camera, problem) if state.inlier.sum() >= MINIMUM else None


def _updated(hessian: Array, step: Array, change: Array) -> Array:
    """A Hessian (6, 6) with the curvature along a step that changed the gradient so (BFGS, damped as Powell has it).

    A step too long is followed by a shorter one, and where the cost curves less than it should, by a longer one.
    """
    expected = hessian @ step
    most, got = step @ expected, step @ change
    if not most > 0:
        return hessian
    if got < LEAST_CURVATURE * most:
        share = (1 - LEAST_CURVATURE) * most / (most - got)
        change, got = share * change + (1 - share) * expected, LEAST_CURVATURE * most
    updated: Array = hessian - np.outer(expected, expected) / most + np.outer(change, change) / got
    return updated


def pose_at(
    map_T_camera: Array, ideal: Array, points: Array, weights: Array, focal_px: float, settings: SolverSettings
) -> AbsolutePose:
    """A pose (4, 4) as it is, with its residuals and information; args as :func:`refine_pose`."""
    return _pose(map_T_camera, MatchedPoints.of(ideal, points, weights, focal_px, settings))


def _pose(map_T_camera: Array, problem: MatchedPoints) -> AbsolutePose:
    state = residuals_at(map_T_camera, problem)
    axes = np.kron(np.eye(2), map_T_camera[:3, :3])
    return AbsolutePose(
        camera_T_map=se3.inverse(map_T_camera),
        inlier=state.inlier,
        residual_px=np.where(state.front, np.sqrt(state.squared), np.inf),
        information=axes @ gauss_newton(state, problem.focal_px) @ axes.T,
        pulls=(axes @ (state.pulls * (problem.focal_px * state.robust))).T,
        variance_factor=state.variance_factor,
        cost=state.cost,
        focal_px=problem.focal_px,
    )
