"""A small node beside another one, on a thread of its own: for topics with much traffic that is not about the node.

rclpy's executor looks at everything that a node has for every message. Transforms, and the heartbeats of all the
other bonds, would keep it busy; a node with nothing but two subscriptions takes little time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from mast3r_ros.ros import qos

#: Parameter of every node from Jazzy on: a service that a side node would offer under a name that no policy grants.
_TYPE_DESCRIPTIONS = "start_type_description_service"


class SideNode:
    """Subscribes to topics for ``beside``, whose context, namespace and remappings it shares.

    It has no services, parameters and clock, and a name of its own, ``<name of beside>_<purpose>``, whatever the
    process calls its nodes.
    """

    def __init__(self, beside: Node, purpose: str) -> None:
        self._beside = beside
        name = f"{beside.get_name()}_{purpose}"
        # Without the arguments of the process: its __node and __ns are not meant for us, and its remappings have
        # been applied by the node beside, together with those that were given to that node alone.
        self._node = Node(
            name,
            context=beside.context,
            namespace=beside.get_namespace(),
            use_global_arguments=False,
            parameter_overrides=[Parameter(name, value=False) for name in ("use_sim_time", _TYPE_DESCRIPTIONS)],
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._stopped = threading.Event()
        self._executor = SingleThreadedExecutor(context=beside.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name=purpose, daemon=True)

    def listen(self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile) -> str:
        """Subscribe to a topic by the name that the node beside has for it; returns that name. Before :meth:`start`."""
        resolved = str(self._beside.resolve_topic_name(topic))
        self._node.create_subscription(kind, resolved, callback, profile, event_callbacks=qos.no_subscription_events())
        return resolved

    def start(self) -> None:
        """Receive from now on, on the thread."""
        self._thread.start()

    def count_publishers(self, resolved: str) -> int:
        """Publishers of a topic, as far as is known now."""
        return int(self._node.count_publishers(resolved))

    def destroy(self) -> None:
        """Stop receiving; a second time does nothing."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()

    def _spin(self) -> None:
        while not self._stopped.is_set() and self._node.context.ok():
            try:
                self._executor.spin_once(timeout_sec=0.5)
            except ExternalShutdownException:
                return
