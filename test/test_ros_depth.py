"""Depth of another camera over DDS: registered by camera_info and TF, packed or not, and said where it is of no use."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from diagnostic_msgs.msg import DiagnosticArray
from ros_world import (
    BASE_T_CAMERA,
    CAMERA,
    CAMERA_FRAME,
    Robot,
    map_T_camera,
    spinning,
    values,
    view,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from test_codec import rvl

from mast3r_ros.geometry import se3
from mast3r_ros.io import codec
from mast3r_ros.io.codec.depth import millimetres
from mast3r_ros.ros import attempt_status, conversions, qos
from mast3r_ros.ros.mapper_node import Mapper
from mast3r_ros.ros.relocalizer_node import RelocalizerNode

pytestmark = pytest.mark.usefixtures("rclpy_running")

SECOND = 10**9
#: A depth camera of a quarter of the colour camera's resolution, mounted upside down in the same place.
DEPTH_CAMERA, DEPTH_FRAME = CAMERA.resized(40, 30), "depth_optical"
COLOUR_T_DEPTH = se3.exp([0, 0, 0, 0, 0, np.pi])


def measured(number: int) -> np.ndarray:
    """What that depth camera sees of a view, (30, 40) metres."""
    return view(number)[1].reshape(30, 4, 40, 4).mean(axis=(1, 3))[::-1, ::-1].copy()


class Driver:
    """Publishes colour, and depth as its driver would."""

    def __init__(self, robot: Robot, topic: str, kind: type) -> None:
        self.robot = robot
        self.depth = robot.create_publisher(kind, topic, qos.reliable(1))
        self.info = robot.create_publisher(CameraInfo, "depth/camera_info", qos.reliable(1))
        self.statuses = robot.listen(DiagnosticArray, "/relocalizer/status")

    def show(self, number: int, depth: Any) -> None:
        """One image with the depth of its moment."""
        stamp = self.robot.now()
        depth.header = conversions.header(depth.header.frame_id or DEPTH_FRAME, stamp)
        self.robot.drive(map_T_camera(number) @ se3.inverse(BASE_T_CAMERA), stamp)
        self.info.publish(conversions.to_camera_info(DEPTH_CAMERA, DEPTH_FRAME, stamp))
        self.depth.publish(depth)
        self.robot.show(number, stamp)

    def show_until(self, number: int, depth: Any, condition: Callable[[], Any]) -> Any:
        """Show it until the condition holds."""

        def again() -> Any:
            self.show(number, depth)
            threading.Event().wait(0.1)
            return condition()

        return wait_until(again)

    def checked(self, how: str) -> attempt_status.AttemptStatus | None:
        """A status whose pose was held against depth like that."""
        for message in self.statuses:
            told = {pair.key: pair.value for pair in message.status[0].values}
            if told["depth check"] == how:
                return attempt_status.from_message(message)
        return None


@contextmanager
def driving(node: Any, topic: str = "depth_camera/depth", kind: type = Image) -> Iterator[Driver]:
    robot = Robot()
    driver = Driver(robot, topic, kind)
    with spinning(node, robot):
        wait_until(lambda: robot.images.get_subscription_count() and driver.depth.get_subscription_count())
        robot.mount_camera()
        robot.static_transforms.send(CAMERA_FRAME, DEPTH_FRAME, COLOUR_T_DEPTH, robot.now())
        yield driver


def relocalizer(map_folder: Path, topic: str = "depth_camera/depth", **parameters: Any) -> RelocalizerNode:
    overrides = values(matcher="fake", map=str(map_folder), map_points_voxel=0.0, max_frame_age=0.0, **parameters)
    # Remapped: one participant cannot use two types on one topic, and the robot of the tests has a raw one of its own.
    return RelocalizerNode(cli_args=["--ros-args", "-r", f"depth:={topic}"], parameter_overrides=overrides)


def packed(depth: np.ndarray, how: str) -> CompressedImage:
    """As compressed_depth_image_transport sends it."""
    message = CompressedImage(format=f"16UC1; compressedDepth {how}")
    data = codec.encode_compressed_depth(depth) if how == "png" else bytes(12) + rvl(millimetres(depth))
    message.data = array("B", data)
    return message


def test_the_relocalizer_registers_depth_of_another_camera(map_folder: Path) -> None:
    with driving(relocalizer(map_folder)) as driver:
        depth = conversions.to_depth_image(measured(1), DEPTH_FRAME, 0)
        status = driver.show_until(1, depth, lambda: driver.checked("done"))
        assert status.accepted and status.evidence["depth_error"] < 0.02
        assert status.evidence["depth_coverage"] > 0.9, "depth of a sixteenth of the pixels covers the image"


def test_registered_depth_that_contradicts_the_map_is_evidence(map_folder: Path) -> None:
    with driving(relocalizer(map_folder)) as driver:
        wrong = conversions.to_depth_image(1.5 * measured(1), DEPTH_FRAME, 0)
        status = driver.show_until(1, wrong, lambda: driver.checked("done"))
        assert not status.accepted and status.reason == "depth_disagrees"


@pytest.mark.parametrize("how", ["png", "rvl"])
def test_the_relocalizer_hears_compressed_depth(map_folder: Path, how: str) -> None:
    node = relocalizer(map_folder, "camera/depth/compressedDepth", depth_transport="compressedDepth")
    with driving(node, "camera/depth/compressedDepth", CompressedImage) as driver:
        status = driver.show_until(1, packed(measured(1), how), lambda: driver.checked("done"))
        assert status.accepted and status.evidence["depth_error"] < 0.02
        spoilt = CompressedImage(format="16UC1; compressedDepth png", data=array("B", b"no picture at all"))
        driver.show_until(1, spoilt, lambda: "bad_depth" in node._complaints.going_on)
        driver.show_until(1, packed(measured(1), how), lambda: not node._complaints.going_on)


def test_the_mapper_hears_compressed_depth(tmp_path: Path) -> None:
    overrides = values(map=str(tmp_path / "map"), global_frame_id="odom", matcher="fake", coverage_rate=0.0)
    node = Mapper(
        cli_args=["--ros-args", "-r", "depth:=camera/depth/compressedDepth"],
        parameter_overrides=[*overrides, *values(depth_transport="compressedDepth")],
    )
    with driving(node, "camera/depth/compressedDepth", CompressedImage) as driver:
        driver.show_until(1, packed(measured(1), "png"), lambda: len(node.session.map))
        depth = node.session.map.frame(node.session.map.keyframes[0].id).depth
    assert depth is not None and (depth > 0).mean() > 0.9
    assert np.median(np.abs(depth - view(1)[1])[depth > 0]) < 0.02


def test_depth_that_is_too_sparse_to_check_a_pose_is_said(map_folder: Path) -> None:
    with driving(relocalizer(map_folder)) as driver:
        health = driver.robot.listen(DiagnosticArray, "/diagnostics")
        few = np.zeros((30, 40), np.float32)
        few[15, 20] = 2.0
        depth = conversions.to_depth_image(few, DEPTH_FRAME, 0)
        status = driver.show_until(1, depth, lambda: driver.checked("too_few_pixels"))
        assert status.accepted and status.evidence["depth_coverage"] < 0.1

        def told() -> bool:
            said = [{pair.key: pair.value for pair in message.status[0].values} for message in health]
            return any("sparse_depth" in s["troubles"] and int(s["not checked against depth"]) > 0 for s in said)

        driver.show_until(1, depth, told)
