"""The command line: contracts of its JSON, exit codes, and errors as sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import walls
import yaml

from mast3r_ros import __version__
from mast3r_ros.cli.common import DEBUG_VARIABLE
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import open_bag
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.settings import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, a bag, and images."""
    folder = tmp_path_factory.mktemp("files")
    walls.write_scene(folder / "scene")
    walls.write_bag(folder / "bag")
    for number in (0, 1, walls.UNKNOWN):
        cv2.imwrite(str(folder / f"{number}.png"), walls.image(number)[..., ::-1])
    cv2.imwrite(str(folder / "small.png"), cv2.resize(walls.image(1), (480, 360))[..., ::-1])
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    return folder


@pytest.fixture
def map_folder(files: Path, run: Any) -> Path:
    """A map of the scene's train split, built by the command once."""
    if not (files / "map").exists():
        result = run("map", "build", files / "scene", "-o", files / "map", "--split", "train", "--matcher", "sift")
        assert result.code == 0, result.err
    return files / "map"


# The command itself


def test_version_needs_no_torch():
    code = "import sys; sys.argv[1:] = ['--version']\n" + (
        "from mast3r_ros.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert not exit.code\n"
        "heavy = {'torch', 'cv2', 'scipy', 'matplotlib', 'numpy', 'rclpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"mast3r_ros {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["map", "build", "x"],
        ["localize", "map"],
        ["map", "export", "m", "--format", "obj", "-o", "x"],
        ["evaluate", "sevenscenes", "x", "--keyframes", "0"],
    ],
)
def test_wrong_usage_exits_2(run, arguments):
    result = run(*arguments)
    assert result.code == 2 and result.out == "" and "Usage" in result.err


def test_a_failed_job_exits_1_with_one_sentence(run, tmp_path):
    result = run("map", "info", tmp_path / "nothing")
    assert result.code == 1 and result.out == ""
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert str(tmp_path / "nothing") in result.err and "map build" in result.err


def test_debug_shows_the_traceback(run, tmp_path, monkeypatch):
    monkeypatch.setenv(DEBUG_VARIABLE, "0")  # restored afterwards: --debug sets it
    result = run("--debug", "map", "info", tmp_path / "nothing")
    assert result.code == 1 and "Traceback" in result.err and "error: " in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["map", "build", "{files}/nowhere", "-o", "{tmp}/m"], ["nowhere does not exist", "rosbag"]),
        (["map", "build", "{files}/scene", "-o", "{files}/0.png"], ["0.png", "is not a map"]),
        (["map", "build", "{files}/scene", "-o", "{tmp}/m", "--matcher", "magic"], ["unknown matcher 'magic'", "sift"]),
        (["map", "build", "{files}/scene", "-o", "{tmp}/m", "--scale", "2"], ["no option scale", "split"]),
        (["evaluate", "sevenscenes", "{files}/bag"], ["bag", "TrainSplit.txt"]),
        (["replay", "{files}/0.png", "--map", "{map}", "-o", "{tmp}/o"], ["0.png is no recording"]),
        (
            ["replay", "{files}/bag", "--map", "{map}", "-o", "{tmp}/o", "--image-topic", "/no"],
            ["/no", "/camera/image_raw"],
        ),
        (["localize", "{map}", "{files}/0.png", "--camera", "{tmp}/no.yaml"], ["no.yaml"]),
        (["export", "x"], []),
    ],
)
def test_bad_input_names_the_thing_and_the_way_out(run, files, map_folder, tmp_path, arguments, words):
    places = {"files": files, "tmp": tmp_path, "map": map_folder}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.code == (1 if words else 2) and result.out == "" and "Traceback" not in result.err
    assert all(word in result.err for word in words), result.err


# matcher


def test_matchers_are_listed_and_checked(run):
    listed = run("matcher", "list", "--json")
    assert listed.code == 0
    assert {row["matcher"]: row["from"] for row in listed.json}["sift"] == "mast3r_ros"
    checked = run("matcher", "check", "fake", "--json")
    assert checked.code == 0 and checked.json["passed"] and len(checked.json["findings"]) == 17
    people = run("matcher", "check", "fake")
    assert people.code == 0 and "survive" not in people.out and "come back from the map's cache" in people.out


def test_a_matcher_that_breaks_its_contract_fails_the_check_with_sentences(run, monkeypatch):
    from mast3r_ros.matching import registry
    from mast3r_ros.matching.fake import FakeMatcher

    def shifted(self, query, references):
        return [replace(m, points=-m.points) for m in FakeMatcher.match(self, query, references)]

    monkeypatch.setitem(registry._FACTORIES, "shifty", type("Shifty", (FakeMatcher,), {"match": shifted}))
    result = run("matcher", "check", "shifty", "--json")
    faults = [finding for finding in result.json["findings"] if not finding["passed"]]
    assert result.code == 1 and not result.json["passed"] and {fault["name"] for fault in faults} == {"points"}
    assert all("behind its camera" in fault["sentence"] for fault in faults)
    unknown = run("matcher", "check", "nobody")
    assert unknown.code == 1 and "unknown matcher 'nobody'" in unknown.err and "Traceback" not in unknown.err


# map


def test_a_map_that_was_never_measured_says_so_and_can_be(run, tmp_path):
    """A map that a node saved."""
    saved = KeyframeMap()
    for number in (0, 1):
        saved.add(walls.posed(number))
    saved.save(tmp_path / "m")
    assert "never measured" in run("map", "info", tmp_path / "m").out
    measured = run("map", "measure", tmp_path / "m", "--matcher", "sift", "--json").json
    assert measured["doubts"] == []
    info = run("map", "info", tmp_path / "m")
    assert "never measured" not in info.out and "consistency" in info.out


def test_map_build_tells_what_was_kept_and_info_agrees(run, files, tmp_path):
    built = run(
        "map", "build", files / "scene", "-o", tmp_path / "m", "--split", "train", "--max-keyframes", 2, "--json"
    )
    assert built.code == 0
    assert (built.json["frames"], built.json["keyframes"], built.json["skipped"]) == (3, 2, {"map_full": 1})
    info = run("map", "info", tmp_path / "m", "--json").json
    assert info["keyframes"] == info["with_depth"] == 2 and info["cameras"][0]["fx"] == 525
    # Described at once, so that the first start on the robot is fast.
    assert info["features"] == {"sift-1500-2": 2} and info["retrieval"] == ["sift-1500-2"]
    assert info["disk_bytes"] == sum(f.stat().st_size for f in (tmp_path / "m").rglob("*") if f.is_file())
    people = run("map", "info", tmp_path / "m")
    assert "640x480" in people.out and "2, 2 with depth" in people.out


def test_a_map_is_built_from_a_bag_with_a_pose_topic(run, files, tmp_path):
    result = run("map", "build", files / "bag", "-o", tmp_path / "m", "--pose-topic", "/truth", "--json")
    assert result.code == 0, result.err
    assert result.json["keyframes"] == 4


def test_a_scene_is_written_as_a_recording(run, files, tmp_path):
    words = ("bag", "write", files / "scene", "-o", tmp_path / "scene.mcap", "--rate", "10", "--raw", "--json")
    result = run(*words)
    assert result.code == 0, result.err
    with open_bag(tmp_path / "scene.mcap") as bag:
        frames = list(bag.frames())
    assert result.json["frames"] == len(frames) > 3
    assert np.allclose(np.diff([frame.stamp_ns for frame in frames]), 1e8, atol=2)
    refused = run(*words)
    assert refused.code == 1 and "exists already" in refused.err
    assert run(*words, "--overwrite").json == result.json


def test_map_export_and_repair(run, map_folder, tmp_path):
    for form, name in (("ply", "m.ply"), ("png", "m.png"), ("colmap", "model")):
        result = run("map", "export", map_folder, "-f", form, "-o", tmp_path / name)
        assert result.code == 0 and result.out.strip() == str(tmp_path / name)
    assert (tmp_path / "m.ply").read_bytes().startswith(b"ply")
    assert (cv2.imread(str(tmp_path / "m.png")) is not None) and (tmp_path / "model" / "images.txt").exists()
    assert run("map", "repair", map_folder, "--json").json["kept"] == 3


# localize


def test_localize_prints_one_object_per_image(run, files, map_folder):
    images = [files / "0.png", files / "broken.png", files / "99.png"]
    result = run("localize", map_folder, *images, "--json")
    assert result.code == 0, result.err
    found, broken, unknown = (json.loads(line, parse_constant=pytest.fail) for line in result.out.splitlines())
    for document, image in zip((found, broken, unknown), images, strict=True):
        assert document["image"] == str(image)
        assert {"status", "reason", "detail", "map_T_camera", "covariance", "inliers", "keyframes"} <= set(document)
    assert found["status"] == "localized" and found["reason"] == "" and found["inliers"] > 50
    pose = se3.from_quaternion(found["map_T_camera"]["translation"], found["map_T_camera"]["rotation_xyzw"])
    assert se3.pose_error(pose, walls.map_T_camera(0) @ se3.make(np.eye(3), [0.025, 0, 0]))[0] < 0.05
    assert np.array(found["covariance"]).shape == (6, 6) and found["keyframes"][0] == "000000"
    assert (broken["status"], broken["reason"]) == ("rejected", "unusable_image") and "broken.png" in broken["detail"]
    assert unknown["status"] == "rejected" and unknown["reason"] not in ("", "unusable_image")


def test_localize_fails_where_no_image_can_be_read(run, files, map_folder):
    result = run("localize", map_folder, files / "broken.png", files / "missing.png", "--json")
    assert result.code == 1 and len(result.out.splitlines()) == 2


def test_localize_for_people_and_as_a_trajectory(run, files, map_folder, tmp_path):
    result = run("localize", map_folder, files / "0.png", files / "99.png", "--tum", tmp_path / "t.tum")
    assert result.code == 0 and "1 of 2 images localized" in result.out and "map's own camera" in result.err
    rows = [line.split() for line in (tmp_path / "t.tum").read_text().splitlines() if not line.startswith("#")]
    assert len(rows) == 1 and len(rows[0]) == 8 and float(rows[0][0]) == 0.0


@pytest.mark.parametrize("given", ["file", "intrinsics", "map", "unknown"])
def test_intrinsics_come_from_where_one_says(run, files, map_folder, tmp_path, given):
    """A smaller image of a wall needs the smaller camera; each way of giving it leads to the same place."""
    camera = walls.CAMERA.resized(480, 360)
    document = {
        "image_width": 480,
        "image_height": 360,
        "camera_matrix": {"rows": 3, "cols": 3, "data": camera.K.reshape(-1).tolist()},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
    }
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(document))
    options = {
        "file": ["--camera", tmp_path / "camera.yaml"],
        "intrinsics": ["--fx", camera.fx, "--fy", camera.fy, "--cx", camera.cx, "--cy", camera.cy],
        "map": ["--camera", "map"],
        "unknown": [],
    }[given]
    result = run("localize", map_folder, files / "small.png", *options, "--json")
    found = result.json
    assert found["status"] == "localized"
    assert ("estimated" in result.err) is (given == "unknown")
    assert found["focal_px"] == pytest.approx(camera.focal, rel=0.05 if given == "unknown" else 1e-6)
    truth = walls.map_T_camera(1) @ se3.make(np.eye(3), [0.025, 0, 0])
    assert np.linalg.norm(np.array(found["map_T_camera"]["translation"]) - truth[:3, 3]) < 0.15


def test_sensor_depth_of_the_query_is_one_more_check(run, files, map_folder, tmp_path):
    shifted = (1000 * (walls.depth() + 1.0)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "0.png"), shifted)
    result = run("localize", map_folder, files / "0.png", "--depth", tmp_path, "--json")
    assert result.json["reason"] == "depth_disagrees"
    assert run("localize", map_folder, files / "0.png", files / "1.png", "--depth", tmp_path / "0.png").code == 2


# evaluate, replay, benchmark


def test_evaluate_sevenscenes_prints_the_contract(run, files, tmp_path):
    result = run("evaluate", "sevenscenes", files / "scene", "--matcher", "sift", "--report", tmp_path / "r", "--json")
    assert result.code == 0, result.err
    summary = result.json
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (4, 3, 0)
    assert set(summary["recall"].values()) == {0.75}
    assert summary["median_translation_error_m"] < 0.05 and summary["median_rotation_error_deg"] < 2
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["answered"] == 3
    assert (tmp_path / "r" / "report.html").stat().st_size > 50_000


def test_evaluate_uses_a_given_map_and_prints_for_people(run, files, map_folder):
    result = run("evaluate", "sevenscenes", files / "scene", "--map", map_folder, "--tracking", "--query-depth")
    assert result.code == 0 and "within 0.10m, 5deg" in result.out and "wrong accepted" in result.out


def test_replay_writes_what_the_node_would_have_said(run, files, map_folder, tmp_path):
    # Four frames are too few views for a track that others may steer by: the first answer has to do.
    Settings().changed({"tracking.commit_views": 1}).write(tmp_path / "robot.yaml")
    options = ["--truth-topic", "/truth", "--params", tmp_path / "robot.yaml", "--json"]
    result = run("replay", files / "bag", "--map", map_folder, "-o", tmp_path / "o", *options)
    assert result.code == 0, result.err
    assert (result.json["queries"], result.json["answered"]) == (4, 3)
    with open_bag(tmp_path / "o" / "result.mcap") as bag:
        assert {name: topic.count for name, topic in bag.topics.items()} == {
            "/relocalizer/pose": 3,
            "/relocalizer/path": 1,
            "/relocalizer/ground_truth": 1,
            "/relocalizer/status": 4,
            "/tf": 3,
        }
        status = bag.first("/relocalizer/status").status[0]
        values = {pair.key: pair.value for pair in status.values}
        assert status.level == 0 and status.message == "localized"
        assert 0 < float(values["protection_m"]) <= float(values["alert_limit_m"])
        pose = bag.first("/relocalizer/pose")
        robot = walls.map_T_camera(0) @ se3.make(np.eye(3), [0.025, 0, 0]) @ se3.inverse(walls.BASE_T_CAMERA)
        at = pose.pose.pose.position
        assert pose.header.frame_id == "map" and np.allclose([at.x, at.y, at.z], robot[:3, 3], atol=0.05)
        correction = bag.first("/tf").transforms[0]
        assert (correction.header.frame_id, correction.child_frame_id) == ("map", "odom")
    assert len((tmp_path / "o" / "trajectory.tum").read_text().splitlines()) == 4
    assert (tmp_path / "o" / "report.html").exists()


def test_replay_goes_on_without_odometry_or_truth(run, files, map_folder, tmp_path):
    result = run(
        "replay", files / "bag", "--map", map_folder, "-o", tmp_path / "o", "--odom-frame", "none", "--every", 2
    )
    assert result.code == 0 and "localized" in result.out and "wrong accepted" not in result.out
    with open_bag(tmp_path / "o" / "result.mcap") as bag:
        assert bag.first("/tf").transforms[0].child_frame_id == "base_link"


def test_benchmark_compares_with_the_baseline_in_the_same_run(run, files, map_folder):
    options = ["--map", map_folder, "--images", files / "scene" / "seq-02", "-n", 2, "--rounds", 1, "--json"]
    figures = run("benchmark", "localize", *options, "--feature", "orb").json
    assert figures["features"].startswith("orb") and figures["queries"] == 2
    assert figures["speed_up"]["total"] == pytest.approx(
        figures["baseline"]["stages_ms"]["total"] / figures["mast3r_ros"]["stages_ms"]["total"]
    )
    large = run("benchmark", "map", "--size", 12, "--map", map_folder, "-n", 2, "--json").json
    assert large["map_keyframes"] == 12 and large["retrieval_ms"]["p50"] > 0
