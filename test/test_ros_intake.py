"""Calibration and depth of strangers in the live nodes: told, and never used for what they are not."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from ros_world import CAMERA, CAMERA_FRAME, view

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.ros import conversions
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.depth_registration import DepthRegistration
from mast3r_ros.ros.intake import Arrival, FrameRefused, Intake
from mast3r_ros.settings import CommonSettings
from mast3r_ros.transforms import TransformBuffer

STAMP = 1_700_000_000_000_000_000


class Log:
    """What a node would have logged."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str) -> None:
        self.said.append(text)


class NoTransforms:
    """TF without a single sample: depth in the images' frame needs none."""


@pytest.fixture()
def log() -> Log:
    return Log()


@pytest.fixture()
def intake(log: Log) -> Intake:
    made = Intake(Complaints(log))
    made.registration = DepthRegistration(NoTransforms(), lambda: 0.0)
    return made


def frame(intake: Intake, info_frame: str = "", stamp: int = STAMP, depth_wait: float = 0.1) -> Frame:
    arrival = Arrival(conversions.to_image(view(0)[0], CAMERA_FRAME, stamp), 0)
    settings = CommonSettings(camera_info_frame_id=info_frame, depth_wait=depth_wait)
    return intake.frame(arrival, settings, info_wait_s=0)


def test_camera_info_of_another_frame_is_told_and_not_used(intake: Intake, log: Log) -> None:
    intake.take_info(conversions.to_camera_info(CAMERA, "depth_optical", STAMP))
    assert frame(intake).camera is None and frame(intake).camera is None
    assert len(log.said) == 1 and "'depth_optical'" in log.said[0] and f"'{CAMERA_FRAME}'" in log.said[0]
    assert "camera_info_frame_id" in log.said[0]
    assert frame(intake, info_frame="depth_optical").camera.same_as(CAMERA)
    for name in (CAMERA_FRAME, f"/{CAMERA_FRAME}", ""):
        intake.take_info(conversions.to_camera_info(CAMERA, name, STAMP))
        assert frame(intake).camera.same_as(CAMERA)


def test_depth_and_calibration_are_joined_as_the_settings_say(intake: Intake) -> None:
    image, depth = view(0)
    arrival = Arrival(conversions.to_image(image, CAMERA_FRAME, STAMP), 0)
    bent = Camera(160, 120, CAMERA.K, "plumb_bob", np.array([-0.2, 0.05, 0.0, 0.0, 0.0]))
    intake.take_info(conversions.to_camera_info(bent, CAMERA_FRAME, STAMP))
    intake.take_depth(conversions.to_depth_image(depth, CAMERA_FRAME, STAMP + 30_000_000))
    for slop, joined in ((0.02, False), (0.04, True)):
        found = intake.frame(arrival, CommonSettings(depth_slop=slop, depth_wait=0.0), 0)
        assert (found.depth is not None) is joined and found.camera is not None and found.camera.is_distorted
    assert not intake.frame(arrival, CommonSettings(rectified=True, depth_wait=0.0), 0).camera.is_distorted


def test_a_first_camera_info_is_waited_for_as_long_as_is_said(intake: Intake) -> None:
    arrival = Arrival(conversions.to_image(view(0)[0], CAMERA_FRAME, STAMP), 0)
    with pytest.raises(FrameRefused, match="waiting for a first camera_info"):
        intake.frame(arrival, CommonSettings(depth_wait=0.0), 60.0)  # the node gives its camera_info_wait
    assert intake.frame(arrival, CommonSettings(depth_wait=0.0), 0.0).camera is None


@pytest.mark.parametrize(
    ("camera", "used", "said"),
    [
        (Camera.pinhole(160, 120, 1, 1, 0, 0), False, "placeholder"),
        (Camera.pinhole(160, 120, 130, 130, 20, 60), True, "principal point"),
    ],
)
def test_an_implausible_camera_info_is_questioned(
    intake: Intake, log: Log, camera: Camera, used: bool, said: str
) -> None:
    intake.take_info(conversions.to_camera_info(camera, CAMERA_FRAME, STAMP))
    assert (frame(intake).camera is not None) == used
    assert len(log.said) == 1 and said in log.said[0]


def test_depth_without_time_is_told_and_costs_no_frame(intake: Intake, log: Log) -> None:
    intake.take_info(conversions.to_camera_info(CAMERA, CAMERA_FRAME, STAMP))
    intake.take_depth(conversions.to_depth_image(view(0)[1], CAMERA_FRAME, 0))
    assert frame(intake).depth is None and len(log.said) == 1 and "its stamps are 0" in log.said[0]
    intake.take_depth(conversions.to_depth_image(view(0)[1], CAMERA_FRAME, STAMP))
    assert frame(intake).depth is not None


def test_depth_that_comes_late_is_waited_for_as_long_as_the_settings_say(intake: Intake) -> None:
    intake.take_info(conversions.to_camera_info(CAMERA, CAMERA_FRAME, STAMP))
    intake.take_depth(conversions.to_depth_image(view(0)[1], CAMERA_FRAME, STAMP - 10**9))
    assert frame(intake, depth_wait=0.0).depth is None
    late = threading.Timer(0.3, intake.take_depth, [conversions.to_depth_image(view(0)[1], CAMERA_FRAME, STAMP)])
    late.start()
    assert frame(intake, depth_wait=5.0).depth is not None
    late.join()


def test_a_colour_image_on_the_depth_topic_is_told_and_costs_no_frame(intake: Intake, log: Log) -> None:
    intake.take_info(conversions.to_camera_info(CAMERA, CAMERA_FRAME, STAMP))
    intake.take_depth(conversions.to_image(view(0)[0], CAMERA_FRAME, STAMP))
    assert frame(intake).depth is None and "depth ignored" in log.said[0] and "rgb8" in log.said[0]


def test_two_publishers_of_one_transform_are_seen_in_the_newest_samples() -> None:
    buffer = TransformBuffer()
    for n in range(400):
        buffer.set("map", "odom", np.eye(4), STAMP + n * 10_000_000)
    assert buffer.duplicates(50) == {}
    for n in range(400, 450):
        buffer.set("map", "odom", se3.exp([n % 2 + 0.001 * n, 0, 0, 0, 0, 0]), STAMP + n * 10_000_000)
    assert list(buffer.duplicates(50)) == ["odom"]
