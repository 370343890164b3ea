"""The small parts under the nodes: parameter tables, worker, tickets, complaints, statistics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_world import values, wait_until  # noqa: E402

from mast3r_ros.geometry import se3  # noqa: E402
from mast3r_ros.localization.protection import limit_of  # noqa: E402
from mast3r_ros.node_settings import InitialPose  # noqa: E402
from mast3r_ros.ros import complaints as complaints_module  # noqa: E402
from mast3r_ros.ros import priors  # noqa: E402
from mast3r_ros.ros.attempts import Attempts, Outcome  # noqa: E402
from mast3r_ros.ros.complaints import Complaints  # noqa: E402
from mast3r_ros.ros.diagnostics import Statistics, error_status  # noqa: E402
from mast3r_ros.ros.parameters import ParameterError, Parameters  # noqa: E402
from mast3r_ros.ros.priors import POSITION_SIGMA_M, ROTATION_SIGMA_RAD, from_message  # noqa: E402
from mast3r_ros.ros.worker import LatestWorker  # noqa: E402
from mast3r_ros.settings import Settings  # noqa: E402
from mast3r_ros.tables import as_markdown, group, setting, settings_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("rclpy_running")


@dataclass(frozen=True)
class Start:
    x: float = setting(0.0, "Where.", low=-1, high=1, unit="m")


@dataclass(frozen=True)
class Example:
    rate: float = setting(10.0, "How often.", low=0, high=50, unit="Hz")
    count: int = setting(5, "How many.", low=1, high=9, fixed=True)
    kind: str = setting("a", "Which.", choices=("a", "b"))
    start: Start = group(Start, "start")


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node("parts")
    yield node
    node.destroy_node()


def test_the_settings_say_where_the_robot_starts() -> None:
    start = priors.from_settings(InitialPose(x=1.0, y=2.0, z=3.0, yaw=0.5)).map_T_base
    assert np.allclose(start, se3.make(np.eye(3), [1, 2, 3]) @ se3.exp([0, 0, 0, 0, 0, 0.5]))


@pytest.mark.parametrize("variance", [0.0, 1e-13])
def test_an_initial_pose_that_is_exact_was_given_without_covariance(variance: float) -> None:
    """Nav2 and simulators send zeros, or 1e-13: no camera is ever found that close to a belief."""
    message = PoseWithCovarianceStamped()
    message.header.frame_id, message.pose.pose.orientation.w = "map", 1.0
    message.pose.covariance = [variance] * 36
    prior = from_message(message, "map")
    assert (prior.position_sigma_m, prior.rotation_sigma_rad) == (POSITION_SIGMA_M, ROTATION_SIGMA_RAD)
    message.pose.covariance = [0.04] * 36
    assert from_message(message, "map").position_sigma_m == pytest.approx(0.2)


class TestParameters:
    def test_whole_numbers_are_numbers(self) -> None:
        node = Node("parts", parameter_overrides=values(rate=7, start__x=1))
        table = Parameters(node, Example).snapshot()
        assert (table.rate, table.start.x) == (7.0, 1.0) and isinstance(table.rate, float)
        node.destroy_node()

    @pytest.mark.parametrize(
        ("change", "right"),
        [
            (Parameter("rate", value=99.0), "50"),
            (Parameter("rate", value=99), "between 0 and 50 Hz"),
            (Parameter("rate", value="fast"), "a number between 0 and 50 Hz, got 'fast'"),
            (Parameter("rate", value=float("nan")), "50"),
            (Parameter("rate", value=True), "a number"),
            (Parameter("count", value=2.5), "a whole number between 1 and 9"),
            (Parameter("kind", value="c"), "one of a, b"),
            (Parameter("rate"), "got None"),
        ],
    )
    def test_a_wrong_value_is_refused_with_what_would_be_right(self, node: Node, change: Parameter, right: str) -> None:
        table = Parameters(node, Example)
        result = node.set_parameters([change])[0]
        assert not result.successful and right in result.reason and change.name in result.reason
        assert table.snapshot() == Example()

    def test_all_wrong_values_of_a_file_are_told_at_once(self) -> None:
        node = Node("parts", parameter_overrides=values(rate=-1, kind="c", count=3))
        with pytest.raises(ParameterError, match="(?s)rate.*kind.*one of a, b"):
            Parameters(node, Example)
        node.destroy_node()

    def test_fixed_ones_change_only_while_not_frozen(self, node: Node) -> None:
        table = Parameters(node, Example)
        table.freeze(True)
        result = node.set_parameters(values(count=6))[0]
        assert not result.successful and "configure" in result.reason
        assert node.set_parameters(values(count=5))[0].successful  # the same value is no change
        table.freeze(False)
        assert node.set_parameters(values(count=6))[0].successful
        assert table.snapshot().count == 6

    def test_descriptors_carry_sentence_and_range(self, node: Node) -> None:
        Parameters(node, Example)
        described = node.describe_parameter("rate")
        assert described.description == "How often."
        assert (described.floating_point_range[0].from_value, described.floating_point_range[0].to_value) == (0, 50)

    def test_every_parameter_of_the_relocalizer_has_a_sentence_and_is_documented(self) -> None:
        page = as_markdown(Settings)
        for entry in settings_of(Settings):
            assert len(entry.spec.sentence) > 10
            assert f"`{entry.name}`" in page

    def test_limits_of_earlier_versions_still_hold_and_say_what_replaces_them(self) -> None:
        usual, old = Settings(), Settings().changed({"gates.max_position_sigma_m": 0.2})
        assert not usual.deprecated and limit_of(usual.localizer, 3.0).position_m == pytest.approx(0.25)
        assert limit_of(old.localizer, 3.0).position_m == pytest.approx(0.5)
        assert len(old.deprecated) == 1 and "max_position_sigma_m is deprecated: set alert_limit_m" in old.deprecated[0]
        turned = Settings().changed({"gates.max_rotation_sigma_deg": 2.0, "alert_limit_m": 0.3})
        limit = limit_of(turned.localizer, 3.0)
        assert np.degrees(limit.rotation_rad) == pytest.approx(5.0) and limit.position_m == 0.3


class TestWorker:
    def test_the_newest_item_wins_and_the_replaced_are_counted(self) -> None:
        done: list[int] = []
        busy, go_on = threading.Event(), threading.Event()

        def work(item: int) -> None:
            busy.set()
            go_on.wait(5)
            done.append(item)

        worker = LatestWorker(work, lambda error: None, "test")
        worker.start()
        worker.submit(0)
        assert busy.wait(5)
        for item in range(1, 10):
            worker.submit(item)
        go_on.set()
        wait_until(lambda: len(done) == 2)
        assert worker.stop() and done == [0, 9] and worker.replaced == 8

    def test_exceptions_are_told_and_survived(self) -> None:
        errors: list[Exception] = []
        done: list[int] = []

        def work(item: int) -> None:
            done.append(100 // item)

        worker = LatestWorker(work, errors.append, "test")
        worker.start()
        worker.submit(0)
        wait_until(lambda: errors)
        worker.submit(2)
        wait_until(lambda: done == [50])
        assert worker.stop() and isinstance(errors[0], ZeroDivisionError)

    def test_it_can_be_stopped_and_started_again_and_takes_nothing_while_stopped(self) -> None:
        done: list[int] = []
        worker = LatestWorker(done.append, lambda error: None, "test")
        for round_ in range(50):
            worker.submit(-1)
            worker.start()
            worker.start()
            worker.submit(round_)
            wait_until(lambda n=round_: done and done[-1] == n)
            assert worker.stop()
        assert -1 not in done and threading.active_count() < 20

    def test_stopping_says_when_the_work_does_not_end(self) -> None:
        release = threading.Event()
        worker = LatestWorker(lambda item: release.wait(5), lambda error: None, "test")
        worker.start()
        worker.submit(1)
        time.sleep(0.1)
        assert not worker.stop(timeout_s=0.1)
        release.set()


class TestAttempts:
    def test_only_an_image_that_came_after_the_question_answers_it(self) -> None:
        attempts = Attempts()
        asked = attempts.ask(100)
        assert not attempts.answer(99, Outcome(True, "too early")) and attempts.asked
        assert attempts.answer(100, Outcome(False, "why")) and asked.result(0) == Outcome(False, "why")
        assert not attempts.asked

    def test_who_gave_up_is_not_answered(self) -> None:
        attempts = Attempts()
        first, second = attempts.ask(1), attempts.ask(2)
        attempts.give_up(first)
        attempts.answer_all(Outcome(False, "over"))
        assert not first.done() and second.result(0).message == "over"


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)


class TestComplaints:
    def test_a_lasting_trouble_is_said_once_and_then_once_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr(complaints_module.time, "monotonic", lambda: now[0])
        lines = Lines()
        complaints = Complaints(lines)
        for _ in range(30 * 65):
            complaints.say("stale", "images are old")
            now[0] += 1 / 30
        assert lines.lines[0] == "images are old"
        assert len(lines.lines) == 2 and "more times" in lines.lines[1]

    def test_other_kinds_are_said_and_cured_ones_are_news_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(complaints_module.time, "monotonic", lambda: now[0])
        lines = Lines()
        complaints = Complaints(lines)
        complaints.say("a", "first")
        complaints.say("b", "second")
        assert complaints.going_on == ["a", "b"]
        complaints.cured("a")
        complaints.say("a", "flapping")  # good, bad, good, bad at 30 Hz must not flood either
        assert lines.lines == ["first", "second"]
        complaints.cured("a")
        now[0] += complaints_module.FLAPPING_S + 1
        complaints.say("a", "third")
        assert lines.lines[-1].startswith("third") and complaints.last == "third"


def test_statistics_count_by_reason_and_give_percentiles() -> None:
    statistics = Statistics()
    assert statistics.acceptance is None and statistics.pose_age_s is None
    for ms in range(1, 101):
        statistics.attempt(ms % 4 == 0, "" if ms % 4 == 0 else "too_few_inliers", {"solve": float(ms)})
    statistics.count("stale", 3)
    said = statistics.values()
    assert said["accepted"] == "25" and said["rejected"] == "75" and said["rejected too_few_inliers"] == "75"
    assert said["stale"] == "3" and said["latency solve p50/p95 (ms)"] == "50.5 / 95.0"
    assert statistics.pose_age_s is not None and statistics.pose_age_s < 1 and statistics.rate_hz > 0


def test_the_bound_of_the_error_warns_before_the_alert_limit_and_fails_without_a_pose() -> None:
    statistics = Statistics()
    assert error_status("n", statistics, 30.0).level == DiagnosticStatus.ERROR

    def after(accepted: bool, metres: float, degrees: float) -> DiagnosticStatus:
        bounds = {"protection_m": metres, "alert_limit_m": 0.25, "protection_deg": degrees, "alert_limit_deg": 10.0}
        statistics.attempt(accepted, "" if accepted else "too_few_inliers", {}, bounds)
        return error_status("n", statistics, 30.0)

    found = after(True, 0.1, 2.0)
    assert found.level == DiagnosticStatus.OK and "40 %" in found.message
    assert after(True, 0.21, 2.0).level == DiagnosticStatus.WARN, "84 % of the limit of the position"
    assert after(True, 0.1, 9.0).level == DiagnosticStatus.WARN, "90 % of the limit of the rotation"
    assert after(True, 0.3, 2.0).level == DiagnosticStatus.ERROR
    after(True, 0.1, 2.0)
    refused = after(False, 0.01, 0.1)  # the bound of a refused pose bounds nothing
    assert refused.level == DiagnosticStatus.WARN and "too_few_inliers" in refused.message and "40 %" in refused.message
    assert error_status("n", statistics, 0.0).level == DiagnosticStatus.ERROR, "too long ago"
