"""The Fast DDS profile that is shipped: images between processes arrive, best effort and all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

SENT = 60
PUBLISHER = f"""
import array, time, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera")
publisher = node.create_publisher(Image, "profile_test/image", qos_profile_sensor_data)
while publisher.get_subscription_count() == 0:
    time.sleep(0.01)
time.sleep(0.3)
image = Image(width=640, height=480, step=1920, encoding="rgb8", data=array.array("B", bytes(921600)))
for number in range({SENT}):
    image.header.stamp.sec = number
    publisher.publish(image)
    time.sleep(1 / 30)
time.sleep(0.5)
node.destroy_node()
rclpy.shutdown()
"""


def received_from_another_process() -> int:
    """How many of SENT best-effort VGA images arrive from a publisher in another process."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stamps: set[int] = set()
    node.create_subscription(
        Image, "profile_test/image", lambda image: stamps.add(image.header.stamp.sec), qos_profile_sensor_data
    )
    publisher = subprocess.Popen([sys.executable, "-c", PUBLISHER])
    try:
        deadline = time.monotonic() + 60
        while publisher.poll() is None and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        assert publisher.poll() == 0, "the publishing process did not end well"
    finally:
        publisher.kill()
        publisher.wait()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    return len(stamps)


def test_best_effort_images_cross_processes(repository: Path) -> None:
    """With the default shared-memory segment about one in ten arrives."""
    if os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] != str(repository / "config" / "fastdds.xml"):
        pytest.skip("FASTDDS_DEFAULT_PROFILES_FILE names another profile")
    assert received_from_another_process() >= 0.9 * SENT
