"""A camera that delivers one picture again and again while the robot moves on: what it shows is not what is there."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3


class RepeatedPicture:
    """Remembers when, and where by odometry, the newest picture was seen first. No sensor gives the same one twice."""

    def __init__(self) -> None:
        self._digest: int | None = None
        self._first: tuple[NDArray[np.float64], int] | None = None

    def frozen(self, frame: Frame, odom_T_camera: NDArray[np.float64] | None, apart_m: float, apart_rad: float) -> str:
        """Why the picture cannot be of now; empty where nothing speaks against it.

        Args:
            odom_T_camera: (4, 4) pose of the camera in the odometry frame, or None: then nothing is known.
            apart_m, apart_rad: a camera that stands still seems to have moved less than this, by its odometry.
        """
        if odom_T_camera is None:
            self._first = None
            return ""
        digest = zlib.crc32(np.ascontiguousarray(frame.image).data)
        if digest != self._digest or self._first is None:
            self._digest, self._first = digest, (odom_T_camera, frame.stamp_ns)
            return ""
        odom_T_first, first_ns = self._first
        metres, degrees = se3.pose_error(odom_T_camera, odom_T_first)
        if metres <= apart_m and np.radians(degrees) <= apart_rad:
            return ""
        seconds = (frame.stamp_ns - first_ns) * 1e-9
        return (
            f"the picture is the same to the pixel as {seconds:.1f} s ago, while odometry moved {metres:.2f} m and "
            f"turned {degrees:.0f} deg: the camera or its driver stands still"
        )
