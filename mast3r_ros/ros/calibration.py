"""camera_info messages -> Camera objects, the same one as long as the calibration stays the same."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from mast3r_ros.frames import Camera
from mast3r_ros.ros import conversions


class Calibration:
    """Keeps the last Camera, and with it the rays of its pixels, which take long to compute where it distorts."""

    def __init__(self) -> None:
        self._known: tuple[object, Camera | None] | None = None

    def camera(self, info: CameraInfo, width: int, height: int, rectified: bool = False) -> Camera | None:
        """Calibration of an image of this size; None where the camera says that it is not calibrated.

        Raises:
            CalibrationError: as :func:`conversions.camera_for_image`.
        """
        roi = info.roi
        key = (
            *(np.asarray(values).tobytes() for values in (info.k, info.d, info.p)),
            *(info.distortion_model, info.width, info.height, info.binning_x, info.binning_y),
            *(roi.x_offset, roi.y_offset, roi.width, roi.height, width, height, rectified),
        )
        known = self._known
        if known is None or known[0] != key:
            known = self._known = key, conversions.camera_for_image(info, width, height, rectified)
        return known[1]

    def forget(self) -> None:
        """The next camera is a new one."""
        self._known = None
