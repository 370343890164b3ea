"""A robot that publishes /clock, TF, camera_info and images without a pause, as fast as it is told to live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from mast3r_ros.frames import Camera
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.tf import TransformBroadcaster

Array = NDArray[np.float64]

START_NS = 1_700_000_000_000_000_000
#: Images whose place is remembered until their pose comes.
REMEMBERED = 400


@dataclass(frozen=True, eq=False)
class World:
    """Where a robot can be, and what its camera shows there.

    Attributes:
        images, depths: what the camera shows at each place, (H, W, 3) RGB and (H, W) metres.
        map_T_base: (P, 4, 4) the places.
    """

    images: Sequence[NDArray[np.uint8]]
    depths: Sequence[NDArray[np.float32]]
    camera: Camera
    map_T_base: Sequence[Array]
    base_T_camera: Array


@dataclass(frozen=True)
class Pace:
    """Simulated seconds from one image to the next, and how many of them pass in a real one."""

    step_s: float = 0.4
    speed: float = 8.0


class Robot:
    """A robot at one of a few places, on a node of its own; it lives from :meth:`start` until the process ends.

    Attributes:
        place: where it is.
        route: the place after a place; by default it stays.
        odometry: odom_T_base (4, 4) at a place; by default as exact as the map.
        quiet: what is not published just now, of ``image``, ``info`` and ``odometry``.
        simulated_s: time that has passed for the robot.
        lock: held while the robot takes a step.
    """

    def __init__(self, world: World, pace: Pace) -> None:
        self.node = Node("robot")
        self.world, self.pace = world, pace
        self.route: Callable[[int], int] = lambda place: place
        self.odometry: Callable[[int], Array] = lambda place: world.map_T_base[place]
        self.quiet: frozenset[str] = frozenset()
        self.place, self.now_ns, self.simulated_s, self._jumps = 0, START_NS, 0.0, 0
        self._shown: dict[int, tuple[int, float]] = {}
        self.lock = threading.Lock()
        self._infos = self.node.create_publisher(CameraInfo, "camera_info", qos.reliable(1))
        self._clock = self.node.create_publisher(Clock, "/clock", qos.reliable(1))
        self._initial = self.node.create_publisher(PoseWithCovarianceStamped, "initialpose", qos.reliable(1))
        self._pictures = self.node.create_publisher(Image, "image", qos.reliable(1))
        self._depths = self.node.create_publisher(Image, "depth", qos.reliable(1))
        self._tf = self.node.create_publisher(TFMessage, "/tf", qos.reliable(10))
        self._transforms = TransformBroadcaster(self.node)
        self._mount = TransformBroadcaster(self.node, static=True)
        self._mount.send("base_link", "camera", world.base_T_camera, self.now_ns)

    def start(self) -> None:
        """Live from now on."""
        threading.Thread(target=self._live, daemon=True).start()

    def shown(self, stamp_ns: int) -> tuple[int, float] | None:
        """Where the robot was when it took the image of a stamp, and when that was (monotonic, seconds)."""
        return self._shown.get(stamp_ns)

    def jump(self, seconds: float, place: int | None = None) -> None:
        """The clock jumps, as when a recording begins anew, at its first place then."""
        with self.lock:
            # Never a stamp that was there before: a pose of before the jump would be held against another place.
            self._jumps += 1
            self.now_ns = max(self.now_ns + round(seconds * 1e9), START_NS) // 10**6 * 10**6 + self._jumps
            self.place = self.place if place is None else place

    def send(self, spoil: Callable[[str, Any], None]) -> None:
        """One of each message, after something was done to those that ``spoil`` knows by name."""
        with self.lock:
            self.now_ns += 10**6
            stamp, place = self.now_ns, self.place
            self._shown[stamp] = place, time.monotonic()
        world = self.world
        moved = conversions.to_transform_stamped("odom", "base_link", self.odometry(place), stamp)
        prior = conversions.to_pose_with_covariance(world.map_T_base[place], 0.1 * np.eye(6), "map", stamp)
        for name, message, to in (
            ("tf", moved, self._tf),
            ("info", conversions.to_camera_info(world.camera, "camera", stamp), self._infos),
            ("depth", conversions.to_depth_image(world.depths[place], "camera", stamp), self._depths),
            ("image", conversions.to_image(world.images[place], "camera", stamp), self._pictures),
            ("initialpose", prior, self._initial),
        ):
            spoil(name, message)
            to.publish(TFMessage(transforms=[message]) if name == "tf" else message)

    def renew_camera(self) -> None:
        """The camera's driver ends, and another begins."""
        with self.lock:
            self.node.destroy_publisher(self._pictures)
            self._pictures = self.node.create_publisher(Image, "image", qos.reliable(1))

    def _live(self) -> None:
        due = time.monotonic()
        while rclpy.ok():
            with self.lock:
                self._step()
            due = max(due + self.pace.step_s / self.pace.speed, time.monotonic() - 1.0)
            time.sleep(max(due - time.monotonic(), 0.0))

    def _step(self) -> None:
        self.now_ns += round(self.pace.step_s * 1e9)
        self.simulated_s += self.pace.step_s
        last, self.place = self.place, self.route(self.place)
        stamp, place, quiet = self.now_ns, self.place, self.quiet
        self._shown[stamp] = place, time.monotonic()
        if len(self._shown) > REMEMBERED:
            self._shown.pop(next(iter(self._shown)))
        self._clock.publish(Clock(clock=conversions.to_time(stamp)))
        if "odometry" not in quiet:
            for late, at in ((-round(self.pace.step_s * 1e9), last), (0, place)):
                self._transforms.send("odom", "base_link", self.odometry(at), stamp + late)
        if "info" not in quiet:
            self._infos.publish(conversions.to_camera_info(self.world.camera, "camera", stamp))
        if "image" not in quiet:
            self._pictures.publish(conversions.to_image(self.world.images[place], "camera", stamp))
