"""Metrics against values worked out by hand, degenerate cases, and the golden numbers of the Map-free benchmark."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from golden_cases import COMPACT, case
from scipy.spatial.transform import Rotation
from scipy.stats import beta

from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics

GOLDEN = COMPACT / "mapfree"
NAN = math.nan


# Recall and intervals


def test_recall_where_every_query_has_a_row_counts_nan_as_missed() -> None:
    found = metrics.recall([0.04, 0.2, NAN, 3.0], [1.0, 1.5, NAN, 9.0])
    assert found["0.05m_5deg"] == 0.25 and found["0.25m_2deg"] == 0.5 and found["5.00m_10deg"] == 0.75


def test_intervals_of_many_figures_at_once() -> None:
    rng = np.random.default_rng(3)
    metres, degrees = rng.exponential(0.1, 400), rng.exponential(1, 400)
    found = metrics.intervals(metrics.recall, metres, degrees, rounds=300)
    for name, share in metrics.recall(metres, degrees).items():
        low, high = found[name]
        assert low <= share <= high and high - low < 0.11  # 4 standard deviations of a share of 400 are 0.1 at most


def test_scenes_drawn_whole_give_wider_intervals_than_frames_drawn_alone() -> None:
    scene = np.repeat(np.arange(12), 30)
    errors = np.random.default_rng(0).exponential(1, 12)[scene]  # all frames of a scene err alike

    def figure(drawn: np.ndarray) -> dict[str, float]:
        return {"mean": metrics.mean(drawn)}

    alone = metrics.intervals(figure, errors, rounds=300)["mean"]
    whole = metrics.intervals(figure, errors, groups=scene, rounds=300)["mean"]
    assert whole[1] - whole[0] > 3 * (alone[1] - alone[0])


@pytest.mark.parametrize("rows", [[], [[0.1, 1.0]]])
def test_no_interval_of_less_than_two_queries(rows: list) -> None:
    table = np.array(rows).reshape(-1, 2)
    found = metrics.intervals(metrics.recall, table[:, 0], table[:, 1])
    assert set(found) == set(metrics.recall([], [])) and np.isnan(list(found.values())).all()
    assert np.isnan(metrics.bootstrap_interval(table[:, 0])).all()


def test_share_interval_is_clopper_and_pearsons() -> None:
    assert metrics.share_interval(3, 40) == pytest.approx((beta.ppf(0.025, 3, 38), beta.ppf(0.975, 4, 37)))
    assert metrics.share_interval(0, 3000)[0] == 0
    assert metrics.share_interval(0, 3000)[1] == pytest.approx(1 - 0.025 ** (1 / 3000))
    assert metrics.share_interval(5, 5)[1] == 1 and np.isnan(metrics.share_interval(0, 0)).all()


# Risk and false accepts


def test_risk_coverage_by_hand() -> None:
    # By confidence: right, wrong, right, right; a fifth query was not answered.
    curve = metrics.risk_coverage([0.2, 0.9, 0.5, 0.7], [False, False, False, True], queries=5)
    assert curve.threshold.tolist() == [0.9, 0.7, 0.5, 0.2]
    assert curve.coverage == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert curve.coverage_at(0.3) == pytest.approx(0.8) and curve.coverage_at(0.0) == pytest.approx(0.2)


def test_equal_confidences_are_let_in_together_and_unknown_ones_last() -> None:
    curve = metrics.risk_coverage([1, NAN, 1, 1], [True, True, False, False])
    assert curve.coverage.tolist() == [0.75, 1] and curve.risk == pytest.approx([1 / 3, 1 / 2])
    assert curve.area == pytest.approx(0.75 / 3 + 0.25 / 2)
    assert curve.coverage_at(0.1) == 0


def test_risk_of_no_answer_and_of_one() -> None:
    nothing = metrics.risk_coverage([], [], queries=7)
    assert nothing.coverage.size == 0 and math.isnan(nothing.area) and nothing.coverage_at(1) == 0
    assert metrics.risk_coverage([0.3], [True]).area == 1 and metrics.risk_coverage([0.3], [False], 10).area == 0


def test_an_order_by_error_has_less_area_than_a_random_one() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(500) < 0.2
    sure = metrics.risk_coverage(np.where(wrong, 0.0, 1.0) + rng.random(500), wrong)
    blind = metrics.risk_coverage(rng.random(500), wrong)
    assert sure.area < 0.05 < blind.area == pytest.approx(0.2, abs=0.05)
    assert sure.coverage[-1] == 1 and sure.risk[-1] == wrong.mean() == blind.risk[-1]


def test_false_accepts_per_thousand() -> None:
    found = metrics.false_accepts(2, 4000)
    assert (found.count, found.queries, found.per_1000) == (2, 4000, 0.5)
    assert found.low == pytest.approx(1000 * beta.ppf(0.025, 2, 3999)) and 1.7 < found.high < 1.9
    assert metrics.false_accepts(0, 3000).high < 1.24
    assert math.isnan(metrics.false_accepts(0, 0).per_1000)


# Calibration


def test_ellipsoids_hold_what_they_claim_and_nees_is_six() -> None:
    normalised = np.sum(np.random.default_rng(5).normal(size=(2000, 6)) ** 2, axis=1)
    shares, bounds = metrics.calibration(normalised), metrics.calibration_intervals(normalised)
    assert list(shares) == list(bounds) == ["0.50", "0.90", "0.99"]
    for name, share in shares.items():
        assert bounds[name][0] < float(name) < bounds[name][1] and share == pytest.approx(float(name), abs=0.03)
    found = metrics.consistency(normalised)
    assert found.consistent and found.poses == 2000 and found.nees == pytest.approx(6, abs=0.2)
    assert not metrics.consistency(2 * normalised).consistent and not metrics.consistency(normalised / 2).consistent


def test_consistency_of_few_poses_says_little_and_of_none_nothing() -> None:
    one = metrics.consistency([6.0, NAN])
    assert one.poses == 1 and one.consistent and one.low == pytest.approx(1.237, abs=1e-3)  # chi-square table
    assert one.high == pytest.approx(14.449, abs=1e-3)
    none = metrics.consistency([NAN])
    assert none.poses == 0 and math.isnan(none.nees) and not none.consistent
    assert all(math.isnan(share) for share in metrics.calibration([]).values())


# Relative poses


def test_angles_of_rotations_and_directions() -> None:
    turns = Rotation.from_rotvec([[0, 0, 0], [0, 0.5, 0], [math.pi, 0, 0], [1e-7, 0, 0]]).as_matrix()
    angles = metrics.rotation_angle(turns, np.eye(3))
    assert angles == pytest.approx([0, math.degrees(0.5), 180, math.degrees(1e-7)], rel=1e-6)
    assert math.isnan(metrics.rotation_angle(np.full((3, 3), NAN), np.eye(3)))
    directions = metrics.direction_angle([[2, 0, 0], [-1, 0, 0], [0, 3, 0], [0, 0, 0]], [1, 0, 0])
    assert directions[:3] == pytest.approx([0, 180, 90]) and math.isnan(directions[3])
    assert metrics.direction_angle([-1, 0, 0], [1, 0, 0], signed=False) == 0


def test_accuracies_by_hand() -> None:
    rotation, direction = [1, 4, 12, NAN], [2, 16, 3, 1]
    assert metrics.accuracy_at(rotation) == {"5": 0.5, "15": 0.75, "30": 0.75}
    assert metrics.accuracy_at([5.0], (5,)) == {"5": 0.0}  # strictly below
    # Errors 2, 16, 12 and a failure: below t = 3..30, 17..30 and 13..30 degrees.
    assert metrics.mean_average_accuracy(rotation, direction) == pytest.approx((28 + 14 + 18) / 4 / 30)
    assert math.isnan(metrics.mean_average_accuracy([], [])) and math.isnan(metrics.accuracy_at([])["5"])


def test_pose_auc_by_hand() -> None:
    # One pair of two within 5 degrees, at 2: a triangle 2 wide, 0.5 high, and then 3 degrees at 0.5.
    assert metrics.pose_auc([2, NAN])["5"] == pytest.approx((0.5 * 2 * 0.5 + 3 * 0.5) / 5)
    assert metrics.pose_auc([0, 0]) == {"5": 1, "10": 1, "20": 1}
    assert metrics.pose_auc([30])["20"] == 0 and math.isnan(metrics.pose_auc([])["5"])


def test_relative_pose_figures_are_the_golden_ones() -> None:
    golden = case(GOLDEN / "relative_pose.npz")
    expected = json.loads((GOLDEN / "relative_pose.json").read_text())
    rotation = metrics.rotation_angle(golden["R_est"], golden["R_gt"])
    signed = metrics.direction_angle(golden["t_est"], golden["t_gt"])
    unsigned = metrics.direction_angle(golden["t_est"], golden["t_gt"], signed=False)
    assert rotation == pytest.approx(golden["rot_err"], abs=1e-6)
    known = np.isfinite(signed)
    assert signed[known] == pytest.approx(golden["trans_ang_signed"][known], abs=1e-6)
    assert not golden["t_est"][~known].any()  # only a translation of zero has no direction
    for name, direction in {"signed": signed, "unsigned": unsigned}.items():
        figures = expected["simple"][name]
        for t, share in metrics.accuracy_at(rotation, (5, 10, 15, 30)).items():
            assert share == pytest.approx(figures[f"RRA@{t}"], abs=1e-9)
        for t, share in metrics.accuracy_at(direction, (5, 10, 15, 30)).items():
            assert share == pytest.approx(figures[f"RTA@{t}"], abs=1e-9)
        assert metrics.mean_average_accuracy(rotation, direction) == pytest.approx(figures["mAA(30)_hist"], abs=1e-9)


def test_areas_are_the_golden_ones() -> None:
    golden = case(GOLDEN / "relative_pose.npz")
    expected = json.loads((GOLDEN / "relative_pose.json").read_text())["lib_error_auc"]
    rotation = metrics.rotation_angle(golden["R_est"], golden["R_gt"])
    direction = metrics.direction_angle(golden["t_est"], golden["t_gt"], signed=False)
    metres = np.linalg.norm(golden["t_est"] - golden["t_gt"], axis=1)
    found = {
        "pose": metrics.pose_auc(metrics.pose_errors(rotation, direction)),
        "rotation": metrics.pose_auc(rotation),
        "translation_angle": metrics.pose_auc(direction),
        "translation_euclid": metrics.pose_auc(metres, (0.1, 0.5, 1)),
        "pose_with_nan": metrics.pose_auc(golden["max_err_with_nan"]),
    }
    for name, areas in found.items():
        assert {f"auc@{t}": area for t, area in areas.items()} == pytest.approx(expected[name], abs=1e-4)
    within = metrics.recall(metres, rotation, thresholds=((0.25, 5), (0.5, 10)))
    assert list(within.values()) == [0.13, 0.34]


# Trajectories


def circle(poses: int = 40) -> np.ndarray:
    """(N, 4, 4) once around, climbing."""
    turns = np.linspace(0, 2 * np.pi, poses)
    return np.array([se3.exp([2 * np.cos(a), 2 * np.sin(a), 0.3 * a, 0, 0, a]) for a in turns])


def test_errors_of_a_trajectory_that_is_offset() -> None:
    truth = circle()
    estimate = se3.exp([0.3, 0, 0.4, 0, 0, 0]) @ truth
    metres, degrees = metrics.absolute_errors(estimate, truth)
    assert metrics.rmse(metres) == pytest.approx(0.5) and degrees == pytest.approx(0, abs=1e-5)
    assert metrics.relative_errors(estimate, truth)[0] == pytest.approx(0, abs=1e-9)
    assert metrics.align_trajectory(estimate, truth) is estimate  # by default errors of the frame are errors


@pytest.mark.parametrize(("alignment", "scale"), [("se3", 1.0), ("sim3", 2.5)])
def test_alignment_removes_frame_and_scale_and_nothing_else(alignment: str, scale: float) -> None:
    truth = circle()
    estimate = se3.exp([5, -3, 1, 0.4, -1, 2]) @ truth
    estimate[:, :3, 3] *= scale
    estimate[7] = NAN
    metres, degrees = metrics.absolute_errors(metrics.align_trajectory(estimate, truth, alignment), truth)
    assert np.isnan(metres[7]) and np.isnan(degrees[7]) and np.isfinite(metres).sum() == 39
    assert np.nanmax(metres) < 1e-9 and np.nanmax(degrees) < 1e-5


def test_a_wrong_scale_is_left_by_se3_and_found_by_relative_errors() -> None:
    truth = circle()
    estimate = truth.copy()
    estimate[:, :3, 3] *= 1.1
    metres, _ = metrics.absolute_errors(metrics.align_trajectory(estimate, truth, "se3"), truth)
    centred = truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0)
    assert metres == pytest.approx(0.1 * np.linalg.norm(centred, axis=1))
    step, _ = metrics.relative_errors(estimate, truth, 2)
    lengths = np.linalg.norm(truth[2:, :3, 3] - truth[:-2, :3, 3], axis=1)
    assert len(step) == 38 and step == pytest.approx(0.1 * lengths)


def test_relative_errors_are_those_of_the_definition() -> None:
    truth, estimate = circle(5), circle(5) @ se3.exp([0.1, 0, 0, 0, 0.2, 0])
    estimate[3] = estimate[3] @ se3.exp([0, 0.2, 0, 0.1, 0, 0])
    metres, degrees = metrics.relative_errors(estimate, truth)
    for i in range(4):
        true = np.linalg.inv(truth[i]) @ truth[i + 1]
        error = np.linalg.inv(true) @ np.linalg.inv(estimate[i]) @ estimate[i + 1]
        assert metres[i] == pytest.approx(np.linalg.norm(error[:3, 3]))
        assert degrees[i] == pytest.approx(np.degrees(se3.angle(error)))


def test_trajectories_that_cannot_be_aligned_are_refused() -> None:
    one = circle(1)
    assert metrics.absolute_errors(one, one)[0].tolist() == [0] and metrics.relative_errors(one, one)[0].size == 0
    with pytest.raises(ValueError, match="three poses at different places"):
        metrics.align_trajectory(np.repeat(one, 5, axis=0), circle(5), "sim3")
    with pytest.raises(ValueError, match="'affine' is not one of none, se3, sim3"):
        metrics.align_trajectory(one, one, "affine")
    with pytest.raises(ValueError, match="step"):
        metrics.relative_errors(one, one, 0)


# Clouds


def test_clouds_by_hand() -> None:
    truth = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [NAN, 0, 0]])
    estimate = np.array([[0, 0, 0.1], [1, 0, 0.3]])
    found = metrics.cloud_distances(estimate, truth)
    assert found.to_truth == pytest.approx([0.1, 0.3])
    assert found.to_estimate == pytest.approx([0.1, 0.3, np.hypot(1, 0.3)])
    assert found.accuracy == pytest.approx(0.2)
    assert found.completeness == pytest.approx((0.4 + np.hypot(1, 0.3)) / 3)
    assert found.chamfer == pytest.approx((found.accuracy + found.completeness) / 2)
    assert (found.precision(0.2), found.recall(0.2)) == (0.5, pytest.approx(1 / 3))
    assert metrics.cloud_figures(found, 0.2)["f_score"] == pytest.approx(2 * 0.5 / 3 / (0.5 + 1 / 3))
    assert "f_score" not in metrics.cloud_figures(found)


def test_points_beyond_the_largest_distance_are_left_out_of_means_and_missed_in_shares() -> None:
    found = metrics.cloud_distances(np.zeros((1, 3)), np.array([[0, 0, 0.1], [0, 0, 0.5], [0, 0, 9]]), 0.5)
    assert found.completeness == pytest.approx(0.3) and found.left_out == (0, pytest.approx(1 / 3))
    assert found.recall(100) == pytest.approx(2 / 3)


def test_an_empty_cloud_is_infinitely_far() -> None:
    found = metrics.cloud_distances(np.zeros((0, 3)), np.zeros((2, 3)))
    assert found.recall(1) == 0 and math.isnan(found.accuracy) and math.isnan(found.completeness)
    assert math.isnan(found.precision(1)) and math.isnan(found.f_score(1))


# Depth


def test_depth_by_hand() -> None:
    truth = [1.0, 2.0, 4.0, 0.0, 5.0, 2.0]
    predicted = [1.2, 2.0, 8.0, 3.0, NAN, 0.0]
    assert metrics.abs_rel(predicted, truth) == pytest.approx((0.2 + 0 + 1) / 3)
    shares = metrics.delta(predicted, truth, (1, 3, 4))
    assert shares == {"1.25^1": pytest.approx(2 / 3), "1.25^3": pytest.approx(2 / 3), "1.25^4": 1.0}
    figures = metrics.depth_figures(predicted, truth)
    assert figures["predicted"] == pytest.approx(3 / 5) and "scale" not in figures
    assert all(math.isnan(figure) for figure in metrics.depth_figures([1.0], [0.0]).values())


def test_the_median_takes_the_scale_away() -> None:
    truth = np.linspace(1, 5, 101).reshape(1, 101)
    figures = metrics.depth_figures(truth / 3, truth, scaled=True)
    assert figures["scale"] == pytest.approx(3) and figures["abs_rel"] == pytest.approx(0, abs=1e-12)
    assert figures["delta_1.25^1"] == 1 and metrics.delta(truth / 3, truth)["1.25^3"] == 0


def test_scales_of_translations_are_the_golden_ones() -> None:
    golden = case(GOLDEN / "relative_pose.npz")
    expected = json.loads((GOLDEN / "relative_pose.json").read_text())["lib_A_metrics"]
    lengths = [np.linalg.norm(golden[name], axis=1) for name in ("t_est", "t_gt")]
    # A translation of zero has no scale: that pair takes no part.
    assert list(metrics.delta(*lengths).values()) == pytest.approx(expected, rel=1e-6)
