"""Bounds of the error: what makes them wide, how maps of few keyframes get them, and how runs are held against them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_localization import FRAME, everywhere, support
from test_summary import answer

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import refine_pose
from mast3r_ros.lab.pages.report import write_report
from mast3r_ros.lab.pages.stanford import stanford
from mast3r_ros.lab.runs.difficulty import calibration_by_quartile
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.stress.starts import Start, summarise_starts
from mast3r_ros.localization.cells import grouped, recounted
from mast3r_ros.localization.estimate import Reason
from mast3r_ros.localization.map_noise import Outcome, doubts, fit_noise, found_elsewhere, noise_of, sorted_outcomes
from mast3r_ros.localization.protection import TAIL, AlertLimit, protection_level, tail_of
from mast3r_ros.localization.support import Support, seen_from_behind, viewpoint_gap
from mast3r_ros.localization.uncertainty import (
    USUAL_POSITION,
    map_covariance,
    match_covariance,
    pose_covariance,
    usual_noise,
)
from mast3r_ros.localization.verification import balanced, verify
from mast3r_ros.mapping.consistency import Consistency
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.settings import Gates, SolverSettings


class TestDifficulty:
    """A pose is the less certain the worse its residuals are and the further aside it was taken."""

    def test_the_gap_of_viewpoints_is_an_angle_and_sides_make_up_for_each_other(self) -> None:
        right = support(*everywhere())
        assert viewpoint_gap(right) == pytest.approx(0, abs=0.01)
        depth = float(np.median(right.points[:, 2]))
        aside = replace(right, centres=np.array([[depth, 0, 0.0]] * 2))
        assert math.radians(30) < viewpoint_gap(aside) < math.radians(60)
        both = replace(right, centres=np.array([[depth, 0, 0.0], [-depth, 0, 0.0]]))
        assert viewpoint_gap(both) < 0.3 * viewpoint_gap(aside)

    def test_what_is_seen_from_aside_is_less_certain(self) -> None:
        right = support(*everywhere())
        aside, little = (replace(right, centres=np.array([[x, 0, 0.0]] * 2)) for x in (3.0, 0.5))
        noise = PoseNoise(0.0, 0.0, found=20)
        before, near, far = (np.trace(pose_covariance(s, noise)[0]) for s in (right, little, aside))
        assert 4 * before < far < 91 * before and before < near < 1.5 * before

    @pytest.mark.parametrize(("keypoints", "keyframes"), [(150, 1), (75, 2), (30, 5)])
    def test_keyframes_that_show_one_keypoint_share_its_error(self, keypoints: int, keyframes: int) -> None:
        """The same number of matches, of many keypoints or of few: covariances hold for either."""
        rng = np.random.default_rng(3)
        seen = [of_keypoints(rng, keypoints, keyframes) for _ in range(40)]
        noise = PoseNoise(0.0, 0.0, 1.3, found=20)
        errors = [(se3.difference(s.pose.map_T_camera, np.eye(4)), pose_covariance(s, noise)[0]) for s in seen]
        assert 4 < np.mean([error @ np.linalg.solve(covariance, error) for error, covariance in errors]) < 9

    def test_residuals_are_believed_where_the_map_was_held_against_itself(self) -> None:
        exact, blurred = (support(*everywhere(), noise_px=noise) for noise in (0.2, 2.0))
        assert np.trace(match_covariance(blurred)) > 2 * np.trace(match_covariance(exact))
        measured, assumed = PoseNoise(0.0, 0.0, found=20), PoseNoise(0.0, 0.0)
        known, unknown = (np.trace(pose_covariance(exact, noise)[0]) for noise in (measured, assumed))
        assert unknown > 1.5 * known, "nobody knows what small residuals are worth there"


def of_keypoints(rng: np.random.Generator, keypoints: int, keyframes: int, noise_px: float = 1.0) -> Support:
    """A camera at the origin that sees keypoints in exact keyframes, all of which show them all."""
    xy, depth = everywhere(keypoints, seed=int(rng.integers(2**31)))
    camera = FRAME.camera
    points = np.tile(camera.points(xy, depth), (keyframes, 1))
    xy = np.tile(xy + rng.normal(0, noise_px, xy.shape), (keyframes, 1))
    keyframe = np.repeat(np.arange(keyframes), keypoints)
    everyone = np.ones(len(xy), bool)
    weights = balanced(np.ones(len(xy)), everyone, keyframe, xy, FRAME.width, FRAME.height)
    settings = SolverSettings(point_sigma_m=0.0)
    pose = refine_pose(np.eye(4), camera.rays(xy), points, weights, camera.focal, settings)
    counted = recounted(grouped(keyframe, xy, FRAME.width, FRAME.height), xy)
    return Support(pose, xy, points, keyframe, np.zeros((keyframes, 3)), 2.5, recounted=counted)


class TestSeenFromBehind:
    def test_a_floor_is_seen_from_all_around(self) -> None:
        """Query and keyframe stand on opposite sides of a place on the floor: rays oppose, and nothing is wrong."""
        seen = floor_seen_from(np.array([0.0, -1.5, 8.0]))
        opposed = np.einsum("ij,ij->i", seen.pose.map_T_camera[:3, 3] - seen.points, seen.centres[0] - seen.points) < 0
        assert opposed.mean() > 0.3
        assert seen_from_behind(seen) < 0.02, "but for corners of the floor, where landmarks are few"
        assert seen_from_behind(replace(seen, landmarks=np.zeros((0, 3)))) == pytest.approx(opposed.mean())

    def test_and_not_from_below(self) -> None:
        assert seen_from_behind(floor_seen_from(np.array([0.0, 4.5, 8.0]))) > 0.5


def floor_seen_from(centre: np.ndarray):
    """Points of a floor 1.5 m below the query, matched to a keyframe somewhere else."""
    rng = np.random.default_rng(4)
    landmarks = np.column_stack([rng.uniform(-2, 2, 600), np.full(600, 1.5), rng.uniform(2, 7, 600)])
    landmarks[:, 1] += rng.normal(0, 0.003, 600)
    seen = support(FRAME.camera.project(landmarks), landmarks[:, 2], keyframes=1, noise_px=0.2)
    return replace(seen, centres=centre[None], landmarks=landmarks)


def outcome(off_m: float, covariance: np.ndarray, share: float, **other: bool) -> Outcome:
    """A left-out keyframe that was found so far beside its place."""
    return Outcome(np.r_[off_m, np.zeros(5)], covariance, share, **{"overlaps": True, **other})


class TestSmallMaps:
    """Ten photographs of a courtyard: half of them are found again, which says more than any assumption."""

    @staticmethod
    def left_out(count: int, size: float) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(2)
        of_matches = np.tile(np.diag([0.05**2] * 3 + [0.001**2] * 3), (count, 1, 1))
        return rng.normal(size=(count, 6)) * np.r_[[size] * 3, [size / 50] * 3], of_matches

    def test_a_few_left_out_keyframes_decide(self) -> None:
        depth = 35.0
        noise = fit_noise(*self.left_out(5, 0.02), depth)
        assert noise.found == 5
        of_matches = self.left_out(1, 0.02)[1][0]
        sigma = math.sqrt(noise.match_scale * of_matches[0, 0] + noise.position_m**2)
        assert 0.01 < sigma < 0.06 < USUAL_POSITION * depth

    def test_the_tail_is_heavier_the_fewer_there_were(self) -> None:
        covariance = np.diag([0.01**2] * 3 + [0.002**2] * 3)
        levels = [protection_level(covariance, 1e-3, tail_of(found)).position_m for found in (4, 6, 40)]
        assert levels[0] > levels[1] > levels[2] == protection_level(covariance, 1e-3).position_m
        assert tail_of(0) == TAIL

    def test_levels_shrink_with_every_good_keyframe_and_never_below_the_usual_of_a_few(self) -> None:
        """Of one map nothing is found again, of the next one keyframe, and so on: each is known better."""
        right = support(*everywhere(), noise_px=0.2)
        noises = [noise_of(*self.left_out(count, 1e-4), 0, 2.5) for count in range(4)]
        levels = [verify(right, FRAME, noise=noise).protection.position_m for noise in [*noises, usual_noise(2.5)]]
        assert levels[1:] == sorted(levels[1:], reverse=True) and levels[1] > 2.5 * levels[-1]
        assert levels[0] == pytest.approx(levels[1], rel=0.05), "the tail of one, the prior's width of none"

    def test_a_map_whose_few_found_keyframes_err_is_no_usual_one(self) -> None:
        """Of a courtyard's ten keyframes two were accepted, 0.3 and 3.9 m off; one was 4.3 m off, and uncertain."""
        covariance = np.diag([0.3**2] * 3 + [0.005**2] * 3)
        found = [
            outcome(0.34, covariance, 0.2),
            outcome(3.9, covariance, 2.4),
            outcome(4.3, covariance, 2.7, accepted=False),
        ]
        errors, of_matches, elsewhere = sorted_outcomes(found)
        assert len(errors) == 3 and elsewhere == 0
        noise = noise_of(errors, of_matches, elsewhere, 32.0)
        assert noise.found == 3
        wide = noise.match_scale * covariance + map_covariance(noise)
        level = protection_level(wide, 1e-3, tail_of(noise.found))
        assert level.position_m > 4.3 > protection_level(covariance, 1e-3).position_m
        verdict = verify(support(*everywhere(), noise_px=0.2), FRAME, noise=replace(noise, match_scale=1e4))
        assert verdict.reason is Reason.UNCERTAIN and "of the map's own keyframes only 3" in verdict.detail
        assert "only 3 of the keyframes" in doubts(noise, Consistency(0, math.nan))[0]

    def test_what_is_found_where_nothing_of_it_is_seen_is_elsewhere_however_few_there_are(self) -> None:
        covariance = np.eye(6) * 1e-4
        here, there = outcome(0.1, covariance, 0.1), outcome(30.0, covariance, 9.0, overlaps=False)
        unsure = replace(there, accepted=False)
        errors, _, elsewhere = sorted_outcomes([here, there, unsure])
        assert len(errors) == 1 and elsewhere == 1
        enough = [here] * 4 + [replace(here, accepted=False, share=3.0)]
        assert len(sorted_outcomes(enough)[0]) == 4, "what was refused counts only where hardly any was accepted"

    def test_maps_that_were_never_measured_stay_careful(self) -> None:
        right = support(*everywhere(), noise_px=0.2)
        assumed, measured = usual_noise(2.5), PoseNoise(0.0, 0.0, 0.2, found=20)
        levels = [verify(right, FRAME, noise=noise).protection.position_m for noise in (assumed, measured)]
        assert levels[0] > 3 * levels[1]


def test_small_residuals_do_not_make_up_for_few_matches() -> None:
    """A wrong place fits its few matches well: in a map that is exact its level would be millimetres."""
    few = support(*everywhere(16), noise_px=0.05)
    exact = PoseNoise(1e-5, 1e-5, 0.02, found=40)
    limit = AlertLimit(0.01)
    level = protection_level(pose_covariance(few, exact)[0], limit.integrity_risk)
    assert level.inside(limit)
    verdict = verify(few, FRAME, Gates(min_agreeing_keyframes=1, min_spread=0.0), exact, limit)
    assert verdict.reason is Reason.UNCERTAIN and "so few matches" in verdict.detail
    assert verify(support(*everywhere(400), noise_px=0.05), FRAME, Gates(), exact, limit).reason is Reason.NONE


def graded(name: str, inliers: int, off_m: float, level_m: float = 0.05) -> Record:
    evidence = {"inliers": float(inliers), "spread": inliers / 1000, "viewpoint_gap_deg": 90.0 - inliers / 10}
    bounds = {"protection_m": level_m, "alert_limit_m": 0.25, "protection_deg": 2.0, "alert_limit_deg": 10.0}
    return answer(name, off_m, evidence=evidence, bounds=bounds)


class TestRunsHeldAgainstTheirBounds:
    def test_a_good_average_does_not_hide_the_hardest_quarter(self) -> None:
        easy = [graded(f"e{k}", 300 + k, 0.01) for k in range(30)]
        hard = [graded(f"h{k}", 20 + k, 0.01 if k % 2 else 0.08) for k in range(10)]
        rows = calibration_by_quartile(easy + hard)
        assert [row["answers"] for row in rows] == [10] * 4
        assert [row["calibration"]["0.90"] for row in rows] == [1.0, 1.0, 1.0, 0.5]
        assert rows[0]["inliers"] > rows[3]["inliers"] and rows[0]["viewpoint_gap_deg"] < rows[3]["viewpoint_gap_deg"]
        assert rows[3]["nees"] > 10 > rows[0]["nees"]
        assert rows[3]["held_90_interval"][1] < 0.9
        assert calibration_by_quartile(easy[:3]) == []

    def test_the_report_shows_errors_against_their_levels(self, tmp_path: Path) -> None:
        records = [graded(f"{k}", 100 + k, 0.01) for k in range(8)] + [graded("beyond", 30, 0.3, level_m=0.1)]
        evaluation = Evaluation("bounds", records)
        diagram = stanford(records)
        assert diagram is not None and "answered, beyond its level (1)" in diagram and "answered (8)" in diagram
        assert evaluation.summary()["protection"]["beyond_level"] == 1
        write_report(tmp_path / "report.html", evaluation)
        page = (tmp_path / "report.html").read_text()
        assert "Errors and their bounds" in page and "quarter 4" in page
        assert stanford([answer("none", 0.01)]) is None

    def test_starts_have_a_share_only_where_one_was_false(self) -> None:
        nothing = Start("twin_rooms", "in the twin", False, math.nan, False, None, None)
        twice = replace(nothing, seconds=2.0, false=True, first_false=True, second_false=True)
        once = replace(nothing, first_false=True, second_false=False)
        figures = summarise_starts([nothing, twice, once], [])
        assert (figures["tried"], figures["false_commits"], figures["p_second_false"]) == (3, 1, 0.5)
        assert math.isnan(summarise_starts([nothing], [])["p_second_false"])


def test_a_map_whose_few_found_keyframes_are_found_elsewhere_cannot_tell_its_places_apart() -> None:
    right = np.full((1, 6), 1e-3), np.eye(6)[None] * 1e-6
    none = np.zeros((0, 6)), np.zeros((0, 6, 6))
    only_elsewhere = noise_of(*none, 1, 5.0)
    assert only_elsewhere is not None and only_elsewhere.found_elsewhere == 1.0 and only_elsewhere.found == 0
    assert only_elsewhere.found_elsewhere > Gates().max_found_elsewhere
    # Which of the two is the odd one?
    assert noise_of(*right, 1, 5.0).found_elsewhere == 0.5
    assert noise_of(*none, 0, 5.0).found_elsewhere == 0.0


def test_errors_beyond_the_limit_are_a_bad_maps_own_and_a_good_maps_other_places() -> None:
    """Of a courtyard in which a small network errs by two metres, the half below 1.6 m alone made the noise."""
    bad, good = np.array([0.3, 0.6, 0.8, 0.9, 1.5, 3.0, 4.5]), np.array([0.02, 0.03, 0.05, 0.05, 1.5, 12.0])
    assert found_elsewhere(bad).tolist() == [False] * 7
    assert found_elsewhere(good).tolist() == [False] * 4 + [True] * 2
    assert found_elsewhere(np.array([1.2, 5.0])).all() and not len(found_elsewhere(np.zeros(0)))


def test_noise_of_an_earlier_version_is_read_as_resting_on_nothing() -> None:
    from mast3r_ros.mapping.storage import _pose_noise

    old = _pose_noise({"position_m": 0.01, "rotation_rad": 0.002, "match_scale": 3.0, "found_elsewhere": 0.1})
    assert old is not None and old.found == 0 and old.match_scale == 3.0
    with pytest.raises(ValueError, match="impossible"):
        _pose_noise({"position_m": 0.01, "rotation_rad": 0.002, "found": -1})
