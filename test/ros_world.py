"""What the tests of the ROS nodes share: a tiny map for the fake matcher, a camera that publishes, a robot's TF."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.tf import TransformBroadcaster, TransformListener

CAMERA = Camera.pinhole(160, 120, 130.0, 130.0, 79.5, 59.5)
CAMERA_FRAME = "camera_optical"
#: The camera looks forward from 0.2 m in front of and 0.5 m above the robot's centre.
BASE_T_CAMERA = se3.make([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.2, 0.0, 0.5])


def view(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (120, 160, 3) and depth (120, 160) of keyframe ``number``: blobs that no other keyframe has, on a bowl."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((20, 20, 1), np.uint8))
    v, u = np.mgrid[:120, :160]
    depth = (2.0 + 0.5 * np.sin(u / 25.0 + number) + 0.5 * np.cos(v / 20.0)).astype(np.float32)
    return image, depth


def map_T_camera(number: int) -> np.ndarray:
    """Where keyframe ``number`` was taken: half a metre further along the map's x axis each."""
    return se3.make(np.eye(3), [0.5 * number, 0.0, 0.0]) @ BASE_T_CAMERA


def build_map(folder: Path, keyframes: int = 4) -> Path:
    """A map of that many keyframes, on disk."""
    made = KeyframeMap("map")
    for number in range(keyframes):
        image, depth = view(number)
        made.add(PosedFrame(Frame(image, CAMERA, number * 10**9, depth), map_T_camera(number)), f"k{number}")
    if keyframes:
        made.prepare(create("fake"))  # saved with the map, so that every node of the tests starts fast
    made.save(folder)
    return folder


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first true value of ``condition``; fails after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.01)
    return value


class Robot(Node):
    """Publishes what a robot's drivers publish, and records what it gets back."""

    def __init__(self, **options: Any) -> None:
        super().__init__("robot", **options)
        self.images = self.create_publisher(Image, "image", qos.reliable(1))
        self.infos = self.create_publisher(CameraInfo, "camera_info", qos.reliable(1))
        self.depths = self.create_publisher(Image, "depth", qos.reliable(1))
        self.initial = self.create_publisher(PoseWithCovarianceStamped, "initialpose", qos.reliable(1))
        self.transforms = TransformBroadcaster(self)
        self.static_transforms = TransformBroadcaster(self, static=True)
        self.tf = TransformListener(self, lambda why: None)
        self.received: dict[str, list[Any]] = {}

    def destroy_node(self) -> None:
        """Stop listening to transforms first."""
        self.tf.destroy()
        super().destroy_node()

    def now(self) -> int:
        """Nanoseconds on the node's clock."""
        return int(self.get_clock().now().nanoseconds)

    def listen(self, kind: type, topic: str, profile: Any = None) -> list[Any]:
        """Messages of a topic, as they come."""
        got = self.received.setdefault(topic, [])
        self.create_subscription(kind, topic, got.append, profile or qos.reliable(50))
        return got

    def mount_camera(self) -> None:
        """base_link -> camera, static."""
        self.static_transforms.send("base_link", CAMERA_FRAME, BASE_T_CAMERA, self.now())

    def drive(self, odom_T_base: np.ndarray, stamp: int) -> None:
        """odom -> base_link at a stamp."""
        self.transforms.send("odom", "base_link", odom_T_base, stamp)

    def show(self, number: int, stamp: int | None = None, info: CameraInfo | None = None, depth: bool = False) -> int:
        """Publish the view of a keyframe with its camera_info; returns its stamp."""
        stamp = self.now() if stamp is None else stamp
        image, metres = view(number)
        self.infos.publish(info or conversions.to_camera_info(CAMERA, CAMERA_FRAME, stamp))
        if depth:
            self.depths.publish(conversions.to_depth_image(metres, CAMERA_FRAME, stamp))
        self.images.publish(conversions.to_image(image, CAMERA_FRAME, stamp))
        return stamp

    def raw(self, stamp: int | None = None, **fields: Any) -> None:
        """Publish an image message with some fields as given (for bad input)."""
        message = conversions.to_image(view(0)[0], CAMERA_FRAME, self.now() if stamp is None else stamp)
        for name, value in fields.items():
            setattr(message, name, array("B", value) if name == "data" else value)
        self.images.publish(message)

    def call(self, kind: type, name: str, request: Any = None, timeout_s: float = 60.0) -> Any:
        """Call a service from the test's thread and wait for the answer."""
        client = self.create_client(kind, name)
        try:
            assert client.wait_for_service(60.0), f"no service {name}"
            done = threading.Event()
            future = client.call_async(request or kind.Request())
            future.add_done_callback(lambda _: done.set())
            assert done.wait(timeout_s), f"{name} did not answer"
            return future.result()
        finally:
            self.destroy_client(client)


@contextmanager
def spinning(*nodes: Node) -> Iterator[MultiThreadedExecutor]:
    """Spin nodes on a thread; afterwards everything is taken down in the order that never aborts.

    As in runner.py, a topic that was taken down just when a message came is no failure; anything else is.
    """
    executor = MultiThreadedExecutor(8)
    for node in nodes:
        executor.add_node(node)
    stop = threading.Event()
    failures: list[BaseException] = []

    def spin() -> None:
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except InvalidHandle:
                continue
            except BaseException as failure:
                failures.append(failure)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield executor
    finally:
        stop.set()
        thread.join()
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
    assert not failures, failures


@contextmanager
def ros() -> Iterator[None]:
    """rclpy, initialised and shut down."""
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()


def held_back(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> tuple[threading.Event, threading.Event]:
    """Let a method wait before it does anything; the events: it was called, and it may go on."""
    called, go_on = threading.Event(), threading.Event()
    original = getattr(owner, method)

    def slowly(*arguments: Any) -> Any:
        called.set()
        go_on.wait(60)
        return original(*arguments)

    monkeypatch.setattr(owner, method, slowly)
    return called, go_on


def standing(**parameters: Any) -> list[Parameter]:
    """As :func:`values`, for a relocalizer on a robot that stands still: one view is enough for its track."""
    return values(**{"tracking__commit_views": 1, **parameters})


def values(**parameters: Any) -> list[Parameter]:
    """Parameter overrides; ``a__b`` is ``a.b``."""
    return [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
