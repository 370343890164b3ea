"""The real relocalizer under everything that happens to a node, with simulated time and images all the while.

A robot that stands at one of a few places publishes /clock, TF, camera_info and images without a pause. Whoever holds
the bench disturbs: transitions, parameters, jumps of the clock, publishers that come and go, broken messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Empty, Trigger

from mast3r_ros.frames import Camera
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.relocalizer_node import RelocalizerNode
from mast3r_ros.ros.tf import TransformBroadcaster

Array = NDArray[np.float64]

#: Simulated seconds from one image to the next, and how long that takes at least: eight times as fast as real.
STEP_S, PAUSE_S = 0.4, 0.05
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
START_NS = 1_700_000_000_000_000_000


class Disturbed:
    """A relocalizer and a robot in this process, spinning until the process ends.

    Args:
        images: what the camera shows at each place.
        map_T_base: (P, 4, 4) the places.
        judge: is told of every pose that is published, place and pose (4, 4), and raises what is wrong with it.

    Attributes:
        simulated_s: time that has passed for the robot.
        failures: what the judge and the callbacks have raised.
    """

    def __init__(
        self,
        map_folder: Path,
        images: Sequence[NDArray[np.uint8]],
        camera: Camera,
        map_T_base: Sequence[Array],
        base_T_camera: Array,
        judge: Callable[[int, Array], None],
    ) -> None:
        rclpy.init()
        sim_time = Parameter("use_sim_time", value=True)
        values: dict[str, Any] = {
            "map": str(map_folder),
            "matcher": "fake",
            "map_points_voxel": 0.0,
            "autostart": False,
        }
        values |= {"camera_info_wait": 0.3, "tf_wait": 0.3, "tracking.commit_views": 1, "bond": "false"}
        parameters = [sim_time, *(Parameter(name, value=value) for name, value in values.items())]
        self.node = RelocalizerNode(parameter_overrides=parameters)
        self.robot = Node("robot")
        self.images, self.camera, self.places = images, camera, map_T_base
        self.judge = judge
        self._jumps = 0
        self.published, self.simulated_s, self.place, self.now_ns = 0, 0.0, 0, START_NS
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self._shown: dict[int, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._infos = self.robot.create_publisher(CameraInfo, "camera_info", qos.reliable(1))
        self._clock = self.robot.create_publisher(Clock, "/clock", qos.reliable(1))
        self._initial = self.robot.create_publisher(PoseWithCovarianceStamped, "initialpose", qos.reliable(1))
        self._pictures = self.robot.create_publisher(Image, "image", qos.reliable(1))
        self._transforms = TransformBroadcaster(self.robot)
        self._mount = TransformBroadcaster(self.robot, static=True)
        self._mount.send("base_link", "camera", base_T_camera, self.now_ns)
        self.robot.create_subscription(PoseWithCovarianceStamped, "relocalizer/pose", self._heard, qos.reliable(50))
        self._executor = MultiThreadedExecutor(6)
        for node in (self.node, self.robot):
            self._executor.add_node(node)
        for task in (self._spin, self._drive):
            threading.Thread(target=task, daemon=True).start()

    def change(self, transition: str) -> bool:
        """One transition of the lifecycle, as a manager asks for it; whether it was possible."""
        return self.node.lifecycle.change(TRANSITIONS[transition])

    def set_parameter(self, name: str, value: Any) -> bool:
        """Set a parameter; whether it was accepted."""
        try:
            return all(result.successful for result in self.node.set_parameters([Parameter(name, value=value)]))
        except (TypeError, ValueError):  # no value that a parameter can have
            return False

    def jump(self, seconds: float) -> None:
        """The clock jumps, as when a recording begins anew."""
        with self._lock:
            # Never a stamp that was there before: a pose of before the jump would be held against another place.
            self._jumps += 1
            self.now_ns = max(self.now_ns + round(seconds * 1e9), START_NS) // 10**6 * 10**6 + self._jumps

    def call(self, name: str) -> None:
        """Call one of the node's services, as the executor would."""
        if name == "reload_map":
            self.node._reload_map(Trigger.Request(), Trigger.Response())
        else:
            self.node._reinitialize(Empty.Request(), Empty.Response())

    def send(self, spoil: Callable[[str, Any], None]) -> None:
        """One image, camera_info or initial pose after something was done to it."""
        with self._lock:
            self.now_ns += 10**6
            stamp, place = self.now_ns, self.place
            self._shown[stamp] = place, time.monotonic()
        image = conversions.to_image(self.images[place], "camera", stamp)
        info = conversions.to_camera_info(self.camera, "camera", stamp)
        prior = conversions.to_pose_with_covariance(self.places[place], 0.1 * np.eye(6), "map", stamp)
        for name, message, to in (
            ("image", image, self._pictures),
            ("info", info, self._infos),
            ("initialpose", prior, self._initial),
        ):
            spoil(name, message)
            to.publish(message)

    def renew_camera(self) -> None:
        """The camera's driver ends, and another begins."""
        with self._lock:
            self.robot.destroy_publisher(self._pictures)
            self._pictures = self.robot.create_publisher(Image, "image", qos.reliable(1))

    def recovers(self, timeout_s: float) -> bool:
        """Make the node active, and wait for its next pose."""
        for transition in ("configure", "activate"):
            self.change(transition)
        before, deadline = self.published, time.monotonic() + timeout_s
        while self.published == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.published > before

    def _drive(self) -> None:
        while rclpy.ok():
            with self._lock:
                self.now_ns += round(STEP_S * 1e9)
                self.simulated_s += STEP_S
                stamp, place = self.now_ns, self.place
                self._shown[stamp] = place, time.monotonic()
                if len(self._shown) > 400:
                    self._shown.pop(next(iter(self._shown)))
                self._clock.publish(Clock(clock=conversions.to_time(stamp)))
                for late in (-round(STEP_S * 1e9), 0):
                    self._transforms.send("odom", "base_link", self.places[place], stamp + late)
                self._infos.publish(conversions.to_camera_info(self.camera, "camera", stamp))
                self._pictures.publish(conversions.to_image(self.images[place], "camera", stamp))
            time.sleep(PAUSE_S)

    def _heard(self, message: PoseWithCovarianceStamped) -> None:
        shown = self._shown.get(conversions.stamp_ns(message.header.stamp))
        self.published += 1
        if shown is None:
            return
        self.latencies.append(time.monotonic() - shown[1])
        try:
            self.judge(shown[0], conversions.matrix_from_pose(message.pose.pose))
        except Exception as error:
            self.failures.append(str(error))

    def _spin(self) -> None:
        while rclpy.ok():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except InvalidHandle:
                continue
            except Exception as error:
                self.failures.append(f"a callback failed: {error!r}")
