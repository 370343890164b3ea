"""Hears everything that a relocalizer says: poses, attempts, corrections of the odometry, health."""

from __future__ import annotations

import time
from types import TracebackType

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from tf2_msgs.msg import TFMessage

from mast3r_ros.geometry import se3
from mast3r_ros.ros import attempt_status, conversions, qos
from mast3r_ros.ros.attempt_status import AttemptStatus

Array = NDArray[np.float64]

RELOCALIZER = "/relocalizer"
TOPICS = {
    f"{RELOCALIZER}/status": DiagnosticArray,
    f"{RELOCALIZER}/pose": PoseWithCovarianceStamped,
    "/diagnostics": DiagnosticArray,
    "/tf": TFMessage,
}
#: A status waits this long for the pose of the same stamp, which was published before it, seconds.
POSE_WAIT_S = 0.5


class LiveListener:
    """A node of our own in this process. Use it in a ``with`` statement; it hears only within :meth:`listen`.

    Attributes:
        poses: pose (4, 4) and covariance (6, 6) by stamp.
        corrections: (stamp_ns, map_T_odom) whenever it changed.
        health: newest values of the relocalizer's /diagnostics, of all its statuses.
    """

    def __init__(self) -> None:
        self.poses: dict[int, tuple[Array, Array]] = {}
        self.corrections: list[tuple[int, Array]] = []
        self.health: dict[str, str] = {}
        self._attempts: list[tuple[float, AttemptStatus]] = []
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("live_listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        callbacks = (self._take_status, self._take_pose, self._take_health, self._take_tf)
        for (topic, kind), callback in zip(TOPICS.items(), callbacks, strict=True):
            self._node.create_subscription(kind, topic, callback, qos.reliable(500))
        self._states = self._node.create_client(GetState, f"{RELOCALIZER}/get_state")

    def __enter__(self) -> LiveListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def listen(self, seconds: float) -> None:
        """Take in what arrives within this time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def state(self) -> str:
        """Lifecycle state of the relocalizer; empty while it does not answer."""
        if not self._states.wait_for_service(timeout_sec=0.1):
            return ""
        answer = self._states.call_async(GetState.Request())
        self._executor.spin_until_future_complete(answer, timeout_sec=2.0)
        return str(answer.result().current_state.label) if answer.done() else ""

    @property
    def connected(self) -> bool:
        """Whether every topic of the relocalizer has been found."""
        return all(self._node.count_publishers(topic) > 0 for topic in TOPICS)

    def take_attempts(self) -> list[AttemptStatus]:
        """New attempts; an accepted one only once its pose is here too."""
        now = time.monotonic()

        def complete(since: float, attempt: AttemptStatus) -> bool:
            return not attempt.accepted or attempt.stamp_ns in self.poses or now - since > POSE_WAIT_S

        ready = [attempt for since, attempt in self._attempts if complete(since, attempt)]
        self._attempts = [waiting for waiting in self._attempts if waiting[1] not in ready]
        return ready

    def _take_status(self, message: DiagnosticArray) -> None:
        self._attempts.append((time.monotonic(), attempt_status.from_message(message)))

    def _take_pose(self, message: PoseWithCovarianceStamped) -> None:
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        pose = conversions.matrix_from_pose(message.pose.pose)
        self.poses[conversions.stamp_ns(message.header.stamp)] = (pose, covariance)

    def _take_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(RELOCALIZER.lstrip("/")):
                self.health.update({pair.key: pair.value for pair in status.values})

    def _take_tf(self, message: TFMessage) -> None:
        """map -> odom is repeated many times per second; only changes are worth keeping."""
        for transform in message.transforms:
            if (transform.header.frame_id, transform.child_frame_id) != ("map", "odom"):
                continue
            t, q = transform.transform.translation, transform.transform.rotation
            map_T_odom = se3.from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
            if not self.corrections or not np.allclose(self.corrections[-1][1], map_T_odom, atol=1e-9):
                self.corrections.append((conversions.stamp_ns(transform.header.stamp), map_T_odom))
