"""Everything the relocalizer publishes while it is active, except transforms."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.localization.cloud import localized_cloud
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.matches import draw_matches
from mast3r_ros.ros import attempt_status, conversions, qos

Array = NDArray[np.float64]


class Outputs:
    """The node's lifecycle publishers. What nobody subscribes to is not computed.

    Args:
        frame_id: frame of the map, in which everything is published.
        seeds_amcl: publish initialpose as well, for the AMCL of the same namespace.
    """

    def __init__(self, node: LifecycleNodeMixin, frame_id: str, path_length: int, seeds_amcl: bool) -> None:
        self._node = node
        self._frame_id = frame_id
        self._path: deque[PoseStamped] = deque(maxlen=path_length)

        def publisher(kind: type, topic: str, profile: QoSProfile | None = None) -> Any:
            return node.create_lifecycle_publisher(
                kind,
                topic,
                profile or qos.reliable(),
                event_callbacks=qos.no_publisher_events(),
                qos_overriding_options=qos.overridable(),
            )

        self._pose_topic = publisher(PoseWithCovarianceStamped, "~/pose", qos.latched())
        self._path_topic = publisher(Path, "~/path")
        self._status_topic = publisher(DiagnosticArray, "~/status")
        self._points_topic = publisher(PointCloud2, "~/points")
        self._matches_topic = publisher(Image, "~/matches")
        self._map_points_topic = publisher(PointCloud2, "~/map_points", qos.latched())
        self._keyframes_topic = publisher(MarkerArray, "~/keyframes", qos.latched())
        self._seed_topic = publisher(PoseWithCovarianceStamped, "initialpose") if seeds_amcl else None

    def destroy(self) -> None:
        """Take all publishers down."""
        for topic in (
            *(self._pose_topic, self._path_topic, self._status_topic, self._points_topic, self._matches_topic),
            *(self._map_points_topic, self._keyframes_topic, self._seed_topic),
        ):
            if topic is not None:
                self._node.destroy_lifecycle_publisher(topic)

    def pose(self, map_T_body: Array, covariance: Array, stamp_ns: int) -> None:
        """An accepted pose (4, 4) with its covariance (6, 6): ~/pose, and appended to ~/path."""
        message = conversions.to_pose_with_covariance(map_T_body, covariance, self._frame_id, stamp_ns)
        self._pose_topic.publish(message)
        self._path.append(PoseStamped(header=message.header, pose=message.pose.pose))
        if _wanted(self._path_topic):
            self._path_topic.publish(Path(header=message.header, poses=list(self._path)))

    def status(self, estimate: PoseEstimate, timings_ms: Mapping[str, float], frame_id: str) -> None:
        """How an attempt ended, a rejected one too."""
        if _wanted(self._status_topic):
            name = self._node.get_fully_qualified_name().lstrip("/")
            self._status_topic.publish(attempt_status.to_message(name, estimate, timings_ms, frame_id))

    def forget_path(self) -> None:
        """Begin a new path: time has jumped, or another map."""
        self._path.clear()

    def seed(self, map_T_base: Array, covariance: Array, stamp_ns: int) -> None:
        """A pose (4, 4) with its covariance (6, 6) for AMCL to start from."""
        assert self._seed_topic is not None
        self._seed_topic.publish(conversions.to_pose_with_covariance(map_T_base, covariance, self._frame_id, stamp_ns))

    def cloud(self, localizer: Localizer, frame: Frame, estimate: PoseEstimate, stride: int) -> None:
        """What the frame shows by its depth, or by the matcher's network, in the map."""
        if not _wanted(self._points_topic) or (cloud := localized_cloud(localizer, frame, estimate, stride)) is None:
            return
        xyz, rgb, confidence = cloud
        self._points_topic.publish(conversions.to_point_cloud(xyz, rgb, self._frame_id, frame.stamp_ns, confidence))

    def matches(self, frame: Frame, estimate: PoseEstimate, keyframe_map: KeyframeMap, frame_id: str) -> None:
        """The debug picture, of rejected frames too."""
        if _wanted(self._matches_topic):
            picture = draw_matches(frame.image, estimate, keyframe_map)
            self._matches_topic.publish(conversions.to_image(picture, frame_id, frame.stamp_ns))

    def map(self, keyframe_map: KeyframeMap, voxel_m: float, stamp_ns: int) -> None:
        """Keyframes at once; map points from a thread of their own, because every depth image has to be read."""
        markers = conversions.to_keyframe_markers(keyframe_map.keyframes, self._frame_id, stamp_ns)
        self._keyframes_topic.publish(markers)
        if voxel_m > 0:
            arguments = (keyframe_map, voxel_m, stamp_ns)
            threading.Thread(target=self._publish_map_points, args=arguments, name="map points", daemon=True).start()

    def _publish_map_points(self, keyframe_map: KeyframeMap, voxel_m: float, stamp_ns: int) -> None:
        logger = self._node.get_logger()
        try:
            xyz, rgb = map_cloud(keyframe_map, voxel_m)
            self._map_points_topic.publish(conversions.to_point_cloud(xyz, rgb, self._frame_id, stamp_ns))
        except UserError as error:
            logger.warning(f"map points are not published: {error}")
        except InvalidHandle:
            pass  # the node was cleaned up meanwhile


def _wanted(topic: Any) -> bool:
    """Whether the publisher is active and has subscribers."""
    return bool(topic.is_activated and topic.get_subscription_count() > 0)
