"""The mapper node over DDS: camera topics and TF in, a map on disk out, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import photo_worlds
from diagnostic_msgs.msg import DiagnosticArray
from ros_world import (
    BASE_T_CAMERA,
    CAMERA,
    CAMERA_FRAME,
    Robot,
    build_map,
    map_T_camera,
    ros,
    spinning,
    values,
    view,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from test_ros_bag_player import playing
from visualization_msgs.msg import MarkerArray

from mast3r_ros.errors import MapError
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.lab.metrics.trajectories import absolute_errors, align_trajectory
from mast3r_ros.mapping import storage
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.mapper_node import Mapper


@pytest.fixture(autouse=True)
def _ros() -> Iterator[None]:
    with ros():
        yield


@contextmanager
def mapping(folder: Path, **parameters: Any) -> Iterator[tuple[Mapper, Robot]]:
    """A mapper in this process, and a robot whose poses are in frame odom."""
    settings = {"map": str(folder), "global_frame_id": "odom", "matcher": "fake", "coverage_leave_out": 0.1}
    mapper = Mapper(parameter_overrides=values(**{**settings, **parameters}))
    robot = Robot()
    with spinning(mapper, robot):
        robot.mount_camera()
        wait_until(lambda: robot.images.get_subscription_count() and robot.depths.get_subscription_count())
        yield mapper, robot


def visit(robot: Robot, number: int, depth: bool = True) -> int:
    """Be at a place and look."""
    stamp = robot.now()
    robot.drive(map_T_camera(number) @ se3.inverse(BASE_T_CAMERA), stamp)
    return robot.show(number, stamp, depth=depth)


def visit_until(robot: Robot, number: int, condition: Any, depth: bool = True) -> None:
    """A camera keeps showing what is in front of it."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within 60 s"
        visit(robot, number, depth)
        time.sleep(0.1)


def test_frames_and_transforms_become_a_map_that_covers_the_place(tmp_path: Path) -> None:
    with mapping(tmp_path / "map", coverage_rate=20.0) as (mapper, robot):
        frustums = robot.listen(MarkerArray, "/mapper/keyframes", qos.latched())
        coverage = robot.listen(MarkerArray, "/mapper/coverage", qos.latched())
        health = robot.listen(DiagnosticArray, "/diagnostics")
        for number in range(4):
            visit_until(robot, number, lambda n=number: len(mapper.session.map) == n + 1)
        assert mapper.session.unsaved == 4
        time.sleep(0.15)  # now the keyframe of this place is old enough to count in a trial
        visit_until(robot, 2, lambda: coverage and any(c.g > 0.7 for c in coverage[-1].markers[-1].colors))  # green
        answer = robot.call(Trigger, "/mapper/save_map")
        assert answer.success and "saved 4 keyframes" in answer.message
        wait_until(lambda: frustums and len(frustums[-1].markers[-1].points) == 4 * 16)
        wait_until(lambda: any("places would be found again" in h.status[0].message for h in health))
        assert frustums[-1].markers[-1].header.frame_id == "odom"
    loaded = KeyframeMap.load(tmp_path / "map")
    assert loaded.frame_id == "odom" and len(loaded) == 4
    for number, keyframe in enumerate(loaded.keyframes):
        assert np.allclose(keyframe.map_T_camera, map_T_camera(number), atol=1e-6)
        frame = loaded.frame(keyframe.id)
        assert frame.depth is not None and np.allclose(frame.depth, view(number)[1], atol=2e-3)
        assert frame.camera is not None and frame.camera.same_as(CAMERA)


def test_keyframes_on_request_and_reasons_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mast3r_ros.ros.mapper_node.ADD_TIMEOUT_S", 1.0)
    with mapping(tmp_path / "map", automatic=False, coverage_rate=0.0) as (mapper, robot):
        empty = robot.call(Trigger, "/mapper/save_map")
        assert not empty.success and "no keyframe" in empty.message
        silent = robot.call(Trigger, "/mapper/add_keyframe")
        assert not silent.success and "no image" in silent.message
        answers: list[Trigger.Response] = []

        def ask_and_look(with_pose: bool) -> Trigger.Response:
            client = robot.create_client(Trigger, "/mapper/add_keyframe")
            wait_until(client.service_is_ready)
            future = client.call_async(Trigger.Request())
            while not future.done():
                if with_pose:
                    visit(robot, 1)
                else:
                    robot.show(1)
                time.sleep(0.05)
            answers.append(future.result())
            return answers[-1]

        lost = ask_and_look(with_pose=False)
        assert not lost.success and "no pose for the image" in lost.message
        assert ask_and_look(with_pose=True).success
        assert ask_and_look(with_pose=True).success, "the same place once more, because it was asked for"
        assert len(mapper.session.map) == 2


def test_a_full_disk_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with mapping(tmp_path / "map", coverage_rate=0.0) as (mapper, robot):
        visit_until(robot, 0, lambda: len(mapper.session.map) == 1)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write_synced", full)
            answer = robot.call(Trigger, "/mapper/save_map")
            assert not answer.success and "No space left on device" in answer.message
        assert mapper.session.unsaved == 1
        visit_until(robot, 1, lambda: len(mapper.session.map) == 2)
        assert robot.call(Trigger, "/mapper/save_map").success
    assert len(KeyframeMap.load(tmp_path / "map")) == 2


def test_depth_of_another_camera_is_registered_or_refused(tmp_path: Path) -> None:
    """The depth camera sits 5 cm to the right, with another focal length, and sees a wall at 2 m."""
    metres = np.full((120, 160), 2.0, np.float32)
    with mapping(tmp_path / "map", coverage_rate=0.0, selection__require_depth=False) as (mapper, robot):
        infos = robot.create_publisher(CameraInfo, "depth/camera_info", qos.reliable(1))

        def look(number: int, with_info: bool) -> None:
            stamp = robot.now()
            if with_info:
                infos.publish(conversions.to_camera_info(CAMERA.resized(160, 120), "depth_optical", stamp))
            robot.depths.publish(conversions.to_depth_image(metres, "depth_optical", stamp))
            robot.drive(map_T_camera(number) @ se3.inverse(BASE_T_CAMERA), stamp)
            robot.infos.publish(conversions.to_camera_info(CAMERA, CAMERA_FRAME, stamp))
            robot.images.publish(conversions.to_image(view(number)[0], CAMERA_FRAME, stamp))

        def look_until(number: int, with_info: bool) -> None:
            deadline = time.monotonic() + 60
            while len(mapper.session.map) < number + 1:
                assert time.monotonic() < deadline
                look(number, with_info)
                time.sleep(0.1)

        look_until(0, with_info=False)
        robot.static_transforms.send(CAMERA_FRAME, "depth_optical", se3.make(np.eye(3), (0.05, 0, 0)), robot.now())
        time.sleep(0.3)
        for _ in range(3):  # a camera_info reaches the mapper before the keyframe that needs it
            look(0, with_info=True)
            time.sleep(0.1)
        look_until(1, with_info=True)
        first, second = mapper.session.map.keyframes
        assert not first.has_depth and second.has_depth
        depth = mapper.session.map.frame(second.id).depth
    assert depth is not None
    shift = round(CAMERA.fx * 0.05 / 2.0)
    assert (depth[:, : shift - 1] == 0).all() and np.allclose(depth[:, shift + 1 :], 2.0, atol=2e-3)


def test_it_saves_by_itself_where_asked(tmp_path: Path) -> None:
    with mapping(tmp_path / "map", coverage_rate=0.0, autosave_interval=0.5, save_on_shutdown=False) as (mapper, robot):
        visit_until(robot, 0, lambda: len(mapper.session.map) == 1)
        wait_until(lambda: not mapper.session.unsaved)
    assert len(KeyframeMap.load(tmp_path / "map")) == 1


def test_it_refuses_to_start_where_it_could_do_harm(tmp_path: Path) -> None:
    build_map(tmp_path / "map", 2)
    for parameters, says in (({}, "no place for the map"), ({"map": str(tmp_path / "map")}, "holds a map already")):
        with pytest.raises(MapError, match=says):
            Mapper(parameter_overrides=values(**parameters))


@contextmanager
def mapper_process(folder: Path, **parameters: Any) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mast3r_ros.ros.mapper"]
    command += ["--ros-args", "-p", f"map:={folder}", "-p", "global_frame_id:=odom", "-p", "matcher:=fake"]
    command += [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def odometry_map(folder: Path, keyframes: int) -> Path:
    made = KeyframeMap.load(build_map(folder / "source", keyframes))
    made.frame_id = "odom"
    made.save(folder / "map")
    return folder / "map"


def unsaved_keyframe(robot: Robot, before: int, number: int) -> None:
    """Drive to a new place until the mapper shows one keyframe more than before."""
    frustums = robot.listen(MarkerArray, "/mapper/keyframes", qos.latched())
    visit_until(robot, number, lambda: frustums and len(frustums[-1].markers[-1].points) == 16 * (before + 1))


def test_stopping_saves_what_is_not_saved(tmp_path: Path) -> None:
    robot = Robot()
    with spinning(robot), mapper_process(tmp_path / "map", coverage_rate=0.0) as process:
        robot.mount_camera()
        unsaved_keyframe(robot, 0, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, process.stderr.read() if process.stderr else ""
    assert len(KeyframeMap.load(tmp_path / "map")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle_of_saving_leaves_the_old_map_or_the_new_one(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = 60
    folder = odometry_map(tmp_path, before)
    robot = Robot()
    with spinning(robot), mapper_process(folder, existing="extend", coverage_rate=0.0) as process:
        robot.mount_camera()
        unsaved_keyframe(robot, before, before + 10)
        client = robot.create_client(Trigger, "/mapper/save_map")
        assert client.wait_for_service(10.0)
        client.call_async(Trigger.Request())
        deadline = time.monotonic() + 60
        while not (tmp_path / ".map.lock").exists():  # held from the beginning of saving to its end
            assert time.monotonic() < deadline
        process.send_signal(number)
        if number == signal.SIGINT:
            process.send_signal(number)
            assert process.wait(30) == 0, process.stderr.read() if process.stderr else ""
        process.wait(30)
    loaded = KeyframeMap.load(folder)
    assert len(loaded) in ((before + 1,) if number == signal.SIGINT else (before, before + 1))
    for keyframe in loaded.keyframes:
        assert loaded.frame(keyframe.id).image.shape == (120, 160, 3)


def test_a_recording_played_on_its_own_time_becomes_a_map(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "ride") as bag:
        began = 1_700_000_000_000_000_000
        bag.transform("base_link", CAMERA_FRAME, BASE_T_CAMERA, began, static=True)
        for i in range(40):
            stamp, (image, metres) = began + i * 10**8, view(i // 10)
            bag.transform("odom", "base_link", map_T_camera(i // 10) @ se3.inverse(BASE_T_CAMERA), stamp)
            bag.camera_info("/cam/info", CAMERA, stamp, CAMERA_FRAME)
            bag.depth("/cam/depth", metres, stamp, CAMERA_FRAME)
            bag.image("/cam/image", image, stamp, CAMERA_FRAME)
    renamed = ("/cam/info:=/camera_info", "/cam/depth:=/depth", "/cam/image:=/image")
    with (
        mapping(tmp_path / "map", coverage_rate=0.0, use_sim_time=True) as (mapper, _),
        playing(tmp_path / "ride", *renamed, rate=2.0, wait_for_subscribers=20.0) as player,
    ):
        assert player.wait(60) == 0
        wait_until(lambda: len(mapper.session.map) == 4)  # the last image may still be looked at
        stamps = [keyframe.stamp_ns for keyframe in mapper.session.map.keyframes]
        assert began <= stamps[0] < stamps[-1] <= began + 4 * 10**9
    assert len(KeyframeMap.load(tmp_path / "map")) == 4, "saved when it was stopped"


def test_frames_without_depth_wait_for_it_while_depth_is_published(tmp_path: Path) -> None:
    with mapping(tmp_path / "map", coverage_rate=0.0) as (mapper, robot):
        for _ in range(5):
            visit(robot, 0, depth=False)
            time.sleep(0.1)
        assert len(mapper.session.map) == 0
        visit_until(robot, 0, lambda: len(mapper.session.map) == 1)
        assert mapper.session.map.keyframes[0].has_depth


def test_bad_images_and_a_time_reset_are_survived(tmp_path: Path) -> None:
    with mapping(tmp_path / "map", coverage_rate=0.0) as (mapper, robot):
        visit_until(robot, 0, lambda: len(mapper.session.map) == 1)
        robot.raw(encoding="nonsense8")
        robot.images.publish(Image())
        past = robot.now() - 3600 * 10**9
        deadline = time.monotonic() + 60
        while len(mapper.session.map) < 2:
            assert time.monotonic() < deadline
            past += 10**8
            robot.drive(map_T_camera(3) @ se3.inverse(BASE_T_CAMERA), past)
            robot.show(3, past, depth=True)
            time.sleep(0.1)


def test_rgb_and_odometry_alone_make_a_map_that_was_tried_and_refined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody publishes depth, and odometry turns a little too far with every step."""
    monkeypatch.setattr("mast3r_ros.multiview.refine_map.FEATURES", 500)
    camera, base_T_camera = photo_worlds.ROBOT_CAMERA, photo_worlds.BASE_T_CAMERA
    true = photo_worlds.drive(10, 0.35)
    driven = [true[0]]
    for before, after in pairwise(true):
        driven.append(driven[-1] @ se3.inverse(before) @ after @ se3.exp([0, 0, 0, 0, 0, 0.02]))
    settings = {
        "matcher": "sift",
        "coverage_rate": 5.0,
        "selection__distance_m": 0.05,
        "selection__require_depth": False,
    }
    with mapping(tmp_path / "map", **settings) as (mapper, robot):
        robot.static_transforms.send("base_link", "lens", base_T_camera, robot.now())
        coverage = robot.listen(MarkerArray, "/mapper/coverage", qos.latched())

        def look(step: int) -> None:
            stamp = robot.now()
            robot.drive(driven[step], stamp)
            robot.infos.publish(conversions.to_camera_info(camera, "lens", stamp))
            robot.images.publish(
                conversions.to_image(photo_worlds.see(true[step] @ base_T_camera, 0, camera), "lens", stamp)
            )
            time.sleep(0.1)

        def look_until(step: int, condition: Any) -> None:
            deadline = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < deadline, f"not within 60 s at {step}"
                look(step)

        for step in range(10):
            look_until(step, lambda n=step: len(mapper.session.map) == n + 1)
        look_until(4, lambda: coverage and any(c.g > 0.7 for c in coverage[-1].markers[-1].colors))
        answer = robot.call(Trigger, "/mapper/save_map", timeout_s=120)
        assert answer.success and "poses refined" in answer.message, answer.message
    loaded = KeyframeMap.load(tmp_path / "map")
    found = np.array([keyframe.map_T_camera for keyframe in loaded.keyframes])
    expected = true @ base_T_camera
    metres, degrees = absolute_errors(align_trajectory(found, expected, "se3"), expected)
    assert metres.max() < 0.06 and degrees.max() < 1.0 and all(keyframe.has_depth for keyframe in loaded.keyframes)
