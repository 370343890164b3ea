"""Depth of another camera, as the colour camera would have measured it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from mast3r_ros.errors import CalibrationError
from mast3r_ros.frames import Camera, register_depth
from mast3r_ros.ros import conversions
from mast3r_ros.ros.tf import TransformListener


class DepthRegistration:
    """Knows the depth camera from its camera_info, and where it sits from TF.

    Args:
        transforms: where the transform between the two cameras comes from.
        timeout_s: longest wait for it.
    """

    def __init__(self, transforms: TransformListener, timeout_s: float = 0.2) -> None:
        self._transforms = transforms
        self._timeout_s = timeout_s
        self._info: CameraInfo | None = None

    def take_info(self, message: CameraInfo) -> None:
        """A camera_info of the depth camera has come."""
        self._info = message

    def same_view(self, depth: Image, camera: Camera | None) -> bool:
        """Whether depth in the colour camera's frame has its intrinsics too, as far as is known.

        Raises:
            CalibrationError: if the depth camera's camera_info cannot be used.
        """
        depth_camera = self._camera(depth)
        return depth_camera is None or camera is None or camera.similar_to(depth_camera)

    def registered(
        self, metres: NDArray[np.float32], depth: Image, colour_frame: str, camera: Camera | None
    ) -> NDArray[np.float32]:
        """Depth (H, W) of the message -> depth of the colour camera, metres, 0 where nothing was measured.

        Raises:
            CalibrationError: if one of the two cameras is not known.
            TransformUnavailable: if TF does not know where they are.
        """
        depth_camera = self._camera(depth)
        if depth_camera is None or camera is None:
            which = "depth/camera_info" if depth_camera is None else "camera_info"
            raise CalibrationError(
                f"depth (frame '{depth.header.frame_id}') is not registered to the image (frame '{colour_frame}'), "
                f"and {which} to register it with has not come: publish it, or use the topic of registered depth"
            )
        colour_T_depth = np.eye(4)
        if depth.header.frame_id != colour_frame:
            stamp_ns = conversions.stamp_ns(depth.header.stamp)
            colour_T_depth = self._transforms.lookup(colour_frame, depth.header.frame_id, stamp_ns, self._timeout_s)
        return register_depth(metres, depth_camera, camera, colour_T_depth)

    def _camera(self, depth: Image) -> Camera | None:
        info = self._info
        return None if info is None else conversions.camera_for_image(info, depth.width, depth.height)
