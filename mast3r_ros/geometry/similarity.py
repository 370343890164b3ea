"""Similarities, and the one that carries the poses of one world onto the same poses in another, whatever some say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Poses that hypotheses are made of, at most; two of them make one where the scale is free.
HYPOTHESES = 80
#: Two poses tell a scale where they are this many times further apart than a pose may be off.
BASELINE = 2.0
#: Standard deviation of the logarithm of the scale that depths of one pose tell, at least.
DEPTH_SIGMA = 0.03
#: What is thought of the scale beforehand: nothing, but that it is no more than e to the power of this.
PRIOR = 5.0
#: Residuals of neighbouring poses hang together: standard deviations are larger than independent ones' by this.
CORRELATED = 2.0


@dataclass(frozen=True, eq=False)
class Similarity:
    """``x -> scale R x + t``: from the coordinates of world b to those of world a.

    Attributes:
        scale: units of a for each unit of b.
        R, t: (3, 3), (3,).
    """

    scale: float
    R: Array
    t: Array

    @classmethod
    def rigid(cls, a_T_b: Array) -> Similarity:
        """A rigid motion (4, 4)."""
        return cls(1.0, a_T_b[:3, :3], a_T_b[:3, 3])

    def points(self, points: NDArray[np.floating]) -> Array:
        """(..., 3) in b -> a."""
        return self.scale * np.asarray(points, dtype=np.float64) @ self.R.T + self.t

    def pose(self, b_T_camera: Array) -> Array:
        """(4, 4) camera -> b becomes camera -> a."""
        return se3.make(self.R @ b_T_camera[:3, :3], self.points(b_T_camera[:3, 3]))

    def inverse(self) -> Similarity:
        """From a to b."""
        return Similarity(1 / self.scale, self.R.T, -self.R.T @ self.t / self.scale)

    def scaled(self, factor: float) -> Similarity:
        """The same in a world a whose every length is multiplied."""
        return Similarity(factor * self.scale, self.R, factor * self.t)


def fit_similarity(
    source: NDArray[np.floating], target: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> Similarity:
    """Weighted least-squares similarity (Umeyama, PAMI 1991).

    Args:
        source, target: (..., 3) corresponding points.
        weights: (...) of each pair.

    Returns:
        What carries the source's points onto the target's.
    """
    x = np.asarray(source, dtype=np.float64).reshape(-1, 3)
    y = np.asarray(target, dtype=np.float64).reshape(-1, 3)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    w = w / w.sum()
    mean_x, mean_y = w @ x, w @ y
    x, y = x - mean_x, y - mean_y
    U, S, Vt = np.linalg.svd((y * w[:, None]).T @ x)
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ np.diag(mirror) @ Vt
    s = float((S * mirror).sum() / (w @ (x * x).sum(axis=1)))
    return Similarity(s, R, np.asarray(mean_y - s * R @ mean_x))


@dataclass(frozen=True, eq=False)
class PoseFit:
    """What carries the poses of one world onto another's.

    Attributes:
        a_T_b: the similarity.
        agrees: (N,) poses that it explains.
        position, rotation_rad: (N,) by how much each is off, in units of a and radians.
        rival: how many poses the best entirely different similarity explains.
        scale_sigma: relative standard deviation of the scale; 0 where it was fixed.
    """

    a_T_b: Similarity
    agrees: NDArray[np.bool_]
    position: Array
    rotation_rad: Array
    rival: int
    scale_sigma: float


def fit_poses(a_poses: Array, b_poses: Array, reach: float, turn_rad: float, ratios: Array, rigid: bool) -> PoseFit:
    """The similarity that most poses agree with, refined on these.

    Args:
        a_poses, b_poses: (N, 4, 4) of the same cameras in both worlds.
        reach, turn_rad: what a pose that agrees may be off, units of a and radians.
        ratios: (N,) depth in a over depth in b, of what each camera sees; NaN where unknown.
        rigid: both worlds have the same unit: the scale is exactly 1.
    """
    tried = _hypotheses(a_poses, b_poses, reach, ratios, rigid)
    agreeing = [_agreeing(s, a_poses, b_poses, reach, turn_rad) for s in tried]
    best = max(range(len(tried)), key=lambda n: int(agreeing[n].sum()))
    similarity, agrees = tried[best], agreeing[best]
    rival = max((int(other.sum()) for other in agreeing if not (other & agrees).any()), default=0)
    sigma = 1.0
    for _ in range(3):
        similarity, sigma = _refined(similarity, a_poses, b_poses, agrees, (reach, turn_rad), ratios, rigid)
        again = _agreeing(similarity, a_poses, b_poses, reach, turn_rad)
        if not again.any() or (again == agrees).all():
            break
        agrees = again
    position, rotation = _residuals(similarity, a_poses, b_poses)
    return PoseFit(similarity, agrees, position, rotation, rival, sigma)


def _hypotheses(a_poses: Array, b_poses: Array, reach: float, ratios: Array, rigid: bool) -> list[Similarity]:
    """What single poses say, and pairs where the scale is free."""
    chosen = np.unique(np.linspace(0, len(a_poses) - 1, min(len(a_poses), HYPOTHESES)).round().astype(int))
    tried = [_of_pose(a_poses[i], b_poses[i], 1.0) for i in chosen]
    if rigid:
        return tried
    tried += [_of_pose(a_poses[i], b_poses[i], ratios[i]) for i in chosen if np.isfinite(ratios[i])]
    for i, j in ((i, j) for i in chosen for j in chosen if i != j):
        here, there = (np.linalg.norm(poses[i, :3, 3] - poses[j, :3, 3]) for poses in (a_poses, b_poses))
        if here > BASELINE * reach and there > 0:
            tried.append(_of_pose(a_poses[i], b_poses[i], float(here / there)))
    return tried


def _of_pose(a_pose: Array, b_pose: Array, scale: float) -> Similarity:
    R = a_pose[:3, :3] @ b_pose[:3, :3].T
    return Similarity(float(scale), R, a_pose[:3, 3] - scale * R @ b_pose[:3, 3])


def _residuals(similarity: Similarity, a_poses: Array, b_poses: Array) -> tuple[Array, Array]:
    """Distances (N,) of centres in units of a, and angles (N,) in radians."""
    off = np.linalg.norm(a_poses[:, :3, 3] - similarity.points(b_poses[:, :3, 3]), axis=1)
    trace = np.einsum("nij,nij->n", a_poses[:, :3, :3], similarity.R @ b_poses[:, :3, :3])
    return off, np.arccos(np.clip((trace - 1) / 2, -1, 1))


def _agreeing(
    similarity: Similarity, a_poses: Array, b_poses: Array, reach: float, turn_rad: float
) -> NDArray[np.bool_]:
    position, rotation = _residuals(similarity, a_poses, b_poses)
    return np.asarray((position < reach) & (rotation < turn_rad))


def _refined(
    start: Similarity,
    a_poses: Array,
    b_poses: Array,
    agrees: NDArray[np.bool_],
    limits: tuple[float, float],
    ratios: Array,
    rigid: bool,
) -> tuple[Similarity, float]:
    """Least squares with Cauchy weights over the poses that agree, and the relative sigma of the scale."""
    reach, turn_rad = limits
    a, b, logs = a_poses[agrees], b_poses[agrees], np.log(ratios[agrees])
    logs = logs[np.isfinite(logs)]
    noise = max(DEPTH_SIGMA, 1.4826 * float(np.median(np.abs(logs - np.median(logs))))) if len(logs) else 1.0

    def moved(x: Array) -> Similarity:
        return Similarity(float(np.exp(x[0])), Rotation.from_rotvec(x[1:4]).as_matrix() @ start.R, x[4:7])

    def costs(x: Array) -> Array:
        similarity = moved(x)
        off = (a[:, :3, 3] - similarity.points(b[:, :3, 3])) / (reach / 3)
        turn = Rotation.from_matrix(np.swapaxes(similarity.R @ b[:, :3, :3], 1, 2) @ a[:, :3, :3]).as_rotvec()
        return np.concatenate([off.ravel(), (turn / (turn_rad / 3)).ravel(), (x[0] - logs) / noise, [x[0] / PRIOR]])

    begin = np.concatenate([[np.log(start.scale)], np.zeros(3), start.t])
    if rigid:
        fixed = least_squares(lambda x: costs(np.concatenate([[0.0], x])), begin[1:], loss="cauchy")
        return moved(np.concatenate([[0.0], fixed.x])), 0.0
    free = least_squares(costs, begin, loss="cauchy")
    spread = max(float(np.mean(free.fun[:-1] ** 2)), 1e-6)  # what thresholds promise is not what residuals are
    weak = np.zeros((7, 7))
    weak[0, 0] = 1 / PRIOR**2
    known = (free.jac.T @ free.jac - weak) / spread + weak
    return moved(free.x), CORRELATED * float(np.sqrt(np.linalg.pinv(known)[0, 0]))
