"""Every gate and every setting of tracking does what its sentence says, near the value where it begins to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from test_localization import ALONE, CAMERA, FRAME, Replayed, at, everywhere, sample, support, walls  # noqa: F401
from test_matching import texture

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import ransac_pose
from mast3r_ros.localization import Gates, Localizer, LocalizerSettings, PosePrior, Reason, Tracker
from mast3r_ros.localization.belief import Belief
from mast3r_ros.localization.commitment import View, Views
from mast3r_ros.localization.estimate import Status, Track
from mast3r_ros.localization.uncertainty import usual_noise
from mast3r_ros.localization.verification import gather, verify
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.settings import SolverSettings

SECOND = 10**9


@pytest.mark.parametrize(
    ("gate", "figure", "near", "reason"),
    [
        ("min_inliers", {"inliers": 15}, (15, 16), Reason.TOO_FEW_INLIERS),
        ("min_inlier_ratio", {"inlier_ratio": 0.5}, (0.5, 0.51), Reason.TOO_FEW_INLIERS),
        ("min_spread", {"spread": 0.4}, (0.4, 0.41), Reason.INLIERS_ON_ONE_PATCH),
        ("max_residual_px", {"residual_px": 2.0}, (4.0, 3.9), Reason.LARGE_RESIDUALS),  # at 640 wide
        ("max_seen_from_behind", {"seen_from_behind": 0.1}, (0.1, 0.09), Reason.SEEN_FROM_BEHIND),
        ("max_condition", {}, (30.0, 1.0), Reason.ILL_CONDITIONED),
        ("min_agreeing_keyframes", {"agreeing_keyframes": 1, "inliers": 20}, (1, 2), Reason.KEYFRAMES_DISAGREE),
        ("strong_inliers", {"agreeing_keyframes": 1, "inliers": 50}, (50, 51), Reason.KEYFRAMES_DISAGREE),
        ("strong_spread", {"agreeing_keyframes": 1, "spread": 0.5}, (0.5, 0.51), Reason.KEYFRAMES_DISAGREE),
        ("min_explained", {"explained": 0.5}, (0.5, 0.51), Reason.EXPECTED_NOT_SEEN),
        ("max_depth_error", {"depth_error": 0.05}, (0.05, 0.04), Reason.DEPTH_DISAGREES),
    ],
)
def test_a_gate_opens_and_closes_at_its_value(
    gate: str, figure: dict[str, Any], near: tuple[float, float], reason: Reason
) -> None:
    for value, expected in zip(near, (Reason.NONE, reason), strict=True):
        verdict = verify(
            support(*everywhere(), keyframes=3),
            FRAME,
            Gates(**{gate: value}),
            measure=lambda *seen: replace(gather(*seen), **figure),
        )
        assert verdict.reason is expected, (value, verdict.detail)


def test_a_map_that_is_found_elsewhere_is_refused_by_its_gate() -> None:
    seen = support(*everywhere())
    noise = replace(usual_noise(seen.scene_depth_m), found_elsewhere=0.1)
    for value, reason in ((0.1, Reason.NONE), (0.09, Reason.AMBIGUOUS_MAP)):
        assert verify(seen, FRAME, Gates(max_found_elsewhere=value), noise).reason is reason


def test_matches_of_a_keyframe_and_the_noise_of_points_are_what_the_localizer_is_told(walls: KeyframeMap) -> None:  # noqa: F811
    def answer(image: np.ndarray = texture(2), **settings: Any) -> Any:
        chosen = LocalizerSettings(gates=Gates(min_agreeing_keyframes=1), **settings)
        return Localizer(walls, create("sift"), chosen).localize(Frame(image, CAMERA))

    assert answer(matches_per_keyframe=40).evidence.inliers <= 40 < answer().evidence.inliers
    loose, exact = (np.trace(answer(point_noise=noise).covariance[:3, :3]) for noise in (0.05, 0.001))
    assert loose > 1.5 * exact
    loose, exact = (
        np.trace(answer(solver=SolverSettings(pixel_sigma_px=sigma)).covariance[:3, :3]) for sigma in (5.0, 0.5)
    )
    assert loose > 1.5 * exact
    stretched = cv2.resize(texture(2), None, fx=1.02, fy=1.0)[:, :320]  # errors of up to six pixels
    assert answer(stretched, threshold=0.002).evidence.inliers < answer(stretched, threshold=0.02).evidence.inliers


@pytest.mark.parametrize(("iterations", "found"), [(10, False), (20_000, True)])
def test_a_pose_among_many_wrong_matches_needs_iterations(iterations: int, found: bool) -> None:
    """One match in ten is right: ten samples of three hit nothing. The same seed gives the same pose."""
    rng = np.random.default_rng(3)
    points = rng.uniform([-2, -1.5, 2], [2, 1.5, 6], (400, 3))
    ideal = points[:, :2] / points[:, 2:]
    ideal[40:] = rng.uniform([-0.5, -0.4], [0.5, 0.4], (360, 2))
    settings = SolverSettings(iterations=iterations, seed=7, threshold_px=2.0)
    first, again = (ransac_pose(ideal, points, np.ones(400), 300.0, settings) for _ in range(2))
    assert first is None or again is None or np.array_equal(first.map_T_camera, again.map_T_camera)
    assert (first is not None and bool(first.inlier[:40].all())) is found


def test_only_what_is_inside_the_alert_limits_is_answered(walls: KeyframeMap) -> None:  # noqa: F811
    def answer(**settings: Any) -> Any:
        chosen = LocalizerSettings(gates=Gates(min_agreeing_keyframes=1), **settings)
        return Localizer(walls, create("sift"), chosen).localize(Frame(texture(2), CAMERA))

    bound = answer().protection
    metres, degrees = bound.position_m, math.degrees(bound.rotation_rad)
    assert answer(alert_limit_m=1.5 * metres, alert_limit_deg=1.5 * degrees).localized
    assert answer(alert_limit_m=0.5 * metres).reason is Reason.UNCERTAIN
    assert answer(alert_limit_deg=0.5 * degrees).reason is Reason.UNCERTAIN
    assert answer(integrity_risk=1e-6).protection.position_m > 1.2 * metres


@pytest.mark.parametrize(
    ("name", "odometry", "sigma"),
    [
        ("drift_per_metre", se3.exp([1.0, 0, 0, 0, 0, 0]), "position_sigma_m"),
        ("turn_per_metre", se3.exp([1.0, 0, 0, 0, 0, 0]), "rotation_sigma_rad"),
        ("drift_per_radian", se3.exp([0, 0, 0, 0, 0, 1.0]), "rotation_sigma_rad"),
        ("speed", None, "position_sigma_m"),
        ("turn_rate", None, "rotation_sigma_rad"),
    ],
)
def test_a_belief_fades_as_fast_as_the_settings_say(name: str, odometry: Any, sigma: str) -> None:
    """After a metre, a radian, or 3 seconds without odometry."""
    belief = Belief(np.eye(4), None if odometry is None else np.eye(4), 0, 0.0, 0.0)
    others = {"drift_per_metre": 0.0, "turn_per_metre": 0.0, "drift_per_radian": 0.0, "speed": 0.0, "turn_rate": 0.0}
    faded = belief.now(3 * SECOND, odometry, replace(ALONE, **{**others, name: 0.3}))
    assert getattr(faded, sigma) == pytest.approx(0.3)
    other = {"position_sigma_m": "rotation_sigma_rad", "rotation_sigma_rad": "position_sigma_m"}[sigma]
    assert getattr(faded, other) == 0


def test_a_belief_is_forgotten_after_forget_s() -> None:
    belief = Belief(np.eye(4), None, 0, 0.1, 0.1)
    settings = replace(ALONE, forget_s=2.0)
    assert not belief.expired(2 * SECOND, settings) and belief.expired(2 * SECOND + 1, settings)


@pytest.mark.parametrize(
    ("name", "value", "commits"),
    [
        ("commit_views", 3, True),
        ("commit_views", 4, False),
        ("commit_keyframes", 3, True),
        ("commit_keyframes", 4, False),
        ("commit_expected", 0.6, True),
        ("commit_expected", 0.7, False),  # 3 x 0.1
        ("commit_evidence", 0.59, True),
        ("commit_evidence", 0.61, False),
    ],
)
def test_three_views_commit_where_the_settings_say(name: str, value: float, commits: bool) -> None:
    views = Views(tuple(View(np.eye(4), True, 0.8, frozenset({f"k{n}"})) for n in range(3)))
    settings = replace(ALONE, commit_views=3, commit_keyframes=3, commit_evidence=0.5, commit_expected=0.6)
    assert views.suffice(replace(settings, **{name: value})) is commits


@pytest.fixture
def replayed(sample: Any) -> Replayed:  # noqa: F811
    """Answers wherever the test says, each from keyframes of its own, in a scene 2.5 m deep."""
    replayed = Replayed(replace(sample, evidence=replace(sample.evidence, explained=0.8)))
    replayed.map.overlaps = lambda pose: {"k": 1.0}
    return replayed


@pytest.mark.parametrize(
    ("name", "step"),
    [("commit_distance", se3.exp([0.5, 0, 0, 0, 0, 0])), ("commit_turn", se3.exp([0, 0, 0, 0, 0.2, 0]))],
)
@pytest.mark.parametrize("apart", [True, False])
def test_a_view_counts_from_the_distance_and_the_turn_of_the_settings_on(
    replayed: Replayed, name: str, step: np.ndarray, apart: bool
) -> None:
    """The steps are 0.2 of the scene's depth, or 0.2 rad."""
    far = {"commit_distance": 100.0, "commit_turn": 3.2}
    settings = replace(ALONE, commit_keyframes=1, commit_views=2, commit_evidence=0.0)
    tracker = Tracker(replayed, replace(settings, **{**far, name: 0.19 if apart else 0.21}))
    odometry = np.eye(4)
    for number in range(2):
        replayed.pose = odometry
        answer = tracker.localize(at(number), odometry)
        odometry = odometry @ step
    assert answer.track is (Track.COMMITTED if apart else Track.TENTATIVE)


@pytest.mark.parametrize(
    ("lost_after_s", "lost_at"), [(2.0, 2.0), (5.0, 5.0), (0.0, math.inf)], ids=["early", "late", "never"]
)
def test_a_track_is_given_up_after_lost_after_s(replayed: Replayed, lost_after_s: float, lost_at: float) -> None:
    tracker = Tracker(replayed, replace(ALONE, commit_views=1, lost_after_s=lost_after_s))
    assert tracker.localize(at(0), np.eye(4)).track is Track.COMMITTED
    replayed.pose = se3.exp([40.0, 0, 0, 0, 0, 0])
    replayed.sample = replace(replayed.sample, status=Status.REJECTED, reason=Reason.TOO_FEW_INLIERS)
    for second in range(1, 9):
        expected = Track.LOST if second - 1 >= lost_at else Track.COMMITTED
        assert tracker.localize(at(second), np.eye(4)).track is expected, second


@pytest.mark.parametrize(("limit", "held"), [(1.0, True), (100.0, False)])
def test_a_pose_may_be_off_odometry_by_limit_sigmas(replayed: Replayed, limit: float, held: bool) -> None:
    """After a metre's way with five per cent of drift."""
    tracker = Tracker(replayed, replace(ALONE, commit_views=1, slack=0.0, limit=limit))
    assert tracker.localize(at(0), np.eye(4)).localized
    metre = se3.exp([1.0, 0, 0, 0, 0, 0])
    replayed.pose = se3.exp([1.5, 0, 0, 0, 0, 0])
    assert tracker.localize(at(1), metre).localized is not held


@pytest.mark.parametrize(("name", "off"), [("slack", [0.5, 0, 0, 0, 0, 0]), ("slack_rad", [0, 0, 0, 0, 0, 0.4])])
@pytest.mark.parametrize("given", [True, False])
def test_what_the_slack_allows_is_not_held_against_a_pose(
    replayed: Replayed, name: str, off: list[float], given: bool
) -> None:
    """Half a metre is 0.2 of the scene's depth."""
    exact = replace(ALONE, commit_views=1, slack=0.0, slack_rad=0.0)
    tracker = Tracker(replayed, replace(exact, **{name: 0.5 if given else 0.0}))
    assert tracker.localize(at(0), np.eye(4)).localized
    replayed.pose = se3.exp(off)
    assert tracker.localize(at(1), np.eye(4)).localized is given


def test_a_told_pose_waits_as_long_as_forget_s(replayed: Replayed) -> None:
    for forget_s, kept in ((10.0, True), (1.0, False)):
        tracker = Tracker(replayed, replace(ALONE, forget_s=forget_s))
        tracker.set_prior(PosePrior(np.eye(4), 0.5, 0.26), np.eye(4), stamp_ns=0)
        tracker.localize(at(5), np.eye(4))
        assert (replayed.priors[-1] is not None) is kept
