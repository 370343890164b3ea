"""The Fast DDS profile that is shipped: images between processes arrive, best effort and all, without complaints."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from mast3r_ros.lab.live.processes import own_environment  # noqa: E402
from mast3r_ros.ros import fast_dds  # noqa: E402

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


def received_from_another_process(said_in: Path) -> tuple[int, str]:
    """How many of SENT best-effort VGA images arrive from a publisher in another process, and what that one said."""
    said = said_in.open("w+")
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stamps: set[int] = set()
    node.create_subscription(
        Image, "profile_test/image", lambda image: stamps.add(image.header.stamp.sec), qos_profile_sensor_data
    )
    publisher = subprocess.Popen([sys.executable, "-c", PUBLISHER], stdout=said, stderr=subprocess.STDOUT)
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
    said.seek(0)
    return len(stamps), said.read()


def test_best_effort_images_cross_processes(repository: Path, tmp_path: Path) -> None:
    """With the default shared-memory segment about one in ten arrives; a profile loaded twice is complained about."""
    given = {name: os.environ[name] for name in (fast_dds.NEW_NAME, fast_dds.OLD_NAME) if name in os.environ}
    if given != {fast_dds.variable(): str(repository / "config" / "fastdds.xml")}:
        pytest.skip(f"another profile is set: {given}")
    received, said = received_from_another_process(tmp_path / "said")
    assert received >= 0.9 * SENT
    assert "XMLPARSER" not in said and "PROFILES_FILE" not in said, said


@pytest.mark.parametrize(
    ("distribution", "name"),
    [
        ("humble", fast_dds.OLD_NAME),
        ("iron", fast_dds.OLD_NAME),
        ("jazzy", fast_dds.OLD_NAME),
        ("kilted", fast_dds.NEW_NAME),
        ("lyrical", fast_dds.NEW_NAME),
        ("rolling", fast_dds.NEW_NAME),
    ],
)
def test_the_variable_is_the_one_that_the_distribution_reads(
    repository: Path, distribution: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the launch files, the demo and scripts/with_ros.sh alike; never both names."""
    profile = str(repository / "config" / "fastdds.xml")
    assert fast_dds.setting(environment={"ROS_DISTRO": distribution}) == {name: profile}
    for other in (fast_dds.NEW_NAME, fast_dds.OLD_NAME):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert by_with_ros(repository) == {name: profile}
    with own_environment():
        assert profile_variables(os.environ) == {name: profile}
    assert profile_variables(os.environ) == {}


@pytest.mark.parametrize("name", [fast_dds.NEW_NAME, fast_dds.OLD_NAME])
@pytest.mark.parametrize("distribution", ["humble", "kilted"])
def test_a_profile_of_the_users_own_is_kept_under_either_name(
    repository: Path, distribution: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in (fast_dds.NEW_NAME, fast_dds.OLD_NAME):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setenv(name, "/their/profile.xml")
    assert by_with_ros(repository) == {name: "/their/profile.xml"}
    with own_environment():
        assert profile_variables(os.environ) == {name: "/their/profile.xml"}
    # Humble's Fast DDS does not know the new name, and would be silent about it.
    assert bool(fast_dds.unread()) == (distribution == "humble" and name == fast_dds.NEW_NAME)


def test_without_a_distribution_the_installed_rclpy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    installed = int(metadata.version("rclpy").split(".")[0])
    assert fast_dds.variable() == (fast_dds.OLD_NAME if installed < 9 else fast_dds.NEW_NAME)
    for version, name in (("3.3.16", fast_dds.OLD_NAME), ("7.1.6", fast_dds.OLD_NAME), ("9.1.2", fast_dds.NEW_NAME)):
        monkeypatch.setattr(fast_dds.metadata, "version", lambda _, version=version: version)
        assert fast_dds.variable() == name


def profile_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if "DEFAULT_PROFILES_FILE" in name}


def by_with_ros(repository: Path) -> dict[str, str]:
    """What scripts/with_ros.sh makes of our environment."""
    command = [repository / "scripts" / "with_ros.sh", sys.executable, "-c", "import os; print(dict(os.environ))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return profile_variables(ast.literal_eval(done.stdout))
