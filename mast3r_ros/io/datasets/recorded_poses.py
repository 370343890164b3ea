"""Where a camera was at any time, as somebody recorded it: in TF, on a pose topic, or in a TUM trajectory file."""

from __future__ import annotations

import logging
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagReader
from mast3r_ros.io.bags.messages import stamp_ns
from mast3r_ros.io.datasets.trajectory_file import read_trajectory
from mast3r_ros.transforms import TransformBuffer, TransformUnavailable

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

#: Frames that usually are the fixed one, best first. Poses in odom drift, so they come last.
FIXED_FRAMES = ("map", "world", "odom")
POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    "nav_msgs/msg/Odometry",
)


class RecordedPoses:
    """Poses of a camera over time. Make one with :meth:`of_tf`, :meth:`of_topic` or :meth:`of_file`.

    Poses are interpolated between the two around a time. Where these are too far apart, or there is only one, the
    nearest one counts if it is close enough.

    Attributes:
        fixed_frame: the frame that the poses are in.
        body_frame: the frame that they are the pose of; TF relates it to the camera.
        longest_gap_s: poses further apart are not interpolated: nobody knows the way between.
        max_difference_s: how far a pose may be away in time where nothing can be interpolated.
        offset_s: added to a time before it is looked up: the poses' clock minus the images' clock.
    """

    def __init__(
        self, poses: TransformBuffer, transforms: TransformBuffer, fixed_frame: str, body_frame: str, camera_frame: str
    ) -> None:
        self.fixed_frame, self.body_frame = fixed_frame, body_frame
        self.longest_gap_s, self.max_difference_s, self.offset_s = 0.5, 0.0, 0.0
        self._poses, self._transforms, self._camera_frame = poses, transforms, camera_frame
        self._stamps: list[int] = []

    @classmethod
    def of_tf(
        cls, bag: BagReader, camera_frame: str, fixed_frame: str | None = None, image_topic: str = "/"
    ) -> RecordedPoses:
        """Poses of the camera in TF; in map, world or odom, whichever is recorded, where no frame is named.

        Args:
            image_topic: whose namespace's TF is meant (here and below).

        Raises:
            DatasetError: if TF does not lead to the camera.
        """
        transforms = bag.transforms(image_topic)
        fixed = fixed_frame or _fixed_frame(bag, transforms, camera_frame)
        return cls(transforms, transforms, fixed, camera_frame, camera_frame)

    @classmethod
    def of_topic(
        cls,
        bag: BagReader,
        topic: str,
        camera_frame: str,
        body_frame: str | None = None,
        fixed_frame: str | None = None,
        image_topic: str = "/",
    ) -> RecordedPoses:
        """Poses from a topic with messages of :data:`POSE_TYPES`.

        Args:
            body_frame: what the poses are of, where the messages do not say; the camera by default.
            fixed_frame: what the poses are in, where the messages do not say; map by default.

        Raises:
            BagError: without that topic; DatasetError: for another type, or poses in another frame.
        """
        if topic in bag.topics and bag.topics[topic].type not in POSE_TYPES:
            raise DatasetError(f"{bag.path}: {topic} is {bag.topics[topic].type}: use one of {', '.join(POSE_TYPES)}")
        first = bag.first(topic)
        body = body_frame or getattr(first, "child_frame_id", "").lstrip("/") or camera_frame
        fixed = first.header.frame_id.lstrip("/") or fixed_frame or "map"
        if fixed_frame not in (None, fixed):
            raise DatasetError(f"{bag.path}: poses on {topic} are in '{fixed}', not in '{fixed_frame}'")
        found = cls(TransformBuffer(cache_s=None), bag.transforms(image_topic), fixed, body, camera_frame)
        for _, _, message in bag.messages([topic]):
            try:
                found._add(stamp_ns(message), _pose(message))
            except ValueError as error:
                log.warning("%s, %s: %s: this pose is left out", bag.path, topic, error)
        return found

    @classmethod
    def of_file(
        cls,
        path: Path,
        bag: BagReader,
        camera_frame: str,
        body_frame: str | None = None,
        fixed_frame: str = "map",
        image_topic: str = "/",
    ) -> RecordedPoses:
        """Poses from a TUM trajectory file, which names no frames.

        Raises:
            DatasetError: for a file that is missing, empty or malformed.
        """
        transforms, body = bag.transforms(image_topic), body_frame or camera_frame
        found = cls(TransformBuffer(cache_s=None), transforms, fixed_frame, body, camera_frame)
        for stamp, pose in read_trajectory(path):
            found._add(stamp, pose)
        return found

    def at(self, stamp: int) -> Array:
        """``fixed_T_camera`` (4, 4) at a time in nanoseconds.

        Raises:
            TransformUnavailable: if none was recorded around that time, or nothing relates body and camera.
        """
        try:
            pose = self._interpolated(stamp + round(self.offset_s * 1e9))
        except TransformUnavailable:
            nearest = self._nearest(stamp + round(self.offset_s * 1e9))
            if nearest is None:
                raise
            pose = self._poses.lookup(self.fixed_frame, self.body_frame, nearest)
        if self.body_frame != self._camera_frame:
            pose = pose @ self._transforms.lookup(self.body_frame, self._camera_frame, stamp)
        return pose

    def _add(self, stamp: int, pose: Array) -> None:
        self._poses.set(self.fixed_frame, self.body_frame, pose, stamp)
        at = bisect_left(self._stamps, stamp)
        if self._stamps[at : at + 1] != [stamp]:
            self._stamps.insert(at, stamp)

    def _interpolated(self, stamp: int) -> Array:
        pose = self._poses.lookup(self.fixed_frame, self.body_frame, stamp)
        if (gap := self._poses.gap_s(self.fixed_frame, self.body_frame, stamp)) > self.longest_gap_s:
            raise TransformUnavailable(f"the poses around {stamp / 1e9:.3f} s are {gap:.1f} s apart (longest_gap_s)")
        return pose

    def _nearest(self, stamp: int) -> int | None:
        """The nearest stamp of a topic or file that is close enough."""
        after = bisect_left(self._stamps, stamp)
        close = [
            s for s in self._stamps[max(0, after - 1) : after + 1] if abs(s - stamp) <= self.max_difference_s * 1e9
        ]
        return min(close, key=lambda s: abs(s - stamp), default=None)


def _fixed_frame(bag: BagReader, transforms: TransformBuffer, camera_frame: str) -> str:
    for name in FIXED_FRAMES:
        if transforms.can_transform(name, camera_frame):
            if name == "odom":
                log.warning("%s has no map or world frame: poses are taken in odom, which drifts", bag.path)
            return name
    known = ", ".join(transforms.frames) or "nothing"
    raise DatasetError(
        f"{bag.path}: TF (it has {known}) does not lead from {', '.join(FIXED_FRAMES)} to the camera "
        f"'{camera_frame}': give map_frame, camera_frame, or pose_topic"
    )


def _pose(message: Any) -> Array:
    """(4, 4) of any of POSE_TYPES. Raises ValueError."""
    if hasattr(message, "transform"):
        t, q = message.transform.translation, message.transform.rotation
    else:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        t, q = pose.position, pose.orientation
    return se3.from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
