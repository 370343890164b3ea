"""Surface points for keyframes without depth: matched between neighbours of known pose and triangulated.

The poses are given, so a match is believed only if it lies on its epipolar line, its rays meet at a
useful angle in front of both cameras, and the point projects back to where it was seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.observations import Array, Finder, LocalFeatures, MatchedPixels, Observations, View
from mast3r_ros.mapping.shared_views import PARALLAX_DEG, SharedViews
from mast3r_ros.matching.base import Matcher, matches_pixels

#: Neighbours each keyframe is triangulated with.
NEIGHBOURS = 8
#: A point may be off its observation by this much, in pixels of the images that were matched.
REPROJECTION_PX = 2.0


def triangulate_missing_depth(keyframe_map: KeyframeMap, matcher: Matcher | None = None) -> dict[str, int]:
    """Give every keyframe without depth the points that it shares with others.

    Args:
        matcher: finds the same points in other keyframes, where it can do that without knowing any depth: depth is
            then known where it will be looked for. Otherwise SIFT finds them.

    Returns:
        the number of points by keyframe id; keyframes that have depth already are left alone and not listed.
    """
    wanted = [keyframe.id for keyframe in keyframe_map.keyframes if not keyframe.has_depth]
    if not wanted:
        return {}
    local = LocalFeatures(keyframe_map)
    shared = SharedViews(keyframe_map, local)
    finder: Finder = local
    own = matcher is not None and matches_pixels(matcher)
    if matcher is not None and matches_pixels(matcher):
        finder = MatchedPixels(keyframe_map, matcher)
    found = {}
    for id in wanted:
        # Others see what SIFT does not, so they are shown views in which SIFT finds nothing as well.
        view, observations = finder(id, shared.neighbours(id, NEIGHBOURS, fill=own))
        found[id] = triangulated_points(view, observations)
    # Set at the end: points make features out of date, and the finder still needs them.
    for id, (xy, depth) in found.items():
        if len(depth):
            keyframe_map.set_points(id, xy, depth)
    return {id: len(depth) for id, (_, depth) in found.items()}


def triangulated_points(view: View, observations: list[Observations]) -> tuple[Array, Array]:
    """Pixels (M, 2) of a view with a trustworthy point, and its depth (M,), metres."""
    observations = [seen for seen in observations if len(seen.feature)]
    if not observations:
        return np.zeros((0, 2)), np.zeros(0)
    features, depth = _triangulated(view, observations)
    return view.xy[features], depth


def _triangulated(view: View, observations: list[Observations]) -> tuple[NDArray[np.int64], Array]:
    """Features (M,) of a view with a trustworthy point, and its depth (M,), from all views that saw it."""
    count = len(view.rays)
    normal, target = np.zeros((count, 3, 3)), np.zeros((count, 3))
    _add_rays(normal, target, np.arange(count), view.rays, np.eye(4))
    for seen in observations:
        _add_rays(normal, target, seen.feature, seen.rays, se3.inverse(view.map_T_camera) @ seen.other.map_T_camera)
    matched = np.unique(np.concatenate([seen.feature for seen in observations]))
    points = np.full((count, 3), np.nan)
    regular = matched[np.linalg.cond(normal[matched]) < 1e8]
    points[regular] = np.linalg.solve(normal[regular], target[regular][..., None])[..., 0]
    points[points[:, 2] <= 0] = np.nan
    error = np.full(count, -np.inf)
    parallax = np.zeros(count)
    np.maximum.at(error, regular, _reprojection(points[regular], view.rays[regular]) * view.camera.focal)
    for seen in observations:
        other_T_view = se3.inverse(seen.other.map_T_camera) @ view.map_T_camera
        here = points[seen.feature]
        np.maximum.at(
            error, seen.feature, _reprojection(se3.apply(other_T_view, here), seen.rays) * seen.other.camera.focal
        )
        np.maximum.at(parallax, seen.feature, _parallax(here, se3.inverse(other_T_view)[:3, 3]))
    good = matched[(error[matched] < REPROJECTION_PX * view.pixel) & (parallax[matched] > PARALLAX_DEG)]
    return good, points[good, 2]


def _add_rays(normal: Array, target: Array, rows: NDArray[np.int64], rays: Array, view_T_other: Array) -> None:
    """Add each ray to the normal equations of the point nearest to all of its feature's rays.

    A point at distance r from a camera is weighted as if r were one: with neighbouring views the
    distances are alike, and the reprojection test decides afterwards.
    """
    directions = se3.homogeneous(rays) @ view_T_other[:3, :3].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    np.add.at(normal, rows, across)
    np.add.at(target, rows, across @ view_T_other[:3, 3])


def _reprojection(points: Array, rays: Array) -> Array:
    """Distance (N,) between projected points (N, 3) and observations (N, 2) at z = 1; infinite behind the camera."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.linalg.norm(points[:, :2] / points[:, 2:] - rays, axis=1)
    return np.where(points[:, 2] > 0, distance, np.inf)


def _parallax(points: Array, centre: Array) -> Array:
    """Angle (N,) in degrees at which points (N, 3) see the origin and another camera centre (3,)."""
    other = points - centre
    cosine = (points * other).sum(axis=1) / (np.linalg.norm(points, axis=1) * np.linalg.norm(other, axis=1))
    degrees: NDArray[np.float64] = np.nan_to_num(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return degrees
