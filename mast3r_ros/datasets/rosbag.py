"""A ROS recording as posed frames: camera topics, and poses from TF or from a pose topic."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.bags import BagReader, find_topics, open_bag
from mast3r_ros.bags.frames import stamp_ns
from mast3r_ros.datasets.base import Source
from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.transforms import TransformBuffer, TransformUnavailable

log = logging.getLogger(__name__)

#: Frames that usually are the fixed one, best first. Poses in odom drift, so they come last.
FIXED_FRAMES = ("map", "world", "odom")
POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    "nav_msgs/msg/Odometry",
)


class RosBag(Source):
    """Frames of a recording whose camera pose is known at their time; the others are left out and counted.

    Args:
        image_topic, camera_info_topic, depth_topic: found by type and name where not given.
        map_frame: the fixed frame; None takes map, world or odom, whichever is recorded.
        camera_frame: the camera's optical frame; None takes the images' frame_id.
        pose_topic: take poses from this topic instead of TF (PoseStamped, PoseWithCovarianceStamped,
            TransformStamped or Odometry).
        pose_frame: the frame that ``pose_topic`` tells the pose of, where its messages do not say; None means the
            camera. From there to the camera TF is used.
        longest_gap_s: a frame is left out where the poses around it are further apart: nobody knows the way between.
        max_delay_s: how far apart colour and depth of one frame may be.
        use_depth: False leaves depth away.

    Raises:
        BagError: if the recording cannot be read; DatasetError: without usable poses.
    """

    layout = "rosbag"

    def __init__(
        self,
        path: Path,
        image_topic: str | None = None,
        camera_info_topic: str | None = None,
        depth_topic: str | None = None,
        map_frame: str | None = None,
        camera_frame: str | None = None,
        pose_topic: str | None = None,
        pose_frame: str | None = None,
        longest_gap_s: float = 0.5,
        max_delay_s: float = 0.02,
        use_depth: bool = True,
    ) -> None:
        super().__init__(path.name)
        self._path = path
        self._longest_gap_s = longest_gap_s
        self._frames = {
            "image_topic": image_topic,
            "camera_info_topic": camera_info_topic,
            "depth_topic": depth_topic,
            "max_delay_s": max_delay_s,
            "use_depth": use_depth,
        }
        with open_bag(path) as bag:
            topics = find_topics(bag.topics, str(path), image_topic, camera_info_topic, depth_topic, use_depth)
            self._camera_frame = camera_frame or bag.first(topics.image).header.frame_id.lstrip("/")
            self._transforms = bag.transforms()
            if pose_topic is None:
                self._poses, self._body_frame = self._transforms, self._camera_frame
                self.map_frame = map_frame or self._fixed_frame()
            else:
                self._poses, self._body_frame, self.map_frame = self._read_poses(bag, pose_topic, pose_frame, map_frame)

    def __iter__(self) -> Iterator[PosedFrame]:
        read = taken = 0
        why = ""
        with open_bag(self._path) as bag:
            for frame in bag.frames(**self._frames):  # type: ignore[arg-type]  # mixed by design
                read += 1
                try:
                    pose = self.pose_at(frame.stamp_ns)
                except TransformUnavailable as error:
                    why = str(error)
                    continue
                taken += 1
                yield PosedFrame(frame, pose)
        if not taken:
            raise DatasetError(f"{self._path}: none of {read} images has a pose in '{self.map_frame}': {why}")
        if taken < read:
            log.warning(
                "%s: %d of %d images have no pose at their time and are left out (%s)",
                self.name,
                read - taken,
                read,
                why,
            )

    def pose_at(self, stamp: int) -> NDArray[np.float64]:
        """The recorded ``map_T_camera`` (4, 4) at a time in nanoseconds.

        Raises:
            TransformUnavailable: if none was recorded around that time.
        """
        pose = self._poses.lookup(self.map_frame, self._body_frame, stamp)
        if (gap := self._poses.gap_s(self.map_frame, self._body_frame, stamp)) > self._longest_gap_s:
            raise TransformUnavailable(f"the poses around {stamp / 1e9:.3f} s are {gap:.1f} s apart (longest_gap_s)")
        if self._body_frame != self._camera_frame:
            pose = pose @ self._transforms.lookup(self._body_frame, self._camera_frame, stamp)
        return pose

    def _fixed_frame(self) -> str:
        for name in FIXED_FRAMES:
            if self._transforms.can_transform(name, self._camera_frame):
                if name == "odom":
                    log.warning("%s has no map or world frame: poses are taken in odom, which drifts", self._path)
                return name
        known = ", ".join(self._transforms.frames) or "nothing"
        raise DatasetError(
            f"{self._path}: TF (it has {known}) does not lead from {', '.join(FIXED_FRAMES)} to the camera "
            f"'{self._camera_frame}': give map_frame, camera_frame, or pose_topic"
        )

    def _read_poses(
        self, bag: BagReader, topic: str, pose_frame: str | None, map_frame: str | None
    ) -> tuple[TransformBuffer, str, str]:
        """Poses from a topic as a buffer of their own, the frame they tell the pose of, and the fixed frame."""
        if topic in bag.topics and bag.topics[topic].type not in POSE_TYPES:
            raise DatasetError(f"{bag.path}: {topic} is {bag.topics[topic].type}: use one of {', '.join(POSE_TYPES)}")
        buffer = TransformBuffer(cache_s=None)
        first = bag.first(topic)
        body = pose_frame or getattr(first, "child_frame_id", "").lstrip("/") or self._camera_frame
        fixed = first.header.frame_id.lstrip("/") or map_frame or "map"
        if map_frame not in (None, fixed):
            raise DatasetError(f"{bag.path}: poses on {topic} are in '{fixed}', not in '{map_frame}'")
        for _, _, message in bag.messages([topic]):
            try:
                buffer.set(fixed, body, _pose(message), stamp_ns(message))
            except ValueError as error:
                log.warning("%s, %s: %s: this pose is left out", bag.path, topic, error)
        return buffer, body, fixed


def _pose(message: Any) -> NDArray[np.float64]:
    """(4, 4) of any of POSE_TYPES. Raises ValueError."""
    if hasattr(message, "transform"):
        t, q = message.transform.translation, message.transform.rotation
    else:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        t, q = pose.position, pose.orientation
    return se3.from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
