"""Where the camera was when it took an image, as TF has it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.diagnostics import Statistics
from mast3r_ros.ros.intake import Arrival, FrameRefused
from mast3r_ros.ros.tf import TransformListener
from mast3r_ros.settings import NodeSettings
from mast3r_ros.transforms import TransformUnavailable

Array = NDArray[np.float64]

#: While nobody is known to publish transforms, they are waited for this long at most, seconds.
NO_TF_WAIT_S = 0.5


@dataclass(frozen=True, eq=False)
class CameraInTf:
    """Where the camera is, (4, 4) each; None where TF does not say."""

    frame_id: str
    odom_T_camera: Array | None
    base_T_camera: Array | None


class CameraTransforms:
    """Asks TF for the camera at images' stamps, and complains of what it does not say.

    Attributes:
        listener: while the node is active.
        base_known: whether TF has ever said where the camera is on the robot.
    """

    def __init__(self, statistics: Statistics, complaints: Complaints) -> None:
        self._statistics = statistics
        self._complaints = complaints
        self.listener: TransformListener | None = None
        self.base_known = False
        self._first_frame_at: float | None = None

    def at(self, arrival: Arrival, p: NodeSettings) -> CameraInTf:
        """The camera in the odometry frame and on the robot, at the image's stamp.

        Raises:
            FrameRefused: while the first transform between robot and camera is waited for.
        """
        frame_id = p.camera_frame_id or arrival.message.header.frame_id
        base = odom = None
        if frame_id:
            base = self._lookup("tf_base", p.base_frame_id, frame_id, arrival.stamp_ns, p.tf_timeout)
            odom = self._lookup("tf_odom", p.odom_frame_id, frame_id, arrival.stamp_ns, p.tf_timeout)
        else:
            self._complaints.say(
                "no_camera_frame", "images have no frame_id and camera_frame_id is not set: no TF, no odometry"
            )
        self.base_known = self.base_known or base is not None
        self._wait_for_base(frame_id, p)
        return CameraInTf(frame_id, odom, base)

    def odometry_at(self, camera: CameraInTf, stamp_ns: int, p: NodeSettings) -> Array | None:
        """odom_T_camera (4, 4) at an initial pose's stamp; the image's, with a warning, where TF does not know it."""
        if not p.odom_frame_id or not stamp_ns or self.listener is None:
            return camera.odom_T_camera
        try:
            return self.listener.lookup(p.odom_frame_id, camera.frame_id, stamp_ns)
        except TransformUnavailable:
            self._complaints.say("prior_dated", "no odometry at the initial pose's stamp: it is taken to hold now")
            return camera.odom_T_camera

    def clear(self) -> None:
        """Forget the moving transforms: time has gone back."""
        if self.listener is not None:
            self.listener.clear()

    def _wait_for_base(self, frame_id: str, p: NodeSettings) -> None:
        """Static transforms may arrive seconds after the first image: until then ~/pose would be the camera's."""
        now = time.monotonic()
        if self._first_frame_at is None:
            self._first_frame_at = now
        waits = bool(p.base_frame_id and frame_id) and not self.base_known
        anybody = self.listener is not None and self.listener.anybody_there
        longest = p.tf_wait if anybody else min(p.tf_wait, NO_TF_WAIT_S)
        if waits and now - self._first_frame_at < longest:
            link = f"{p.base_frame_id} -> {frame_id}"
            raise FrameRefused("waiting_for_tf", f"waiting for a first transform {link}")
        self._complaints.cured("waiting_for_tf")

    def _lookup(self, kind: str, target: str, source: str, stamp_ns: int, timeout_s: float) -> Array | None:
        if self.listener is None or not target:
            return None
        try:
            found = self.listener.lookup(target, source, stamp_ns, timeout_s)
        except TransformUnavailable as error:
            self._statistics.count(f"{kind} {type(error).__name__}")
            self._complaints.say(kind, f"no transform {target} -> {source} at the image's time: {error}")
            return None
        self._complaints.cured(kind)
        return found
