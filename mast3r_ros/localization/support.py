"""A pose and the matches it rests on, and from where they are seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.geometry.absolute_pose import AbsolutePose

Array = NDArray[np.float64]

#: A keyframe supports a pose on its own with this many inliers.
SUPPORT = 8
#: A surface is fitted to this many landmarks around a point, within this share of the scene's depth; it is a plane
#: where they lie off it by no more than this share of what they lie apart.
AROUND, REACH, FLAT = 8, 0.2, 0.3


@dataclass(frozen=True, eq=False)
class Support:
    """A pose and the matches it rests on, as verification reads them.

    Attributes:
        pose: the solved pose.
        query_xy: (N, 2) pixels of the query.
        points: (N, 3) map points, metres.
        keyframe: (N,) index of the keyframe each match comes from, 0 .. offered - 1.
        centres: (K, 3) where the cameras of the keyframes that were matched stand in the map, metres.
        scene_depth_m: how far away things typically are here: what lengths are held against.
        landmarks: (M, 3) what the matcher knows of the map around here, metres; none where it cannot tell.
        believed: whether somebody or odometry knew that the camera is about there.
        recounted: observations that the pose's weights make of each pixel of the query, in the mean: several keyframes
            may show the same one, and several pixels may count as one, see :func:`.cells.recounted`.
    """

    pose: AbsolutePose
    query_xy: Array
    points: Array
    keyframe: NDArray[np.int64]
    centres: Array
    scene_depth_m: float
    landmarks: Array = field(default_factory=lambda: np.zeros((0, 3)))
    believed: bool = False
    recounted: float = 1.0

    @property
    def offered(self) -> int:
        """Number of keyframes that were matched."""
        return len(self.centres)

    @cached_property
    def directions(self) -> tuple[Array, Array]:
        """Unit vectors (M, 3) from the inliers to the query's camera, and to that of their keyframe."""
        inlier = self.pose.inlier
        points = self.points[inlier]
        to_query, to_keyframe = (
            _unit(rays - points) for rays in (self.pose.map_T_camera[:3, 3], self.centres[self.keyframe[inlier]])
        )
        return to_query, to_keyframe


def inliers_by_keyframe(support: Support) -> NDArray[np.int64]:
    """(offered,) inliers from each keyframe."""
    return np.bincount(support.keyframe[support.pose.inlier], minlength=support.offered)


def viewpoint_gap(support: Support) -> float:
    """Angle (rad) at the inliers between where the query sees them from and where their keyframes do, in the mean.

    Keyframes on both sides of the query make up for each other: what matters is whether the query sees things from a
    side that no keyframe does.
    """
    to_query, to_keyframe = support.directions
    if not len(to_query):
        return 0.0
    along = np.einsum("ij,ij->i", to_query, to_keyframe)
    across = (to_keyframe - along[:, None] * to_query).mean(axis=0)
    return float(np.arctan2(np.linalg.norm(across), along.mean()))


def seen_from_behind(support: Support) -> float:
    """Share of the inliers that the query and their keyframe see from opposite sides.

    A plane in a mirrored picture is the plane seen from its other side, so a pose that explains it looks through the
    wall. What both cameras see of a surface they see from one side of it, and mostly at less than a right angle. Where
    the angle is larger, the surface that landmarks around the point lie on decides: a floor is seen from all around.
    """
    to_query, to_keyframe = support.directions
    if not len(to_query):
        return 0.0
    opposed = np.flatnonzero(np.einsum("ij,ij->i", to_query, to_keyframe) < 0)
    if not len(opposed):
        return 0.0
    normals = _normals(support.points[support.pose.inlier][opposed], support.landmarks, REACH * support.scene_depth_m)
    sides = [np.einsum("ij,ij->i", normals, rays[opposed]) for rays in (to_query, to_keyframe)]
    known = np.isfinite(sides[0])
    # Where hardly any surface is known, rays that oppose have no excuse.
    behind = np.sum(sides[0][known] * sides[1][known] < 0) if 2 * known.sum() >= len(opposed) else len(opposed)
    return float(behind / len(to_query))


def _unit(vectors: Array) -> Array:
    """Vectors (M, 3) at unit length."""
    unit: Array = vectors / np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), 1e-12)[:, None]
    return unit


def _normals(points: Array, landmarks: Array, reach_m: float) -> Array:
    """Unit normals (N, 3), of either sign, of the planes around points; NaN where the landmarks lie on none."""
    normals = np.full(points.shape, np.nan)
    if len(landmarks) < AROUND:
        return normals
    distance, index = cKDTree(landmarks).query(points, k=AROUND)
    spread = landmarks[index] - landmarks[index].mean(axis=1, keepdims=True)
    axes, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))
    # Landmarks along a line say nothing about the side.
    flat = (distance[:, -1] < reach_m) & (axes[:, 0] < FLAT**2 * axes[:, 1])
    normals[flat] = vectors[flat, :, 0]
    return normals
