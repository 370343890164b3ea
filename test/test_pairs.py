"""Relative poses of image pairs: the list format, pairs made from recordings, figures, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import oracle
import pytest

from mast3r_ros.errors import DatasetError, MatcherError
from mast3r_ros.frames import Camera, PosedFrame, turned_T_camera
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.relative_pose import solve_relative_pose
from mast3r_ros.io.datasets import open_source
from mast3r_ros.lab.datasets.image_pairs import (
    ImagePair,
    PairList,
    StoredImage,
    write_pair_list,
)
from mast3r_ros.lab.runs.overlapping_pairs import OverlapSettings, make_pairs
from mast3r_ros.lab.runs.pair_poses import make_finder
from mast3r_ros.lab.runs.pairs import PairEvaluation, PairRecord, evaluate_pairs
from mast3r_ros.lab.synthetic import DepthNoise, Shot, make_room, take
from mast3r_ros.matching import create

CAMERA = Camera.pinhole(320, 240, 240, 248, 164, 116)
TURNS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def views() -> list[PosedFrame]:
    """Four views into a furnished room from places half a metre apart, with depth."""
    world = make_room("office", seed=3)
    look = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # along x, z up
    poses = [
        se3.make(
            look @ se3.exp([0, 0, 0, 0.05, 0.12 * k - 0.2, 0.03 * k])[:3, :3], [-1.2 + 0.05 * k, 0.4 * k - 0.6, 1.3]
        )
        for k in range(4)
    ]
    return take([Shot(world, pose, CAMERA, f"{k}", depth_noise=DepthNoise()) for k, pose in enumerate(poses)], seed=0)


@pytest.fixture(scope="module")
def turned_list(views: list[PosedFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views in a row, each stored turned clockwise by another number of quarters."""
    folder = tmp_path_factory.mktemp("turned")
    stored, map_T_stored = [], []
    for turns, posed in zip(TURNS, views, strict=True):
        image = np.rot90(posed.frame.image, -turns)
        cv2.imwrite(str(folder / f"{turns}.png"), image[..., ::-1])
        camera = CAMERA.turned(-turns)
        stored.append(StoredImage(f"{turns}.png", turns, camera.K))
        map_T_stored.append(posed.map_T_camera @ turned_T_camera(turns))
    pairs = [
        ImagePair(stored[a], stored[b], se3.inverse(map_T_stored[b]) @ map_T_stored[a]) for a, b in pairwise(range(4))
    ]
    write_pair_list(folder / "pairs.txt", pairs)
    return folder / "pairs.txt"


# The list


def test_turned_images_come_upright_with_their_cameras_and_poses(turned_list, views):
    pairs = PairList(turned_list, turned_list.parent)
    assert len(pairs) == 3
    for number, pair in enumerate(pairs.pairs):
        for stored, posed in ((pair.first, views[number]), (pair.second, views[number + 1])):
            frame = pairs.frame(stored)
            np.testing.assert_array_equal(frame.image, posed.frame.image)
            assert frame.camera is not None and frame.camera.same_as(CAMERA)
        truth = se3.inverse(views[number].map_T_camera) @ views[number + 1].map_T_camera
        np.testing.assert_allclose(pairs.truth(pair), truth, atol=1e-8)


@pytest.mark.parametrize("turns", TURNS)
def test_turning_back_moves_pixels_and_points_alike(turns):
    """What a stored camera sees at a pixel, the upright camera sees where numpy.rot90 puts that pixel."""
    points = np.array([[0.3, -0.2, 2.0], [-0.5, 0.4, 3.0]])
    for x, y in np.rint(CAMERA.project(points)).astype(int):
        mark = np.zeros((CAMERA.height, CAMERA.width))
        mark[y, x] = 1
        row, column = np.argwhere(np.rot90(mark, turns))[0]
        ray = np.append(CAMERA.rays(np.array([[x, y]]))[0], 1.0)
        upright = CAMERA.turned(turns)
        assert (upright.height, upright.width) == np.rot90(mark, turns).shape
        np.testing.assert_allclose(upright.project(ray @ turned_T_camera(turns)[:3, :3].T)[0], [column, row], atol=1e-9)


def test_a_list_says_what_is_wrong_and_where(turned_list, tmp_path):
    good = turned_list.read_text().splitlines()[0].split()

    def refused(words: list[str], match: str) -> None:
        (tmp_path / "pairs.txt").write_text("# pairs\n\n" + " ".join(words) + "\n")
        with pytest.raises(DatasetError, match=match):
            PairList(tmp_path / "pairs.txt", tmp_path)

    refused(good[:-1], r"pairs\.txt, line 3: expected 38 words .*camera2_T_camera1\[16\]', got 37")
    refused(["my", *good], "got 39 .paths may not hold spaces")
    refused([*good[:2], "90", *good[3:]], "line 3: turns must be 0, 1, 2 or 3 quarters, got '90'")
    refused([*good[:4], "far", *good[5:]], "line 3: expected numbers after the turns.*far")
    refused([*good[:4], "nan", *good[5:]], "line 3: K or pose contains NaN")
    refused([*good[:4], "-3", *good[5:]], "line 3: K1 is no intrinsic matrix")
    refused([*good[:22], "7", *good[23:]], "line 3: the last 16 numbers are no rigid motion")
    refused(["#"], "is empty: expected lines 'path1 path2")
    with pytest.raises(DatasetError, match=r"none\.txt cannot be read"):
        PairList(tmp_path / "none.txt", tmp_path)
    with pytest.raises(DatasetError, match="nowhere is no folder"):
        PairList(turned_list, tmp_path / "nowhere")
    small = PairList(turned_list, turned_list.parent)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((100, 150, 3), np.uint8))
    small.images = tmp_path
    with pytest.raises(
        DatasetError, match=r"0\.png is 150x100, but the list pairs has its principal point at .164, 116"
    ):
        small.frame(small.pairs[0].first)
    (tmp_path / "0.png").unlink()
    (tmp_path / "pairs.txt").write_text(" ".join(good))
    missing = PairList(tmp_path / "pairs.txt", tmp_path)
    with pytest.raises(DatasetError, match=r"0\.png cannot be read"):
        missing.frame(missing.pairs[0].first)


# Poses


def test_the_motion_is_found_among_many_wrong_matches():
    rng = np.random.default_rng(0)
    truth = se3.exp([0.4, -0.1, 0.2, 0.05, -0.3, 0.1])
    points = rng.uniform([-2, -2, 3], [2, 2, 8], (200, 3))
    moved = se3.apply(truth, points)
    ideal1, ideal2 = points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]
    ideal2[:80] = rng.uniform(-0.5, 0.5, (80, 2))
    found = solve_relative_pose(ideal1, ideal2, (500.0, 700.0))
    assert found is not None and found.inlier[80:].all() and found.inlier[:80].mean() < 0.2
    np.testing.assert_allclose(found.camera2_T_camera1[:3, :3], truth[:3, :3], atol=1e-3)
    # Signed: the points are in front of both cameras.
    direction = truth[:3, 3] / np.linalg.norm(truth[:3, 3])
    np.testing.assert_allclose(found.camera2_T_camera1[:3, 3], direction, atol=1e-2)
    assert solve_relative_pose(ideal1[:5], ideal2[:5], (500.0, 700.0)) is None


@pytest.mark.parametrize("feature", ["sift", "orb"])
def test_sift_finds_the_poses_of_a_room_without_a_map(turned_list, feature):
    pairs = PairList(turned_list, turned_list.parent)
    evaluation = evaluate_pairs(pairs, make_finder("essential", create("sift", feature=feature)))
    for record in evaluation.records:
        assert record.accepted and record.inliers >= 15
        assert record.rotation_error_deg < 1.5 and record.direction_error_deg < 10, record
    assert evaluation.summary()["auc"]["20"] > 0.6


def test_the_metric_route_needs_a_network():
    with pytest.raises(MatcherError, match="sift' does not know the scale"):
        make_finder("metric", create("sift"))
    with pytest.raises(MatcherError, match="unknown pose route 'five': use essential or metric"):
        make_finder("five", create("sift"))


def test_a_network_goes_both_routes():
    """With exact pointmaps and descriptors: essential finds the direction, metric the length too."""
    pose1, _, pose2 = oracle.keyframe_poses()
    frames = [replace(oracle.see(pose), depth=None, name=str(n)) for n, pose in enumerate((pose1, pose2))]
    truth = se3.inverse(pose1) @ pose2
    matcher = create("mast3r", checkpoint=oracle.OracleNetwork(se3.inverse(pose1)), device="cpu", size=320)
    found = {route: make_finder(route, matcher).find(*frames) for route in ("essential", "metric")}
    for route, pose in found.items():
        assert pose.metric == (route == "metric") and pose.inlier.sum() > 50, pose.detail
        # The length is a network's guess: it is given, and not answered where it may be off by more than can be borne.
        assert pose.accepted or (route == "metric" and "nothing confirms the scale" in pose.detail)
        estimate = pose.camera1_T_camera2
        assert estimate is not None
        assert np.degrees(se3.angle(se3.inverse(truth) @ estimate)) < 0.5
        cosine = estimate[:3, 3] @ truth[:3, 3] / np.linalg.norm(estimate[:3, 3]) / np.linalg.norm(truth[:3, 3])
        assert cosine > np.cos(np.radians(2))
    assert found["essential"].camera1_T_camera2 is not None and found["metric"].camera1_T_camera2 is not None
    assert np.linalg.norm(found["essential"].camera1_T_camera2[:3, 3]) == pytest.approx(1)
    assert np.linalg.norm(found["metric"].camera1_T_camera2[:3, 3]) == pytest.approx(
        np.linalg.norm(truth[:3, 3]), rel=0.02
    )


# Figures


def record(rotation_deg: float, direction_deg: float, accepted: bool = True, metric: bool = False) -> PairRecord:
    """A pair whose estimate is off by so much; the truth is a step of one metre along x."""
    truth = se3.exp([1, 0, 0, 0, 0, 0])
    a = np.radians(direction_deg)
    estimate = se3.exp([np.cos(a), np.sin(a), 0, 0, 0, np.radians(rotation_deg)])
    return PairRecord("a", "b", truth, estimate, accepted, metric, 100, 50, "" if accepted else "too_few_inliers")


def test_figures_of_hand_made_errors():
    records = [record(1, 2), record(2, 178), record(8, 3), record(1, 1, accepted=False)]
    summary = PairEvaluation("e", records).summary()
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (4, 3, 0)
    assert summary["recall"] == {"5deg": 0.5, "10deg": 0.75, "20deg": 0.75}
    # Directions are unsigned: 178 degrees counts as 2. Errors 2, 2, 8 and one failure.
    assert summary["rra"] == {"5": 0.5, "15": 0.75, "30": 0.75} and summary["rta"]["5"] == 0.75
    assert summary["auc"]["5"] == pytest.approx((0.25 * 2 / 2 + 0.5 * 0 + 0.5 * 3) / 5)
    assert summary["median_rotation_error_deg"] == pytest.approx(2)
    assert summary["median_direction_error_deg"] == pytest.approx(2)
    assert np.isnan(summary["median_translation_error_m"])
    assert summary["rejected"] == {"too_few_inliers": 1}
    low, high = summary["auc_interval"]["5"]
    assert low <= summary["auc"]["5"] <= high
    everything = PairEvaluation("e", [record(1, 1)] * 20).summary()
    assert everything["rra"]["5"] == 1 and 0.8 < everything["rra_interval"]["5"][0] < 0.9
    assert 0 < summary["maa30"] < 0.75


def test_the_table_of_matchers_reads_what_pairs_say(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    measure_matchers = import_module("measure_matchers")
    (pairs,) = [data for data in measure_matchers.all_data(Path("data")) if "evaluate pairs" in data.command]
    summary = PairEvaluation("e", [*[record(1, 1)] * 3, record(1, 15)]).summary()
    assert pairs.good(summary) == 3


def test_metric_poses_are_judged_in_metres():
    records = [record(1, 5, metric=True), record(1, 30, metric=True)]
    summary = PairEvaluation("e", records).summary()
    assert summary["wrong_accepted"] == 1  # half a metre off
    assert summary["recall"]["0.10m_5deg"] == 0.5
    assert summary["median_translation_error_m"] == pytest.approx(0.5 * (0.0872 + 0.5176), abs=1e-3)


def test_nothing_at_all_still_has_figures():
    for records in ([], [record(0, 0, accepted=False)]):
        summary = PairEvaluation("e", records).summary()
        assert summary["answered"] == 0 and np.isnan(summary["median_rotation_error_deg"])
        assert set(summary["auc"]) == {"5", "10", "20"} and set(summary["rra"]) == {"5", "15", "30"}


# Pairs from recordings


def write_recording(folder: Path, views: list[PosedFrame]) -> Path:
    """The views as images with poses and depth."""
    lines = []
    for posed in views:
        name = f"{posed.frame.name}.png"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), posed.frame.image[..., ::-1])
        cv2.imwrite(str(folder / "depth" / name), (1000 * np.nan_to_num(posed.frame.depth)).astype(np.uint16))
        x, y, z, w = se3.quaternion(posed.map_T_camera)
        lines.append(" ".join(map(str, (name, w, x, y, z, *posed.map_T_camera[:3, 3]))))
    (folder / "poses.txt").write_text("\n".join(lines))
    c = CAMERA
    (folder / "intrinsics.txt").write_text(f"{c.width} {c.height} {c.fx} {c.fy} {c.cx} {c.cy}")
    return folder


def test_pairs_are_made_of_views_that_overlap(views, tmp_path):
    turned = se3.exp([0, 0, 0, 0, 0, 3.0])
    away = PosedFrame(views[0].frame, se3.make(turned[:3, :3] @ views[0].map_T_camera[:3, :3], [0, 0, 1]))
    source = open_source(write_recording(tmp_path / "recording", [*views, away]))
    made = make_pairs(source, tmp_path / "pairs", OverlapSettings(least=0.3, most=1.0))
    assert 3 <= len(made) <= 6 and all(0.3 <= pair.overlap <= 1 for pair in made.pairs)
    neighbours = {(p.first.name, p.second.name): p.overlap for p in made.pairs}
    assert neighbours["000000.png", "000001.png"] > neighbours.get(("000000.png", "000003.png"), 0.0)
    # The list on disk is the same, and right.
    listed = PairList(tmp_path / "pairs" / "pairs.txt", tmp_path / "pairs" / "images")
    pair = listed.pairs[0]
    np.testing.assert_allclose(
        listed.truth(pair), se3.inverse(views[0].map_T_camera) @ views[1].map_T_camera, atol=1e-6
    )
    np.testing.assert_array_equal(listed.frame(pair.first).image, views[0].frame.image)
    assert len(make_pairs(source, tmp_path / "few", OverlapSettings(pairs=2, least=0.3, most=1.0))) == 2
    with pytest.raises(DatasetError, match="no two overlap by 99% to 100%: allow more"):
        make_pairs(source, tmp_path / "none", OverlapSettings(least=0.99, most=1.0))


# The command


def test_the_command_writes_figures_and_a_report(views, tmp_path, run):
    recording = write_recording(tmp_path / "recording", views)
    out = tmp_path / "out"

    command = ("evaluate", "pairs")
    kept = tmp_path / "kept"
    code, text, error = run(*command, recording, "--overlap", 0.3, 1, "--write-pairs", kept, "--report", out, "--json")
    assert code == 0, error
    summary = json.loads(text, parse_constant=pytest.fail)
    for key in ("queries", "answered", "wrong_accepted", "median_translation_error_m", "median_rotation_error_deg"):
        assert key in summary
    assert summary["median_translation_error_m"] is None and summary["auc"]["20"] > 0.8
    assert {file.name for file in out.iterdir()} == {"report.html", "summary.json", "records.jsonl"}
    assert len((out / "records.jsonl").read_text().splitlines()) == summary["queries"]
    assert "The worst answers" in (out / "report.html").read_text()
    # The list that was kept gives the same figures.
    code, text, _ = run(*command, kept / "pairs.txt", "--images", kept / "images", "--json")
    again = json.loads(text)
    assert code == 0 and again["auc"] == pytest.approx(summary["auc"]) and again["settings"]["pose"] == "essential"
    code, text, _ = run(*command, kept / "pairs.txt", "--images", kept / "images", "--pairs", 1)
    assert code == 0 and "AUC" in text and "mAA(30)" in text
    code, _, error = run(*command, tmp_path / "nothing.txt")
    assert code == 1 and "nothing.txt" in error and "7-Scenes" in error
