"""A bond with Nav2's lifecycle manager, as every Nav2 server has one: heartbeats while the node serves callbacks.

The protocol is that of the ROS packages bond and bondcpp (https://wiki.ros.org/bond): both ends publish ``bond/Status``
on one topic, with the bond's id, which is the node's name, and an id of their own. A heartbeat says ``active``; a last
one with ``active: false`` breaks the bond. The manager takes all its nodes down when a bond breaks, or when no
heartbeat has come for its ``bond_timeout``. As with Nav2's servers, the manager's own heartbeats need not come.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node

from mast3r_ros.errors import UserError
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.side_node import SideNode

try:
    from bond.msg import Status
except ImportError:
    Status = None

#: What Nav2's servers announce as their heartbeat timeout, seconds; the manager goes by its own bond_timeout.
ANNOUNCED_TIMEOUT_S = 4.0
#: The last heartbeat is waited for this long, as bondcpp does, so that the manager hears it before the topic is gone.
LAST_HEARTBEAT_WAIT_S = 0.1


class BondMissing(UserError):
    """A bond is wanted and the message's package is not installed."""


def is_available() -> bool:
    """Whether the ROS package bond is installed."""
    return Status is not None


def status_type() -> Any:
    """The type of a bond's messages.

    Raises:
        BondMissing: with what to install, if the ROS package bond is not there.
    """
    if Status is None:
        raise BondMissing(
            "bond: true, but the ROS package bond is not installed: sudo apt install ros-$ROS_DISTRO-bond, or "
            "set bond to false and the lifecycle manager's bond_timeout to 0.0"
        )
    return Status


class Bond:
    """The node's end. Heartbeats are sent by the node's own executor: they prove that it serves its callbacks.

    The topic is heard by a small node of its own, because all bonds of a namespace share it.

    Raises:
        BondMissing: if the ROS package bond is not installed.
    """

    def __init__(self, node: Node, period_s: float) -> None:
        self._status_type = status_type()
        self._node = node
        self._id = node.get_name()
        self._instance = str(uuid.uuid4())
        self._period_s = period_s
        self._lock = threading.Lock()
        self._broken = False
        self._sister: str | None = None
        options = {"event_callbacks": qos.no_publisher_events(), "qos_overriding_options": qos.overridable()}
        self._publisher = node.create_publisher(self._status_type, "bond", qos.reliable(5), **options)
        self._side = SideNode(node, "bond")
        self._topic = self._side.listen(self._status_type, "bond", self._take, qos.reliable(100))
        self._side.start()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._timer = node.create_timer(period_s, self._beat, MutuallyExclusiveCallbackGroup(), steady)

    def destroy(self) -> None:
        """Break the bond, so that the manager need not wait for a timeout, and take everything down."""
        self._node.destroy_timer(self._timer)
        self._side.destroy()
        self._break()
        self._publisher.wait_for_all_acked(Duration(seconds=LAST_HEARTBEAT_WAIT_S))
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        with self._lock:
            if not self._broken:
                self._publish(active=True)

    def _break(self) -> None:
        with self._lock:
            if not self._broken:
                self._broken = True
                self._publish(active=False)

    def _take(self, message: Any) -> None:
        if message.id != self._id or message.instance_id == self._instance:
            return
        if message.active and self._sister != message.instance_id:
            self._sister = message.instance_id
            self._node.get_logger().info(f"bond '{self._id}' on {self._topic}: formed")
        elif not message.active and self._sister == message.instance_id and not self._broken:
            # Only by the one that formed it: the last message of an earlier manager may still be on its way.
            self._node.get_logger().info(f"bond '{self._id}' on {self._topic}: broken by the lifecycle manager")
            self._break()

    def _publish(self, active: bool) -> None:
        message = self._status_type(id=self._id, instance_id=self._instance, active=active)
        message.header = conversions.header("", time.monotonic_ns())
        message.heartbeat_period, message.heartbeat_timeout = self._period_s, ANNOUNCED_TIMEOUT_S
        self._publisher.publish(message)
