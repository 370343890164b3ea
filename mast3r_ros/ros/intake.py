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
from mast3r_ros.io.codec import EightBits, doubt_about, is_placeholder
from mast3r_ros.ros import conversions
from mast3r_ros.ros.calibration import Calibration
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.depth_registration import DepthRegistration
from mast3r_ros.settings import CommonSettings

#: Depth that was seen within this time is worth waiting for, seconds.
DEPTH_IS_ALIVE_S = 1.0


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
        registration: takes depth to the image; None while no depth is heard.
    """

    def __init__(self, complaints: Complaints, registration: DepthRegistration | None = None) -> None:
        self.registration = registration
        self._complaints = complaints
        self._eight_bits = EightBits()
        self._news = threading.Condition()
        self._info: CameraInfo | None = None
        self._depths: deque[Image | CompressedImage] = deque(maxlen=5)
        self._depth_at = -np.inf
        self._first_image_at: float | None = None
        self._known = Calibration()

    def take_info(self, message: CameraInfo) -> None:
        """Keep a camera_info as the current one."""
        with self._news:
            self._info = message
            self._news.notify_all()

    def take_depth(self, message: Image | CompressedImage) -> None:
        """Keep a depth image for the images to come; the last five are kept."""
        with self._news:
            self._depths.append(message)
            self._depth_at = time.monotonic()
            self._news.notify_all()

    def clear(self) -> None:
        """Forget what was kept: the node was deactivated, or time has jumped."""
        with self._news:
            self._info = self._first_image_at = None
            self._known.forget()
            self._depths.clear()

    def forget_depth(self) -> None:
        """Depth images of before a jump in time belong to no image to come."""
        with self._news:
            self._depths.clear()

    def frame(self, arrival: Arrival, settings: CommonSettings, info_wait_s: float) -> Frame:
        """Decode an image and join it with its calibration and depth.

        Args:
            settings: of the node.
            info_wait_s: how long a first camera_info is waited for, since the first image.

        Raises:
            FrameRefused: the image or the calibration cannot be used. Unusable depth is only complained about.
        """
        message = arrival.message
        try:
            image = conversions.rgb_from_image(message, self._eight_bits)
        except CodecError as error:
            raise FrameRefused("bad_image", f"image refused: {error}") from error
        self._complaints.cured("bad_image")
        info = self._info_for(message.header.frame_id, settings.camera_info_frame_id, info_wait_s)
        camera = None if info is None else self._calibration(info, image.shape[1], image.shape[0], settings.rectified)
        depth = self._depth_of(message, camera, (image.shape[0], image.shape[1]), settings)
        return Frame(image, camera, arrival.stamp_ns, depth, camera_name=message.header.frame_id)

    def _info_for(self, image_frame: str, info_frame: str, wait_s: float) -> CameraInfo | None:
        """The newest camera_info, if it is of the images' camera; None, with a word, where there is none."""
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
        self._complaints.cured("waiting_for_camera_info", "no_camera_info")
        ours, theirs = image_frame.lstrip("/"), info.header.frame_id.lstrip("/")
        if ours and theirs and theirs not in (ours, info_frame.lstrip("/")):
            self._complaints.say(
                "camera_info_of_another_camera",
                f"camera_info is of frame '{theirs}', the images of '{ours}': it is not used, another camera's "
                "intrinsics would make poses wrong. Take the camera_info of the images, or, if it is theirs, set the "
                f"parameter camera_info_frame_id to '{theirs}'",
            )
            return None
        self._complaints.cured("camera_info_of_another_camera")
        return info

    def _calibration(self, info: CameraInfo, width: int, height: int, rectified: bool) -> Camera | None:
        try:
            camera = self._known.camera(info, width, height, rectified)
        except CalibrationError as error:
            raise FrameRefused("bad_camera_info", f"camera_info refused: {error}") from error
        self._complaints.cured("bad_camera_info")
        doubt = "" if camera is None else doubt_about(camera)
        if camera is None:
            self._complaints.say(
                "uncalibrated", "camera_info is not calibrated (K is zero): the focal length is estimated"
            )
        elif doubt:
            self._complaints.say("doubtful_camera_info", f"camera_info {doubt}")
        else:
            self._complaints.cured("uncalibrated", "doubtful_camera_info")
        return None if camera is None or is_placeholder(camera) else camera

    def _depth_of(
        self, image: Image | CompressedImage, camera: Camera | None, shape: tuple[int, int], settings: CommonSettings
    ) -> NDArray[np.float32] | None:
        """Depth that belongs to the image, registered to it; None where there is none to trust."""
        message = self._wait_for_depth(conversions.stamp_ns(image.header.stamp), settings)
        if message is None or self.registration is None:
            return None
        try:
            measured = conversions.metres_from_depth(message)
            depth = self.registration.registered(measured, message.header, image.header, camera, shape)
        except CodecError as error:
            self._complaints.say("bad_depth", f"depth ignored: {error}")
            return None
        except UserError as error:
            self._complaints.say("unregistered_depth", f"depth ignored: {error}")
            return None
        self._complaints.cured("unregistered_depth", "bad_depth")
        return depth

    def _wait_for_depth(self, stamp_ns: int, settings: CommonSettings) -> Image | CompressedImage | None:
        """The depth message nearest in time, waiting a little where depth is being published."""
        slop_ns = round(settings.depth_slop * 1e9)

        def distance(message: Image | CompressedImage) -> int:
            return abs(conversions.stamp_ns(message.header.stamp) - stamp_ns)

        def nearest() -> Image | CompressedImage | None:
            return min((d for d in self._depths if distance(d) <= slop_ns), key=distance, default=None)

        with self._news:
            if time.monotonic() - self._depth_at > DEPTH_IS_ALIVE_S:
                return None
            if stamp_ns and self._depths and conversions.stamp_ns(self._depths[-1].header.stamp) == 0:
                self._complaints.say(
                    "depth_without_time", "depth ignored: its stamps are 0, so it belongs to no image; set its driver's"
                )
                return None
            self._complaints.cured("depth_without_time")
            return self._news.wait_for(nearest, settings.depth_wait)
