"""Where a camera is believed to be before its image is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Where the camera is believed to be before looking. It guides retrieval; it never decides.

    Attributes:
        map_T_camera: (4, 4).
        position_sigma_m, rotation_sigma_rad: standard deviations of that belief.
    """

    map_T_camera: NDArray[np.float64]
    position_sigma_m: float = 0.5
    rotation_sigma_rad: float = 0.5

    def agrees(self, map_T_camera: NDArray[np.float64], slack_m: float = 0.0, slack_rad: float = 0.0) -> bool:
        """Whether a pose (4, 4) is within three standard deviations of what was believed, and some slack (m, rad)."""
        metres, degrees = se3.pose_error(map_T_camera, self.map_T_camera)
        near = metres <= slack_m + 3 * self.position_sigma_m
        return near and bool(np.radians(degrees) <= slack_rad + 3 * self.rotation_sigma_rad)
