"""Faults that leave a pose which looks right: another camera's calibration, and pictures stamped late."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import solve_pose
from mast3r_ros.geometry.lens import AS_CALIBRATED, LensProblem
from mast3r_ros.io.codec.calibration import doubt_about
from mast3r_ros.localization import PoseEstimate, Reason, Tracker, TrackerSettings
from mast3r_ros.localization.calibration import CalibrationCheck
from mast3r_ros.localization.estimate import Status, Track
from mast3r_ros.localization.protection import AlertLimit, ProtectionLevel
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

CAMERA = Camera.pinhole(320, 240, 240.0, 240.0, 159.5, 119.5)
LIMIT = AlertLimit(0.25)


def other(factor: float = 1.0, moved: float = 0.0) -> Camera:
    """The calibration of a camera with another lens, whose centre lies elsewhere."""
    return Camera.pinhole(320, 240, 240 * factor, 240 * factor, 159.5 + moved, 119.5 - moved)


def problem(camera: Camera, seed: int = 0, flat: bool = False) -> LensProblem:
    """Points in front of a camera at the origin, as CAMERA shows them, with the calibration of ``camera``."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform([0, 0], [319, 239], (300, 2))
    depth = np.full(300, 3.0) if flat else rng.uniform(1.5, 5.0, 300)
    points = CAMERA.points(xy, depth) + rng.normal(size=(300, 3)) * 0.004
    seen = xy + rng.normal(size=xy.shape) * 0.5
    settings = SolverSettings(threshold_px=4.0, point_sigma_m=0.01)
    return LensProblem(camera.rays(seen), points, np.full(300, 0.3), np.arange(300) % 6, camera.focal, settings)


def solved(camera: Camera, seen: LensProblem) -> Array:
    """The pose that the calibration leaves, as the localizer solves it."""
    pose = solve_pose(seen.ideal, seen.points, seen.weights, camera.focal, seen.settings)
    assert pose is not None
    return pose.map_T_camera


@pytest.mark.parametrize(("factor", "moved"), [(0.6, 10.0), (0.75, -12.0), (1.3, 5.0), (1.6, 15.0)])
def test_the_lens_is_found_that_the_picture_was_taken_with(factor: float, moved: float) -> None:
    camera = other(factor, moved)
    seen = problem(camera)
    found = seen.refine(solved(camera, seen))
    assert found is not None
    metres, degrees = se3.pose_error(found.map_T_camera, np.eye(4))
    assert metres < 0.05 and degrees < 1.0
    np.testing.assert_allclose(found.lens.scale * factor, 1.0, atol=0.02)
    np.testing.assert_allclose(found.lens.values[2:4] * camera.focal, [-moved, moved], atol=4.0)


def test_the_lens_is_as_uncertain_as_its_errors_are() -> None:
    squared = []
    for seed in range(30):
        found = problem(CAMERA, seed).refine(np.eye(4))
        assert found is not None
        squared.append(found.contradiction**2)
    assert 1.0 < np.median(squared) < 25.0  # five numbers


@pytest.mark.parametrize(("factor", "moved"), [(0.6, 10.0), (0.75, -12.0), (1.3, 5.0), (1.6, 15.0)])
def test_another_cameras_calibration_is_contradicted_and_named(factor: float, moved: float) -> None:
    camera = other(factor, moved)
    seen = problem(camera)
    check = CalibrationCheck()
    said = check.judge(camera, seen, solved(camera, seen), LIMIT)
    assert "focal lengths look like 2" in said and f"the calibration says {240 * factor:.0f}" in said
    assert check.doubt(camera) == said and not check.doubt(CAMERA)


def test_a_right_calibration_costs_nothing() -> None:
    check = CalibrationCheck()
    for seed in range(40):
        seen = problem(CAMERA, seed, flat=seed % 2 == 0)
        assert not check.judge(CAMERA, seen, solved(CAMERA, seen), LIMIT)


def test_a_wall_says_neither_and_a_good_picture_clears_the_doubt() -> None:
    """A camera that zooms back: until its lens is seen to be right, its answers wait."""
    check, wrong = CalibrationCheck(), problem(other(0.75))
    wrong = replace(
        wrong, ideal=wrong.ideal * 0.75 * 1.3
    )  # taken while it was zoomed, CAMERA's calibration all the time
    said = check.judge(CAMERA, wrong, solved(CAMERA, wrong), LIMIT)
    assert said
    wall = problem(CAMERA, 1, flat=True)
    assert wall.at(np.eye(4), AS_CALIBRATED).covariance[2, 2] > 0.05**2
    assert check.judge(CAMERA, wall, np.eye(4), LIMIT) == said
    good = problem(CAMERA, 2)
    assert not check.judge(CAMERA, good, solved(CAMERA, good), LIMIT)


def test_a_distortion_that_no_lens_has_is_doubted() -> None:
    nonsense = Camera(
        96, 72, np.array([[78.0, 0, 47.5], [0, 78.0, 35.5], [0, 0, 1]]), "plumb_bob", np.array([0, 0, 0.5, 0, 0])
    )
    assert "shows nothing that a lens could" in doubt_about(nonsense)
    wide = Camera(320, 240, CAMERA.K, "plumb_bob", np.array([-0.3, 0.08, 0.001, 0.001, 0.0]))
    assert not doubt_about(wide)


class Film:
    """Stands where a Localizer stands: the camera as the picture shows it, however the picture is stamped."""

    def __init__(self) -> None:
        self.map = SimpleNamespace(view_depth_m=2.5)
        self.pose = np.eye(4)

    def localize(self, frame: Frame, prior: object = None) -> PoseEstimate:
        return PoseEstimate(
            Status.LOCALIZED,
            map_T_camera=self.pose,
            covariance=np.diag([1e-5] * 3 + [1e-6] * 3),
            protection=ProtectionLevel(0.05, 0.01),
            alert_limit=LIMIT,
            stamp_ns=frame.stamp_ns,
        )


def at(angle_deg: float) -> Array:
    return se3.exp([0, 0, 0, 0, np.radians(angle_deg), 0])


def drive(late_s: float, turning: list[float], late_from: int = 0) -> tuple[list[PoseEstimate], Tracker, list[float]]:
    """Frames 0.25 s apart, the robot turning at so many degrees a second; from a frame on, stamped late."""
    film = Film()
    tracker = Tracker(film, TrackerSettings(joint_frames=1, commit_views=1))  # type: ignore[arg-type]
    times = 0.25 * np.arange(len(turning) + 1)
    angles = np.concatenate([[0.0], np.cumsum(0.25 * np.array(turning))])
    answers, wrong = [], []
    for k in range(6, len(times) - 4):
        late = late_s if k >= late_from else 0.0
        film.pose = at(angles[k])
        truth = float(np.interp(times[k] + late, times, angles))
        image = np.full((48, 64, 3), k, np.uint8)
        answers.append(tracker.localize(Frame(image, stamp_ns=round((times[k] + late) * 1e9)), at(truth)))
        wrong.append(abs(truth - angles[k]))
    return answers, tracker, wrong


@pytest.mark.parametrize("turning", [[40.0] * 40, [0.0] * 14 + [20.0] + [40.0] * 25], ids=["turns", "begins to turn"])
def test_pictures_stamped_late_are_not_answered_while_that_matters(turning: list[float]) -> None:
    answers, tracker, wrong = drive(0.3, turning, late_from=12)
    accepted = [error for answer, error in zip(answers, wrong, strict=True) if answer.localized]
    assert max(accepted) < 10.0
    refused = [answer for answer in answers if not answer.localized]
    assert len(refused) > 10 and all(answer.reason is Reason.ODOMETRY_DISAGREES for answer in refused)
    assert "stamped 0.3" in refused[-1].detail and "late" in refused[-1].detail
    # The track is believed all the while, and right: with the odometry of when the picture was taken.
    assert answers[-1].track is Track.COMMITTED and tracker.map_T_odom is not None
    assert np.degrees(se3.angle(tracker.map_T_odom)) < 2.0


def test_stamps_that_are_right_or_hardly_late_cost_nothing() -> None:
    for late_s in (0.0, 0.1):
        answers, _, _ = drive(
            late_s, [0.0] * 10 + [20.0] + [40.0] * 15 + [0.0] * 3 + [-40.0] * 10 + [0.0] * 6, late_from=8
        )
        assert all(answer.localized for answer in answers)


def test_late_stamps_are_answered_again_when_the_robot_stands_and_when_they_are_right() -> None:
    answers, _, _ = drive(0.3, [40.0] * 20 + [0.0] * 12, late_from=12)
    assert not answers[10].localized and answers[-1].localized


def test_odometry_that_drifts_is_not_taken_for_late_stamps() -> None:
    film = Film()
    tracker = Tracker(film, TrackerSettings(joint_frames=1, commit_views=1))  # type: ignore[arg-type]
    for k in range(30):
        film.pose = at(10.0 * k)
        image = np.full((48, 64, 3), k, np.uint8)
        assert tracker.localize(Frame(image, stamp_ns=k * 250_000_000), at(10.8 * k)).localized
