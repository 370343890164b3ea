"""Depth of another camera, as the colour camera would have measured it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mast3r_ros.errors import CalibrationError
from mast3r_ros.frames import Camera
from mast3r_ros.registration import register_depth, same_view
from mast3r_ros.ros import conversions
from mast3r_ros.ros.calibration import Calibration
from mast3r_ros.ros.tf import TransformListener

Depth = NDArray[np.float32]


class DepthRegistration:
    """Knows the depth camera from its camera_info, and where it sits from TF.

    Args:
        transforms: where the transform between the two cameras comes from.
        timeout_s: longest wait for it.
    """

    def __init__(self, transforms: TransformListener, timeout_s: Callable[[], float]) -> None:
        self._transforms = transforms
        self._timeout_s = timeout_s
        self._info: CameraInfo | None = None
        self._calibration = Calibration()

    def take_info(self, message: CameraInfo) -> None:
        """A camera_info of the depth camera has come."""
        self._info = message

    def registered(
        self, depth: Depth, header: Header, image: Header, camera: Camera | None, shape: tuple[int, ...]
    ) -> Depth:
        """Depth (H, W) of one message -> depth of the colour camera, metres, 0 where nothing was measured.

        Args:
            header, image: of the depth message and of the image message.
            camera: calibration of the image, None where it is unknown.
            shape: rows and columns of the image.

        Raises:
            CalibrationError: if one of the two cameras is not known, or the depth camera's camera_info is unusable.
            TransformUnavailable: if TF does not know where they are.
        """
        info, (height, width) = self._info, depth.shape
        depth_camera = None if info is None else self._calibration.camera(info, width, height)
        one_frame = header.frame_id == image.frame_id
        if one_frame and depth.shape == tuple(shape) and same_view(depth_camera, camera):
            return depth
        if depth_camera is None or camera is None:
            which = "depth/camera_info" if depth_camera is None else "camera_info"
            raise CalibrationError(
                f"it is {width}x{height} in frame '{header.frame_id}', the image {shape[1]}x{shape[0]} "
                f"in '{image.frame_id}', and {which} to register it with has not come: publish it, or use the topic of "
                "depth registered to colour"
            )
        colour_T_depth = np.eye(4)
        if not one_frame:
            stamp_ns = conversions.stamp_ns(header.stamp)
            colour_T_depth = self._transforms.lookup(image.frame_id, header.frame_id, stamp_ns, self._timeout_s())
        return register_depth(depth, depth_camera, camera, colour_T_depth)
