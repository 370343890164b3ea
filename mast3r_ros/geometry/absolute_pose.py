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
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

#: RANSAC scores hypotheses on this many of the most trusted matches; all of them take part in the refinement.
MOST_SAMPLED = 800
#: A step that lowers the cost by less than this share of it ends the refinement.
SETTLED = 1e-5
#: Fewest matches a pose is attempted from: three decide it, a fourth tells the solutions apart.
MINIMUM = 4


@dataclass(frozen=True, eq=False)
class AbsolutePose:
    """A pose and how well the matches support it.

    Attributes:
        camera_T_map: (4, 4).
        inlier: (N,) which matches the pose explains.
        residual_px: (N,) reprojection errors; infinite behind the camera.
        information: (6, 6) Gauss-Newton Hessian of the whitened, robustly weighted residuals with respect to
            a twist of ``map_T_camera`` in fixed map axes (translation of the camera centre, rotation).
        pulls: (N, 6) each match's share of the gradient; zero for outliers, and in sum at the optimum.
        variance_factor: weighted mean square of the whitened residuals; 1 where the noise is as assumed.
        cost: robust cost over all matches, outliers included; smaller is better.
        focal_px: focal length used.
    """

    camera_T_map: Array
    inlier: NDArray[np.bool_]
    residual_px: Array
    information: Array
    pulls: Array
    variance_factor: float
    cost: float
    focal_px: float

    @property
    def map_T_camera(self) -> Array:
        """(4, 4) pose of the camera in the map."""
        return se3.inverse(self.camera_T_map)

    def gradient_by(self, group: NDArray[np.int64], groups: int) -> Array:
        """(groups, 6) gradient contributed by each group of matches, given the group (N,) of every match."""
        total = np.zeros((groups, 6))
        np.add.at(total, group, self.pulls)
        return total


def solve_pose(
    ideal: Array,
    points: Array,
    weights: Array,
    focal_px: float,
    settings: SolverSettings = SolverSettings(),
    initial: Array | None = None,
) -> AbsolutePose | None:
    """Pose of a calibrated camera from 2-D to 3-D matches, most of which may be wrong, refined.

    Args and returns as :func:`ransac_pose`.
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
) -> AbsolutePose | None:
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
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal_px, 0.0, 0.0]}
    ransac = {
        "max_reproj_error": settings.threshold_px,
        "max_iterations": settings.iterations,
        "min_iterations": min(200, settings.iterations),
        "seed": settings.seed,
    }
    tried = np.argsort(-weights, kind="stable")[:MOST_SAMPLED]
    # About their own middle and at their own size: what is found depends neither on units nor on where zero is.
    middle, size = _middle_and_size(points[tried])
    start = None
    if initial is not None:
        camera_T_map = se3.inverse(initial)
        start = poselib.CameraPose()
        start.R, start.t = camera_T_map[:3, :3], (camera_T_map[:3, :3] @ middle + camera_T_map[:3, 3]) / size
    pose, _ = poselib.estimate_absolute_pose(
        ideal[tried] * focal_px, (points[tried] - middle) / size, camera, ransac, {"max_iterations": 20}, start
    )
    map_T_camera = se3.inverse(se3.make(pose.R, pose.t))
    map_T_camera[:3, 3] = map_T_camera[:3, 3] * size + middle
    if not np.isfinite(map_T_camera).all():
        return None
    found = _linearise(map_T_camera, ideal, points, weights, focal_px, settings)
    return _pose(map_T_camera, found, focal_px) if found.inlier.sum() >= MINIMUM else None


def _middle_and_size(points: Array) -> tuple[Array, float]:
    """Median (3,) of points (N, 3) and their median distance from it; 1 where they are one point."""
    middle = np.median(points, axis=0)
    size = float(np.median(np.linalg.norm(points - middle, axis=1)))
    return middle, size if size > 0 and np.isfinite(size) else 1.0


def refine_pose(
    map_T_camera: Array,
    ideal: Array,
    points: Array,
    weights: Array,
    focal_px: float,
    settings: SolverSettings = SolverSettings(),
    iterations: int = 12,
) -> AbsolutePose | None:
    """Levenberg-Marquardt on whitened Cauchy residuals of the inliers, which are chosen anew every round.

    Returns:
        None when fewer than four matches remain or they do not determine the pose.
    """
    state = _linearise(map_T_camera, ideal, points, weights, focal_px, settings)
    damping = 1e-4
    for _ in range(iterations):
        if state.inlier.sum() < MINIMUM:
            return None
        try:
            damped = state.hessian + damping * np.diag(np.diag(state.hessian))
            step = -np.asarray(np.linalg.solve(damped, state.gradient), dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        moved = _moved(map_T_camera, step)
        trial = _linearise(moved, ideal, points, weights, focal_px, settings)
        if trial.cost <= state.cost:
            settled = state.cost - trial.cost < SETTLED * state.cost
            map_T_camera, state, damping = moved, trial, damping / 5
            if settled:
                break
        else:
            damping *= 10
    if state.inlier.sum() < MINIMUM:
        return None
    return _pose(map_T_camera, state, focal_px)


@dataclass(frozen=True, eq=False)
class _Linearisation:
    """Cost of a pose and its quadratic model."""

    cost: float
    gradient: Array
    hessian: Array
    inlier: NDArray[np.bool_]
    residual_px: Array
    pulls: Array
    variance_factor: float


def _pose(map_T_camera: Array, state: _Linearisation, focal_px: float) -> AbsolutePose:
    return AbsolutePose(
        camera_T_map=se3.inverse(map_T_camera),
        inlier=state.inlier,
        residual_px=state.residual_px,
        information=state.hessian,
        pulls=state.pulls,
        variance_factor=state.variance_factor,
        cost=state.cost,
        focal_px=focal_px,
    )


def _moved(map_T_camera: Array, twist: Array) -> Array:
    """The pose after a small motion in fixed map axes about the camera centre."""
    step = se3.exp(twist)
    return se3.make(step[:3, :3] @ map_T_camera[:3, :3], map_T_camera[:3, 3] + step[:3, 3])


def _linearise(
    map_T_camera: Array, ideal: Array, points: Array, weights: Array, focal_px: float, settings: SolverSettings
) -> _Linearisation:
    """Whitened reprojection residuals, Cauchy weights and the Gauss-Newton system of one pose."""
    R, centre = map_T_camera[:3, :3], map_T_camera[:3, 3]
    rays = points - centre
    in_camera = rays @ R
    z = in_camera[:, 2]
    front = z > 0
    safe_z = np.where(front, z, 1.0)
    projected = in_camera[:, :2] / safe_z[:, None]
    residual = focal_px * (projected - ideal)
    residual_px = np.where(front, np.linalg.norm(residual, axis=1), np.inf)
    inlier = residual_px < settings.threshold_px

    # A point that is off by a few millimetres moves more pixels the closer it is.
    sigma = np.hypot(settings.pixel_sigma_px, focal_px * settings.point_sigma_m / safe_z)
    whitened = np.where(inlier, residual_px, settings.threshold_px) / sigma
    cost = float(np.sum(weights * np.log1p(whitened**2)))
    robust = np.where(inlier, weights / (1 + whitened**2), 0.0) / sigma**2

    J = _jacobian(rays[inlier], R, projected[inlier], z[inlier]) * focal_px
    w = robust[inlier]
    pulls = np.zeros((len(points), 6))
    weighted = J * w[:, None, None]
    pulls[inlier] = (weighted * residual[inlier][:, :, None]).sum(axis=1)
    hessian = weighted.reshape(-1, 6).T @ J.reshape(-1, 6)
    # Two coordinates a match; the Cauchy weight keeps the tail from deciding the variance.
    variance = float(np.sum(w * residual_px[inlier] ** 2) / max(2 * np.sum(w * sigma[inlier] ** 2), 1e-12))
    return _Linearisation(cost, pulls.sum(axis=0), hessian, inlier, residual_px, pulls, variance)


def _jacobian(rays: Array, R: Array, projected: Array, z: Array) -> Array:
    """Derivative (N, 2, 6) of image coordinates with respect to the twist of :func:`_moved`."""
    n = len(rays)
    d_point = np.zeros((n, 2, 3))
    d_point[:, 0, 0] = d_point[:, 1, 1] = 1 / z
    d_point[:, :, 2] = -projected / z[:, None]
    in_map = d_point @ R.T
    # exp(dw) turns the camera, so the point turns by -dw about the centre: -dw x ray = ray x dw.
    turned = np.cross(in_map, rays[:, None])
    return np.concatenate([-in_map, turned], axis=2)
