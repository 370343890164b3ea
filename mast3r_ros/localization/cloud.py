"""The query frame as a coloured point cloud in the map: from its depth, or from what a network predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.frames import Frame, lifted
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.scale import MetricScale, metric_scale_from_depth
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import PredictedDepth, predicts_depth
from mast3r_ros.surface import depth_points

#: Points (N, 3) in the map frame in metres, RGB (N, 3), confidence (N,) in (0, 1].
Cloud = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]

#: Depth noise of common sensors grows with the square of the depth; confidence halves at this depth, metres.
HALF_CONFIDENCE_M = 3.0


#: Half of the pose's inliers must agree on the scale of a predicted cloud to within this share of it.
MAX_SPREAD = 0.3


def localized_cloud(localizer: Localizer, frame: Frame, estimate: PoseEstimate, stride: int = 1) -> Cloud | None:
    """What a localized frame shows: by its own depth, else by the matcher's network where it has one.

    A network is run for this call only, so ask only where somebody looks at the result.
    """
    cloud = query_cloud(frame, estimate, stride)
    matcher = localizer.matcher
    if cloud is not None or not (predicts_depth(matcher) and estimate.localized and estimate.matched):
        return cloud
    best = localizer.map.features(matcher, estimate.matched[0].keyframe_id)
    return predicted_cloud(
        frame, estimate, matcher.predict_depth(localizer.features(frame), best), localizer.map, stride
    )


def predicted_cloud(
    frame: Frame, estimate: PoseEstimate, predicted: PredictedDepth, keyframe_map: KeyframeMap, stride: int = 1
) -> Cloud | None:
    """Predicted depth on the frame's rays, as large as the inliers of the estimated pose say, placed by that pose.

    Returns:
        None where the inliers do not agree on a scale.
    """
    scale = _scale_by_inliers(estimate, predicted, keyframe_map)
    if scale is None or scale.spread > MAX_SPREAD or estimate.map_T_camera is None:
        return None
    cells = np.floor(predicted.xy / stride).astype(np.int64)
    _, kept = np.unique(cells[:, 1] * frame.width + cells[:, 0], return_index=True)
    xy, z = predicted.xy[kept], predicted.depth[kept] * scale.factor
    if frame.camera is not None:
        rays = frame.camera.rays(xy)
    else:
        rays = (xy - [(frame.width - 1) / 2, (frame.height - 1) / 2]) / estimate.camera_focal_px
    points = se3.apply(estimate.map_T_camera, lifted(rays, z))
    u, v = np.rint(xy).astype(np.int64).T
    colours = frame.image[v.clip(0, frame.height - 1), u.clip(0, frame.width - 1)]
    confidence = predicted.confidence[kept] / (1 + predicted.confidence[kept])
    seen = np.isfinite(points).all(axis=1)
    return points[seen].astype(np.float32), colours[seen], confidence[seen].astype(np.float32)


def _scale_by_inliers(
    estimate: PoseEstimate, predicted: PredictedDepth, keyframe_map: KeyframeMap
) -> MetricScale | None:
    """Metres for each unit of the prediction: the depth of the inliers' map points against their pixels'."""
    if estimate.map_T_camera is None or len(predicted.xy) == 0:
        return None
    camera_T_map = se3.inverse(estimate.map_T_camera)
    pixels: list[NDArray[np.float64]] = [np.zeros((0, 2))]
    depths: list[NDArray[np.float64]] = [np.zeros(0)]
    for matched in estimate.matched:
        inliers = matched.matches[matched.inlier]
        camera_T_keyframe = camera_T_map @ keyframe_map[matched.keyframe_id].map_T_camera
        pixels.append(inliers.query_xy)
        depths.append(se3.apply(camera_T_keyframe, inliers.points)[:, 2])
    _, nearest = cKDTree(predicted.xy).query(np.concatenate(pixels))
    return metric_scale_from_depth(predicted.depth[nearest], np.concatenate(depths))


def query_cloud(frame: Frame, estimate: PoseEstimate, stride: int = 1) -> Cloud | None:
    """What the frame's depth shows, placed by the estimated pose.

    Args:
        stride: every n-th row and column is taken.

    Returns:
        None without depth, calibration or pose.
    """
    if frame.depth is None or frame.camera is None or estimate.map_T_camera is None:
        return None
    points, rows, columns = depth_points(frame, stride, first=stride // 2)
    confidence = (1 / (1 + (points[:, 2] / HALF_CONFIDENCE_M) ** 2)).astype(np.float32)
    return se3.apply(estimate.map_T_camera, points).astype(np.float32), frame.image[rows, columns], confidence
