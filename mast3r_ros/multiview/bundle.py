"""Bundle adjustment: cameras and points that explain all observations best.

Levenberg-Marquardt with the points eliminated (Triggs et al., "Bundle Adjustment - A Modern Synthesis", 1999, section
6) on SciPy's sparse matrices, with Cauchy weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import bsr_matrix, csr_matrix, hstack
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: A step that lowers the cost by less than this share of it is the last.
SETTLED = 1e-4
#: Focal lengths stay within this factor of the longer image side.
FOCALS = (0.3, 4.0)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Cameras, points, and which sees which.

    Attributes:
        poses: (N, 4, 4) camera_T_world.
        focals: (G,) pixels of each camera.
        lens: (N,) camera of each image, rows of ``focals``.
        free: (G,) focal lengths to be found; the others are kept.
        points: (P, 3).
        image, point: (M,) rows of each observation.
        uv: (M, 2) undistorted pixels about the principal point.
    """

    poses: Array
    focals: Array
    lens: Index
    free: NDArray[np.bool_]
    points: Array
    image: Index
    point: Index
    uv: Array

    def in_cameras(self) -> Array:
        """(M, 3) observed points in the frames of the cameras that see them."""
        T = self.poses[self.image]
        seen: NDArray[np.float64] = np.einsum("mij,mj->mi", T[:, :3, :3], self.points[self.point]) + T[:, :3, 3]
        return seen

    def residuals(self) -> Array:
        """(M, 2) pixels between projection and observation; 1e6 behind the camera."""
        local = self.in_cameras()
        with np.errstate(divide="ignore", invalid="ignore"):
            projected = self.focals[self.lens[self.image]][:, None] * local[:, :2] / local[:, 2:]
        return np.where(local[:, 2:] > 1e-9, projected - self.uv, 1e6)


def adjust(bundle: Bundle, iterations: int = 20, sigma_px: float = 1.0) -> Bundle:
    """The bundle at a (local) optimum.

    Args:
        sigma_px: errors much larger than this count less and less.
    """
    cost, weights = _cost(bundle, sigma_px)
    damping = 1e-4
    for _ in range(iterations):
        system = _System(bundle, weights)
        while damping < 1e8:
            trial = system.step(damping)
            trial_cost, trial_weights = (np.inf, weights) if trial is None else _cost(trial, sigma_px)
            if trial_cost < cost:
                break
            damping *= 8
        else:
            return bundle
        assert trial is not None
        settled = cost - trial_cost < SETTLED * cost
        bundle, cost, weights, damping = trial, trial_cost, trial_weights, max(damping / 6, 1e-10)
        if settled:
            break
    return bundle


def _cost(bundle: Bundle, sigma_px: float) -> tuple[float, Array]:
    """Cauchy cost, and the weight (M,) of each observation's square."""
    squares = (bundle.residuals() ** 2).sum(axis=1) / sigma_px**2
    return float(np.log1p(squares).sum()), 1 / (1 + squares)


class _System:
    """The normal equations of one bundle."""

    def __init__(self, bundle: Bundle, weights: Array) -> None:
        self._bundle = bundle
        images, points, count = len(bundle.poses), len(bundle.points), len(bundle.image)
        root = np.sqrt(weights)[:, None, None]
        of_pose, of_point, of_focal = _derivatives(bundle)
        residuals = (bundle.residuals() * root[:, 0]).reshape(-1)
        rows = np.arange(count + 1)
        J_pose = bsr_matrix((of_pose * root, bundle.image, rows), shape=(2 * count, 6 * images))
        J_point = bsr_matrix((of_point * root, bundle.point, rows), shape=(2 * count, 3 * points))
        self._free = np.flatnonzero(bundle.free)
        column = np.full(len(bundle.free), -1)
        column[self._free] = np.arange(len(self._free))
        lens = column[bundle.lens[bundle.image]]
        seen = np.flatnonzero(lens >= 0)
        entries = (of_focal * root[:, 0])[seen].reshape(-1)
        at = (2 * seen[:, None] + np.arange(2)).reshape(-1), np.repeat(lens[seen], 2)
        J_focal = csr_matrix((entries, at), shape=(2 * count, len(self._free)))
        J_camera = hstack([J_pose.tocsr(), J_focal], format="csr")
        self._U = (J_camera.T @ J_camera).toarray()
        self._W = csr_matrix(J_camera.T @ J_point.tocsr())
        V = np.zeros((points, 3, 3))
        np.add.at(V, bundle.point, np.einsum("mki,mkj->mij", of_point * root, of_point * root))
        self._V = V
        self._g = -(J_camera.T @ residuals)
        self._h = -(J_point.T @ residuals)

    def step(self, damping: float) -> Bundle | None:
        """The bundle after one damped step; None where the equations cannot be solved."""
        V = self._V.copy()
        diagonal = np.einsum("pii->pi", V)
        diagonal += damping * diagonal + 1e-12
        inverse = np.linalg.inv(V)
        points = len(V)
        middle = bsr_matrix((inverse, np.arange(points), np.arange(points + 1)), shape=(3 * points, 3 * points))
        WV = (self._W @ middle.tocsr()).tocsr()
        reduced = self._U + np.diag(damping * np.diag(self._U) + 1e-12) - (WV @ self._W.T).toarray()
        try:
            cameras = cho_solve(cho_factor(reduced), self._g - WV @ self._h)
        except (LinAlgError, ValueError):
            return None
        moved = middle @ (self._h - self._W.T @ cameras)
        return self._moved(cameras, moved.reshape(-1, 3)) if np.isfinite(cameras).all() else None

    def _moved(self, cameras: Array, points: Array) -> Bundle:
        bundle, images = self._bundle, len(self._bundle.poses)
        twists, focal_steps = cameras[: 6 * images].reshape(-1, 6), cameras[6 * images :]
        turn = Rotation.from_rotvec(twists[:, 3:]).as_matrix()
        poses = bundle.poses.copy()
        poses[:, :3, :3] = turn @ bundle.poses[:, :3, :3]
        poses[:, :3, 3] = np.einsum("nij,nj->ni", turn, bundle.poses[:, :3, 3]) + twists[:, :3]
        focals = bundle.focals.copy()
        focals[self._free] *= np.exp(np.clip(focal_steps, -0.3, 0.3))
        return replace(bundle, poses=poses, focals=focals, points=bundle.points + points)


def _derivatives(bundle: Bundle) -> tuple[Array, Array, Array]:
    """Of residuals by pose (M, 2, 6) (translation, turn, in the camera), point (M, 2, 3) and log focal (M, 2)."""
    local = bundle.in_cameras()
    z = np.where(local[:, 2] > 1e-9, local[:, 2], 1.0)
    f = bundle.focals[bundle.lens[bundle.image]]
    by_local = np.zeros((len(local), 2, 3))
    by_local[:, 0, 0] = by_local[:, 1, 1] = f / z
    by_local[:, :, 2] = -(f / z**2)[:, None] * local[:, :2]
    x, y, zz = local.T
    zero = np.zeros_like(x)
    # A small turn w moves the point by w x p.
    turned = np.stack([np.stack([zero, zz, -y], -1), np.stack([-zz, zero, x], -1), np.stack([y, -x, zero], -1)], axis=1)
    by_pose = np.concatenate([by_local, by_local @ turned], axis=2)
    by_point = by_local @ bundle.poses[bundle.image][:, :3, :3]
    return by_pose, by_point, f[:, None] * local[:, :2] / z[:, None]
