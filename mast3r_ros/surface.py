"""Depth images as surface points, by one rule for edges: there a pixel belongs to either of two surfaces.

Where depth varies by 5 % of itself or more within a pixel and its eight neighbours, the pixel is on an edge. What is
measured there floats between the surfaces, or is the other one's.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, lifted, valid_depth

#: Depth may vary by this share of itself around a pixel before the pixel counts as an edge. In an image of 640 pixels a
#: wall seen at 80 degrees from its normal varies by 2 % there, at any distance; a box 0.2 m before it at 2 m by 10 %.
EDGE = 0.05


class SurfacePoints(NamedTuple):
    """Points (N, 3) of a depth image in the camera frame, metres, and the rows and columns (N,) of their pixels."""

    points: NDArray[np.float64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def smooth_depth(depth: NDArray[np.floating]) -> NDArray[np.float32]:
    """Depth (H, W) in metres, the middle of what a pixel and its neighbours measure; NaN where unknown or an edge."""
    near, far = _extremes(depth)
    return np.where((far > 0) & (far - near < EDGE * far), (near + far) / 2, np.float32(np.nan))


def surface_depth(depth: NDArray[np.floating], xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Depth (N,) at pixels (N, 2) of a depth image (H, W) in metres; NaN where unknown, outside, or an edge."""
    height, width = depth.shape
    found = np.full(len(xy), np.nan, dtype=np.float32)
    inside = np.isfinite(xy).all(axis=1)
    u, v = np.rint(np.asarray(xy)[inside]).astype(np.int64).T
    inside[inside] = within = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    found[inside] = smooth_depth(depth)[v[within], u[within]]
    return found


def surface_points(frame: Frame, xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Surface points (N, 3) seen at pixels (N, 2), metres in the camera frame; NaN where unknown or an edge."""
    points = np.full((len(xy), 3), np.nan, dtype=np.float32)
    if frame.depth is None or frame.camera is None or len(xy) == 0:
        return points
    # A keypoint may lie half a pixel outside of the pixel centres.
    z = surface_depth(frame.depth, np.clip(xy, 0, [frame.width - 1, frame.height - 1]))
    known = np.isfinite(z)
    points[known] = frame.camera.points(xy[known], z[known])
    return points


def depth_points(frame: Frame, step: int = 1, *, first: int = 0, edges: bool = True) -> SurfacePoints:
    """What the depth image of a frame with a camera shows, as it was measured.

    Args:
        step, first: every n-th row and column is taken, from this one on.
        edges: whether pixels on edges are taken too.
    """
    assert frame.camera is not None and frame.depth is not None
    known = valid_depth(frame.depth)
    if not edges:
        near, far = _extremes(frame.depth)
        known &= far - near < EDGE * far
    rows, columns = (first + step * indices for indices in np.nonzero(known[first::step, first::step]))
    points = lifted(frame.camera.pixel_rays[rows, columns], frame.depth[rows, columns])
    seen = np.isfinite(points).all(axis=1)
    return SurfacePoints(points[seen], rows[seen], columns[seen])


def _extremes(depth: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest depth (H, W) measured in a pixel and its eight neighbours; 1e6 and 0 where nothing is."""
    valid = valid_depth(depth)
    kernel = np.ones((3, 3), np.uint8)
    near = cv2.erode(np.where(valid, depth, 1e6).astype(np.float32), kernel)
    return near, cv2.dilate(np.where(valid, depth, 0).astype(np.float32), kernel)
