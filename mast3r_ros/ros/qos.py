"""The quality-of-service profiles of the nodes' topics, in one place.

Every subscription and publisher is created with :func:`overridable`, so that ``qos_overrides`` in a
parameter file works as anywhere in ROS 2.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


def newest() -> QoSProfile:
    """Sensor data of which only the newest message matters: best effort, depth 1."""
    return _keep_last(1, ReliabilityPolicy.BEST_EFFORT)


def small_sensor_data() -> QoSProfile:
    """Sensor data that must be paired with other messages by stamp: best effort, a few kept."""
    return _keep_last(5, ReliabilityPolicy.BEST_EFFORT)


def reliable(depth: int = 10) -> QoSProfile:
    """Reliable: no message is lost."""
    return _keep_last(depth, ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """The last message is kept for subscribers that come later (transient local)."""
    return _keep_last(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)


def static_transforms() -> QoSProfile:
    """/tf_static: the last message of every publisher, as tf2 has it."""
    return _keep_last(100, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)


def _keep_last(
    depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


def overridable() -> QoSOverridingOptions:
    """Let history, depth, reliability and durability of an endpoint be set by ``qos_overrides`` parameters."""
    kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
    return QoSOverridingOptions(kinds)


# rclpy's executor looks at every event handler in every round, in Python, while it holds the interpreter. With
# two handlers for each endpoint that took half the interpreter's time under /tf and /clock traffic, and the worker
# waited for it. Only subscriptions to a user's own topics keep theirs: there a mismatch of QoS is worth a warning.


def no_publisher_events() -> PublisherEventCallbacks:
    """No event handlers."""
    return PublisherEventCallbacks(use_default_callbacks=False)


def no_subscription_events() -> SubscriptionEventCallbacks:
    """No event handlers."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)
