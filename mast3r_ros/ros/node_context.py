"""What the parts of a relocalizer node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node

from mast3r_ros.ros.attempts import Attempts
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.diagnostics import Statistics
from mast3r_ros.settings import Settings


@dataclass(frozen=True, eq=False)
class NodeContext:
    """The ROS node, its settings of now, and what it says of its work.

    Attributes:
        node: clock, logger and topics.
        settings: returns the settings as they are now.
        attempts: who waits for the outcome of an attempt.
        statistics: counts what happens to images.
        complaints: warns once of what is wrong.
    """

    node: Node
    settings: Callable[[], Settings]
    attempts: Attempts
    statistics: Statistics
    complaints: Complaints
