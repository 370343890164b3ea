"""Metrics on numbers with known answers; runs on a small world; figures that stay true to the contract."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import walls
from scipy.spatial.transform import Rotation

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.io.documents import pose_dict, to_json, write_tum
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.localization import Evaluation, evaluate_localization
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.scenes import evaluate_scene, map_of_train_split
from mast3r_ros.lab.runs.splits import QuerySettings
from mast3r_ros.lab.speed.baseline import Baseline
from mast3r_ros.lab.speed.benchmark import benchmark_large_map, benchmark_localization
from mast3r_ros.localization import Localizer, Tracker
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create


@pytest.fixture(scope="module")
def keyframe_map(tmp_path_factory: pytest.TempPathFactory) -> KeyframeMap:
    keyframe_map = KeyframeMap()
    for number in range(3):
        keyframe_map.add(walls.posed(number), f"wall{number}")
    keyframe_map.save(tmp_path_factory.mktemp("maps") / "map")
    keyframe_map.prepare(create("sift"))
    return keyframe_map


# Metrics


def test_recall_counts_unanswered_queries_as_missed():
    found = metrics.recall([0.02, 0.08, 0.2, 0.02], [1, 1, 1, 20], queries=8)
    assert [found[name] for name in ("0.05m_5deg", "0.10m_5deg", "0.25m_10deg")] == [1 / 8, 2 / 8, 3 / 8]
    assert all(math.isnan(share) for share in metrics.recall([], [], queries=0).values())


@pytest.mark.parametrize(
    ("metres", "degrees", "wrong"), [(0.25, 10, False), (0.26, 0, True), (0, 10.1, True), (math.nan, math.nan, False)]
)
def test_wrong_is_more_than_25_cm_or_10_degrees(metres, degrees, wrong):
    assert bool(metrics.is_wrong(metres, degrees)) is wrong


def test_medians_and_percentiles_leave_out_what_was_not_measured():
    assert metrics.median([3, math.nan, 1, 2]) == 2 and math.isnan(metrics.median([math.nan]))
    assert metrics.percentiles(range(101), (50, 95)) == {"p50": 50, "p95": 95}


def test_bootstrap_interval_holds_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [metrics.bootstrap_interval(rng.normal(5, 1, 60), rounds=200, seed=i) for i in range(150)]
    hits = np.mean([low <= 5 <= high for low, high in intervals])
    assert 0.88 <= hits <= 0.99


def test_a_right_covariance_covers_and_a_small_one_does_not():
    rng = np.random.default_rng(1)
    A = rng.normal(size=(6, 6)) * 0.01
    covariance = A @ A.T + 1e-5 * np.eye(6)
    truth = se3.exp([1, 2, 3, 0.5, -0.3, 0.8])
    normalised = []
    for error in rng.multivariate_normal(np.zeros(6), covariance, 600):
        turned = Rotation.from_rotvec(error[3:]).as_matrix() @ truth[:3, :3]
        normalised.append(metrics.normalised_error(se3.make(turned, truth[:3, 3] + error[:3]), truth, covariance))
    assert metrics.coverage(normalised, 0.5) == pytest.approx(0.5, abs=0.07)
    assert metrics.coverage(normalised, 0.95) == pytest.approx(0.95, abs=0.03)
    assert metrics.coverage(4 * np.array(normalised), 0.95) < 0.75


# Runs


def test_an_evaluation_tells_right_wrong_and_rejected_apart(keyframe_map):
    queries = [walls.posed(number) for number in (0, 1, 2, walls.UNKNOWN)]
    # One ground-truth pose that is not where the picture was taken: its answer has to count as wrong.
    queries[2] = type(queries[2])(queries[2].frame, se3.exp([5, 0, 0, 0, 0, 0]))
    seen = []
    localizer = Localizer(keyframe_map, create("sift"))
    evaluation = evaluate_localization(localizer, queries, watch=lambda record, *_: seen.append(record.name))
    summary = evaluation.summary()
    assert seen == ["wall0", "wall1", "wall2", "wall99"]
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (4, 3, 1)
    assert sum(summary["rejected"].values()) == 1 and "" not in summary["rejected"]
    assert {summary["recall"][name] for name in ("0.05m_5deg", "0.10m_5deg", "0.25m_10deg")} == {0.5}
    assert summary["median_translation_error_m"] < 0.05
    assert {"describe", "match", "total"} <= set(summary["stages_ms"])
    assert all(record.timings_ms["processor"] > 0 for record in evaluation.records)
    assert summary["processor_ms"]["p50"] == summary["stages_ms"]["processor"]


def test_sevenscenes_protocol(tmp_path):
    scene, matcher = walls.write_scene(tmp_path / "scene"), create("sift")
    with map_of_train_split(scene, matcher) as keyframe_map:
        assert len(keyframe_map) == 3
        evaluation, pictures = evaluate_scene(scene, keyframe_map, matcher)
        tracked, _ = evaluate_scene(scene, keyframe_map, matcher, QuerySettings(tracking=True))
    folder = keyframe_map.path
    assert folder is not None and not folder.exists()
    summary = evaluation.summary()
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (4, 3, 0)
    assert summary["recall"]["0.05m_5deg"] == 0.75
    assert tracked.summary()["wrong_accepted"] == 0 and tracked.settings["tracking"]
    assert sorted(picture.accepted for picture in pictures) == [False, True, True, True]


def test_sevenscenes_mini_is_localized(shared_dir):
    """A part of the real queries, as the acceptance command does with all of them."""
    scene = shared_dir / "data" / "sevenscenes_mini"
    if not scene.is_dir():
        pytest.skip("needs shared/data/sevenscenes_mini")
    from mast3r_ros.io.datasets.sevenscenes import SevenScenes

    matcher = create("sift")
    queries = SevenScenes(scene, split="test", use_depth=False)
    with map_of_train_split(scene, matcher) as keyframe_map:
        assert len(keyframe_map) == 84
        some = [queries[index] for index in range(0, 80, 8)]
        summary = evaluate_localization(Localizer(keyframe_map, matcher), some).summary()
    assert summary["recall"]["0.10m_5deg"] >= 0.9 and summary["recall"]["0.25m_10deg"] == 1.0
    assert summary["wrong_accepted"] == 0


def test_tracker_records_are_in_order(keyframe_map):
    tracker = Tracker(Localizer(keyframe_map, create("sift")))
    evaluation = evaluate_localization(tracker, [walls.posed(0), walls.posed(0)])
    assert [record.accepted for record in evaluation.records] == [True, True]


# Results


def test_json_is_strict_and_complete():
    record = Record("a", 1, False, "no_pose", timings_ms={"total": 3.0})
    document = json.loads(to_json(Evaluation("e", [record]).summary()), parse_constant=pytest.fail)
    assert document["median_translation_error_m"] is None and document["answered"] == 0
    assert document["recall"]["0.05m_5deg"] is None and document["rejected"] == {"no_pose": 1}
    for key in ("queries", "wrong_accepted", "median_rotation_error_deg", "machine", "versions", "settings"):
        assert key in document
    assert json.loads(to_json({"a": np.float32(math.inf), "b": np.arange(2), 3: (np.int64(4),)})) == {
        "a": None,
        "b": [0, 1],
        "3": [4],
    }


def test_tum_files_come_back_exactly(tmp_path):
    poses = [(1_305_031_102_160_407_123, se3.exp([1, -2, 3, 0.1, 0.2, -3.0])), (5, np.eye(4))]
    write_tum(tmp_path / "t.tum", poses)
    lines = [line.split() for line in (tmp_path / "t.tum").read_text().splitlines() if not line.startswith("#")]
    assert [line[0] for line in lines] == ["1305031102.160407123", "0.000000005"]
    for (_, pose), line in zip(poses, lines, strict=True):
        values = [float(word) for word in line[1:]]
        assert np.allclose(se3.from_quaternion(values[:3], values[3:]), pose, atol=1e-8)
    assert pose_dict(None) is None and pose_dict(np.eye(4)) == {
        "translation": [0.0, 0.0, 0.0],
        "rotation_xyzw": [0.0, 0.0, 0.0, 1.0],
    }


# Benchmarks


@pytest.mark.parametrize("feature", ["sift", "orb"])
def test_the_baseline_finds_the_same_poses(keyframe_map, feature):
    matcher = create("sift", feature=feature)
    result = Baseline(keyframe_map, matcher, keyframes=2).localize(walls.posed(1).frame)
    assert result.map_T_camera is not None
    metres, degrees = se3.pose_error(result.map_T_camera, walls.map_T_camera(1))
    assert metres < 0.02 and degrees < 0.3
    blank = Baseline(keyframe_map, matcher).localize(Frame(np.zeros((480, 640, 3), np.uint8), walls.CAMERA))
    assert blank.map_T_camera is None


def test_benchmarks_measure_what_they_say(keyframe_map):
    frames = [walls.posed(0).frame, walls.posed(2).frame]
    figures = benchmark_localization(keyframe_map, create("sift"), frames, keyframes=2, rounds=2)
    ours, plain = figures["mast3r_ros"], figures["baseline"]
    assert ours["poses_found"] == plain["poses_found"] == 2
    # Every stage is within the whole, and throughput is its inverse.
    assert sum(ms for stage, ms in ours["stages_ms"].items() if stage != "total") <= 1.2 * ours["stages_ms"]["total"]
    assert ours["queries_per_second"] == pytest.approx(1e3 / ours["stages_ms"]["total"], rel=0.5)
    expected = plain["stages_ms"]["match"] / ours["stages_ms"]["match"]
    assert figures["speed_up"]["match"] == pytest.approx(expected) and figures["peak_memory_mib"] > 50


def test_a_large_map_is_made_loaded_and_asked(keyframe_map):
    frames = [walls.posed(number).frame for number in range(3)]
    figures = benchmark_large_map(keyframe_map, create("sift"), frames, 30, keyframes=2)
    assert figures["map_keyframes"] == 30 and figures["queries"] == 3
    assert 0 < figures["retrieval_ms"]["p50"] < figures["query_ms"]["p50"]
    assert figures["load_s"] > 0 and figures["first_query_s"] > 0
