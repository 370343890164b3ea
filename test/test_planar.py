"""Planar poses of robots on wheels: what is kept, what is dropped, and what is refused."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry import planar, se3

RNG = np.random.default_rng(5)


def pose(xyz, yaw, pitch=0.0, roll=0.0):
    """A pose by fixed-axis roll, pitch, yaw (REP 103), radians."""
    return se3.make(Rotation.from_euler("xyz", [roll, pitch, yaw]).as_matrix(), xyz)


def is_planar(T):
    """Whether a transform is x, y and yaw alone."""
    return np.allclose(T[2], [0, 0, 1, 0], atol=1e-12) and np.allclose(T[:2, 2], 0, atol=1e-12)


@pytest.mark.smoke
def test_the_heading_is_the_yaw_of_rep_103_whatever_roll_and_pitch_are():
    for yaw, pitch, roll in RNG.uniform(-0.7, 0.7, (50, 3)) * [4, 1, 1]:
        T = pose([1, 2, 3], yaw, pitch, roll)
        assert planar.heading(T) == pytest.approx(yaw)
        if planar.tilt(T) < np.radians(planar.MAX_TILT_DEG):
            np.testing.assert_allclose(planar.flattened(T), pose([1, 2, 0], yaw), atol=1e-12)


@pytest.mark.parametrize("kind", ["planar odometry", "odometry with z, roll and pitch"])
def test_the_correction_puts_the_base_at_its_x_y_and_heading(kind):
    for _ in range(50):
        map_T_base = pose(RNG.normal(0, 5, 3), RNG.uniform(-np.pi, np.pi), *RNG.uniform(-0.3, 0.3, 2))
        lean = (0, 0) if kind == "planar odometry" else RNG.uniform(-0.3, 0.3, 2)
        odom_T_base = pose([*RNG.normal(0, 50, 2), 0 if kind == "planar odometry" else 1.5], RNG.uniform(-9, 9), *lean)
        map_T_odom = planar.correction(map_T_base, odom_T_base)
        assert is_planar(map_T_odom)
        found = map_T_odom @ odom_T_base
        np.testing.assert_allclose(found[:2, 3], map_T_base[:2, 3], atol=1e-9)
        assert np.cos(planar.heading(found) - planar.heading(map_T_base)) == pytest.approx(1)
        # What the odometry measured of the ramp is kept; where it measured nothing, the robot is on the plane.
        assert found[2, 3] == pytest.approx(odom_T_base[2, 3])
        assert planar.tilt(found) == pytest.approx(planar.tilt(odom_T_base), abs=1e-7)
        if kind == "planar odometry":
            np.testing.assert_allclose(found, planar.flattened(map_T_base), atol=1e-9)


def test_a_correction_that_is_planar_already_is_left_as_it_is():
    for _ in range(20):
        map_T_odom = pose([*RNG.normal(0, 5, 2), 0], RNG.uniform(-np.pi, np.pi))
        odom_T_base = pose(RNG.normal(0, 5, 3), RNG.uniform(-np.pi, np.pi), 0.1, -0.2)
        np.testing.assert_allclose(planar.correction(map_T_odom @ odom_T_base, odom_T_base), map_T_odom, atol=1e-9)


def test_the_cameras_mounting_does_not_turn_the_robot():
    """A camera that looks up, sideways and is rolled: the projection is of the base, whose heading stays."""
    base_T_camera = se3.make(Rotation.from_euler("xyz", [1.0, -0.9, 2.0]).as_matrix(), [0.3, -0.2, 1.1])
    map_T_camera = pose([4, 5, 0], 0.7) @ base_T_camera
    found = planar.correction(map_T_camera @ se3.inverse(base_T_camera), pose([1, 0, 0], 0.2))
    np.testing.assert_allclose(found @ pose([1, 0, 0], 0.2), pose([4, 5, 0], 0.7), atol=1e-9)


@pytest.mark.parametrize(
    "lying", [pose([0, 0, 0], 0.3, np.pi / 2), pose([0, 0, 0], 0, 0, np.pi), pose([0] * 3, 0, 0.9)]
)
def test_a_base_that_does_not_stand_is_refused_with_its_angle(lying):
    with pytest.raises(planar.NotUprightError, match="leans by .* deg in the frame of the map"):
        planar.flattened(lying)
    with pytest.raises(planar.NotUprightError, match="map"):
        planar.correction(lying, np.eye(4))
    with pytest.raises(planar.NotUprightError, match="odometry"):
        planar.correction(np.eye(4), lying)
    assert planar.flattened(pose([0, 0, 0], 0, np.radians(planar.MAX_TILT_DEG - 0.1)))[0, 0] == pytest.approx(1)
