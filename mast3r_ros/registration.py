"""Depth of one camera as another camera would have measured it.

A depth pixel is a small piece of a surface, not a point: seen by a colour camera of more pixels it covers several. So
each is drawn over its footprint, on the plane through its neighbours (inverse depth is linear in the image of a plane),
and the nearest surface wins. Neighbours across a depth edge are on different surfaces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Array, Camera, valid_depth

#: Neighbours whose depths differ by more than this many times their distance across the line of sight are two
#: surfaces: a single one would be seen at less than 6 degrees.
EDGE_SLOPE = 10.0
#: Footprints are drawn for surfaces at most this many times as near to the colour camera as to the depth camera.
MAX_MAGNIFICATION = 4.0
#: Depth pixels that cover at most this much of a colour pixel's width are taken as points, in half the time: no colour
#: pixel lies between them.
POINTS_BELOW = 0.9
#: Intrinsics that differ by less than this share belong to the same camera.
SAME_INTRINSICS = 0.01

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def same_view(depth_camera: Camera | None, camera: Camera | None) -> bool:
    """Whether two cameras in one place see the same pixels, as far as is known."""
    if depth_camera is None or camera is None:
        return True
    return bool(np.allclose(depth_camera.K, camera.K, rtol=SAME_INTRINSICS, atol=1.0))


def register_depth(
    depth: NDArray[np.floating], depth_camera: Camera, colour_camera: Camera, colour_T_depth: Array
) -> Floats:
    """Depth as the colour camera would have measured it; the nearest surface wins a pixel.

    Args:
        depth: (H, W) metres in ``depth_camera``; 0 or not finite where nothing was measured.
        colour_T_depth: (4, 4) depth camera frame -> colour camera frame.

    Returns:
        (colour height, colour width) float32 metres, 0 where nothing was measured.
    """
    # Single precision is a ten-thousandth of a pixel here, and half the time of double.
    z = np.where(valid_depth(depth), depth, np.nan).astype(np.float32)
    seen = _seen(z, depth_camera, colour_camera, colour_T_depth)
    focal = np.array([depth_camera.fx, depth_camera.fy])
    # What a depth pixel of a surface at its own distance and square to the view covers: steps (u, v) along x and y.
    facing = (colour_camera.K[[0, 1], [0, 1]][:, None] * colour_T_depth[:2, :2] / focal).T
    if (np.abs(facing).sum(axis=0) <= POINTS_BELOW).all():
        steps: list[tuple[Floats, Floats]] = []
    else:
        steps = [_half_steps(z, seen, axis, EDGE_SLOPE / focal[1 - axis], facing[1 - axis] / 2) for axis in (1, 0)]
    inverse = _Footprints(seen, steps, colour_camera).nearest(colour_camera.width, colour_camera.height)
    with np.errstate(divide="ignore"):
        return np.where(inverse > 0, 1 / inverse, np.float32(0))


def _seen(z: Floats, depth_camera: Camera, colour_camera: Camera, colour_T_depth: Array) -> Floats:
    """(3, H, W): column, row and inverse depth of every depth pixel in the colour camera; NaN where it is not seen."""
    rays = depth_camera.pixel_rays.astype(np.float32)
    x, y = rays[..., 0] * z, rays[..., 1] * z
    R, t = colour_T_depth[:3, :3].astype(np.float32), colour_T_depth[:3, 3].astype(np.float32)
    X, Y, Z = (R[i, 0] * x + R[i, 1] * y + R[i, 2] * z + t[i] for i in range(3))
    inverse = np.float32(1) / np.where(Z > 1e-9, Z, np.float32(np.nan))
    if colour_camera.is_distorted:
        uv = colour_camera.project(np.stack([X, Y, Z], axis=-1).reshape(-1, 3)).T.reshape(2, *z.shape)
        return np.stack([*uv, inverse]).astype(np.float32)
    fx, skew, cx, fy, cy = (np.float32(colour_camera.K[i]) for i in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)))
    X, Y = X * inverse, Y * inverse
    return np.stack([fx * X + skew * Y + cx, fy * Y + cy, inverse])


def _half_steps(z: Floats, seen: Floats, axis: int, slope: float, facing: Array) -> tuple[Floats, Floats]:
    """(3, H, W) each: from every pixel of depth z half way to the next and to the previous one along an axis.

    Across an edge (a step of more than ``slope`` of the depth) the surface is taken to go on as on the other side, or
    by ``facing``, the half step (u, v) of a surface square to the view, where that is an edge too.
    """
    size = list(seen.shape)
    size[axis + 1] = 1
    step = np.diff(seen, axis=axis + 1) / 2
    ahead_z, here_z = (z[:, 1:], z[:, :-1]) if axis else (z[1:], z[:-1])
    with np.errstate(invalid="ignore"):  # NaN compares false
        linked = np.abs(ahead_z - here_z) <= np.float32(slope) * np.minimum(ahead_z, here_z)
    nothing, none = np.zeros(size, np.float32), np.zeros(size[1:], bool)
    ahead, behind = np.concatenate([step, nothing], axis + 1), np.concatenate([nothing, step], axis + 1)
    is_ahead, is_behind = np.concatenate([linked, none], axis), np.concatenate([none, linked], axis)
    magnification = np.minimum(z * seen[2], np.float32(MAX_MAGNIFICATION))
    alone = np.multiply.outer(np.array([*facing, 0], np.float32), magnification)
    forward = np.where(is_ahead, ahead, np.where(is_behind, behind, alone))
    backward = np.where(is_behind, behind, np.where(is_ahead, ahead, alone))
    return forward, -backward


class _Footprints:
    """What each depth pixel covers in the colour image: a box of pixels, and inverse depth as a plane over it.

    Args:
        seen: (3, H, W) column, row and inverse depth of every depth pixel.
        steps: to the borders with the neighbours, forward and backward, along both axes; none for single points.
    """

    def __init__(self, seen: Floats, steps: list[tuple[Floats, Floats]], camera: Camera) -> None:
        boxes = []
        for coordinate, pixels in ((0, camera.width), (1, camera.height)):
            low = high = seen[coordinate]
            for forward, backward in steps:
                low = low + np.minimum(forward[coordinate], backward[coordinate])
                high = high + np.maximum(forward[coordinate], backward[coordinate])
            boxes.append(_pixels_between(low, seen[coordinate], high, pixels))
        (left, columns), (top, rows) = boxes
        used = np.flatnonzero((columns > 0) & (rows > 0))
        self._left, self._columns, self._top, self._rows = (a.reshape(-1)[used] for a in (left, columns, top, rows))
        self._u, self._v, self._inverse = seen.reshape(3, -1)[:, used]
        whole = [(forward - backward).reshape(3, -1)[:, used] for forward, backward in steps]
        self._gradient = _gradient(*whole) if whole else (np.zeros_like(self._u),) * 2

    def nearest(self, width: int, height: int) -> Floats:
        """(height, width) inverse depth of the nearest surface, 0 where there is none."""
        point = np.repeat(np.arange(len(self._rows), dtype=np.int32), self._rows)  # one entry for each row of a box
        row = self._top[point] + _counted(self._rows)
        left, columns, slope = self._left[point], self._columns[point], self._gradient[0][point]
        start = self._inverse[point] + slope * (left - self._u[point])
        start += self._gradient[1][point] * (row - self._v[point])
        offset = _counted(columns)
        pixel = np.repeat(row * np.int32(width) + left, columns) + offset
        inverse = np.repeat(start.astype(np.float32), columns) + np.repeat(slope, columns) * offset.astype(np.float32)
        nearest = np.zeros(height * width, np.float32)
        np.maximum.at(nearest, pixel, inverse)
        return nearest.reshape(height, width)


def _pixels_between(low: Floats, at: Floats, high: Floats, pixels: int) -> tuple[Ints, Ints]:
    """First pixel and number of pixels whose centres lie in [low, high), with the one that ``at`` falls on."""
    with np.errstate(invalid="ignore"):
        nearest = np.rint(at)
        first = np.maximum(np.minimum(np.ceil(low), nearest), 0)
        last = np.minimum(np.maximum(np.ceil(high) - 1, nearest), pixels - 1)
        count = np.where(last >= first, last - first + 1, 0)
    return np.where(count > 0, first, 0).astype(np.int32), count.astype(np.int32)


def _gradient(across: Floats, down: Floats) -> tuple[Floats, Floats]:
    """Change of inverse depth per column and per row of the colour image, from the steps (3, N) along both axes."""
    (u_x, v_x, q_x), (u_y, v_y, q_y) = across, down
    area = u_x * v_y - u_y * v_x
    # Seen edge-on, a footprint has no area to be a plane over.
    flat = np.abs(area) < 0.1 * (np.abs(u_x) + np.abs(v_x)) * (np.abs(u_y) + np.abs(v_y))
    area = np.where(flat, np.float32(np.inf), area)
    return (q_x * v_y - q_y * v_x) / area, (q_y * u_x - q_x * u_y) / area


def _counted(lengths: Ints) -> Ints:
    """0, 1, ... length - 1 for every length, in one row."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    counted = np.arange(total, dtype=np.int32) - np.repeat(ends - lengths, lengths)
    return np.asarray(counted, dtype=np.int32)
