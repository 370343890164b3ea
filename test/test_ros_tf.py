"""Transforms over real topics: waiting for those on their way, static ones for late listeners, bad ones refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from geometry_msgs.msg import TransformStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_world import ros, spinning, wait_until  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from mast3r_ros.geometry import se3  # noqa: E402
from mast3r_ros.ros import conversions, qos  # noqa: E402
from mast3r_ros.ros.camera_transforms import CameraTransforms  # noqa: E402
from mast3r_ros.ros.complaints import Complaints  # noqa: E402
from mast3r_ros.ros.diagnostics import Statistics  # noqa: E402
from mast3r_ros.ros.intake import Arrival  # noqa: E402
from mast3r_ros.ros.tf import TransformBroadcaster, TransformListener  # noqa: E402
from mast3r_ros.settings import NodeSettings  # noqa: E402
from mast3r_ros.transforms import FutureExtrapolation, TransformUnavailable, UnknownFrame  # noqa: E402

SECOND = 10**9


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    with ros():
        sender, listener = Node("sender"), Node("listener")
        with spinning(sender, listener):
            yield sender, listener


def step(metres: float) -> np.ndarray:
    return se3.make(np.eye(3), [metres, 0, 0])


def test_transforms_are_interpolated_and_static_ones_reach_late_listeners(nodes: tuple[Node, Node]) -> None:
    sender, listener = nodes
    static = TransformBroadcaster(sender, static=True)
    static.send("base", "camera", step(10), 0)
    heard = TransformListener(listener, lambda why: None)
    moving = TransformBroadcaster(sender)
    wait_until(lambda: moving._publisher.get_subscription_count() > 0)
    moving.send("odom", "base", step(0), 100 * SECOND)
    moving.send("odom", "base", step(1), 101 * SECOND)
    wait_until(lambda: heard.buffer.can_transform("odom", "camera", 101 * SECOND))
    found = heard.lookup("odom", "camera", 100 * SECOND + SECOND // 4)
    np.testing.assert_allclose(found, step(10.25), atol=1e-9)
    heard.destroy()


def test_a_transform_on_its_way_is_waited_for_and_no_longer(nodes: tuple[Node, Node]) -> None:
    sender, listener = nodes
    heard = TransformListener(listener, lambda why: None)
    moving = TransformBroadcaster(sender)
    wait_until(lambda: moving._publisher.get_subscription_count() > 0)
    moving.send("odom", "wheel", step(0), 100 * SECOND)
    wait_until(lambda: heard.buffer.can_transform("odom", "wheel"))
    Timer(0.2, lambda: moving.send("odom", "wheel", step(2), 102 * SECOND)).start()
    started = time.monotonic()
    np.testing.assert_allclose(heard.lookup("odom", "wheel", 101 * SECOND, timeout_s=5), step(1), atol=1e-9)
    assert 0.1 < time.monotonic() - started < 5
    started = time.monotonic()
    with pytest.raises(FutureExtrapolation):
        heard.lookup("odom", "wheel", 200 * SECOND, timeout_s=0.2)
    assert time.monotonic() - started > 0.15
    started = time.monotonic()
    with pytest.raises(UnknownFrame):
        heard.lookup("odom", "moon", 101 * SECOND, timeout_s=60)
    assert time.monotonic() - started < 30  # waiting does not bring a missing frame
    heard.destroy()


def test_the_camera_is_looked_up_by_the_frames_and_with_the_patience_of_the_settings(nodes: tuple[Node, Node]) -> None:
    sender, listener = nodes
    heard = TransformListener(listener, lambda why: None)
    static, moving = TransformBroadcaster(sender, static=True), TransformBroadcaster(sender)
    wait_until(lambda: moving._publisher.get_subscription_count() > 0)
    static.send("robot", "lens", step(1), 0)
    moving.send("wheels", "robot", step(5), 300 * SECOND)
    wait_until(lambda: heard.buffer.can_transform("wheels", "lens"))
    camera = CameraTransforms(Statistics(), Complaints(listener.get_logger()))
    camera.listener = heard
    settings = NodeSettings(camera_frame_id="lens", base_frame_id="robot", odom_frame_id="wheels", tf_timeout=0.0)
    now = Arrival(conversions.to_image(np.zeros((2, 2, 3), np.uint8), "a driver's own", 300 * SECOND), 0)
    found = camera.at(now, settings)
    assert found.frame_id == "lens"
    np.testing.assert_allclose(found.base_T_camera, step(1), atol=1e-9)
    np.testing.assert_allclose(found.odom_T_camera, step(6), atol=1e-9)
    later = Arrival(conversions.to_image(np.zeros((2, 2, 3), np.uint8), "", 301 * SECOND), 0)
    assert camera.at(later, settings).odom_T_camera is None
    Timer(0.2, lambda: moving.send("wheels", "robot", step(7), 302 * SECOND)).start()
    np.testing.assert_allclose(camera.at(later, replace(settings, tf_timeout=5.0)).odom_T_camera, step(7), atol=1e-9)
    heard.destroy()


def test_a_bad_transform_is_refused_in_words_and_the_others_are_taken(nodes: tuple[Node, Node]) -> None:
    sender, listener = nodes
    complaints: list[str] = []
    heard = TransformListener(listener, complaints.append)
    publisher = sender.create_publisher(TFMessage, "/tf", qos.reliable(100))
    wait_until(lambda: publisher.get_subscription_count() > 0)
    bad, good = TransformStamped(child_frame_id="bad"), TransformStamped(child_frame_id="good")
    for message in (bad, good):
        message.header.frame_id = "odom"
    bad.transform.translation.x = float("nan")
    good.transform.rotation.w = 3.0  # not a unit quaternion, but a direction
    publisher.publish(TFMessage(transforms=[bad, good]))
    wait_until(lambda: heard.buffer.can_transform("odom", "good"))
    assert len(complaints) == 1 and "bad" in complaints[0] and "NaN" in complaints[0]
    heard.clear()
    with pytest.raises(TransformUnavailable):
        heard.lookup("odom", "good", None)
    heard.destroy()


def test_the_listener_is_a_node_of_its_own_name_whatever_the_process_calls_its_nodes() -> None:
    context = Context()
    rclpy.init(args=["--ros-args", "-r", "__node:=robot", "-r", "__ns:=/fleet"], context=context)
    try:
        node = Node("anything", context=context)
        heard = TransformListener(node, lambda why: None)
        assert ("robot", "/fleet") in node.get_node_names_and_namespaces()
        wait_until(lambda: ("robot_tf_listener", "/fleet") in node.get_node_names_and_namespaces())
        heard.destroy()
        heard.destroy()  # nothing happens
        node.destroy_node()
    finally:
        context.try_shutdown()
