"""Which matches of two images one motion of the camera explains, and whether the motion had any parallax."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.geometry.relative_pose import EssentialSettings, solve_relative_pose
from mast3r_ros.multiview.photos import Photo

Array = NDArray[np.float64]

#: Fewer matches on one motion are chance.
FEWEST = 16
#: Distance from the epipolar line up to which a match is one of the motion, pixels of the matched image.
EPIPOLAR_PX = 2.5
#: The same where the focal length is a guess: the motion only has to be about right then.
GUESSED_PX = 8.0
#: Matches that a turn of the camera explains this well (median, pixels of the matched image) show no parallax.
TURN_PX = 1.5


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """Two images that show the same.

    Attributes:
        i, j: numbers of the images.
        xy_i, xy_j: (K, 2) pixels of the matches.
        camera_j_T_camera_i: (4, 4), translation of length 1.
        parallax_deg: median angle between the rays of a match after the rotation is undone.
        only_turned: the camera turned on the spot, or moved too little to tell.
        rows: (K,) of the matches among those that were verified.
    """

    i: int
    j: int
    xy_i: Array
    xy_j: Array
    camera_j_T_camera_i: Array
    parallax_deg: float
    only_turned: bool
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xy_i)

    def part(self, rows: NDArray[np.int64]) -> VerifiedPair:
        """Some of the matches."""
        return replace(self, xy_i=self.xy_i[rows], xy_j=self.xy_j[rows], rows=self.rows[rows])


def verify(i: int, j: int, photos: tuple[Photo, Photo], xy_i: Array, xy_j: Array, pixel: float) -> VerifiedPair | None:
    """Matches that agree on one motion, or None where too few do.

    Args:
        photos: of both images.
        xy_i, xy_j: (N, 2) matched pixels.
        pixel: side of a pixel of the images that were matched, in pixels of the photos.
    """
    kept = np.ones(len(xy_i), bool)
    if len(xy_i) < FEWEST:
        return None
    calibrated = all(photo.calibrated for photo in photos)
    if not calibrated:
        kept = _fundamental_inliers(xy_i, xy_j, EPIPOLAR_PX * pixel)
    cameras = [photo.camera for photo in photos]
    rays_i, rays_j = cameras[0].rays(xy_i), cameras[1].rays(xy_j)
    kept &= np.isfinite(rays_i).all(axis=1) & np.isfinite(rays_j).all(axis=1)
    if kept.sum() < FEWEST:
        return None
    threshold = (EPIPOLAR_PX if calibrated else GUESSED_PX) * pixel
    motion = solve_relative_pose(
        rays_i[kept],
        rays_j[kept],
        (cameras[0].focal, cameras[1].focal),
        EssentialSettings(threshold_px=threshold, iterations=2000),
    )
    if motion is None or motion.inlier.sum() < FEWEST:
        return None
    # With a guessed focal length the essential matrix only tells the motion; the matches are the fundamental one's.
    rows = np.flatnonzero(kept)[motion.inlier] if calibrated else np.flatnonzero(kept)
    unit_i, unit_j = _unit(rays_i[rows]), _unit(rays_j[rows])
    parallax = _angles(unit_i @ motion.camera2_T_camera1[:3, :3].T, unit_j)
    turn_px = np.radians(np.median(_angles(unit_i @ _turn(unit_i, unit_j).T, unit_j))) * cameras[1].focal / pixel
    return VerifiedPair(
        i,
        j,
        xy_i[rows],
        xy_j[rows],
        motion.camera2_T_camera1,
        float(np.median(parallax)),
        bool(turn_px < TURN_PX),
        rows,
    )


def _fundamental_inliers(xy_i: Array, xy_j: Array, threshold_px: float) -> NDArray[np.bool_]:
    options = {"max_epipolar_error": threshold_px, "max_iterations": 5000, "min_iterations": 500, "seed": 0}
    _, found = poselib.estimate_fundamental(xy_i, xy_j, options)
    return np.asarray(found["inliers"], dtype=bool)


def _turn(unit_i: Array, unit_j: Array) -> Array:
    """Rotation (3, 3) that brings rays (N, 3) closest to others: least squares, then once more without the worst."""
    kept = np.ones(len(unit_i), bool)
    R = np.eye(3)
    for _ in range(3):
        U, _s, Vt = np.linalg.svd(unit_j[kept].T @ unit_i[kept])
        R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
        off = _angles(unit_i @ R.T, unit_j)
        kept = off <= np.quantile(off, 0.7)
    return R


def _unit(rays: Array) -> Array:
    rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _angles(a: Array, b: Array) -> Array:
    """Degrees (N,) between unit vectors (N, 3)."""
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1))))
