"""The query frame as a coloured point cloud in the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth
from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import PoseEstimate

#: Depth noise of common sensors grows with the square of the depth; confidence halves at this depth, metres.
HALF_CONFIDENCE_M = 3.0


def query_cloud(
    frame: Frame, estimate: PoseEstimate, stride: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]] | None:
    """What the frame's depth shows, placed by the estimated pose.

    Args:
        stride: every n-th row and column is taken.

    Returns:
        points (N, 3) in the map frame in metres, RGB (N, 3), confidence (N,) in (0, 1];
        None without depth, calibration or pose.
    """
    if frame.depth is None or frame.camera is None or estimate.map_T_camera is None:
        return None
    rows = slice(stride // 2, None, stride)
    z = frame.depth[rows, rows].reshape(-1)
    xyz = (
        np.concatenate([frame.camera.pixel_rays[rows, rows].reshape(-1, 2), np.ones((len(z), 1))], axis=1) * z[:, None]
    )
    seen = valid_depth(z) & np.isfinite(xyz).all(axis=1)
    points = se3.apply(estimate.map_T_camera, xyz[seen]).astype(np.float32)
    confidence = (1 / (1 + (z[seen] / HALF_CONFIDENCE_M) ** 2)).astype(np.float32)
    return points, frame.image[rows, rows].reshape(-1, 3)[seen], confidence
