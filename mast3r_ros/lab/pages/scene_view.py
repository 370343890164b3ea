"""The map in three dimensions, as a picture: surface, keyframes and the camera's way, seen from above one corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.plan_view import HEADROOM, plan_rotation
from mast3r_ros.pictures.rerun_sdk import frustum

Array = NDArray[np.float64]
RGB = tuple[int, int, int]

PAPER: RGB = (247, 246, 242)
KEYFRAME: RGB = (96, 150, 215)
#: Drawn this many times larger and shrunk: smooth edges.
OVERSAMPLING = 2
VOXEL_M = 0.012
#: Depth pixels to read in all.
PIXELS = 4_000_000


@dataclass(frozen=True, eq=False)
class Way:
    """A line to draw: positions (N, 3) in the map frame, and its colour."""

    positions: Array
    colour: RGB


def draw_scene(
    keyframe_map: KeyframeMap,
    ways: Sequence[Way] = (),
    *,
    width: int = 1200,
    height: int = 800,
    azimuth_deg: float = 225.0,
    elevation_deg: float = 42.0,
) -> NDArray[np.uint8]:
    """Picture (height, width, 3) RGB of a map whose keyframes have depth.

    Args:
        azimuth_deg: where the viewer stands around the scene, from the x axis of the plan.
        elevation_deg: how far above the floor's plane.

    Raises:
        MapError: if the map knows no surface.
    """
    plan_T_map = se3.make(plan_rotation(keyframe_map), np.zeros(3))
    pixels = int(np.clip(PIXELS / max(len(keyframe_map), 1), 20_000, 100_000))
    points, colours = map_cloud(keyframe_map, VOXEL_M, max_points=4_000_000, pixels_per_keyframe=pixels)
    if len(points) == 0:
        raise MapError("the map knows no surface (no keyframe has depth), so there is nothing to draw")
    points = se3.apply(plan_T_map, points)
    poses = np.stack([plan_T_map @ keyframe.map_T_camera for keyframe in keyframe_map.keyframes])
    points, colours = _opened(points, colours, poses, azimuth_deg, HEADROOM * keyframe_map.view_depth_m)
    lens, viewer_T_plan = _viewer(points, width * OVERSAMPLING, height * OVERSAMPLING, azimuth_deg, elevation_deg)
    canvas, depth = _splat(points, colours, lens, viewer_T_plan)
    edges = np.concatenate([frustum(pose, 0.1) for pose in poses])
    _draw_lines(canvas, depth, edges, KEYFRAME, 2, lens, viewer_T_plan, slack_m=1.5)
    for way in ways:
        positions = se3.apply(plan_T_map, way.positions)
        segments = np.stack([positions[:-1], positions[1:]], axis=1)
        _draw_lines(canvas, depth, segments, (255, 255, 255), 9, lens, viewer_T_plan, slack_m=10.0)
        _draw_lines(canvas, depth, segments, way.colour, 5, lens, viewer_T_plan, slack_m=10.0)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _opened(
    points: Array, colours: NDArray[np.uint8], poses: Array, azimuth_deg: float, headroom_m: float
) -> tuple[Array, NDArray[np.uint8]]:
    """Without the ceiling and the walls between the viewer and the room, which would hide everything."""
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    keep = (points[:, 2] < poses[:, 2, 3].max() + 2 * headroom_m) & (points > low - 0.05).all(axis=1)
    keep &= (points < high + 0.05).all(axis=1)
    towards = np.array([np.cos(np.radians(azimuth_deg)), np.sin(np.radians(azimuth_deg))])
    for axis in (0, 1):
        depth_of_wall = 0.06 * (high - low)[axis]
        if towards[axis] > 0.3:
            keep &= (points[:, axis] < high[axis] - depth_of_wall) | (points[:, 2] < low[2] + 0.1)
        elif towards[axis] < -0.3:
            keep &= (points[:, axis] > low[axis] + depth_of_wall) | (points[:, 2] < low[2] + 0.1)
    return points[keep], colours[keep]


def _viewer(points: Array, width: int, height: int, azimuth_deg: float, elevation_deg: float) -> tuple[Camera, Array]:
    """A long lens from afar, turned and scaled so that the scene fills the picture."""
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    size = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
    away = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    forward = -away
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    plan_T_viewer = se3.make(np.stack([right, np.cross(forward, right), forward], axis=1), middle + 2.2 * size * away)
    viewer_T_plan = se3.inverse(plan_T_viewer)
    seen = se3.apply(viewer_T_plan, points[:: max(1, len(points) // 50_000)])
    ideal = seen[:, :2] / seen[:, 2:]
    low, high = np.quantile(ideal, [0.0005, 0.9995], axis=0)
    focal = 0.94 * float(min(width / (high - low)[0], height / (high - low)[1]))
    centre = np.array([width, height]) / 2 - focal * (low + high) / 2
    return Camera.pinhole(width, height, focal, focal, centre[0], centre[1]), viewer_T_plan


def _splat(
    points: Array, colours: NDArray[np.uint8], lens: Camera, viewer_T_plan: Array
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Every point as a square of its size, the nearest on top. Returns the picture and its depth."""
    seen = se3.apply(viewer_T_plan, points)
    order = np.argsort(-seen[:, 2])  # far first: near points overwrite
    seen, colours = seen[order], colours[order]
    xy = np.rint(lens.project(seen)).astype(np.int64)
    canvas = np.full((lens.height, lens.width, 3), PAPER, np.uint8)
    depth = np.full((lens.height, lens.width), np.inf, np.float32)
    radius = max(1, int(np.ceil(0.75 * VOXEL_M * lens.fx / float(np.median(seen[:, 2])))))
    # Offset by offset would let a far point's corner cover a near one's centre; depth decides instead.
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            x, y = xy[:, 0] + dx, xy[:, 1] + dy
            z = seen[:, 2].astype(np.float32) + np.float32(0.002 * (abs(dx) + abs(dy)))
            inside = (x >= 0) & (y >= 0) & (x < lens.width) & (y < lens.height)
            x, y, z = x[inside], y[inside], z[inside]
            layer = np.full_like(depth, np.inf)
            layer[y, x] = z
            paint = np.zeros_like(canvas)
            paint[y, x] = colours[inside]
            nearer = layer < depth
            depth[nearer], canvas[nearer] = layer[nearer], paint[nearer]
    return canvas, depth


def _draw_lines(
    canvas: NDArray[np.uint8],
    depth: NDArray[np.float32],
    segments: Array,
    colour: RGB,
    thickness: int,
    lens: Camera,
    viewer_T_plan: Array,
    slack_m: float,
) -> None:
    """Segments (N, 2, 3); those that lie further behind the surface than ``slack_m`` are hidden."""
    ends = se3.apply(viewer_T_plan, segments)
    xy = lens.project(ends.reshape(-1, 3)).reshape(-1, 2, 2)
    for (start, end), z in zip(xy, ends[:, :, 2].mean(axis=1), strict=True):
        if not (np.isfinite(start).all() and np.isfinite(end).all()):
            continue
        column, row = np.rint((start + end) / 2).astype(int)
        if 0 <= row < lens.height and 0 <= column < lens.width and z > depth[row, column] + slack_m:
            continue
        a, b = ((16 * point).round().astype(int).tolist() for point in (start, end))
        cv2.line(canvas, a, b, colour, thickness, cv2.LINE_AA, 4)
