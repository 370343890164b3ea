"""What a pointmap tells of its camera: focal length and pose. A pointmap holds one 3-D point per pixel.

Pixels are integers at their centres and the principal point is (W / 2, H / 2) unless given: the convention of the
published estimators (DUSt3R, Wang et al., CVPR 2024, section 3.3), half a pixel off the exact centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Rounds of the iteratively reweighted fit of the focal length.
WEISZFELD_ROUNDS = 10
#: Focal lengths tried where it is unknown: this many, from half to three times the longer image side.
TENTATIVE_FOCALS = 21


def estimate_focal(
    pts3d: NDArray[np.floating],
    principal_point: ArrayLike | None = None,
    method: str = "weiszfeld",
    limits: tuple[float, float] = (0.0, np.inf),
) -> float:
    """Focal length in pixels (square ones) of the camera that sees a pointmap.

    Args:
        pts3d: (H, W, 3) points in the camera's own frame, at any scale.
        principal_point: x, y in pixels.
        method: ``weiszfeld`` (minimises the sum of reprojection distances) or ``median`` (of every pixel's vote).
        limits: smallest and largest result, relative to the focal length of a 60 degree field of view.

    Raises:
        ValueError: for an unknown method.
    """
    estimators = {"weiszfeld": _focal_weiszfeld, "median": _focal_median}
    if method not in estimators:
        raise ValueError(f"focal estimator '{method}' is not one of {', '.join(estimators)}")
    height, width = pts3d.shape[:2]
    centred = (_pixels(height, width) - _centre(pts3d, principal_point)).reshape(-1, 2)
    focal = estimators[method](centred, np.asarray(pts3d, dtype=np.float64).reshape(-1, 3))
    base = max(height, width) / (2 * np.tan(np.pi / 6))
    return float(np.clip(focal, limits[0] * base, limits[1] * base))


def _focal_median(centred: Array, points: Array) -> float:
    """Median of u z / x and v z / y; of an even number of votes the lower of the two in the middle."""
    with np.errstate(divide="ignore", invalid="ignore"):
        votes = (centred * points[:, 2:] / points[:, :2]).ravel()
    return lower_median(votes)


def _focal_weiszfeld(centred: Array, points: Array) -> float:
    """Iteratively reweighted least squares for the f that minimises the sum of |pixel - f * ray|."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rays = np.nan_to_num(points[:, :2] / points[:, 2:], nan=0.0, posinf=0.0, neginf=0.0)
    along, squared = (rays * centred).sum(axis=1), (rays * rays).sum(axis=1)
    if not squared.any():
        return 0.0
    focal = along.sum() / squared.sum()
    for _ in range(WEISZFELD_ROUNDS):
        weights = 1 / np.maximum(np.linalg.norm(centred - focal * rays, axis=1), 1e-8)
        focal = (weights * along).sum() / (weights * squared).sum()
    return float(focal)


@dataclass(frozen=True, eq=False)
class PointmapPose:
    """A camera found from the points its pixels show.

    Attributes:
        world_T_camera: (4, 4), world being the frame of the points.
        focal_px: focal length used.
        inliers: pixels the pose explains.
    """

    world_T_camera: Array
    focal_px: float
    inliers: int


def pose_from_pointmap(
    pts3d: NDArray[np.floating],
    focal_px: float,
    principal_point: ArrayLike | None = None,
    valid: NDArray[np.bool_] | None = None,
    threshold_px: float = 5.0,
    rounds: int = 100,
) -> PointmapPose | None:
    """Pose of the camera whose pixels show these points, by PnP in RANSAC.

    Args:
        pts3d: (H, W, 3) points in any frame.
        valid: (H, W) pixels that take part, e.g. confident ones; all finite ones by default.
        threshold_px: largest reprojection error of an inlier.
        rounds: of RANSAC.

    Returns:
        the pose, or None where fewer than four pixels take part or no pose is found.
    """
    finite = np.isfinite(pts3d).all(axis=-1)
    valid = finite if valid is None else valid & finite
    if valid.sum() < 4:
        return None
    centre = _centre(pts3d, principal_point)
    K = np.array([[focal_px, 0, centre[0]], [0, focal_px, centre[1]], [0, 0, 1]])
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        np.ascontiguousarray(pts3d[valid], dtype=np.float64),
        _pixels(*pts3d.shape[:2])[valid],
        K,
        None,
        iterationsCount=rounds,
        reprojectionError=threshold_px,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found:
        return None
    camera_T_world = se3.make(cv2.Rodrigues(rotation)[0], translation[:, 0])
    return PointmapPose(se3.inverse(camera_T_world), focal_px, 0 if inliers is None else len(inliers))


def pose_and_focal_from_pointmap(
    pts3d: NDArray[np.floating],
    principal_point: ArrayLike | None = None,
    valid: NDArray[np.bool_] | None = None,
    threshold_px: float = 5.0,
    rounds: int = 10,
) -> PointmapPose | None:
    """:func:`pose_from_pointmap` (H, W, 3) for an unknown focal length: of 21 tried the first with the most inliers.

    A coarse start, 10 % apart: in small images many focal lengths explain all pixels to within the threshold.
    """
    longer_side = max(pts3d.shape[:2])
    best: PointmapPose | None = None
    for focal in np.geomspace(longer_side / 2, 3 * longer_side, TENTATIVE_FOCALS):
        pose = pose_from_pointmap(pts3d, float(focal), principal_point, valid, threshold_px, rounds)
        if pose is not None and (best is None or pose.inliers > best.inliers):
            best = pose
    return best


def points_from_depth(
    depth: NDArray[np.floating], focal_px: ArrayLike, principal_point: ArrayLike | None = None
) -> Array:
    """Depth (H, W) along the optical axis -> points (H, W, 3) in the camera frame.

    Args:
        focal_px: one focal length or (fx, fy).
        principal_point: x, y; by default the exact image centre ((W - 1) / 2, (H - 1) / 2).
    """
    height, width = depth.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2] if principal_point is None else principal_point, np.float64)
    z = np.asarray(depth, dtype=np.float64)[..., None]
    return np.concatenate([(_pixels(height, width) - centre) / np.asarray(focal_px, np.float64) * z, z], axis=-1)


def lower_median(values: NDArray[np.floating]) -> float:
    """Median of values (N,) without NaN; of an even number the lower of the two in the middle. NaN of nothing."""
    kept = values[~np.isnan(values)]
    return float(np.partition(kept, (len(kept) - 1) // 2)[(len(kept) - 1) // 2]) if len(kept) else float("nan")


def _pixels(height: int, width: int) -> Array:
    """(H, W, 2) pixel centres as x, y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=-1).astype(np.float64)


def _centre(pts3d: NDArray[Any], principal_point: ArrayLike | None) -> Array:
    height, width = pts3d.shape[:2]
    return np.array([width / 2, height / 2]) if principal_point is None else np.asarray(principal_point, np.float64)
