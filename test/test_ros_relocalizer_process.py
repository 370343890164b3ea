"""The relocalizer as a process, and under load: signals at any time, transitions and changes in a storm."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from ros_world import Robot, build_map, ros, spinning, values, wait_until  # noqa: E402
from std_srvs.srv import Empty, Trigger  # noqa: E402

from mast3r_ros.memory import resident_mib  # noqa: E402
from mast3r_ros.ros.relocalizer_node import RelocalizerNode  # noqa: E402

SECOND = 10**9
#: How long the storm lasts; the acceptance run uses 60.
STORM_S = float(os.environ.get("MAST3R_ROS_STORM_S", "8"))


def start(map_folder: Path, *parameters: str) -> subprocess.Popen[str]:
    arguments = ["--ros-args", "-p", f"map:={map_folder}", "-p", "matcher:=fake"]
    for parameter in parameters:
        arguments += ["-p", parameter]
    return subprocess.Popen(
        [sys.executable, "-m", "mast3r_ros.ros.relocalizer", *arguments], stderr=subprocess.PIPE, text=True
    )


def _state(robot: Robot) -> str | None:
    """The other process's state; None where the answer got lost (services may be discovered one way first)."""
    try:
        return str(robot.call(GetState, "/relocalizer/get_state", timeout_s=2).current_state.label)
    except AssertionError:
        return None


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and log; a process that hangs is killed and fails the test."""
    try:
        _, log = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, log


def test_it_localizes_across_processes_and_ends_cleanly_on_sigint(map_folder: Path) -> None:
    process = start(map_folder)
    with ros():
        robot = Robot()
        with spinning(robot):
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            wait_until(lambda: _state(robot) == "active", 90)

            def shown() -> bool:
                robot.show(1)
                threading.Event().wait(0.1)
                return bool(poses)

            robot.mount_camera()
            wait_until(shown)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)  # an impatient user
            code, log = finish(process)
    assert code == 0 and "Traceback" not in log, log


@pytest.mark.parametrize("after_s", [0.6, 1.2, 2.0, 3.0])
def test_sigint_during_start_up_ends_it_cleanly(map_folder: Path, after_s: float) -> None:
    process = start(map_folder)
    # From here on our handlers are in place: Python itself is up, the imports are not over.
    wait_until(lambda: _catches_sigint(process.pid))
    time.sleep(after_s - 0.6)
    process.send_signal(signal.SIGINT)
    code, log = finish(process)
    assert code == 0 and "Traceback" not in log, log


def test_a_wrong_parameter_ends_it_with_what_would_be_right(map_folder: Path) -> None:
    code, log = finish(start(map_folder, "max_rate:=-3.0", "feed:=ekf"))
    assert code == 1 and "feed must be one of none, amcl" in log and "max_rate" in log and "Traceback" not in log


def _catches_sigint(pid: int) -> bool:
    """Whether the process has a handler for SIGINT that is not Python's own: SIGTERM is caught as well."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt"):
            caught = int(line.split()[1], 16)
            return bool(caught & 1 << (signal.SIGINT - 1)) and bool(caught & 1 << (signal.SIGTERM - 1))
    return False


@pytest.fixture
def _ros() -> Iterator[None]:
    with ros():
        yield


def test_transitions_and_parameter_changes_in_a_storm(map_folder: Path, tmp_path: Path, _ros: None) -> None:
    other = build_map(tmp_path / "other", keyframes=3)
    node = RelocalizerNode(parameter_overrides=values(matcher="fake", map=str(map_folder), map_points_voxel=0.0))
    robot = Robot()
    dice = random.Random(0)
    stop = threading.Event()

    def camera() -> None:
        """Images as fast as they go, some of them broken."""
        number = 0
        while not stop.wait(0.005):
            number += 1
            stamp = robot.now()
            robot.drive(np.eye(4), stamp - SECOND // 100)
            robot.drive(np.eye(4), stamp + SECOND // 100)
            if number % 7 == 0:
                robot.raw(step=3)
            else:
                robot.show(number // 50 % 4, stamp, depth=number % 2 == 0)

    def move(transition: int) -> None:
        robot.call(ChangeState, "/relocalizer/change_state", ChangeState.Request(transition=Transition(id=transition)))

    actions = [
        lambda: [move(t) for t in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)],
        lambda: [move(t) for t in (4, 2, 1, 3)],  # deactivate, clean up, configure, activate
        lambda: move(dice.choice([1, 2, 3, 4])),
        lambda: node.set_parameters(values(keyframes=dice.randint(1, 9), gates__min_inliers=dice.randint(4, 900))),
        lambda: node.set_parameters(values(transform_tolerance=dice.uniform(0, 2), max_rate=dice.choice([0.0, 50.0]))),
        lambda: node.set_parameters(values(map=str(dice.choice([map_folder, other, tmp_path / "none"])))),
        lambda: robot.call(Trigger, "/relocalizer/reload_map"),
        lambda: robot.call(Empty, "/reinitialize_global_localization"),
    ]
    with spinning(node, robot):
        robot.mount_camera()
        wait_until(lambda: node.lifecycle.state == "active")
        filming = threading.Thread(target=camera)
        filming.start()
        try:
            time.sleep(1)
            settled: float | None = None
            end = time.monotonic() + STORM_S
            while (left := end - time.monotonic()) > 0:
                dice.choice(actions)()
                if settled is None and left < 0.7 * STORM_S:
                    settled = resident_mib()
            grown = resident_mib() - (settled or 0)
            node.set_parameters(values(map=str(map_folder), gates__min_inliers=15, keyframes=5, max_rate=0.0))
            for transition in (4, 2, 1, 3):
                move(transition)
            assert node.lifecycle.state == "active"
            before = node._statistics.counts().get("accepted", 0)
            wait_until(lambda: node._statistics.counts().get("accepted", 0) > before + 3)
        finally:
            stop.set()
            filming.join()
        assert not [kind for kind in node._statistics.counts() if "internal_error" in kind]
        assert sum(thread.name == "localization" for thread in threading.enumerate()) == 1
        assert grown < 30, f"memory grew by {grown:.0f} MB"
