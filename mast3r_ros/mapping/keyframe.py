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
        has_depth: whether the map knows how far away something in it is: a depth image, or triangulated points.
    """

    id: str
    camera: Camera
    map_T_camera: NDArray[np.float64]
    stamp_ns: int = 0
    has_depth: bool = False


@dataclass(frozen=True)
class PoseNoise:
    """How far poses in a map are off, as measured on its own keyframes.

    The covariance of a pose is ``match_scale`` times what its matches leave, plus a part that all matches share,
    because the keyframes' own poses are off.

    Attributes:
        position_m: standard deviation per axis of the shared part, metres.
        rotation_rad: the same of the rotation, radians.
        match_scale: variance of the matches' part as a share of what their residuals promise.
        found_elsewhere: share of the keyframes that were found, confidently, where they are not.
        found: left-out keyframes that this rests on; 0 where it is assumed, or an earlier version measured it.
    """

    position_m: float
    rotation_rad: float
    match_scale: float = 1.0
    found_elsewhere: float = 0.0
    found: int = 0
