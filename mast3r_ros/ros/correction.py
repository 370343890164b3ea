"""The transform that the relocalizer owns: map -> odom, or map -> base where there is no odometry."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from mast3r_ros.ros.tf import TransformBroadcaster

Array = NDArray[np.float64]


class CorrectionBroadcaster:
    """Broadcasts map -> odom as AMCL does: post-dated, and repeated so that it never goes stale.

    Before the first pose nothing is broadcast. Stamps never go back: an older stamp would let an older
    correction, sent before with a later stamp, win over the new one in everybody's buffer. Thread-safe.
    """

    def __init__(self, node: Node, global_frame: str, odom_frame: str) -> None:
        self._node = node
        self._global_frame = global_frame
        self._odom_frame = odom_frame
        self._broadcaster = TransformBroadcaster(node)
        self._lock = threading.Lock()
        self._map_T_odom: Array | None = None
        self._last_ns = 0

    def correct(self, map_T_odom: Array, stamp_ns: int, tolerance_s: float) -> None:
        """A new correction (4, 4), found from an image of that time."""
        with self._lock:
            self._map_T_odom = map_T_odom
            self._send(stamp_ns, tolerance_s)

    def repeat(self, tolerance_s: float) -> None:
        """Broadcast the last correction again; nothing before the first."""
        with self._lock:
            if self._map_T_odom is not None:
                self._send(self._node.get_clock().now().nanoseconds, tolerance_s)

    def withdraw(self) -> None:
        """Stop repeating: the track was contradicted. Stamps go on from where they are."""
        with self._lock:
            self._map_T_odom = None

    def forget(self) -> None:
        """Stop repeating: the robot may be anywhere, or time has jumped."""
        with self._lock:
            self._map_T_odom, self._last_ns = None, 0

    def place(self, base_frame: str, map_T_base: Array, stamp_ns: int) -> None:
        """map -> base (4, 4) where there is no odometry. Not post-dated and never repeated: a moving robot's pose
        is known only at the time of the image."""
        self._broadcaster.send(self._global_frame, base_frame, map_T_base, stamp_ns)

    def destroy(self) -> None:
        """Stop broadcasting."""
        self.forget()
        self._broadcaster.destroy()

    def _send(self, stamp_ns: int, tolerance_s: float) -> None:
        self._last_ns = max(stamp_ns + round(tolerance_s * 1e9), self._last_ns + 1)
        assert self._map_T_odom is not None
        self._broadcaster.send(self._global_frame, self._odom_frame, self._map_T_odom, self._last_ns)
