"""The surface of a map as a coloured point cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.surface import depth_points

#: A depth image with fewer known pixels than this is sparse (triangulated), and has no edges to speak of.
DENSE = 0.2
#: Rows kept before voxels are merged: bounds the memory.
MERGE_ROWS = 2_000_000
#: Side of a voxel where nobody states one, in scene depths.
VOXEL = 0.012
#: Voxels are numbered with 21 bits per axis.
REACH = 1 << 20


def map_cloud(
    keyframe_map: KeyframeMap,
    voxel_m: float = 0.0,
    max_points: int = 1_000_000,
    *,
    max_keyframes: int = 400,
    pixels_per_keyframe: int = 40_000,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Everything the keyframes' depth shows, averaged in voxels.

    Args:
        voxel_m: side of a voxel, metres; 0 takes what suits the distance of what is seen, 3 cm at 2.5 m.
        max_points: a larger cloud is thinned at random (with a fixed seed).
        max_keyframes: a larger map is represented by this many, evenly spread.
        pixels_per_keyframe: depth images are read at every n-th pixel to stay below this.

    Returns:
        points (N, 3) float32 in the map frame, metres, and their colours (N, 3) uint8 RGB.

    Raises:
        MapError: if an image of the map cannot be read.
    """
    if voxel_m < 0:
        raise ValueError(f"voxel_m cannot be negative, as {voxel_m} is")
    voxel_m = voxel_m or VOXEL * keyframe_map.view_depth_m
    ids = [keyframe.id for keyframe in keyframe_map.keyframes if keyframe.has_depth]
    chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(len(ids), max_keyframes)).astype(int)]
    voxels, pending = np.zeros((0, 8)), []
    for id in chosen:
        pending.append(_voxels_of(keyframe_map.frame(id), keyframe_map[id].map_T_camera, voxel_m, pixels_per_keyframe))
        if sum(map(len, pending)) > MERGE_ROWS:
            voxels, pending = _merged(np.concatenate([voxels, *pending])), []
    voxels = _merged(np.concatenate([voxels, *pending]))
    if len(voxels) > max_points:
        voxels = voxels[np.sort(np.random.default_rng(0).choice(len(voxels), max_points, replace=False))]
    mean = voxels[:, 1:7] / np.maximum(voxels[:, 7:], 1)
    return mean[:, :3].astype(np.float32), np.rint(mean[:, 3:]).astype(np.uint8)


def _frame_points(
    frame: Frame, map_T_camera: NDArray[np.float64], max_pixels: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Points (N, 3) of one frame's depth in the map frame and their colours (N, 3); nothing from depth edges."""
    assert frame.camera is not None and frame.depth is not None
    dense = valid_depth(frame.depth).mean() > DENSE
    step = max(1, int(np.ceil(np.sqrt(frame.depth.size / max_pixels)))) if dense else 1
    points, rows, columns = depth_points(frame, step, edges=not dense)
    return se3.apply(map_T_camera, points), frame.image[rows, columns]


def _voxels_of(frame: Frame, pose: NDArray[np.float64], voxel_m: float, max_pixels: int) -> NDArray[np.float64]:
    """Rows of voxel number, sum of x, y, z, r, g, b, and count."""
    points, colours = _frame_points(frame, pose, max_pixels)
    index = np.floor(points / voxel_m).astype(np.int64)
    inside = (np.abs(index) < REACH).all(axis=1)
    index = index[inside] + REACH
    number = ((index[:, 0] << 42) | (index[:, 1] << 21) | index[:, 2]).view(np.float64)  # only compared, never computed
    return _merged(np.column_stack([number, points[inside], colours[inside], np.ones(int(inside.sum()))]))


def _merged(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """One row for each voxel: the sums of its rows."""
    if len(rows) == 0:
        return rows
    number = np.ascontiguousarray(rows[:, 0]).view(np.int64)
    order = np.argsort(number, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(number[order]) != 0])
    sums = np.add.reduceat(rows[order, 1:], first, axis=0)
    return np.column_stack([rows[order[first], 0], sums])
