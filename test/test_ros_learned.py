"""The relocalizer with a network as matcher, over real DDS: the weights are random, so no pose may come out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from oracle import TINY, save_network  # noqa: E402
from ros_world import Robot, build_map, spinning, values, wait_until  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from mast3r_ros.lab.training.initialise import random_network  # noqa: E402
from mast3r_ros.ros.relocalizer_node import RelocalizerNode  # noqa: E402

pytestmark = pytest.mark.usefixtures("rclpy_running")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(random_network(TINY, seed=5), tmp_path_factory.mktemp("weights") / "random.safetensors")


@contextmanager
def live(**parameters: Any) -> Iterator[tuple[RelocalizerNode, Robot]]:
    node = RelocalizerNode(
        parameter_overrides=values(map_points_voxel=0.0, tf_wait=0.0, max_frame_age=0.0, **parameters)
    )
    robot = Robot()
    with spinning(node, robot):
        robot.mount_camera()
        yield node, robot


def state(node: RelocalizerNode) -> str:
    return str(node.lifecycle.state)


@pytest.mark.parametrize("matcher", ["mast3r", "dust3r", "auto"])
def test_poses_of_random_networks_are_rejected_with_the_reason(matcher: str, checkpoint: Path, tmp_path: Path) -> None:
    folder = build_map(tmp_path / "map")
    with live(map=str(folder), matcher=matcher, checkpoint=str(checkpoint), network_size=128) as (node, robot):
        wait_until(lambda: state(node) == "active")
        poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
        health = robot.listen(DiagnosticArray, "/diagnostics")
        answers: list[Trigger.Response] = []
        asking = threading.Thread(target=lambda: answers.append(robot.call(Trigger, "/relocalizer/relocalize")))
        asking.start()

        def shown(number: int) -> bool:
            robot.show(number)
            threading.Event().wait(0.1)
            return bool(answers)

        wait_until(lambda: shown(1), 90)
        asking.join()
        assert not answers[0].success and answers[0].message.startswith("not localized: ")
        rejected = sum(n for name, n in node._statistics.counts().items() if name.startswith("rejected"))
        assert rejected > 0

        def more() -> bool:
            shown(2)
            counts = node._statistics.counts()
            return sum(n for name, n in counts.items() if name.startswith("rejected")) >= rejected + 2

        wait_until(more, 90)  # the node lives on
        assert state(node) == "active" and not poses
        expected = "mast3r" if matcher == "auto" else matcher
        wait_until(lambda: any(_value(message, "matcher").startswith(f"{expected}-") for message in health))


def test_a_pickle_is_refused_and_the_parameter_can_be_corrected(tmp_path: Path) -> None:
    official = tmp_path / "official.pth"
    official.write_bytes(b"never opened")
    folder = build_map(tmp_path / "map")
    options = {"map": str(folder), "matcher": "mast3r", "checkpoint": str(official), "autostart": False}
    with live(**options) as (node, _):
        said: list[str] = []
        node.get_logger().error = said.append  # type: ignore[method-assign]
        node.trigger_configure()
        assert state(node) == "unconfigured"
        assert any("mast3r_ros checkpoint convert official.pth" in text for text in said)


def _value(message: DiagnosticArray, key: str) -> str:
    return next((pair.value for status in message.status for pair in status.values if pair.key == key), "")
