"""What a picture says of its camera: pose and lens refined together, from pixels matched to points of a map.

Points at different distances, all over the image, determine focal lengths, principal point and how the lens bends lines
along with the pose (Hartley and Zisserman, Multiple View Geometry, 2004, chapter 7). A wall seen face-on does not:
priors keep what the matches leave open, and the covariance says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.absolute_pose import MINIMUM, Array
from mast3r_ros.geometry.reprojection import moved, projection_jacobian
from mast3r_ros.settings import SolverSettings

#: How far a lens may be from its calibration, one standard deviation: logarithms of fx and fy, centre (focal lengths),
#: radial share. Wide enough for the calibration of another camera.
PRIOR = np.array([0.5, 0.5, 0.2, 0.2, 0.3])
#: Thresholds with which matches are chosen in turn, in usual ones: a wrong lens moves right matches far.
WIDENED = (4.0, 2.0, 1.0)
#: A step is the last that lowers the cost by less than a share of it, or whose square is less, in standard deviations.
SETTLED, NEGLIGIBLE = 1e-5, 1e-4
#: Share of its diagonal that is added to the Hessian.
TRACE = 1e-9
#: Numbers of a pose, and of a pose and a lens.
POSE, ALL = 6, 11


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens as it differs from its calibration: pixels are seen at ``(scale * ideal * (1 + radial r^2) + shift)``.

    Attributes:
        values: (5,) logarithms of how many times longer fx and fy are; how far right and down the principal point is,
            in focal lengths of the calibration; radial distortion that the calibration leaves.
    """

    values: Array

    @property
    def scale(self) -> Array:
        """(2,) how many times as long fx and fy are as the calibration says."""
        return np.asarray(np.exp(self.values[:2]))


AS_CALIBRATED = Lens(np.zeros(5))


@dataclass(frozen=True, eq=False)
class PoseAndLens:
    """Pose and lens that explain the matches best, and how sure they are.

    Attributes:
        map_T_camera: (4, 4).
        covariance: (11, 11) of a twist as of :func:`reprojection.moved`, and of the lens's values.
        cost: robust cost over all matches, outliers included, with what the priors add.
        promised: how much less the cost would be one step on, were it quadratic. It rests on the matches that are
            explained already: where the lens is right it is next to nothing (a score test, Rao, 1948).
        step: (11,) that step, as the covariance has it.
    """

    map_T_camera: Array
    lens: Lens
    covariance: Array
    cost: float
    promised: float
    step: Array

    @property
    def contradiction(self) -> float:
        """How many standard deviations the lens is from its calibration."""
        values = self.lens.values
        squared = float(values @ np.linalg.solve(self.covariance[POSE:, POSE:], values))
        return math.sqrt(max(squared, 0.0))


@dataclass(frozen=True, eq=False)
class LensProblem:
    """The matches that a lens is judged by.

    Attributes:
        ideal, points, weights: (N, 2) by the calibration, (N, 3) metres in the map, (N,) relative trust.
        group: (N,) which matches share errors: those of a keyframe.
    """

    ideal: Array
    points: Array
    weights: Array
    group: NDArray[np.int64]
    focal_px: float
    settings: SolverSettings

    def refine(self, map_T_camera: Array, iterations: int = 20) -> PoseAndLens | None:
        """Pose and lens by Levenberg-Marquardt on robust residuals, from a pose (4, 4) and the lens as calibrated.

        Returns:
            None where too few matches remain.
        """
        narrow = self._settle(map_T_camera, AS_CALIBRATED, iterations)
        wide: tuple[Array, Lens] | None = map_T_camera, AS_CALIBRATED
        for widened in WIDENED:
            problem = replace(self, settings=_widened(self.settings, widened))
            wide = None if wide is None else problem._settle(*wide, iterations)
        found = [self.at(*start) for start in (narrow, wide) if start is not None]
        return min(found, key=lambda one: one.cost, default=None)

    def at(self, map_T_camera: Array, lens: Lens) -> PoseAndLens:
        """A pose (4, 4) and a lens as they are."""
        state = _linearise(map_T_camera, lens, self)
        step = -np.asarray(np.linalg.solve(state.hessian, state.gradient), np.float64)
        promised = float(-(step @ state.gradient))
        return PoseAndLens(map_T_camera, lens, self._covariance(state), state.cost, promised, step)

    def _settle(self, map_T_camera: Array, lens: Lens, iterations: int) -> tuple[Array, Lens] | None:
        """The nearest minimum of the cost."""
        state, damping = _linearise(map_T_camera, lens, self), 1e-4
        for _ in range(iterations):
            if state.inlier.sum() < MINIMUM:
                return None
            damped = state.hessian + damping * np.diag(np.diag(state.hessian))
            step = -np.asarray(np.linalg.solve(damped, state.gradient), np.float64)
            further = moved(map_T_camera, step[:POSE]), Lens(lens.values + step[POSE:])
            trial = _linearise(*further, self)
            gained = state.cost - trial.cost
            if gained >= 0:
                (map_T_camera, lens), state, damping = further, trial, damping / 5
            else:
                damping *= 10
            if 0 <= gained < SETTLED * trial.cost or -(step @ state.gradient) < NEGLIGIBLE:
                break
        return map_T_camera, lens

    def _covariance(self, state: _State) -> Array:
        """(11, 11), scaled by the residuals, and with how much the groups pull in different directions."""
        bread = np.linalg.inv(state.hessian)
        freedom = max(1 - ALL / max(2 * state.inlier.sum(), ALL + 1), 0.1)
        pulls = np.zeros((int(self.group.max()) + 1, ALL))
        np.add.at(pulls, self.group, state.pulls.T)
        pulling = np.unique(self.group[state.inlier])
        clustered = np.zeros((ALL, ALL))
        if len(pulling) > 1:
            correction = len(pulling) / (len(pulling) - 1)
            clustered = correction * bread @ (pulls[pulling].T @ pulls[pulling]) @ bread
        return np.asarray(bread * state.variance / freedom + clustered)


@dataclass(frozen=True, eq=False)
class _State:
    """Cost of a pose and a lens, and its quadratic model; ``pulls`` (11, N) each match's share of the gradient."""

    cost: float
    gradient: Array
    hessian: Array
    inlier: NDArray[np.bool_]
    pulls: Array
    variance: float


def _widened(settings: SolverSettings, times: float) -> SolverSettings:
    return replace(
        settings,
        threshold_px=times * settings.threshold_px,
        pixel_sigma_px=times * settings.pixel_sigma_px,
        point_sigma_m=times * settings.point_sigma_m,
    )


def _linearise(map_T_camera: Array, lens: Lens, problem: LensProblem) -> _State:
    """As :func:`absolute_pose.refine_pose` does it, with the lens among the unknowns."""
    R, settings, focal_px = map_T_camera[:3, :3], problem.settings, problem.focal_px
    in_camera = R.T @ (problem.points.T - map_T_camera[:3, 3:])
    front = in_camera[2] > 0
    inverse = 1 / np.where(front, in_camera[2], 1.0)
    seen, scale = in_camera[:2] * inverse, lens.scale[:, None]
    square, bend = np.einsum("ij,ij->j", seen, seen), lens.values[4]
    residual = focal_px * (scale * seen * (1 + bend * square) + lens.values[2:4, None] - problem.ideal.T)
    squared = np.einsum("ij,ij->j", residual, residual)
    inlier = front & (squared < settings.threshold_px**2)
    variance = settings.pixel_sigma_px**2 + (focal_px * scale.mean() * settings.point_sigma_m * inverse) ** 2
    whitened = np.where(inlier, squared, settings.threshold_px**2) / variance
    robust = np.where(inlier, problem.weights / ((1 + whitened) * variance), 0.0)

    seen, square = np.where(inlier, seen, 0.0), np.where(inlier, square, 0.0)
    by_pose = projection_jacobian(seen, np.where(inlier, inverse, 1.0))
    along = 2 * bend * np.einsum("jn,ijn->in", seen, by_pose)
    by_pose = scale * ((1 + bend * square) * by_pose + along[:, None] * seen)
    by_lens = np.zeros((5, *seen.shape))
    by_lens[[0, 1], [0, 1]] = scale * seen * (1 + bend * square)
    by_lens[[2, 3], [0, 1]] = 1.0
    by_lens[4] = scale * seen * square
    axes = np.eye(ALL)
    axes[:3, :3] = axes[3:6, 3:6] = R
    jacobian = focal_px * np.concatenate([by_pose, by_lens])
    weighted, residual = jacobian * robust, np.where(inlier, residual, 0.0)
    certainty = np.concatenate([np.zeros(POSE), PRIOR**-2])
    values = np.concatenate([np.zeros(POSE), lens.values])
    pulls = axes @ (weighted * residual).sum(axis=1)
    hessian = axes @ (weighted.reshape(ALL, -1) @ jacobian.reshape(ALL, -1).T) @ axes.T
    return _State(
        cost=float(problem.weights @ np.log1p(whitened) + certainty @ values**2 / 2),
        gradient=pulls.sum(axis=1) + certainty * values,
        # What nothing determines must come out uncertain, not infinite.
        hessian=hessian + np.diag(certainty + TRACE * np.diag(hessian)),
        inlier=inlier,
        pulls=pulls,
        variance=float(robust @ np.where(inlier, squared, 0.0) / max(2 * robust @ variance, 1e-12)),
    )
