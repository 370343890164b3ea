"""The map seen from above: its surface, its keyframes, and the ways cameras took through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric

Array = NDArray[np.float64]

PAPER, INK, KEYFRAME = "#f7f6f2", "#2b2d33", "#3d5a80"
#: Colours of trajectories that name none, in order; told apart by colour-blind eyes too.
COLOURS = ("#d1495b", "#00798c", "#edae49", "#6a4c93")
#: Cameras mostly stand upright; within this angle of the map's z axis, z is up, degrees.
UPRIGHT_DEG = 30.0
#: What is this much higher than any camera is ceiling and would hide the room, in scene depths.
HEADROOM = 0.16
#: Least margin around what is shown, in scene depths.
MARGIN = 0.12
#: Width of the picture; the cells that the surface is drawn in (scene depths), and how many may lie along its longer
#: side.
WIDTH_IN, FINEST_CELL, MOST_CELLS = 10.0, 0.004, 700
#: Depth pixels to read in all.
PIXELS = 8_000_000


@dataclass(frozen=True, eq=False)
class DrawnPath:
    """A way through the map to draw.

    Attributes:
        positions: (N, 3) camera centres in the map frame, metres; a NaN row interrupts the line.
        label: what the legend calls it, or empty.
        colour: any matplotlib colour, or None for the next free one.
        points: draw points instead of a line.
    """

    positions: ArrayLike
    label: str = ""
    colour: str | None = None
    points: bool = False


def draw_plan_view(
    keyframe_map: KeyframeMap, path: str | Path, trajectories: Sequence[DrawnPath] = (), *, title: str = ""
) -> None:
    """Write a picture of the map from above (PNG, SVG or PDF by the name).

    Raises:
        MapError: if the map is empty or unreadable, or the picture cannot be written.
    """
    if len(keyframe_map) == 0:
        raise MapError("the map is empty: there is nothing to draw")
    centres = np.stack([keyframe.map_T_camera[:3, 3] for keyframe in keyframe_map.keyframes])
    axes_of_sight = np.stack([keyframe.map_T_camera[:3, 2] for keyframe in keyframe_map.keyframes])
    plan_T_map = plan_rotation(keyframe_map)
    pixels = int(np.clip(PIXELS / len(centres), 40_000, 300_000))
    depth = keyframe_map.view_depth_m
    finest_m = FINEST_CELL * depth
    points, colours = map_cloud(keyframe_map, finest_m, max_points=5_000_000, pixels_per_keyframe=pixels)
    points = points @ plan_T_map.T
    ways = [np.asarray(way.positions, dtype=np.float64).reshape(-1, 3) @ plan_T_map.T for way in trajectories]
    below = points[:, 2] < (centres @ plan_T_map.T)[:, 2].max() + HEADROOM * depth
    low, high = _extent(points[below, :2], np.concatenate([centres @ plan_T_map.T, *ways])[:, :2], MARGIN * depth)
    figure = Figure(figsize=(WIDTH_IN, _height(low, high)), facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96 - (0.05 if title else 0)))
    _draw_surface(axes, points[below], colours[below], low, high, finest_m)
    _draw_keyframes(axes, centres @ plan_T_map.T, axes_of_sight @ plan_T_map.T, high - low)
    for number, (way, xyz) in enumerate(zip(trajectories, ways, strict=True)):
        _draw_way(axes, way, xyz, COLOURS[number % len(COLOURS)])
    unit = "m" if is_metric(keyframe_map) else "units of unknown length"
    _finish(axes, low, high, f"{len(keyframe_map)} keyframes", title, unit)
    try:
        figure.savefig(path, dpi=150, facecolor=PAPER)
    except (OSError, ValueError) as error:
        raise MapError(f"{path}: the plan view cannot be written ({error})") from error


def plan_rotation(keyframe_map: KeyframeMap) -> Array:
    """(3, 3) rotation from the map frame to plan axes: x right, y up the page, z towards the viewer.

    The map's own z axis is up where the cameras agree; elsewhere up is what they agree on, and the longer
    side of their path lies across the page.
    """
    poses = np.stack([keyframe.map_T_camera for keyframe in keyframe_map.keyframes])
    up = _up(poses[:, :3, :3])
    if up[2] > np.cos(np.radians(UPRIGHT_DEG)):
        return np.eye(3)
    spots = poses[:, :3, 3] + 0.8 * keyframe_map.view_depth_m * poses[:, :3, 2]
    spread = (spots - spots.mean(axis=0)) @ (np.eye(3) - np.outer(up, up))
    _, _, directions = np.linalg.svd(spread, full_matrices=False)
    across = directions[0] - up * (directions[0] @ up)
    if np.linalg.norm(across) < 1e-6:
        across = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(up, across), up])


def _up(rotations: Array) -> Array:
    """The unit direction (3,) most level with the cameras' right-hand sides and least far from their tops.

    People and robots pitch cameras far more than they roll them, so the sides say more than the tops.
    """
    tops = -rotations[:, :, 1].mean(axis=0)
    if np.linalg.norm(tops) < 0.2:
        return np.array([0.0, 0.0, 1.0])
    tops /= np.linalg.norm(tops)
    sides = np.einsum("ni,nj->ij", rotations[:, :, 0], rotations[:, :, 0]) / len(rotations)
    up: Array = np.linalg.eigh(sides + 0.02 * (np.eye(3) - np.outer(tops, tops)))[1][:, 0]
    return up if up @ tops > 0 else -up


def _extent(surface: Array, cameras: Array, margin_m: float) -> tuple[Array, Array]:
    """Corners (2,) of what to show: all cameras, and the surface without outliers far away."""
    cameras = cameras[np.isfinite(cameras).all(axis=1)]
    low, high = cameras.min(axis=0), cameras.max(axis=0)
    if len(surface):
        low = np.minimum(low, np.quantile(surface, 0.003, axis=0))
        high = np.maximum(high, np.quantile(surface, 0.997, axis=0))
    margin = max(margin_m, 0.04 * float((high - low).max()))
    return low - margin, high + margin


def _height(low: Array, high: Array) -> float:
    return float(np.clip(WIDTH_IN * (high - low)[1] / (high - low)[0], 0.4 * WIDTH_IN, 1.6 * WIDTH_IN))


def _draw_surface(
    axes: Axes, points: Array, colours: NDArray[np.uint8], low: Array, high: Array, finest_m: float
) -> None:
    """The highest point of each cell gives its colour; small holes between samples are closed."""
    cell = max(finest_m, float((high - low).max()) / MOST_CELLS)
    size = np.maximum(1, np.ceil((high - low) / cell).astype(int))
    column, row = np.floor((points[:, :2] - low) / cell).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < size[0]) & (row < size[1])
    order = np.flatnonzero(inside)[np.argsort(points[inside, 2])]
    picture = np.zeros((size[1], size[0], 4), np.float32)
    if len(order):
        heights = points[order, 2]
        bottom, top = np.quantile(heights, [0.02, 0.98])
        shade = 0.8 + 0.2 * np.clip((heights - bottom) / max(top - bottom, 1e-6), 0, 1)
        picture[row[order], column[order], :3] = (colours[order] / 255.0) ** 0.8 * shade[:, None]
        picture[row[order], column[order], 3] = 1
    filled = cv2.GaussianBlur(picture * picture[..., 3:], (0, 0), 1.2)
    holes = (picture[..., 3] == 0) & (filled[..., 3] > 0.25)
    picture[holes, :3] = filled[holes, :3] / filled[holes, 3:]
    picture[holes, 3] = 1
    corners = (low[0], low[0] + size[0] * cell, low[1], low[1] + size[1] * cell)
    axes.imshow(np.clip(picture, 0, 1), origin="lower", extent=corners, interpolation="antialiased", alpha=0.9)


def _draw_keyframes(axes: Axes, centres: Array, sight: Array, extent: Array) -> None:
    """A small wedge for each keyframe, opening where it looks."""
    size = 0.022 * float(extent.max()) * float(np.clip(60 / len(centres), 0.1, 1) ** 0.4)
    ahead = sight[:, :2] / np.maximum(np.linalg.norm(sight[:, :2], axis=1, keepdims=True), 1e-9)
    aside = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    tip = centres[:, :2]
    wedges = np.stack([tip, tip + size * (ahead + 0.55 * aside), tip + size * (ahead - 0.55 * aside)], axis=1)
    axes.add_collection(
        PolyCollection(list(wedges), facecolors=KEYFRAME, edgecolors="white", linewidths=0.7, alpha=0.75, zorder=3)
    )


def _draw_way(axes: Axes, way: DrawnPath, xyz: Array, colour: str) -> None:
    colour = way.colour or colour
    if way.points:
        axes.scatter(xyz[:, 0], xyz[:, 1], s=14, color=colour, edgecolors="white", linewidths=0.4, zorder=5)
        handle = axes.scatter([], [], s=30, color=colour)
    else:
        axes.plot(xyz[:, 0], xyz[:, 1], color="white", linewidth=4.0, zorder=4, solid_capstyle="round")
        (handle,) = axes.plot(xyz[:, 0], xyz[:, 1], color=colour, linewidth=2.2, zorder=5, solid_capstyle="round")
    if way.label:
        handle.set_label(way.label)


def _finish(axes: Axes, low: Array, high: Array, caption: str, title: str, unit: str) -> None:
    """Frame, scale bar, legend."""
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_axis_off()
    span = high - low
    decade = 10.0 ** np.floor(np.log10(0.3 * span[0]))
    bar = decade * max(n for n in (1, 2, 5) if n * decade <= 0.3 * span[0])
    x, y = low[0] + 0.03 * span.max(), low[1] + 0.03 * span.max()
    axes.plot([x, x + bar], [y, y], color="white", linewidth=6, solid_capstyle="butt", zorder=6)
    axes.plot([x, x + bar], [y, y], color=INK, linewidth=3, solid_capstyle="butt", zorder=7)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
    axes.text(
        x + bar / 2, y + 0.015 * span.max(), f"{bar:g} {unit}", ha="center", color=INK, fontsize=11, bbox=box, zorder=7
    )
    axes.scatter([], [], marker="<", s=60, color=KEYFRAME, label=caption)
    legend = axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=11)
    legend.set_zorder(8)
    if title:
        axes.set_title(title, fontsize=15, color=INK, loc="left", pad=10)
