"""A keyframe: a frame of known pose that the map remembers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera


@dataclass(frozen=True, eq=False)
class Keyframe:
    """Pose and calibration of one reference view; its pixels are read from the map when needed.

    Attributes:
        id: unique in the map, usable as a file name.
        camera: calibration of its image.
        map_T_camera: (4, 4) camera optical frame -> map frame, metres.
        stamp_ns: when it was taken, nanoseconds.
        has_depth: whether the map holds a depth image for it.
    """

    id: str
    camera: Camera
    map_T_camera: NDArray[np.float64]
    stamp_ns: int = 0
    has_depth: bool = False


@dataclass(frozen=True)
class PoseNoise:
    """Standard deviation per axis of the keyframes' poses against each other; all matches of a query share it.

    Attributes:
        position_m: metres.
        rotation_rad: radians.
    """

    position_m: float
    rotation_rad: float
