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
#: It scores them on a part of these first, in so many rounds, at least and at most. A pose that explains more than this
#: share of all matches is the one: three such matches are drawn in few rounds, and none so wrong explains as many.
FEW_SAMPLED, FEW_ROUNDS, CLEAR = 300, (50, 200), 0.35
#: A step that lowers the cost by less than this share of it ends the refinement.
SETTLED = 1e-5
#: So does one whose square, in standard deviations that the matches leave, is less than this.
NEGLIGIBLE = 1e-4
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
    tried = np.argsort(-weights, kind="stable")[:MOST_SAMPLED]
    attempts: list[tuple[NDArray[np.int64], tuple[int, int] | None]] = [(tried, None)]
    if len(tried) >= 2 * FEW_SAMPLED and settings.iterations > FEW_ROUNDS[1]:
        attempts.insert(0, (tried[:: len(tried) // FEW_SAMPLED], FEW_ROUNDS))
    for rows, rounds in attempts:
        map_T_camera = _sampled(ideal[rows], points[rows], focal_px, ransac_options(settings, rounds), initial)
        if not np.isfinite(map_T_camera).all():
            continue
        inlier = _explained(map_T_camera, ideal, points, focal_px, settings.threshold_px)
        if rounds is None or inlier.mean() > CLEAR:
            found = RobustPose(se3.inverse(map_T_camera), inlier, focal_px)
            return found if inlier.sum() >= MINIMUM else None
    return None


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
    pose, _ = poselib.estimate_absolute_pose(
        ideal * focal_px, (points - middle) / size, camera, options, {"max_iterations": 20}, start
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


def ransac_options(settings: SolverSettings, rounds: tuple[int, int] | None = None) -> dict[str, float]:
    """The settings as PoseLib names them; ``rounds``: least and most of them, where not as usual."""
    least, most = rounds or (min(200, settings.iterations), settings.iterations)
    return {
        "max_reproj_error": settings.threshold_px,
        "max_iterations": most,
        "min_iterations": least,
        "seed": settings.seed,
    }


def middle_and_size(points: Array) -> tuple[Array, float]:
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

    Args:
        map_T_camera: (4, 4) pose to start from; the other arguments as in :func:`ransac_pose`.
        iterations: most rounds.

    Returns:
        None when fewer than four matches remain or they do not determine the pose.
    """
    problem = _Problem.of(ideal, points, weights, focal_px, settings)
    state = _linearise(map_T_camera, problem)
    damping = 1e-4
    for _ in range(iterations):
        if state.inlier.sum() < MINIMUM:
            return None
        try:
            damped = state.hessian + damping * np.diag(np.diag(state.hessian))
            step = -np.asarray(np.linalg.solve(damped, state.gradient), dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        further = moved(map_T_camera, step)
        trial = _linearise(further, problem)
        gained = state.cost - trial.cost
        # Up as well: what residuals are held against changes with the pose, which the model leaves out.
        settled = 0 <= gained < SETTLED * state.cost or -(step @ state.gradient) < NEGLIGIBLE
        if gained >= 0:
            map_T_camera, state, damping = further, trial, damping / 5
        else:
            damping *= 10
        if settled:
            break
    if state.inlier.sum() < MINIMUM:
        return None
    return _pose(map_T_camera, state, problem)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The matches of a refinement, one row a coordinate: every operation runs along all matches.

    Attributes:
        ideal, points, weights: (2, N) at z = 1, (3, N) metres in the map, (N,) relative trust.
    """

    ideal: Array
    points: Array
    weights: Array
    focal_px: float
    settings: SolverSettings

    @classmethod
    def of(cls, ideal: Array, points: Array, weights: Array, focal_px: float, settings: SolverSettings) -> _Problem:
        """From matches in rows."""
        return cls(np.ascontiguousarray(ideal.T), np.ascontiguousarray(points.T), weights, focal_px, settings)


@dataclass(frozen=True, eq=False)
class _Linearisation:
    """Cost of a pose and its quadratic model.

    Attributes:
        residual, jacobian: (2, N) pixels, zero for outliers, and (6, 2, N) with respect to the twist of :func:`moved`
            in the camera's axes.
        robust: (N,) weight of each match in the model; zero for outliers.
        axes: (6, 6) turns the camera's axes into the map's.
        sigma: (N,) standard deviation that each residual is held against, pixels.
    """

    cost: float
    gradient: Array
    hessian: Array
    inlier: NDArray[np.bool_]
    residual_px: Array
    residual: Array
    jacobian: Array
    robust: Array
    axes: Array
    sigma: Array


def pose_at(
    map_T_camera: Array, ideal: Array, points: Array, weights: Array, focal_px: float, settings: SolverSettings
) -> AbsolutePose:
    """A pose (4, 4) as it is, with its residuals and information; args as :func:`refine_pose`."""
    problem = _Problem.of(ideal, points, weights, focal_px, settings)
    return _pose(map_T_camera, _linearise(map_T_camera, problem), problem)


def _pose(map_T_camera: Array, state: _Linearisation, problem: _Problem) -> AbsolutePose:
    # Two coordinates a match; the Cauchy weight keeps the tail from deciding the variance.
    squared = np.einsum("ij,ij->j", state.residual, state.residual)
    variance = float(state.robust @ squared / max(2 * state.robust @ state.sigma**2, 1e-12))
    pulls = state.axes @ (state.jacobian * (state.residual * state.robust)).sum(axis=1)
    return AbsolutePose(
        camera_T_map=se3.inverse(map_T_camera),
        inlier=state.inlier,
        residual_px=state.residual_px,
        information=state.hessian,
        pulls=pulls.T,
        variance_factor=variance,
        cost=state.cost,
        focal_px=problem.focal_px,
    )


def moved(map_T_camera: Array, twist: Array) -> Array:
    """A pose (4, 4) after a small motion in fixed map axes about the camera centre.

    Args:
        twist: (6,) translation in metres, then rotation in radians.
    """
    step = se3.exp(twist)
    return se3.make(step[:3, :3] @ map_T_camera[:3, :3], map_T_camera[:3, 3] + step[:3, 3])


def _linearise(map_T_camera: Array, problem: _Problem) -> _Linearisation:
    """Whitened reprojection residuals, Cauchy weights and the Gauss-Newton system of one pose."""
    R, settings, focal_px = map_T_camera[:3, :3], problem.settings, problem.focal_px
    in_camera = R.T @ (problem.points - map_T_camera[:3, 3:])
    front = in_camera[2] > 0
    inverse = 1 / np.where(front, in_camera[2], 1.0)
    projected = in_camera[:2] * inverse
    residual = focal_px * (projected - problem.ideal)
    squared = np.einsum("ij,ij->j", residual, residual)
    inlier = front & (squared < settings.threshold_px**2)

    # A point that is off by a few millimetres moves more pixels the closer it is.
    sigma = np.hypot(settings.pixel_sigma_px, focal_px * settings.point_sigma_m * inverse)
    variance = sigma * sigma
    whitened = np.where(inlier, squared, settings.threshold_px**2) / variance
    cost = float(problem.weights @ np.log1p(whitened))
    robust = np.where(inlier, problem.weights / ((1 + whitened) * variance), 0.0)

    jacobian = focal_px * projection_jacobian(np.where(inlier, projected, 0.0), np.where(inlier, inverse, 1.0))
    weighted = (jacobian * robust).reshape(6, -1)
    axes: Array = np.kron(np.eye(2), R).astype(np.float64, copy=False)
    hessian = axes @ (weighted @ jacobian.reshape(6, -1).T) @ axes.T
    kept = np.where(inlier, residual, 0.0)
    gradient = axes @ (weighted @ kept.reshape(-1))
    residual_px = np.where(front, np.sqrt(squared), np.inf)
    return _Linearisation(cost, gradient, hessian, inlier, residual_px, kept, jacobian, robust, axes, sigma)


def projection_jacobian(projected: Array, inverse: Array) -> Array:
    """Derivative (6, 2, N) of image coordinates (2, N) with respect to the twist of :func:`moved`, camera axes.

    Args:
        inverse: (N,) 1 / depth.
    """
    x, y = projected
    J = np.zeros((6, 2, len(inverse)))
    J[0, 0] = J[1, 1] = -inverse
    J[2] = projected * inverse
    # exp(dw) turns the camera, so a point turns by -dw about the centre.
    J[3, 0], J[4, 1] = x * y, -x * y
    J[3, 1], J[4, 0] = 1 + y * y, -1 - x * x
    J[5, 0], J[5, 1] = y, -x
    return J
