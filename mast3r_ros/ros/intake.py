"""Image, camera_info and depth messages -> one Frame, or the named reason why not."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mast3r_ros.errors import CalibrationError, CodecError, UserError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.ros import conversions
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.depth_registration import DepthRegistration

#: Depth that was seen within this time is worth waiting for, seconds.
DEPTH_IS_ALIVE_S = 1.0
#: Longest wait for the depth image of an image, seconds.
DEPTH_WAIT_S = 0.1


@dataclass(frozen=True, eq=False)
class Arrival:
    """An image message and when it came (steady clock, nanoseconds)."""

    message: Image | CompressedImage
    received_ns: int

    @property
    def stamp_ns(self) -> int:
        """Time of exposure."""
        return conversions.stamp_ns(self.message.header.stamp)


class FrameRefused(UserError):
    """Messages that make no frame. ``kind`` is the stable name that diagnostics count by."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Intake:
    """Keeps the newest camera_info and the last depth images, and joins them with images by stamp.

    ``take_*`` are called from subscriptions and only keep the message; ``frame`` decodes, on the worker.

    Args:
        registration: registers depth of another camera; None: such depth is refused.
    """

    def __init__(self, complaints: Complaints, registration: DepthRegistration | None = None) -> None:
        self.registration = registration
        self._complaints = complaints
        self._news = threading.Condition()
        self._info: CameraInfo | None = None
        self._depths: deque[Image] = deque(maxlen=5)
        self._depth_at = -np.inf
        self._first_image_at: float | None = None
        self._camera: tuple[object, Camera | None] | None = None

    def take_info(self, message: CameraInfo) -> None:
        """A camera_info has come."""
        with self._news:
            self._info = message
            self._news.notify_all()

    def take_depth(self, message: Image) -> None:
        """A depth image has come."""
        with self._news:
            self._depths.append(message)
            self._depth_at = time.monotonic()
            self._news.notify_all()

    def clear(self) -> None:
        """Forget what was kept: the node was deactivated, or time has jumped."""
        with self._news:
            self._info, self._first_image_at, self._camera = None, None, None
            self._depths.clear()

    def forget_depth(self) -> None:
        """Depth images of before a jump in time belong to no image to come."""
        with self._news:
            self._depths.clear()

    def frame(self, arrival: Arrival, *, rectified: bool, info_wait_s: float, depth_slop_s: float) -> Frame:
        """Decode an image and join it with its calibration and depth.

        Raises:
            FrameRefused: the image or the calibration cannot be used. Unusable depth is only complained about.
        """
        message = arrival.message
        try:
            image = conversions.rgb_from_image(message)
        except CodecError as error:
            raise FrameRefused("bad_image", f"image refused: {error}") from error
        self._complaints.cured("bad_image")
        camera = self._calibration(image.shape[1], image.shape[0], rectified, info_wait_s)
        depth = self._depth_of(message, camera, image.shape[:2], round(depth_slop_s * 1e9))
        return Frame(image, camera, arrival.stamp_ns, depth, camera_name=arrival.message.header.frame_id)

    def _calibration(self, width: int, height: int, rectified: bool, wait_s: float) -> Camera | None:
        with self._news:
            now = time.monotonic()
            if self._first_image_at is None:
                self._first_image_at = now
            info, waited = self._info, now - self._first_image_at
        if info is None:
            if waited < wait_s:
                raise FrameRefused("waiting_for_camera_info", "waiting for a first camera_info")
            self._complaints.cured("waiting_for_camera_info")
            self._complaints.say(
                "no_camera_info", "no camera_info: the focal length is estimated, poses are less exact"
            )
            return None
        try:
            camera = self._camera_for(info, width, height, rectified)
        except CalibrationError as error:
            raise FrameRefused("bad_camera_info", f"camera_info refused: {error}") from error
        self._complaints.cured("waiting_for_camera_info", "no_camera_info", "bad_camera_info")
        if camera is None:
            self._complaints.say(
                "uncalibrated", "camera_info is not calibrated (K is zero): the focal length is estimated"
            )
        else:
            self._complaints.cured("uncalibrated")
        return camera

    def _camera_for(self, info: CameraInfo, width: int, height: int, rectified: bool) -> Camera | None:
        """The same Camera object as long as the calibration stays the same: it caches its rays."""
        roi = info.roi
        key = (
            *(np.asarray(values).tobytes() for values in (info.k, info.d, info.p)),
            *(info.distortion_model, info.width, info.height, info.binning_x, info.binning_y),
            *(roi.x_offset, roi.y_offset, roi.width, roi.height, width, height, rectified),
        )
        if self._camera is None or self._camera[0] != key:
            self._camera = key, conversions.camera_for_image(info, width, height, rectified)
        return self._camera[1]

    def _depth_of(
        self, image: Image | CompressedImage, camera: Camera | None, shape: tuple[int, ...], slop_ns: int
    ) -> NDArray[np.float32] | None:
        """Depth that belongs to the image, registered to it; None where there is none to trust."""
        message = self._wait_for_depth(conversions.stamp_ns(image.header.stamp), slop_ns)
        if message is None:
            return None
        colour_frame = image.header.frame_id
        fits = message.header.frame_id == colour_frame and (message.height, message.width) == tuple(shape)
        if not fits and self.registration is None:
            self._complaints.say(
                "unregistered_depth",
                f"depth ignored: it is {message.width}x{message.height} in frame '{message.header.frame_id}', the "
                f"image {shape[1]}x{shape[0]} in '{colour_frame}'; use the topic of depth registered to colour",
            )
            return None
        try:
            depth = conversions.metres_from_depth(message)
            if self.registration is not None and not (fits and self.registration.same_view(message, camera)):
                depth = self.registration.registered(depth, message, colour_frame, camera)
        except CodecError as error:
            self._complaints.say("bad_depth", f"depth ignored: {error}")
            return None
        except UserError as error:
            self._complaints.say("unregistered_depth", f"depth ignored: {error}")
            return None
        self._complaints.cured("unregistered_depth", "bad_depth")
        return depth

    def _wait_for_depth(self, stamp_ns: int, slop_ns: int) -> Image | None:
        """The depth message nearest in time, waiting a little where depth is being published."""

        def distance(message: Image) -> int:
            return abs(conversions.stamp_ns(message.header.stamp) - stamp_ns)

        def nearest() -> Image | None:
            return min((d for d in self._depths if distance(d) <= slop_ns), key=distance, default=None)

        with self._news:
            if time.monotonic() - self._depth_at > DEPTH_IS_ALIVE_S:
                return None
            return self._news.wait_for(nearest, DEPTH_WAIT_S)
