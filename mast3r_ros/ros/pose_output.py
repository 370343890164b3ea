"""What becomes of an accepted pose: ~/pose, and map -> odom or a seed for AMCL."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import planar, se3
from mast3r_ros.localization.estimate import PoseEstimate, Track
from mast3r_ros.ros.camera_transforms import CameraInTf
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.correction import CorrectionBroadcaster
from mast3r_ros.ros.outputs import Outputs
from mast3r_ros.settings import NodeSettings

Array = NDArray[np.float64]


class PoseOutput:
    """Publishes accepted poses as a robot's other nodes take them."""

    def __init__(self, outputs: Outputs, correction: CorrectionBroadcaster, complaints: Complaints) -> None:
        self._outputs = outputs
        self._correction = correction
        self._complaints = complaints
        self._seeded_at: float | None = None
        self._seed_asked = False

    def forget(self) -> None:
        """The robot may be anywhere: broadcast no correction, and seed AMCL again with the next pose."""
        self._seeded_at = None
        self._correction.forget()

    def follow(self, estimate: PoseEstimate) -> None:
        """Withdraw the correction where an attempt, accepted or not, has lost the track."""
        if estimate.track is Track.LOST:
            self._correction.withdraw()
            self._complaints.say("lost", f"map -> odom is withdrawn: {estimate.track_detail}")
        elif estimate.track is Track.COMMITTED:
            self._complaints.cured("lost")

    def publish(
        self,
        estimate: PoseEstimate,
        camera: CameraInTf,
        map_T_odom: Array | None,
        p: NodeSettings,
        *,
        base_known: bool,
        asked: bool,
    ) -> None:
        """Publish an accepted pose of the camera.

        ~/pose is the robot's, as AMCL has it; the camera's only where TF has never told where it is mounted.

        Args:
            map_T_odom: (4, 4) of the tracker; None without odometry.
            base_known: whether TF has ever said where the camera is on the robot.
            asked: whether somebody asked for this pose.
        """
        assert estimate.map_T_camera is not None and estimate.covariance is not None
        map_T_body, covariance = estimate.map_T_camera, estimate.covariance
        if camera.base_T_camera is not None:
            camera_T_base = se3.inverse(camera.base_T_camera)
            map_T_body = estimate.map_T_camera @ camera_T_base
            covariance = se3.carry_covariance(covariance, estimate.map_T_camera, camera_T_base)
        elif base_known:
            return  # a camera's pose among poses of the robot would be a jump
        self._outputs.pose(map_T_body, covariance, estimate.stamp_ns)
        try:
            self._seed_asked = self._seed_asked or asked
            if estimate.track in (Track.TENTATIVE, Track.LOST):
                pass  # no other node is to rely on it yet
            elif p.feed == "amcl" and base_known:
                self._seed(map_T_body, covariance, estimate.stamp_ns, p)
            elif p.feed != "amcl" and p.tf_broadcast:
                self._broadcast(map_T_body, map_T_odom, estimate.stamp_ns, camera, p)
        except planar.NotUprightError as error:
            self._complaints.say(
                "not_upright",
                f"planar: {error}: no transform is made of this pose. The map's z axis must point up, and TF must say "
                f"how the camera is mounted on {p.base_frame_id}; or set planar to false",
            )
        else:
            self._complaints.cured("not_upright")

    def _broadcast(
        self, map_T_body: Array, map_T_odom: Array | None, stamp_ns: int, camera: CameraInTf, p: NodeSettings
    ) -> None:
        """Map -> odom once the track is committed; map -> base where there is no odometry at all."""
        if p.odom_frame_id and camera.odom_T_camera is not None and map_T_odom is not None:
            if p.is_planar:
                if camera.base_T_camera is None:
                    return  # what is planar is the robot's pose, not the camera's; its absence has been told
                map_T_odom = planar.correction(map_T_body, camera.odom_T_camera @ se3.inverse(camera.base_T_camera))
            self._correction.correct(map_T_odom, stamp_ns, p.transform_tolerance)
        elif not p.odom_frame_id and camera.base_T_camera is not None:
            map_T_base = planar.flattened(map_T_body) if p.is_planar else map_T_body
            self._correction.place(p.base_frame_id, map_T_base, stamp_ns)

    def _seed(self, map_T_base: Array, covariance: Array, stamp_ns: int, p: NodeSettings) -> None:
        """AMCL starts over with every seed, so it gets one at first, on request, and every feed_interval."""
        now = time.monotonic()
        due = p.feed_interval > 0 and self._seeded_at is not None and now - self._seeded_at >= p.feed_interval
        if self._seed_asked or due or self._seeded_at is None:
            seed = planar.flattened(map_T_base) if p.is_planar else map_T_base
            self._outputs.seed(seed, covariance, stamp_ns)
            self._seeded_at, self._seed_asked = now, False
