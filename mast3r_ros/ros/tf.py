"""Listening to and broadcasting transforms.

tf2_ros is not needed: it is missing from the ROS 2 wheels on PyPI, and its Python listener does nothing
that ``TransformBuffer`` does not do. Using the same code everywhere means that what is tested is what runs.
Topics, QoS and semantics are those of tf2, so other nodes see no difference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.side_node import SideNode
from mast3r_ros.transforms import FutureExtrapolation, InvalidTransform, TransformBuffer

Array = NDArray[np.float64]

#: The newest samples of each frame that tell whether two nodes publish it.
SAMPLES_JUDGED = 50


class TransformListener:
    """Fills a buffer from /tf and /tf_static and lets other threads wait for transforms.

    It listens by a small node of its own on a thread of its own, as tf2's does, to what the node calls /tf and
    /tf_static: ``/tf:=tf`` holds for it too, for the whole process or for this node alone.

    Args:
        node: whose context, namespace and remappings it shares.
        on_invalid: told once per message what is wrong with a transform that was refused.
        cache_s: seconds of history kept.
    """

    def __init__(self, node: Node, on_invalid: Callable[[str], None], cache_s: float = 10.0) -> None:
        self.buffer = TransformBuffer(cache_s)
        self._on_invalid = on_invalid
        self._news = threading.Condition()
        self._side = SideNode(node, "tf_listener")
        self._side.listen(TFMessage, "/tf", self._take_dynamic, qos.reliable(100))
        self._static = self._side.listen(TFMessage, "/tf_static", self._take_static, qos.static_transforms())
        self._side.start()

    def lookup(self, target: str, source: str, stamp_ns: int | None, timeout_s: float = 0.0) -> Array:
        """``target_T_source`` (4, 4) at a stamp (None: the newest), waiting for a transform that is on its way.

        Only a stamp that is newer than the newest sample is waited for; other failures do not cure
        themselves within a fraction of a second. Never call this on an executor's thread with a timeout.

        Raises:
            TransformUnavailable: saying which link is missing, or by how much it is too old or too new.
        """
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                try:
                    return self.buffer.lookup(target, source, stamp_ns)
                except FutureExtrapolation:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._news.wait(left):
                        raise

    def report_duplicate_publishers(self, complaints: Complaints) -> None:
        """Warn where two nodes seem to publish the same frame, whose pose then jumps between the two."""
        duplicates = self.buffer.duplicates(SAMPLES_JUDGED)
        if not duplicates:
            complaints.cured("two_tf_publishers")
        for child, why in duplicates.items():
            complaints.say("two_tf_publishers", f"more than one node publishes the transform of '{child}' ({why})")

    @property
    def anybody_there(self) -> bool:
        """Whether somebody publishes transforms, as far as is known now."""
        return bool(self.buffer.frames) or self._side.count_publishers(self._static) > 0

    def clear(self) -> None:
        """Forget the moving transforms: time has jumped backwards."""
        self.buffer.clear()

    def destroy(self) -> None:
        """Stop; a second time does nothing."""
        self._side.destroy()

    def _take_dynamic(self, message: TFMessage) -> None:
        self._take(message, static=False)

    def _take_static(self, message: TFMessage) -> None:
        self._take(message, static=True)

    def _take(self, message: TFMessage, static: bool) -> None:
        for transform in message.transforms:
            try:
                self.buffer.set_message(transform, static)
            except InvalidTransform as error:
                self._on_invalid(str(error))
        with self._news:
            self._news.notify_all()


class TransformBroadcaster:
    """Sends single transforms to /tf (or, with ``static``, /tf_static)."""

    def __init__(self, node: Node, static: bool = False) -> None:
        self._node = node
        profile = qos.static_transforms() if static else qos.reliable(100)
        self._publisher = node.create_publisher(
            TFMessage, "/tf_static" if static else "/tf", profile, event_callbacks=qos.no_publisher_events()
        )

    def send(self, parent: str, child: str, parent_T_child: Array, stamp_ns: int) -> None:
        """Publish ``parent_T_child`` (4, 4) valid at ``stamp_ns``."""
        self._publisher.publish(
            TFMessage(transforms=[conversions.to_transform_stamped(parent, child, parent_T_child, stamp_ns)])
        )

    def destroy(self) -> None:
        """Stop broadcasting."""
        self._node.destroy_publisher(self._publisher)
