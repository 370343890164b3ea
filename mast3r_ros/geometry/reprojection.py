"""How far a pose's points are from their pixels, as a robust cost, and its derivatives.

Residuals are whitened by the noise that is expected of each and weighted as Cauchy's estimator has it. All motions are
twists about the camera's centre; every operation runs along all matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

#: Of the curvature that is expected along a step, the share that the next one reckons with at least.
LEAST_CURVATURE = 0.2
#: Points nearer to the camera's plane, metres, have no image: their coordinates overflow.
NEAREST = 1e-100
#: Rows of a reprojection's Jacobian, x and y, by the eight numbers of :func:`gauss_newton` (columns).
JACOBIAN = np.zeros((2, 6, 8))
JACOBIAN[0, [0, 2, 3, 4, 5], [0, 1, 3, 4, 7]] = -1, 1, 1, -1, 1
JACOBIAN[1, [1, 2, 3, 4, 5], [0, 2, 5, 3, 6]] = -1, 1, 1, -1, -1


def moved(map_T_camera: Array, twist: Array) -> Array:
    """A pose (4, 4) after a small motion in fixed map axes about the camera centre.

    Args:
        twist: (6,) translation in metres, then rotation in radians.
    """
    step = se3.exp(twist)
    return se3.make(step[:3, :3] @ map_T_camera[:3, :3], map_T_camera[:3, 3] + step[:3, 3])


@dataclass(frozen=True, eq=False)
class MatchedPoints:
    """The matches of a refinement, one row a coordinate: every operation runs along all matches.

    Attributes:
        xy_px, points, weights: (2, N) ideal coordinates in pixels, (3, N) metres in the map, (N,) relative trust.
    """

    xy_px: Array
    points: Array
    weights: Array
    focal_px: float
    settings: SolverSettings

    @classmethod
    def of(
        cls, ideal: Array, points: Array, weights: Array, focal_px: float, settings: SolverSettings
    ) -> MatchedPoints:
        """From matches in rows."""
        return cls(focal_px * ideal.T, np.ascontiguousarray(points.T), weights, focal_px, settings)


@dataclass(frozen=True, eq=False)
class Residuals:
    """Robust cost of a pose, and what it is made of.

    Attributes:
        front, inlier: (N,) which points are before the camera, and which of them it explains.
        inverse, x, y: (N,) 1 / depth and image coordinates at z = 1; 0 behind the camera.
        u, v, squared: (N,) residuals in pixels, and their squared length.
        variance: (N,) that the residuals are held against, square pixels.
        robust: (N,) weight of each match in the model; zero for outliers.
    """

    cost: float
    front: NDArray[np.bool_]
    inlier: NDArray[np.bool_]
    inverse: Array
    x: Array
    y: Array
    u: Array
    v: Array
    squared: Array
    variance: Array
    robust: Array

    @property
    def pulls(self) -> Array:
        """(6, N) derivative of half the squared residual with respect to a twist of the camera in its own axes.

        In units of the focal length. ``exp(dw)`` turns the camera, so a point turns by -dw about the centre.
        """
        u, v, x, y, inverse = self.u, self.v, self.x, self.y, self.inverse
        along = x * u + y * v
        pulls = np.empty((6, len(x)))
        pulls[0], pulls[1], pulls[2] = -inverse * u, -inverse * v, inverse * along
        pulls[3], pulls[4], pulls[5] = v + y * along, -u - x * along, y * u - x * v
        return pulls

    @property
    def variance_factor(self) -> float:
        """Weighted mean square of the whitened residuals, 1 where the noise is as assumed."""
        # Two coordinates a match; the Cauchy weight keeps the tail from deciding the variance.
        return float(self.robust @ self.squared / max(2 * float(self.robust @ self.variance), 1e-12))


def residuals_at(map_T_camera: Array, problem: MatchedPoints, variance: Array | None = None) -> Residuals:
    """Whitened reprojection residuals and Cauchy weights at a pose.

    Args:
        variance: (N,) to hold residuals against, square pixels; by default what is right at this pose.
    """
    R, settings, focal_px = map_T_camera[:3, :3], problem.settings, problem.focal_px
    X, Y, Z = R.T @ problem.points - (R.T @ map_T_camera[:3, 3])[:, None]
    front = Z > NEAREST
    inverse = 1 / np.where(front, Z, np.inf)
    x, y = X * inverse, Y * inverse
    u, v = focal_px * x - problem.xy_px[0], focal_px * y - problem.xy_px[1]
    squared = u * u + v * v
    limit = settings.threshold_px**2
    inlier = front & (squared < limit)
    if variance is None:
        # A point that is off by a few millimetres moves more pixels the closer it is.
        variance = settings.pixel_sigma_px**2 + (focal_px * settings.point_sigma_m * inverse) ** 2
    whitened = np.where(inlier, squared, limit) / variance
    cost = float(problem.weights @ np.log1p(whitened))
    robust = problem.weights * inlier / ((1 + whitened) * variance)
    return Residuals(cost, front, inlier, inverse, x, y, u, v, squared, variance, robust)


def gauss_newton(state: Residuals, focal_px: float) -> Array:
    """(6, 6) Gauss-Newton Hessian with respect to a twist of the camera in its own axes.

    Both rows of every Jacobian are combinations of eight numbers, of which all that is needed are the moments.
    """
    numbers = _jacobian_numbers(state.x, state.y, state.inverse)
    moments = (numbers * state.robust) @ numbers.T
    hessian: Array = focal_px**2 * (JACOBIAN @ moments @ JACOBIAN.transpose(0, 2, 1)).sum(axis=0)
    return hessian


def curvature(state: Residuals, pulls: Array, focal_px: float) -> Array:
    """(6, 6) Hessian of half the robust cost: Gauss and Newton's without what Cauchy's weights fall by along a step.

    Where little is left of theirs, :data:`LEAST_CURVATURE` of it is: a step stays a descent, and not too long.
    """
    newton = gauss_newton(state, focal_px)
    falls = focal_px**2 * (pulls * (2 * state.robust / (state.variance + state.squared))) @ pulls.T
    try:
        root = np.linalg.cholesky(newton)
    except np.linalg.LinAlgError:
        return newton
    # In axes where Gauss and Newton's Hessian is the identity.
    inside = np.linalg.inv(root)
    shares, axes = np.linalg.eigh(np.eye(6) - inside @ falls @ inside.T)
    root = root @ axes
    hessian: Array = (root * np.maximum(shares, LEAST_CURVATURE)) @ root.T
    return hessian


def _jacobian_numbers(x: Array, y: Array, inverse: Array) -> Array:
    """(8, N) what the entries of :data:`JACOBIAN` multiply."""
    return np.stack((inverse, x * inverse, y * inverse, x * y, 1 + x * x, 1 + y * y, x, y))


def projection_jacobian(projected: Array, inverse: Array) -> Array:
    """Derivative (6, 2, N) of image coordinates (2, N) with respect to the twist of :func:`moved`, camera axes.

    Args:
        projected: (2, N) at z = 1.
        inverse: (N,) one over the depth, 1/m.
    """
    jacobian: Array = (JACOBIAN @ _jacobian_numbers(projected[0], projected[1], inverse)).transpose(1, 0, 2)
    return jacobian


def turned(map_T_camera: Array, twist: Array) -> Array:
    """A twist (6,) in the camera's axes in those of the map."""
    in_map: Array = (twist.reshape(2, 3) @ map_T_camera[:3, :3].T).reshape(-1)
    return in_map
