"""How the cameras of a pair stand to each other, and the units of their canonical pointmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.multiview.sim3_graph import SimilarityEdge

Array = NDArray[np.float64]

#: Parallax beyond which rays alone tell the motion, degrees.
TRIANGULATED_DEG = 2.0
#: The two pointmaps must agree on the ratio of their units to within this (half the width of the middle half, natural
#: logarithm), and this share of the matches must follow the motion.
MOST_SPREAD, LEAST_SHARE = 0.35, 0.3
#: Distance from its point up to which a match follows, pixels of the matcher's image.
NEAR_PX = 6.0
#: Distance of two rays, and difference between triangulated and told depth (natural logarithm), at which a match counts
#: half.
MEET_PX, DEPTHS = 1.5, 0.15


@dataclass(frozen=True, eq=False)
class MatchedSurface:
    """Matches of a pair with the depth that each image's own canonical pointmap gives them.

    Attributes:
        rays_i, rays_j: (N, 2) ideal image coordinates.
        depth_i, depth_j: (N,) along the optical axes, in the units of the images.
        focal_i, focal_j: pixels of the matcher's images.
    """

    rays_i: Array
    rays_j: Array
    depth_i: Array
    depth_j: Array
    focal_i: float
    focal_j: float

    def swapped(self) -> MatchedSurface:
        """From j to i."""
        return MatchedSurface(self.rays_j, self.rays_i, self.depth_j, self.depth_i, self.focal_j, self.focal_i)


def similarity(
    i: int, j: int, seen: MatchedSurface, camera_j_T_camera_i: Array, parallax_deg: float, share: float
) -> SimilarityEdge | None:
    """From frame i to frame j; None where pointmaps and motion contradict each other.

    Args:
        camera_j_T_camera_i: (4, 4) of the matches' epipolar geometry, of unit length.
        parallax_deg: of the matches under it.
        share: of all matches that it explains.
    """
    wide = parallax_deg > TRIANGULATED_DEG
    backward = _resected(seen.swapped())
    found = [_resected(seen), None if backward is None else se3.inverse(backward)]
    # Of a plane two motions explain all matches, of which the wrong one gives it a shape that it has not.
    pose = _best([_scaled(seen, camera_j_T_camera_i), *found] if wide else found, seen)
    if pose is None:
        return None
    local = se3.apply(pose, seen.depth_i[:, None] * _homogeneous(seen.rays_i))
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.linalg.norm(local[:, :2] / local[:, 2:] - seen.rays_j, axis=1) * seen.focal_j
        ratio = np.log(seen.depth_j / local[:, 2])
    agrees = (local[:, 2] > 0) & (seen.depth_j > 0) & np.isfinite(ratio)
    # Depth errors move points along epipolar lines: a wide pair has been verified across them already.
    follows = agrees if wide else agrees & (off < NEAR_PX)
    if follows.sum() < max(12, LEAST_SHARE * len(off)):
        return None
    low, s, high = np.percentile(ratio[follows], [25, 50, 75])
    if (high - low) / 2 > MOST_SPREAD:
        return None
    s = float(np.exp(s))
    depth = float(np.median(seen.depth_j[follows]))
    j_T_i = Similarity(s, pose[:3, :3], s * pose[:3, 3])
    return SimilarityEdge(i, j, j_T_i, depth, float(follows.sum()), share)


def _best(poses: Sequence[Array | None], seen: MatchedSurface) -> Array | None:
    """The pose (4, 4) under which matches meet, and at depths in a constant ratio to those that are told."""
    scores = [(-1.0 if pose is None else _agreement(pose, seen), n) for n, pose in enumerate(poses)]
    return poses[max(scores)[1]]


def _agreement(pose: Array, seen: MatchedSurface) -> float:
    """From 0 to 1, a mean over the matches."""
    a, b = triangulated(seen.rays_i, seen.rays_j, pose)
    with np.errstate(divide="ignore", invalid="ignore"):
        meet = se3.apply(pose, a[:, None] * _homogeneous(seen.rays_i))
        off = np.linalg.norm(meet[:, :2] / meet[:, 2:] - seen.rays_j, axis=1) * seen.focal_j
        ratios = [np.log(a / seen.depth_i), np.log(b / seen.depth_j)]
        total = 1 + (off / MEET_PX) ** 2
        for ratio in ratios:
            total = total + ((ratio - np.nanmedian(ratio)) / DEPTHS) ** 2
    return float(np.nan_to_num(1 / total).mean())


def _scaled(seen: MatchedSurface, pose: Array) -> Array | None:
    """The epipolar pose with the length that makes triangulated depths those of image i."""
    a, b = triangulated(seen.rays_i, seen.rays_j, pose)
    good = (a > 0) & (b > 0) & (seen.depth_i > 0)
    if good.sum() < 12:
        return None
    length = float(np.exp(np.median(np.log(seen.depth_i[good] / a[good]))))
    return se3.make(pose[:3, :3], length * pose[:3, 3])


def triangulated(rays_i: Array, rays_j: Array, pose: Array) -> tuple[Array, Array]:
    """Depth (N,) of matched rays in both cameras, least squares; ``pose`` is camera_j_T_camera_i."""
    u = _homogeneous(rays_i) @ pose[:3, :3].T
    v, t = _homogeneous(rays_j), pose[:3, 3]
    uu, vv, uv = (u * u).sum(axis=1), (v * v).sum(axis=1), (u * v).sum(axis=1)
    ut, vt = u @ t, v @ t
    determinant = np.maximum(uu * vv - uv * uv, 1e-12)
    return (uv * vt - vv * ut) / determinant, (uu * vt - uv * ut) / determinant


def _resected(seen: MatchedSurface) -> Array | None:
    """PnP of image i's points in image j."""
    points = seen.depth_i[:, None] * _homogeneous(seen.rays_i)
    unit = float(np.median(seen.depth_i))
    if not unit > 0:
        return None
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [seen.focal_j, 0.0, 0.0]}
    options = {"max_reproj_error": NEAR_PX, "max_iterations": 2000, "min_iterations": 100, "seed": 0}
    found, _ = poselib.estimate_absolute_pose(seen.rays_j * seen.focal_j, points / unit, camera, options)
    if not np.isfinite(found.R).all() or not np.isfinite(found.t).all():
        return None
    return se3.make(found.R, unit * np.asarray(found.t))


def _homogeneous(rays: Array) -> Array:
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
