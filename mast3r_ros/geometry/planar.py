"""Poses of a robot that drives on a floor: x, y and the heading, as AMCL and Nav2 know them.

z points up in the frames of the map, of the odometry and of the robot's base (REP 103, REP 105). The heading is the
yaw of REP 103's fixed-axis roll, pitch, yaw: the direction of the body's x axis, seen from above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: A robot that leans further than this does not stand on its wheels, whatever the ramp: its z axis is closer to the
#: level than to the vertical. Then the axes are not what they are taken for, and a heading would say nothing.
MAX_TILT_DEG = 45.0


class NotUprightError(ValueError):
    """A pose that no robot on wheels can have: a frame's z axis does not point up."""


def heading(a_T_b: Array) -> float:
    """Yaw of b in a (4, 4), radians from -pi to pi."""
    return float(np.arctan2(a_T_b[1, 0], a_T_b[0, 0]))


def tilt(a_T_b: Array) -> float:
    """Angle between the z axes of a and b (4, 4), radians from 0 to pi."""
    return float(np.arccos(np.clip(a_T_b[2, 2], -1.0, 1.0)))


def flattened(map_T_base: Array) -> Array:
    """A pose (4, 4) -> the pose with its x, y and heading, and without z, roll and pitch.

    Raises:
        NotUprightError: if the base leans too far for a heading.
    """
    _must_stand(map_T_base, "map")
    return _planar(heading(map_T_base), map_T_base[:2, 3])


def correction(map_T_base: Array, odom_T_base: Array) -> Array:
    """The planar ``map_T_odom`` (4, 4) with which odometry puts the base at the x, y and heading of ``map_T_base``.

    z, roll and pitch of the base in the map are then those of the odometry: none for wheel odometry, so that
    map -> base is planar as well; on a ramp, those that an odometry with six degrees of freedom has measured.

    Args:
        map_T_base: (4, 4) pose of the base, not of the camera.
        odom_T_base: (4, 4) pose of the base by the odometry at the same time.

    Raises:
        NotUprightError: if the base leans too far for a heading, in the map or in the odometry.
    """
    _must_stand(map_T_base, "map")
    _must_stand(odom_T_base, "odometry")
    turn = _planar(heading(map_T_base) - heading(odom_T_base), (0.0, 0.0))
    return _planar(heading(turn), map_T_base[:2, 3] - se3.apply(turn, odom_T_base[:3, 3])[:2])


def _planar(yaw: float, xy: Array | tuple[float, float]) -> Array:
    c, s = np.cos(yaw), np.sin(yaw)
    return se3.make([[c, -s, 0], [s, c, 0], [0, 0, 1]], [*xy, 0.0])


def _must_stand(a_T_base: Array, frame: str) -> None:
    degrees = np.degrees(tilt(a_T_base))
    if degrees > MAX_TILT_DEG:
        raise NotUprightError(f"the robot's base leans by {degrees:.0f} deg in the frame of the {frame}")
