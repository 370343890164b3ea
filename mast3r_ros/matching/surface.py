"""Depth images read at single pixels, wary of edges: there a pixel belongs to either of two surfaces."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth

#: Depth may vary by this share of itself around a pixel before the pixel counts as an edge.
EDGE = 0.05


def surface_depth(depth: NDArray[np.floating], xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Depth (N,) at pixels (N, 2) of a depth image (H, W) in metres; NaN where unknown, outside, or an edge."""
    height, width = depth.shape
    found = np.full(len(xy), np.nan, dtype=np.float32)
    inside = np.isfinite(xy).all(axis=1)
    u, v = np.rint(np.asarray(xy)[inside]).astype(np.int64).T
    inside[inside] = within = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = u[within], v[within]
    valid = valid_depth(depth)
    kernel = np.ones((3, 3), np.uint8)
    near = cv2.erode(np.where(valid, depth, 1e6).astype(np.float32), kernel)[v, u]
    far = cv2.dilate(np.where(valid, depth, 0).astype(np.float32), kernel)[v, u]
    smooth = (far > 0) & (far - near < EDGE * far)
    found[np.flatnonzero(inside)[smooth]] = (near + far)[smooth] / 2
    return found


def surface_points(frame: Frame, xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Surface points (N, 3) seen at pixels (N, 2), metres in the camera frame; NaN where unknown or an edge."""
    points = np.full((len(xy), 3), np.nan, dtype=np.float32)
    if frame.depth is None or frame.camera is None or len(xy) == 0:
        return points
    # A keypoint may lie half a pixel outside of the pixel centres.
    z = surface_depth(frame.depth, np.clip(xy, 0, [frame.width - 1, frame.height - 1]))
    known = np.isfinite(z)
    rays = frame.camera.rays(np.asarray(xy[known], dtype=np.float64))
    points[known] = np.concatenate([rays * z[known, None], z[known, None]], axis=1)
    return points
