"""The bag player as a process of its own, heard over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from test_bags import ros1_bag
from tf2_msgs.msg import TFMessage

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.io.bags.playback import PlaybackClock
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.bag_player import BagPlayer

T0 = 1_700_000_000_000_000_000
CAMERA = Camera.pinhole(640, 480, 500, 500, 320, 240)


def picture(i: int, width: int = 640, height: int = 480) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_bag(path: Path, count: int, rate: float = 30.0) -> Path:
    """Raw VGA images with depth, calibration and TF; static transforms once, at the start."""
    with BagWriter(path) as bag:
        bag.transform("base_link", "cam", se3.make(np.eye(3), (0.1, 0, 0.3)), T0, static=True)
        bag.transform("base_link", "imu", np.eye(4), T0, static=True)
        for i in range(count):
            stamp = T0 + round(i / rate * 1e9)
            bag.camera_info("/camera/camera_info", CAMERA, stamp, "cam")
            bag.depth("/camera/depth", np.full((480, 640), 1.0 + i / 100, np.float32), stamp, "cam")
            bag.transform("odom", "base_link", se3.make(np.eye(3), (i / 10, 0, 0)), stamp)
            bag.image("/camera/image_raw", picture(i), stamp, "cam")
    return path


class Ear(Node):
    """Hears what is played."""

    def __init__(self, heard_on: str, context: rclpy.Context) -> None:
        super().__init__("ear", context=context)
        self.images: list[tuple[float, Image]] = []
        self.infos: list[CameraInfo] = []
        self.depths: list[Image] = []
        self.tf: list[TFMessage] = []
        self.static: list[TFMessage] = []
        self.clock_ns: list[int] = []
        many = qos.reliable(200)
        self.create_subscription(Image, heard_on, lambda m: self.images.append((time.monotonic(), m)), many)
        self.create_subscription(CameraInfo, "/camera/camera_info", self.infos.append, many)
        self.create_subscription(Image, "/camera/depth", self.depths.append, many)
        self.create_subscription(TFMessage, "/tf", self.tf.append, many)
        self.create_subscription(TFMessage, "/tf_static", self.static.append, qos.static_transforms())
        self.create_subscription(Clock, "/clock", lambda m: self.clock_ns.append(conversions.stamp_ns(m.clock)), many)

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.01)
        return False

    def set_rate(self, rate: float) -> bool:
        client = self.create_client(SetParameters, "/bag_player/set_parameters")
        assert client.wait_for_service(10.0)
        answer = client.call_async(SetParameters.Request(parameters=[Parameter("rate", value=rate).to_parameter_msg()]))
        assert self.until(answer.done, 5.0)
        return answer.result().results[0].successful

    def call(self, service: str) -> Trigger.Response:
        client = self.create_client(Trigger, service)
        assert client.wait_for_service(10.0)
        answer = client.call_async(Trigger.Request())
        assert self.until(answer.done, 5.0)
        return answer.result()


@contextmanager
def listening(heard_on: str = "/camera/image_raw") -> Iterator[Ear]:
    context = rclpy.Context()
    rclpy.init(context=context)
    ear = Ear(heard_on, context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(ear)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield ear
    finally:
        executor.shutdown()
        thread.join()
        ear.destroy_node()
        rclpy.shutdown(context=context)


@contextmanager
def playing(bag: Path, *remaps: str, **parameters: object) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "mast3r_ros.ros.bag_player", "--ros-args", "-p", f"bag:={bag}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    for remap in remaps:
        command += ["-r", remap]
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


def test_everything_arrives_in_time_and_unchanged(tmp_path: Path) -> None:
    count = 60
    bag = write_bag(tmp_path / "ride", count)
    with listening() as ear, playing(bag, clock_rate=100.0) as player:
        ear.set_parameters([Parameter("use_sim_time", value=True)])
        assert ear.until(lambda: T0 + 300_000_000 < ear.get_clock().now().nanoseconds < T0 + 10**10)
        assert player.wait(60) == 0, player.stderr.read()
        assert ear.until(lambda: len(ear.images) == len(ear.infos) == len(ear.depths) == len(ear.tf) == count)
    for i in (0, count // 2, count - 1):
        np.testing.assert_array_equal(conversions.rgb_from_image(ear.images[i][1]), picture(i))
        assert np.allclose(conversions.metres_from_depth(ear.depths[i]), 1.0 + i / 100, atol=1e-3)
    stamps = [conversions.stamp_ns(image.header.stamp) for _, image in ear.images]
    assert stamps == [T0 + round(i / 30 * 1e9) for i in range(count)]
    assert {t.child_frame_id for message in ear.static for t in message.transforms} == {"cam", "imu"}

    # A busy machine delivers late, so only running ahead of the recording is a fault for certain.
    assert ear.images[-1][0] - ear.images[0][0] > 1.0, "two seconds are not played in one"

    clock = np.array(ear.clock_ns)
    assert (np.diff(clock) >= 0).all()
    assert len(clock) > 50, "about 100 Hz for 2 s"
    moving = clock[clock > T0]
    assert moving[-1] <= T0 + 2_300_000_000


def test_a_late_subscriber_gets_static_transforms_and_the_offset_is_kept(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "ride", 30)
    with listening() as ear, playing(bag, start_offset=0.5, topics="/tf /tf_static /camera/camera_info") as player:
        assert player.wait(60) == 0, player.stderr.read()
        assert ear.until(lambda: len(ear.infos) == 15)
    assert conversions.stamp_ns(ear.infos[0].header.stamp) >= T0 + 500_000_000
    assert {t.child_frame_id for message in ear.static for t in message.transforms} == {"cam", "imu"}
    assert not ear.images and not ear.depths


def test_pause_resume_hold_remapping_and_a_clean_end(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "ride.mcap", 20)
    with (
        listening(heard_on="/image") as ear,
        playing(bag, "/camera/image_raw:=/image", start_paused=True, on_end="hold") as player,
    ):
        assert ear.until(lambda: len(ear.clock_ns) > 5), "the clock is there while it stands still"
        time.sleep(0.5)
        assert not ear.images and set(ear.clock_ns) == {T0}
        assert ear.call("/bag_player/resume").success
        assert ear.until(lambda: len(ear.images) >= 3)
        paused = ear.call("/bag_player/pause")
        assert paused.success and "paused at" in paused.message
        time.sleep(0.2)
        heard = len(ear.images)
        time.sleep(0.3)
        assert len(ear.images) == heard < 20
        ear.call("/bag_player/resume")
        assert ear.until(lambda: len(ear.images) == 20)
        time.sleep(0.3)
        assert player.poll() is None, "on_end: hold keeps it alive"
        player.send_signal(signal.SIGINT)
        assert player.wait(60) == 0, player.stderr.read()


def test_looping_at_another_rate_goes_back_in_time(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "ride", 10)
    with listening() as ear, playing(bag, rate=3.0, loop=True, clock_rate=0.0) as player:
        assert ear.until(lambda: len(ear.images) >= 25)
        assert ear.set_rate(0.1) and not ear.set_rate(-1.0)
        time.sleep(0.3)
        slow = len(ear.images)
        time.sleep(0.7)
        assert slow <= len(ear.images) < slow + 8, "3 images a second now, no longer 90"
        player.send_signal(signal.SIGINT)
        assert player.wait(60) == 0, player.stderr.read()
    stamps = [conversions.stamp_ns(image.header.stamp) for _, image in ear.images]
    assert stamps[:20] == stamps[:10] * 2
    assert not ear.clock_ns


def test_ros1_recordings_are_played_as_ros2(tmp_path: Path) -> None:
    bag = ros1_bag(tmp_path / "old.bag", 12)
    with listening() as ear, playing(bag) as player:
        assert player.wait(60) == 0, player.stderr.read()
        assert ear.until(lambda: len(ear.images) == len(ear.infos) == len(ear.tf) == 12)
    image = ear.images[5][1]
    assert (image.width, image.height, image.encoding, image.header.frame_id) == (64, 48, "rgb8", "/camera_optical")
    assert ear.infos[0].k[0] > 0 and ear.infos[0].distortion_model == "plumb_bob"
    assert ear.tf[3].transforms[0].transform.translation.x == 3.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"topics": "/camera/image_raw /nothing"}, "has no topic /nothing"),
        ({"start_offset": 500.0}, "the recording lasts 0.1 s"),
        ({"on_end": "explode"}, "one of exit, hold"),
        ({"bag": "/nowhere/at_all"}, "does not exist"),
        ({"bag": ""}, "set the parameter bag"),
    ],
)
def test_wrong_wishes_are_refused_in_words(tmp_path: Path, parameters: dict[str, object], says: str) -> None:
    wishes = {"bag": str(write_bag(tmp_path / "ride", 4)), **parameters}
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        with pytest.raises(UserError, match=says):
            BagPlayer(context=context, parameter_overrides=[Parameter(n, value=v) for n, v in wishes.items()])
    finally:
        rclpy.shutdown(context=context)


def test_a_refusal_ends_the_process_with_exit_code_1_and_the_reason(tmp_path: Path) -> None:
    with playing(tmp_path / "nothing") as player:
        _, message = player.communicate(timeout=60)
    assert player.returncode == 1 and "does not exist" in message and "Traceback" not in message


def test_playback_clock_runs_pauses_and_jumps() -> None:
    clock = PlaybackClock(1_000, rate=10.0, paused=True)
    assert clock.now_ns() == 1_000 and not clock.wait_until(2_000, 0.01)
    clock.resume()
    started = time.monotonic()
    assert clock.wait_until(1_000 + 10**9, 5.0)
    assert 0.09 < time.monotonic() - started < 4  # ten times faster than the recording
    clock.jump(5_000)
    clock.pause()
    assert 5_000 <= clock.now_ns() < 10**8
    threading.Timer(0.1, clock.stop).start()
    assert not clock.wait_until(10**18, 10.0) and clock.stopped
