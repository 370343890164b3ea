"""A ROS recording as posed frames: camera topics, and poses from TF or from a pose topic."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera, PosedFrame
from mast3r_ros.io.bags import find_topics, open_bag
from mast3r_ros.io.datasets.base import Source
from mast3r_ros.io.datasets.recorded_poses import RecordedPoses
from mast3r_ros.transforms import TransformUnavailable

log = logging.getLogger(__name__)


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
        camera: calibration of the images, instead of the recorded one.

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
        camera: Camera | None = None,
    ) -> None:
        super().__init__(path.name)
        self._path = path
        self._frames = {
            "image_topic": image_topic,
            "camera_info_topic": camera_info_topic,
            "depth_topic": depth_topic,
            "use_depth": use_depth,
            "camera": camera,
        }
        self._max_delay_s = max_delay_s
        with open_bag(path) as bag:
            topics = find_topics(
                bag.topics, str(path), image_topic, camera_info_topic, depth_topic, use_depth, camera is not None
            )
            camera_frame = camera_frame or bag.first(topics.image).header.frame_id.lstrip("/")
            if pose_topic is None:
                self._poses = RecordedPoses.of_tf(bag, camera_frame, map_frame, topics.image)
            else:
                self._poses = RecordedPoses.of_topic(bag, pose_topic, camera_frame, pose_frame, map_frame, topics.image)
        self._poses.longest_gap_s = longest_gap_s
        self.map_frame = self._poses.fixed_frame

    def __iter__(self) -> Iterator[PosedFrame]:
        read = taken = 0
        why = ""
        with open_bag(self._path) as bag:
            for frame in bag.frames(max_delay_s=self._max_delay_s, **self._frames):  # type: ignore[arg-type]  # mixed by design
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
        return self._poses.at(stamp)
