"""The relocalizer over real DDS: lifecycle, poses, TF contracts, services, outputs."""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from ros_world import (  # noqa: E402
    BASE_T_CAMERA,
    CAMERA,
    CAMERA_FRAME,
    Robot,
    build_map,
    held_back,
    map_T_camera,
    spinning,
    standing,
    values,
    view,
    wait_until,
)
from sensor_msgs.msg import CompressedImage, Image, PointCloud2  # noqa: E402
from std_srvs.srv import Empty, Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from mast3r_ros import codec  # noqa: E402
from mast3r_ros.geometry import planar, se3  # noqa: E402
from mast3r_ros.ros import attempt_status, conversions, qos  # noqa: E402
from mast3r_ros.ros.attempt_status import AttemptStatus  # noqa: E402
from mast3r_ros.ros.parameters import ParameterError  # noqa: E402
from mast3r_ros.ros.relocalizer_node import RelocalizerNode  # noqa: E402

pytestmark = pytest.mark.usefixtures("rclpy_running")

SECOND = 10**9


@contextmanager
def live(active: bool = True, **parameters: Any) -> Iterator[tuple[RelocalizerNode, Robot]]:
    """A relocalizer (active unless told otherwise) and a robot with a mounted camera."""
    node = RelocalizerNode(parameter_overrides=standing(matcher="fake", map_points_voxel=0.0, **parameters))
    robot = Robot()
    with spinning(node, robot):
        if active:
            wait_until(lambda: state(node) == "active")
            wait_until(
                lambda: (
                    robot.images.get_subscription_count() and robot.transforms._publisher.get_subscription_count() > 1
                )
            )
        robot.mount_camera()
        yield node, robot


def state(node: RelocalizerNode) -> str:
    return node.lifecycle.state


def show_until(robot: Robot, number: int, condition: Callable[[], Any], **options: Any) -> Any:
    """Show a keyframe again and again (odometry standing still) until the condition is met."""

    def again() -> Any:
        stamp = robot.now()
        robot.drive(np.eye(4), stamp - SECOND // 100)
        robot.drive(np.eye(4), stamp + SECOND // 100)
        robot.show(number, stamp, **options)
        for _ in range(5):
            if value := condition():
                return value
            threading.Event().wait(0.02)
        return None

    return wait_until(again)


def pose_of(message: PoseWithCovarianceStamped) -> np.ndarray:
    return conversions.matrix_from_pose(message.pose.pose)


class TestPoses:
    def test_the_robot_is_found_with_its_covariance_at_the_images_time(self, map_folder: Path) -> None:
        with live(map=str(map_folder), path_length=2) as (_, robot):
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            path = robot.listen(PathMessage, "/relocalizer/path")
            show_until(robot, 2, lambda: len(poses) > 2 and robot.tf.buffer.can_transform("map", "odom"))
            stamp = conversions.stamp_ns(poses[0].header.stamp)
            np.testing.assert_allclose(pose_of(poses[0]), map_T_camera(2) @ se3.inverse(BASE_T_CAMERA), atol=5e-3)
            covariance = poses[0].pose.covariance.reshape(6, 6)
            assert np.linalg.eigvalsh(covariance).min() > 0 and np.sqrt(covariance[0, 0]) < 0.1
            assert poses[0].header.frame_id == "map" and 0 <= robot.now() - stamp < 90 * SECOND
            wait_until(lambda: path and len(path[-1].poses) == 2)
            assert path[-1].poses[0].header.frame_id == "map" and max(len(p.poses) for p in path) == 2

    def test_map_T_odom_is_post_dated_repeated_and_consistent_with_odometry(self, map_folder: Path) -> None:
        with live(map=str(map_folder), transform_tolerance=0.5, tf_rate=50.0) as (_, robot):
            sent: list[TFMessage] = robot.listen(TFMessage, "/tf", qos.reliable(100))
            odom_T_base = se3.exp([3, 1, 0, 0, 0, 0.7])
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")

            def shown() -> Any:
                stamp = robot.now()
                robot.drive(odom_T_base, stamp - SECOND // 100)
                robot.drive(odom_T_base, stamp + SECOND // 100)
                robot.show(1, stamp)
                threading.Event().wait(0.1)
                return poses and _from_map(sent)

            wait_until(shown)
            corrections = wait_until(lambda: len(ours := _from_map(sent)) > 10 and ours)
            map_T_odom = robot.tf.buffer.lookup("map", "odom")
            expected = map_T_camera(1) @ se3.inverse(BASE_T_CAMERA)
            np.testing.assert_allclose(map_T_odom @ odom_T_base, expected, atol=5e-3)
            stamps = [conversions.stamp_ns(t.header.stamp) for t in corrections]
            assert all(later > earlier for earlier, later in pairwise(stamps))
            assert stamps[0] >= conversions.stamp_ns(poses[0].header.stamp) + SECOND // 2
            # Never further ahead than the tolerance; how far it is on arrival depends on how busy the machine is.
            wait_until(lambda: SECOND // 4 < _latest(sent) - robot.now() <= SECOND // 2)
            assert _latest(sent) - robot.now() <= SECOND // 2
            assert {t.child_frame_id for t in corrections} == {"odom"}

    def test_nothing_is_broadcast_before_the_first_accepted_pose(self, map_folder: Path) -> None:
        with live(map=str(map_folder), set_initial_pose=True) as (node, robot):
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            show_until(robot, 77, lambda: sum(n for k, n in node._statistics.counts().items() if "rejected" in k) > 3)
            assert not _from_map(sent)

    def test_map_T_odom_waits_for_several_views_and_is_withdrawn_when_the_robot_is_carried_away(
        self, map_folder: Path
    ) -> None:
        """What a user sees meanwhile: poses, and in ~/status and /diagnostics what is missing."""
        with live(map=str(map_folder), tracking__commit_views=4, tracking__commit_evidence=0.4) as (node, robot):
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            said = robot.listen(DiagnosticArray, "/relocalizer/status")

            def show(number: int, odometry_m: float) -> AttemptStatus:
                """A view where the map has it, and odometry that has come so far."""
                begun, odom_T_base = robot.now(), se3.make(np.eye(3), [odometry_m, 0, 0])

                def answered() -> AttemptStatus | None:
                    stamp = robot.now()
                    robot.drive(odom_T_base, stamp - SECOND // 100)
                    robot.drive(odom_T_base, stamp + SECOND // 100)
                    robot.show(number, stamp)
                    threading.Event().wait(0.05)
                    latest = attempt_status.from_message(said[-1]) if said else None
                    return latest if latest and latest.stamp_ns >= begun else None

                return wait_until(answered)

            first = [show(number, 0.5 * number) for number in range(3)]
            assert all(status.accepted and status.track == "tentative" for status in first) and len(poses) >= 3
            assert "3 of 3 different views agree" in first[2].track_detail and not _from_map(sent)
            level, sentence = node._statistics.health("active")
            assert (
                level == DiagnosticStatus.WARN
                and "; 3 of 3 different views agree" in sentence
                and "map -> odom waits" in sentence
            )
            assert show(3, 1.5).track == "committed"
            wait_until(lambda: _from_map(sent))
            # Carrying takes a while: where odometry was within the last second, pictures stamped late would show.
            threading.Event().wait(1.2)
            carried = [show(0, 1.5) for _ in range(3)]
            assert carried[-1].track == "lost" and node._statistics.health("active")[0] == DiagnosticStatus.ERROR
            threading.Event().wait(0.2)
            before = len(_from_map(sent))
            threading.Event().wait(0.5)
            assert len(_from_map(sent)) == before, "nobody is to steer by a track that was contradicted"

    def test_without_odometry_the_base_is_placed_at_the_images_stamp(self, map_folder: Path) -> None:
        with live(map=str(map_folder), odom_frame_id="") as (_, robot):
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")

            def placed() -> Any:
                robot.show(1)
                threading.Event().wait(0.1)
                return _from_map(sent) and poses

            wait_until(placed)
            transform = _from_map(sent)[0]
            assert transform.child_frame_id == "base_link"
            assert transform.header.stamp in [pose.header.stamp for pose in poses]

    def test_tf_broadcast_off_broadcasts_nothing(self, map_folder: Path) -> None:
        with live(map=str(map_folder), tf_broadcast=False) as (_, robot):
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            show_until(robot, 1, lambda: len(poses) > 3)
            assert not _from_map(sent)

    def test_without_any_tf_the_pose_is_the_cameras(self, map_folder: Path) -> None:
        node = RelocalizerNode(parameter_overrides=standing(matcher="fake", map=str(map_folder)))
        robot = Robot()
        with spinning(node, robot):
            wait_until(lambda: state(node) == "active")
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")

            def found() -> Any:
                robot.show(3)
                threading.Event().wait(0.1)
                return poses

            wait_until(found)
            np.testing.assert_allclose(pose_of(poses[0]), map_T_camera(3), atol=5e-3)
            assert node._statistics.counts()["refused waiting_for_tf"] > 0  # static transforms may come late
            assert node._complaints.going_on == ["tf_base", "tf_odom"]

    def test_seeding_amcl_replaces_tf(self, map_folder: Path) -> None:
        with live(map=str(map_folder), feed="amcl") as (node, robot):
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            seeds = robot.listen(PoseWithCovarianceStamped, "/initialpose")
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            show_until(robot, 1, lambda: len(poses) > 3)
            assert len(seeds) == 1 and seeds[0].header == poses[0].header and not _from_map(sent)
            # AMCL is planar, and so is its seed (test_ros_nav2 has one from a slope).
            np.testing.assert_allclose(pose_of(seeds[0]), planar.flattened(pose_of(poses[0])), atol=1e-9)
            assert (seeds[0].pose.covariance == poses[0].pose.covariance).all()
            robot.call(Empty, "/reinitialize_global_localization")
            show_until(robot, 1, lambda: len(seeds) == 2)
            node.set_parameters(values(feed_interval=0.1))
            show_until(robot, 1, lambda: len(seeds) > 4)

    def test_compressed_images(self, map_folder: Path) -> None:
        # Remapped, because one DDS participant cannot use two types on one topic, and the robot publishes raw images.
        node = RelocalizerNode(
            cli_args=["--ros-args", "-r", "image:=packed"],
            parameter_overrides=values(matcher="fake", map=str(map_folder), image_transport="compressed"),
        )
        robot = Robot()
        publisher = robot.create_publisher(CompressedImage, "packed", qos.reliable(1))
        with spinning(node, robot):
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")

            def found() -> Any:
                stamp = robot.now()
                message = CompressedImage(format="png", header=conversions.header(CAMERA_FRAME, stamp))
                message.data = array("B", codec.encode_compressed_image(view(1)[0], "png"))
                robot.infos.publish(conversions.to_camera_info(CAMERA, CAMERA_FRAME, stamp))
                publisher.publish(message)
                threading.Event().wait(0.1)
                return poses

            wait_until(found)
            np.testing.assert_allclose(pose_of(poses[0]), map_T_camera(1), atol=5e-3)


class TestOutputs:
    def test_map_keyframes_matches_and_points(self, map_folder: Path) -> None:
        with live(map=str(map_folder), points_stride=8) as (_, robot):
            keyframes = robot.listen(MarkerArray, "/relocalizer/keyframes", qos.latched())  # late: transient local
            wait_until(lambda: keyframes)
            assert len(keyframes[0].markers[-1].points) == 4 * 16
            matches, points = (
                robot.listen(Image, "/relocalizer/matches"),
                robot.listen(PointCloud2, "/relocalizer/points"),
            )
            show_until(robot, 1, lambda: matches and points, depth=True)
            assert matches[0].height == 520 and matches[0].encoding == "rgb8"
            fields = [(f.name, f.offset, f.datatype, f.count) for f in points[0].fields]
            xyz, rgb, confidence = codec.unpack_points(fields, points[0].point_step, points[0].data)
            depth = view(1)[1][4::8, 4::8]
            in_camera = se3.apply(se3.inverse(map_T_camera(1)), xyz)
            np.testing.assert_allclose(np.sort(in_camera[:, 2]), np.sort(depth.reshape(-1)), atol=0.02)
            assert rgb is not None and confidence is not None and points[0].header.frame_id == "map"

    def test_map_points(self, map_folder: Path) -> None:
        node = RelocalizerNode(parameter_overrides=standing(matcher="fake", map=str(map_folder), map_points_voxel=0.05))
        robot = Robot()
        with spinning(node, robot):
            clouds = robot.listen(PointCloud2, "/relocalizer/map_points", qos.latched())
            wait_until(lambda: clouds)
            assert clouds[0].width > 1000 and clouds[0].header.frame_id == "map"

    def test_diagnostics_tell_counts_reasons_and_latency(self, map_folder: Path) -> None:
        with live(map=str(map_folder)) as (node, robot):
            health: list[DiagnosticArray] = robot.listen(DiagnosticArray, "/diagnostics")
            show_until(robot, 1, lambda: node._statistics.counts().get("accepted", 0) > 3)
            show_until(robot, 77, lambda: any("rejected" in name for name in node._statistics.counts()))
            seen = len(health)
            wait_until(lambda: len(health) > seen + 1)
            status = health[-1].status[0]
            told = {pair.key: pair.value for pair in status.values}
            assert status.name == "relocalizer: localization" and told["state"] == "active"
            assert int(told["accepted"]) > 3 and int(told["rejected"]) > 0
            assert {"rate (Hz)", "device", "memory (MiB)", "age of the last pose (s)"} <= told.keys()
            assert any(key.startswith("latency solve") for key in told) and any("rejected " in key for key in told)


class TestServices:
    def test_relocalize_answers_with_the_outcome_of_that_attempt(self, map_folder: Path) -> None:
        with live(map=str(map_folder), relocalize_timeout=1.0) as (node, robot):
            show_until(robot, 1, lambda: node._statistics.counts().get("accepted"))
            answer = robot.call(Trigger, "/relocalizer/relocalize")
            assert not answer.success and "no image came" in answer.message
            answer = _relocalize_while_showing(robot, 1)
            assert answer.success and "(0.700, 0.000, 0.500) m in map" in answer.message
            answer = _relocalize_while_showing(robot, 77)
            assert not answer.success and "not localized" in answer.message

    def test_reinitialize_stops_the_broadcast_until_localized_again(self, map_folder: Path) -> None:
        with live(map=str(map_folder)) as (node, robot):
            sent = robot.listen(TFMessage, "/tf", qos.reliable(100))
            show_until(robot, 1, lambda: len(_from_map(sent)) > 3)

            def quiet() -> (
                bool
            ):  # it is repeated at 20 Hz; an image that was on its way may be localized after the call
                robot.call(Empty, "/reinitialize_global_localization")
                threading.Event().wait(0.1)
                count = len(_from_map(sent))
                threading.Event().wait(0.3)
                return len(_from_map(sent)) == count

            wait_until(quiet)
            before = len(_from_map(sent))
            # No odometry holds against another place now: the robot may have been carried there.
            accepted = node._statistics.counts()["accepted"]
            show_until(robot, 3, lambda: node._statistics.counts()["accepted"] > accepted)
            show_until(robot, 3, lambda: len(_from_map(sent)) > before)

    def test_reload_map_switches_and_a_bad_map_leaves_the_old_one(self, map_folder: Path, tmp_path: Path) -> None:
        with live(map=str(map_folder)) as (node, robot):
            bigger = build_map(tmp_path / "bigger", keyframes=6)
            node.set_parameters(values(map=str(tmp_path / "missing")))
            answer = robot.call(Trigger, "/relocalizer/reload_map")
            assert not answer.success and "missing" in answer.message and state(node) == "active"
            show_until(robot, 1, lambda: node._statistics.counts().get("accepted"))
            node.set_parameters(values(map=str(bigger)))
            answer = robot.call(Trigger, "/relocalizer/reload_map")
            assert answer.success and "6 keyframes" in answer.message
            assert _relocalize_while_showing(robot, 5).success  # only the bigger map knows this place


class TestLifecycle:
    def test_every_transition_by_service_as_nav2_does_it(self, map_folder: Path) -> None:
        with live(active=False, map=str(map_folder), autostart=False) as (_, robot):
            poses = robot.listen(PoseWithCovarianceStamped, "/relocalizer/pose")
            assert not robot.call(Trigger, "/relocalizer/relocalize").success
            for round_ in range(2):
                assert _get_state(robot) == "unconfigured"
                assert _change(robot, Transition.TRANSITION_CONFIGURE) and _get_state(robot) == "inactive"
                assert robot.count_subscribers("/image") == 0 and robot.count_publishers("/relocalizer/pose") == 1
                assert _change(robot, Transition.TRANSITION_ACTIVATE) and _get_state(robot) == "active"
                count = len(poses)
                show_until(robot, 1, lambda count=count: len(poses) > count)
                assert not _change(robot, Transition.TRANSITION_CONFIGURE)  # impossible from here, and harmless
                assert _change(robot, Transition.TRANSITION_DEACTIVATE) and _get_state(robot) == "inactive"
                wait_until(lambda: robot.count_subscribers("/image") == 0)
                if round_ == 0:
                    assert _change(robot, Transition.TRANSITION_CLEANUP)
            assert _change(robot, Transition.TRANSITION_INACTIVE_SHUTDOWN) and _get_state(robot) == "finalized"

    @pytest.mark.parametrize("kind", ["none", "missing", "empty", "damaged", "newer"])
    def test_a_bad_map_fails_configure_and_can_be_corrected(self, kind: str, map_folder: Path, tmp_path: Path) -> None:
        bad = _bad_map(kind, tmp_path)
        with live(active=False, map=bad, autostart=False) as (node, robot):
            assert not _change(robot, Transition.TRANSITION_CONFIGURE) and _get_state(robot) == "unconfigured"
            node.set_parameters(values(map=str(map_folder)))
            assert _change(robot, Transition.TRANSITION_CONFIGURE) and _get_state(robot) == "inactive"

    def test_autostart_survives_a_bad_map(self, tmp_path: Path, map_folder: Path) -> None:
        with live(active=False, map=str(tmp_path / "nowhere")) as (node, robot):
            threading.Event().wait(0.5)
            assert _get_state(robot) == "unconfigured"
            node.set_parameters(values(map=str(map_folder)))
            assert _change(robot, Transition.TRANSITION_CONFIGURE) and _change(robot, Transition.TRANSITION_ACTIVATE)

    def test_get_state_answers_while_a_map_is_being_loaded(
        self, map_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loading, go_on = held_back(monkeypatch, RelocalizerNode, "_load")
        with live(active=False, map=str(map_folder)) as (_, robot):
            assert loading.wait(5)
            assert _get_state(robot) == "configuring"
            go_on.set()
            wait_until(lambda: _get_state(robot) == "active")


class TestParameters:
    def test_wrong_values_at_start_are_refused_together(self) -> None:
        with pytest.raises(ParameterError, match="(?s)image_transport must be one of raw, compressed.*feed"):
            RelocalizerNode(parameter_overrides=standing(image_transport="theora", feed="ekf"))

    def test_changes_by_service_are_checked_and_take_effect(self, map_folder: Path) -> None:
        with live(map=str(map_folder)) as (_, robot):

            def set_(name: str, value: Any) -> Any:
                request = SetParameters.Request(parameters=[values(**{name: value})[0].to_parameter_msg()])
                return robot.call(SetParameters, "/relocalizer/set_parameters", request).results[0]

            refused = set_("matcher", "sift")
            assert not refused.successful and "configure" in refused.reason
            assert not set_("transform_tolerance", -1.0).successful
            assert set_("gates__min_inliers", 5000).successful
            answer = _relocalize_while_showing(robot, 1)
            assert not answer.success and "too_few_inliers" in answer.message
            assert set_("gates__min_inliers", 15).successful
            assert _relocalize_while_showing(robot, 1).success

    def test_namespace_remapping_and_qos_overrides(self, map_folder: Path) -> None:
        arguments = ["--ros-args", "-r", "__ns:=/robot1", "-r", "image:=/front/image", "-r", "__node:=finder"]
        overrides = values(
            matcher="fake", map=str(map_folder), **{"qos_overrides./front/image.subscription.reliability": "reliable"}
        )
        node = RelocalizerNode(cli_args=arguments, parameter_overrides=overrides)
        robot = Robot()
        with spinning(node, robot):
            wait_until(lambda: state(node) == "active")
            (image,) = wait_until(lambda: robot.get_subscriptions_info_by_topic("/front/image"))
            assert image.node_name == "finder" and image.qos_profile.reliability.name == "RELIABLE"
            wait_until(lambda: robot.count_publishers("/robot1/finder/pose") == 1)


def _latest(sent: list[TFMessage]) -> int:
    return conversions.stamp_ns(_from_map(sent)[-1].header.stamp)


def _from_map(sent: list[TFMessage]) -> list[Any]:
    return [t for message in list(sent) for t in message.transforms if t.header.frame_id == "map"]


def _get_state(robot: Robot) -> str:
    return str(robot.call(GetState, "/relocalizer/get_state").current_state.label)


def _change(robot: Robot, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(robot.call(ChangeState, "/relocalizer/change_state", request).success)


def _relocalize_while_showing(robot: Robot, number: int) -> Any:
    done: list[Any] = []
    asking = threading.Thread(target=lambda: done.append(robot.call(Trigger, "/relocalizer/relocalize")))
    asking.start()
    show_until(robot, number, lambda: done)
    asking.join()
    return done[0]


def _bad_map(kind: str, folder: Path) -> str:
    if kind == "none":
        return ""
    if kind == "missing":
        return str(folder / "nowhere")
    built = build_map(folder / "map", keyframes=0 if kind == "empty" else 2)
    if kind == "damaged":
        (built / "keyframes.jsonl").write_text("{ this is no JSON\n")
    if kind == "newer":
        header = built / "map.yaml"
        text = re.sub(r"(format|version): \d+", r"\1: 99", header.read_text())
        assert ": 99" in text
        header.write_text(text)
    return str(built)
