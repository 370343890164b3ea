"""The real relocalizer under everything that happens to a node, with simulated time and images all the while.

A robot (:mod:`mast3r_ros.lab.live.robot`) lives beside it. Whoever holds the bench disturbs: transitions, parameters,
jumps of the clock, publishers that come and go, broken messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from numpy.typing import NDArray
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import Empty, Trigger

from mast3r_ros.lab.live.robot import Pace, Robot, World
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.relocalizer_node import RelocalizerNode

Array = NDArray[np.float64]

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
#: What makes an attempt cheap: the pictures are copies of keyframes, so few matches and rounds are enough.
CHEAP = {"matches_per_keyframe": 60, "solver.iterations": 20}
#: Names of the relocalizers; the second one broadcasts no transform, as a robot has one map -> odom.
NAMES = ("relocalizer", "beside")


class Disturbed:
    """One or two relocalizers and a robot in this process, spinning until the process ends.

    Args:
        judge: is told of every pose that is published, place and pose (4, 4), and raises what is wrong with it.
        relocalizers: how many, beside each other.

    Attributes:
        published: poses of each relocalizer.
        latencies: from an image to its pose, seconds.
        failures: what the judge and the callbacks have raised.
    """

    def __init__(
        self,
        map_folder: Path,
        world: World,
        judge: Callable[[int, Array], None],
        pace: Pace = Pace(),
        relocalizers: int = 1,
    ) -> None:
        rclpy.init()
        self.robot = Robot(world, pace)
        self.judge = judge
        self.nodes = [_relocalizer(map_folder, name) for name in NAMES[:relocalizers]]
        self.published = [0] * relocalizers
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self._executor = MultiThreadedExecutor(6)
        for number, node in enumerate(self.nodes):
            topic, heard = f"{node.get_name()}/pose", partial(self._heard, number)
            self.robot.node.create_subscription(PoseWithCovarianceStamped, topic, heard, qos.reliable(50))
            self._executor.add_node(node)
        self._executor.add_node(self.robot.node)
        threading.Thread(target=self._spin, daemon=True).start()
        self.robot.start()

    def change(self, transition: str, number: int = 0) -> bool:
        """One transition of a relocalizer's lifecycle, as a manager asks for it; whether it was possible."""
        return self.nodes[number].lifecycle.change(TRANSITIONS[transition])

    def set_parameter(self, name: str, value: Any, number: int = 0) -> bool:
        """Set a parameter; whether it was accepted."""
        try:
            return all(
                result.successful for result in self.nodes[number].set_parameters([Parameter(name, value=value)])
            )
        except (TypeError, ValueError):  # no value that a parameter can have
            return False

    def call(self, name: str, number: int = 0) -> None:
        """Call one of a node's services, as the executor would."""
        if name == "reload_map":
            self.nodes[number]._reload_map(Trigger.Request(), Trigger.Response())
        else:
            self.nodes[number]._reinitialize(Empty.Request(), Empty.Response())

    def silent(self, timeout_s: float) -> str:
        """Make every relocalizer active, and wait for its next pose; what those that publish none complain of."""
        for number in range(len(self.nodes)):
            for transition in ("configure", "activate"):
                self.change(transition, number)
        return self.waits(list(self.published), timeout_s)

    def waits(self, before: list[int], timeout_s: float) -> str:
        """Wait until every relocalizer has published more poses than ``before``; what those that do not complain of."""
        deadline = time.monotonic() + timeout_s
        while (late := [n for n, count in enumerate(before) if self.published[n] == count]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.01)
        return "; ".join(f"{NAMES[n]}: {self.nodes[n]._complaints.last or 'no complaint'}" for n in late)

    def _heard(self, number: int, message: PoseWithCovarianceStamped) -> None:
        shown = self.robot.shown(conversions.stamp_ns(message.header.stamp))
        self.published[number] += 1
        if shown is None:
            return
        self.latencies.append(time.monotonic() - shown[1])
        try:
            self.judge(shown[0], conversions.matrix_from_pose(message.pose.pose))
        except Exception as error:
            self.failures.append(f"{NAMES[number]}: {error}")

    def _spin(self) -> None:
        while rclpy.ok():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except InvalidHandle:
                continue
            except Exception as error:
                self.failures.append(f"a callback failed: {error!r}")


def _relocalizer(map_folder: Path, name: str) -> RelocalizerNode:
    values: dict[str, Any] = {"map": str(map_folder), "matcher": "fake", "map_points_voxel": 0.0, "autostart": False}
    values |= {"camera_info_wait": 0.3, "tf_wait": 0.3, "tracking.commit_views": 1, "bond": "false", "depth_wait": 0.02}
    values |= {"tf_broadcast": name == NAMES[0], "use_sim_time": True, **CHEAP}
    parameters = [Parameter(key, value=value) for key, value in values.items()]
    return RelocalizerNode(cli_args=["--ros-args", "-r", f"__node:={name}"], parameter_overrides=parameters)
