"""Bad input against the live relocalizer: it says what is wrong once, and goes on to localize good frames."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from ros_world import (  # noqa: E402
    BASE_T_CAMERA,
    CAMERA,
    CAMERA_FRAME,
    Robot,
    map_T_camera,
    spinning,
    standing,
    view,
    wait_until,
)
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from mast3r_ros.frames import Camera  # noqa: E402
from mast3r_ros.geometry import se3  # noqa: E402
from mast3r_ros.ros import conversions, qos  # noqa: E402
from mast3r_ros.ros.relocalizer_node import RelocalizerNode  # noqa: E402

pytestmark = pytest.mark.usefixtures("rclpy_running")

SECOND = 10**9
#: How often each bad message is sent; it must be complained about once.
TIMES = 8


class Live:
    """An active relocalizer, a robot, and everything the node logs."""

    def __init__(self, node: RelocalizerNode, robot: Robot) -> None:
        self.node, self.robot = node, robot
        self.poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")

    def counts(self) -> dict[str, int]:
        return self.node._statistics.counts()

    def said(self, text: str) -> int:
        """How often the node has logged this text (on standard error, as a user sees it).

        Read from the file behind pytest's capture without moving or emptying it: capfd.readouterr() loses a line
        that another thread writes while it reads, and what a node says once is then never seen.
        """
        return os.pread(2, os.fstat(2).st_size, 0).decode(errors="replace").count(text)

    def repeat(self, send: Callable[[], Any], counter: str) -> None:
        """Send until the node has counted TIMES such messages (best effort may lose some)."""
        goal = self.counts().get(counter, 0) + TIMES

        def again() -> bool:
            send()
            threading.Event().wait(0.03)
            return self.counts().get(counter, 0) >= goal

        wait_until(again)

    def good_frame(self, number: int = 1, at: int | None = None) -> None:
        """The node still localizes (frames of now, or stamped like this)."""
        count = len(self.poses)

        def again() -> bool:
            stamp = self.robot.now() if at is None else at
            self.robot.drive(np.eye(4), stamp - SECOND // 100)
            self.robot.drive(np.eye(4), stamp + SECOND // 100)
            self.robot.show(number, stamp)
            threading.Event().wait(0.1)
            return len(self.poses) > count

        wait_until(again)


@pytest.fixture
def live(map_folder: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Iterator[Live]:
    more = getattr(request, "param", {})
    parameters = {"map": str(map_folder), "matcher": "fake", "map_points_voxel": 0.0, "camera_info_wait": 0.3, **more}
    node, robot = RelocalizerNode(parameter_overrides=standing(**parameters)), Robot()
    with spinning(node, robot):
        live = Live(node, robot)
        wait_until(lambda: robot.images.get_subscription_count())
        robot.mount_camera()
        yield live


def info(**changes: Any) -> CameraInfo:
    message = conversions.to_camera_info(CAMERA, CAMERA_FRAME, 0)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encoding": "yuv999"}, "unknown image encoding 'yuv999'"),
        ({"encoding": ""}, "unknown image encoding ''"),
        ({"step": 7}, "step"),
        ({"data": bytes(1000)}, "image refused"),
        ({"data": b""}, "image refused"),
        ({"width": 0, "height": 0}, "image refused"),
        ({"height": 4_000_000_000, "width": 4_000_000_000}, "image refused"),
    ],
)
def test_images_that_cannot_be_decoded(live: Live, fields: dict[str, Any], said: str) -> None:
    live.repeat(lambda: live.robot.raw(**fields), "refused bad_image")
    wait_until(lambda: live.said(said) == 1)
    live.good_frame()
    assert live.said("image refused") == 1


def test_camera_info_with_nan_is_refused_and_its_cure_is_noticed(live: Live) -> None:
    bad = info(k=np.full(9, np.nan))
    live.good_frame()
    live.repeat(lambda: live.robot.show(1, info=bad), "refused bad_camera_info")
    wait_until(lambda: live.said("camera_info refused: camera_info K contains NaN") == 1)
    live.good_frame()
    assert "bad_camera_info" not in live.node._complaints.going_on


@pytest.mark.parametrize(
    "bad", [info(distortion_model="wavy", d=[0.1] * 5), info(d=[0.1] * 3), info(width=160, height=160)]
)
def test_camera_info_that_does_not_fit_is_refused(live: Live, bad: CameraInfo) -> None:
    live.good_frame()
    live.repeat(lambda: live.robot.show(1, info=bad), "refused bad_camera_info")
    wait_until(lambda: live.said("camera_info refused") == 1)
    live.good_frame()


def test_a_zero_camera_info_means_that_the_focal_length_is_estimated(live: Live) -> None:
    uncalibrated = CameraInfo(width=160, height=120)
    live.repeat(lambda: live.robot.show(1, info=uncalibrated), "received")
    wait_until(lambda: live.counts().get("accepted"))
    assert live.said("not calibrated") == 1
    wait_until(lambda: live.poses)
    found = conversions.matrix_from_pose(live.poses[-1].pose.pose)
    assert np.linalg.norm((found - map_T_camera(1) @ se3.inverse(BASE_T_CAMERA))[:3, 3]) < 0.1


def test_without_camera_info_frames_wait_and_then_go_on_uncalibrated(live: Live) -> None:
    def shown() -> bool:
        live.robot.raw(data=view(1)[0].tobytes())
        threading.Event().wait(0.05)
        return bool(live.poses)

    wait_until(shown)
    assert live.counts()["refused waiting_for_camera_info"] > 0
    assert live.said("no camera_info: the focal length is estimated") == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7680, 4320)])
def test_images_of_any_size(live: Live, size: tuple[int, int]) -> None:
    width, height = size
    camera = Camera.pinhole(width, height, width, width, width / 2, height / 2)
    live.robot.infos.publish(conversions.to_camera_info(camera, CAMERA_FRAME, 0))
    looked_at = sum(n for name, n in live.counts().items() if name.startswith(("rejected", "accepted")))

    def attempted() -> bool:
        live.robot.raw(width=width, height=height, step=width, encoding="mono8", data=bytes(width * height))
        threading.Event().wait(0.5 if width > 1000 else 0.05)
        return sum(n for name, n in live.counts().items() if name.startswith(("rejected", "accepted"))) > looked_at

    wait_until(attempted, 90)
    live.good_frame()


def test_the_resolution_may_change_at_run_time(live: Live) -> None:
    live.good_frame()
    small = view(1)[0][::2, ::2]
    half = CAMERA.resized(80, 60)

    def sent(calibration: CameraInfo | None) -> Callable[[], bool]:
        def send() -> bool:
            count, stamp = live.counts()["accepted"], live.robot.now()
            if calibration is not None:
                live.robot.infos.publish(calibration)
            live.robot.images.publish(conversions.to_image(small, CAMERA_FRAME, stamp))
            threading.Event().wait(0.1)
            return live.counts()["accepted"] > count

        return send

    wait_until(sent(None))  # the calibration of before is rescaled until the new one comes
    wait_until(sent(conversions.to_camera_info(half, CAMERA_FRAME, 0)))
    live.good_frame()


@pytest.mark.parametrize(
    ("offset_s", "said", "counter"),
    [
        (-100, "dropped. Replaying a recording needs use_sim_time", "stale"),
        (100, "in the future", "refused from_future"),
    ],
)
def test_frames_of_another_time_are_dropped(live: Live, offset_s: int, said: str, counter: str) -> None:
    live.repeat(lambda: live.robot.show(1, live.robot.now() + offset_s * SECOND), counter)
    wait_until(lambda: live.said(said) == 1)
    live.good_frame()
    assert len(live.poses) == len({conversions.stamp_ns(pose.header.stamp) for pose in live.poses})


@pytest.mark.parametrize("live", [{"max_frame_age": 0.0}], indirect=True)
def test_stamps_that_go_back_begin_anew(live: Live) -> None:
    def play(begin: int) -> Callable[[], bool]:
        now, before = [begin * SECOND], len(live.poses)

        def step() -> bool:
            now[0] += SECOND // 2
            live.robot.drive(np.eye(4), now[0] - SECOND // 10)
            live.robot.drive(np.eye(4), now[0] + SECOND // 10)
            live.robot.show(1, now[0])
            threading.Event().wait(0.1)
            # On a busy machine a pose of the time before may come after the jump.
            stamps = [conversions.stamp_ns(pose.header.stamp) for pose in live.poses[before:]]
            return any(begin * SECOND < stamp <= now[0] for stamp in stamps)

        return step

    wait_until(lambda: live.robot.transforms._publisher.get_subscription_count() > 1)
    wait_until(play(1000))
    wait_until(play(500))
    assert live.said("went back by") == 1
    last = conversions.stamp_ns(live.poses[-1].header.stamp)
    live.repeat(lambda: live.robot.show(1, last - SECOND // 2), "out of order")  # a little is no new beginning
    assert live.said("went back by") == 1


@pytest.mark.parametrize("live", [{"max_frame_age": 0.0}], indirect=True)
def test_the_first_frame_after_a_jump_in_time_is_looked_at(live: Live) -> None:
    statuses: list[DiagnosticArray] = live.robot.listen(DiagnosticArray, "/relocalizer/status")
    stamp = live.robot.now()

    def answered() -> bool:
        return any(conversions.stamp_ns(status.header.stamp) == stamp for status in statuses)

    def attempted() -> bool:
        live.good_frame()
        return bool(statuses)

    wait_until(attempted)
    for _ in range(5):  # each is the first one after a jump; best effort may lose one
        stamp -= 1000 * SECOND
        live.robot.show(1, stamp)
        if any(answered() or threading.Event().wait(0.05) for _ in range(40)):
            break
    assert answered() and live.said("went back by") >= 1


def test_a_reset_ends_the_attempt_that_is_being_published(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reset comes between the check of its epoch and the broadcast: what it forgets must stay forgotten."""
    processor = live.node._processor
    wait_until(lambda: live.robot.transforms._publisher.get_subscription_count() > 1)
    sent: list[TFMessage] = live.robot.listen(TFMessage, "/tf", qos.reliable(100))
    live.good_frame()
    resetting: list[threading.Thread] = []
    publish = processor._outputs.pose

    def reset_meanwhile(*arguments: Any) -> None:
        resetting.append(threading.Thread(target=processor.reset))
        resetting[-1].start()
        resetting[-1].join(0.2)
        publish(*arguments)

    monkeypatch.setattr(processor._outputs, "pose", reset_meanwhile)
    live.good_frame()

    def quiet() -> bool:
        count = len(sent)
        threading.Event().wait(0.3)
        return not [t for message in sent[count:] for t in message.transforms if t.header.frame_id == "map"]

    wait_until(quiet, 20)


@pytest.mark.parametrize("live", [{"use_sim_time": True, "transform_tolerance": 0.5}], indirect=True)
def test_a_reset_of_simulated_time(live: Live) -> None:
    clock = live.robot.create_publisher(Clock, "/clock", 10)
    sent: list[TFMessage] = live.robot.listen(TFMessage, "/tf", qos.reliable(100))
    live.repeat(lambda: live.robot.show(1, 5 * SECOND), "refused no_clock")
    wait_until(lambda: clock.get_subscription_count() > 0)

    def ours() -> list[int]:
        return [
            conversions.stamp_ns(t.header.stamp)
            for message in list(sent)
            for t in message.transforms
            if t.header.frame_id == "map"
        ]

    def play(begin: int) -> Callable[[], bool]:
        now = [begin * SECOND]

        def step() -> bool:
            now[0] += SECOND // 5
            clock.publish(Clock(clock=conversions.to_time(now[0])))
            live.robot.drive(np.eye(4), now[0] - SECOND // 10)
            live.robot.drive(np.eye(4), now[0] + SECOND // 10)
            threading.Event().wait(0.05)
            live.robot.show(1, now[0])
            threading.Event().wait(0.05)
            return any(begin * SECOND < stamp < (begin + 100) * SECOND for stamp in ours())

        return step

    wait_until(play(1000))
    old = len(ours())
    wait_until(play(10))
    again = play(20)
    wait_until(lambda: again() and len(ours()) > old + 3)
    new = next(i for i, stamp in enumerate(ours()) if stamp < 200 * SECOND)
    assert new > 0 and all(stamp < 200 * SECOND for stamp in ours()[new:])
    assert conversions.stamp_ns(live.poses[-1].header.stamp) < 200 * SECOND


@pytest.mark.parametrize("live", [{"use_sim_time": True, "max_frame_age": 20.0}], indirect=True)
def test_images_beside_a_jump_of_simulated_time_are_no_fault_of_the_clocks(live: Live) -> None:
    """A recording begins anew: images and /clock come by different ways, and one is there before the other."""
    clock = live.robot.create_publisher(Clock, "/clock", 10)
    beside = "beside a jump in time"

    def clock_is(seconds: int) -> Callable[[], bool]:
        def told() -> bool:
            clock.publish(Clock(clock=conversions.to_time(seconds * SECOND)))
            threading.Event().wait(0.03)
            return live.node.get_clock().now().nanoseconds == seconds * SECOND

        return told

    wait_until(clock_is(1000))
    live.good_frame(at=1000 * SECOND)
    live.repeat(lambda: live.robot.show(1, 10 * SECOND), beside)  # the images are first
    wait_until(clock_is(10))
    live.repeat(lambda: live.robot.show(1, 1000 * SECOND), beside)  # some images are late
    live.good_frame(at=10 * SECOND)
    assert live.said("synchronise") == live.said("use_sim_time") == 0
    live.repeat(lambda: live.robot.show(1, 3000 * SECOND), "refused from_future")  # these never were
    wait_until(lambda: live.said("synchronise") == 1)


@pytest.mark.parametrize("ahead_s", [-5, 5])
def test_transforms_of_another_time_are_told_and_poses_go_on(live: Live, ahead_s: int) -> None:
    wait_until(lambda: live.robot.transforms._publisher.get_subscription_count() > 1)
    sent: list[TFMessage] = live.robot.listen(TFMessage, "/tf", qos.reliable(100))

    def shown() -> bool:
        live.robot.drive(np.eye(4), live.robot.now() + ahead_s * SECOND)
        live.robot.show(1)
        threading.Event().wait(0.1)
        return len(live.poses) > 3

    wait_until(shown)
    wait_until(lambda: live.said("no transform odom -> camera_optical") == 1)
    assert not [t for message in sent for t in message.transforms if t.header.frame_id == "map"]
    live.good_frame()


def test_depth_that_is_not_registered_is_ignored_and_said(live: Live) -> None:
    def shown() -> bool:
        stamp = live.robot.now()
        image, depth = view(1)
        live.robot.infos.publish(info())
        live.robot.depths.publish(conversions.to_depth_image(depth[::2, ::2], "depth_frame", stamp))
        live.robot.images.publish(conversions.to_image(image, CAMERA_FRAME, stamp))
        threading.Event().wait(0.1)
        return len(live.poses) > TIMES

    wait_until(shown)
    wait_until(lambda: live.said("depth ignored: it is 80x60 in frame 'depth_frame'") == 1)


def hears_initial_poses(live: Live) -> bool:
    """Whether publisher and subscription have found each other; an earlier test's node counts on one side only."""
    ears = [s for s in live.node.subscriptions if s.topic_name.endswith("/initialpose")]
    return live.robot.initial.get_subscription_count() > 0 and any(ear.get_publisher_count() > 0 for ear in ears)


def knows_odometry(live: Live) -> bool:
    """Drive a little; whether the node has heard of it yet. Before that a prior is taken without odometry."""
    live.robot.drive(np.eye(4), live.robot.now())
    threading.Event().wait(0.02)
    return bool(live.node._processor.camera.listener.buffer.can_transform("odom", CAMERA_FRAME))


class TestInitialPose:
    @pytest.mark.parametrize(
        ("frame_id", "w", "x", "said"),
        [("odom", 1.0, 0.0, "must be in 'map'"), ("map", 0.0, 0.0, "zero"), ("map", 1.0, float("nan"), "NaN")],
    )
    def test_a_wrong_one_is_refused_in_words(self, live: Live, frame_id: str, w: float, x: float, said: str) -> None:
        wait_until(lambda: hears_initial_poses(live))
        bad = conversions.to_pose_with_covariance(np.eye(4), np.eye(6), frame_id, live.robot.now())
        bad.pose.pose.orientation.w, bad.pose.pose.position.x = w, x
        for _ in range(TIMES):
            live.robot.initial.publish(bad)
        wait_until(lambda: live.said(said))
        live.good_frame()
        assert live.said("initialpose refused") == 1

    def test_a_good_one_becomes_the_prior_of_the_camera(self, live: Live) -> None:
        wait_until(lambda: hears_initial_poses(live))
        wait_until(lambda: knows_odometry(live))
        map_T_base = map_T_camera(2) @ se3.inverse(BASE_T_CAMERA)
        message = conversions.to_pose_with_covariance(map_T_base, np.diag([0.04] * 6), "map", 0)
        for axis in "xyzw":  # not normalised: the direction counts
            setattr(message.pose.pose.orientation, axis, 3 * getattr(message.pose.pose.orientation, axis))
        given: list[Any] = []
        relocalizer = live.node._processor.relocalizer
        set_prior = relocalizer.set_prior
        relocalizer.set_prior = lambda *arguments: (given.append(arguments), set_prior(*arguments))
        live.robot.initial.publish(message)
        wait_until(lambda: live.said("initial pose: robot near (1.00, 0.00) m") == 1)
        live.good_frame(2)
        prior, odom_T_camera, _ = given[0]
        np.testing.assert_allclose(prior.map_T_camera, map_T_camera(2), atol=1e-9)
        np.testing.assert_allclose(odom_T_camera, BASE_T_CAMERA, atol=1e-9)
        assert prior.position_sigma_m == pytest.approx(0.2)
