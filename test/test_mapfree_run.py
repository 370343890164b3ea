"""The Map-free benchmark from frames to zip: a matcher runs on a data set on disk, and the zip is scored."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import walls
from command_line import separate_runner
from golden_cases import COMPACT
from oracle import CAMERA, OracleNetwork, keyframe_poses, see
from PIL import Image

from mast3r_ros.cli.main import app
from mast3r_ros.errors import DatasetError, MatcherError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.datasets.mapfree import MapFree, MapFreeScene
from mast3r_ros.lab.runs.mapfree import run_mapfree
from mast3r_ros.lab.runs.mapfree_score import score_submission
from mast3r_ros.lab.runs.mapfree_submission import read_submission, write_submission
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.matching import create

GOLDEN = COMPACT / "mapfree"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
REFERENCE = keyframe_poses()[1]


def room(folder: Path, split: str = "val") -> Path:
    """A scene in the room whose colours are coordinates; only the frames that are evaluated have an image."""
    scene = folder / split / "s1"
    cameras, poses = "", ""
    for sequence, number in [(0, 0), *((1, n) for n in range(11))]:
        name = f"seq{sequence}/frame_{number:05d}.jpg"
        moved = se3.exp(np.array([0.2, 0.1, 0.1, 0.02, 0.05, 0.02]) * (number / 5 - 1)) if sequence else np.eye(4)
        x, y, z, w = se3.quaternion(se3.inverse(moved))
        poses += " ".join([name, *(f"{v:.12f}" for v in (w, x, y, z, *se3.inverse(moved)[:3, 3]))]) + "\n"
        cameras += f"{name} {CAMERA.fx} {CAMERA.fy} {CAMERA.cx} {CAMERA.cy} {CAMERA.width} {CAMERA.height}\n"
        if number % 5 == 0:
            (scene / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(see(REFERENCE @ moved).image).save(scene / name, quality=100, subsampling=0)
    (scene / "intrinsics.txt").write_text(cameras)
    if split != "test":
        (scene / "poses.txt").write_text(poses)
    return folder


def oracle_matcher():
    network = OracleNetwork(se3.inverse(REFERENCE))
    return create("mast3r", checkpoint=network, size=160, dtype="float32", device="cpu")


def test_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = room(tmp_path) / "val" / "s1"
    with pytest.raises(DatasetError, match=r"the depth given for .*seq0/frame_00000.jpg does not fit it"):
        MapFreeScene(folder).frame("seq0/frame_00000.jpg", np.ones((3, 4), np.float32))


def test_a_run_writes_a_submission_that_the_scorer_reads(tmp_path: Path) -> None:
    dataset = MapFree(room(tmp_path))
    records = run_mapfree(dataset, oracle_matcher())["s1"]
    assert [record.name for record in records] == [f"s1/seq1/frame_{n:05d}.jpg" for n in (0, 5, 10)]
    assert all(record.accepted for record in records), [record.detail for record in records]
    write_submission(tmp_path / "out" / "s.zip", {"s1": records})
    scored = score_submission(dataset, read_submission(tmp_path / "out" / "s.zip"))
    assert scored.complaints == [] and scored.scenes[0].failures == 0
    assert scored.scenes[0].errors[:, 0].max() < 0.1 and scored.figures()["AUC @ VCRE < 90px"] == 1.0
    for record, again in zip(records, scored.records, strict=True):
        assert again.map_T_camera == pytest.approx(record.map_T_camera, abs=1e-7)
        assert (again.name, again.stamp_ns, again.group) == (record.name, record.stamp_ns, record.group)
        assert again.truth == pytest.approx(record.truth) and again.viewpoint_m == record.viewpoint_m
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["s.zip"]


def test_what_is_missing_is_told_before_anything_runs(tmp_path: Path) -> None:
    (room(tmp_path) / "val" / "s1" / "seq1" / "frame_00010.jpg").unlink()
    told = []
    with pytest.raises(DatasetError, match=r"seq1/frame_00010.jpg is missing"):
        run_mapfree(MapFree(tmp_path), oracle_matcher(), watch=lambda *result: told.append(result))
    assert not told


def test_without_public_truth_a_submission_is_written_but_not_scored(tmp_path: Path) -> None:
    dataset = MapFree(room(tmp_path, "test"), "test")
    records = run_mapfree(dataset, oracle_matcher())
    assert len(records["s1"]) == 3 and records["s1"][0].truth is None
    write_submission(tmp_path / "s.zip", records)
    submission = read_submission(tmp_path / "s.zip")
    assert list(submission.poses["s1"]) == [0, 5, 10]
    with pytest.raises(DatasetError, match="ground truth of split 'test' is not public"):
        score_submission(dataset, submission)


def test_rejected_poses_are_left_out_or_ranked_last(tmp_path: Path) -> None:
    found = Record("s1/seq1/frame_00000.jpg", 0, True, map_T_camera=np.eye(4), confidence=0.7)
    lost = Record("s1/seq1/frame_00005.jpg", 0, False, "uncertain", map_T_camera=np.eye(4), confidence=0.9)
    none = Record("s1/seq1/frame_00010.jpg", 0, False, "no_pose")
    write_submission(tmp_path / "s.zip", {"s1": [found, lost, none], "s2": [none]})
    submission = read_submission(tmp_path / "s.zip")
    assert list(submission.poses["s1"]) == [0] and submission.poses["s2"] == {} and not submission.complaints
    write_submission(tmp_path / "s.zip", {"s1": [found, lost, none]}, rejected=True)
    ranked = read_submission(tmp_path / "s.zip").poses["s1"]
    assert [(number, pose.confidence) for number, pose in ranked.items()] == [(0, 0.7), (5, 0.0)]


def test_a_matcher_without_metres_needs_the_references_depth(tmp_path: Path) -> None:
    dataset = MapFree(room(tmp_path))
    with pytest.raises(MatcherError, match="--reference-depth"):
        run_mapfree(dataset, create("sift"))
    (tmp_path / "depth" / "s1" / "seq0").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"has nothing: expected one depth image .*frame_00000.png"):
        run_mapfree(dataset, create("sift"), tmp_path / "depth")


class TestCommand:
    @pytest.fixture
    def wall(self, tmp_path: Path) -> Path:
        """Every query shows the reference's wall from its place; so the truth is where queries stand still."""
        scene = tmp_path / "val" / "s1"
        names = ["seq0/frame_00000.jpg", "seq1/frame_00000.jpg"]
        for name in names:
            (scene / name).parent.mkdir(parents=True)
            cv2.imwrite(str(scene / name), walls.image(0)[..., ::-1])
        (scene / "poses.txt").write_text("".join(f"{name} 1 0 0 0 0 0 0\n" for name in names))
        (scene / "intrinsics.txt").write_text("".join(f"{name} 525 525 320 240 640 480\n" for name in names))
        depth = tmp_path / "depth" / "s1" / "seq0" / "frame_00000.sensor.png"
        depth.parent.mkdir(parents=True)
        cv2.imwrite(str(depth), (1000 * walls.depth()).astype(np.uint16))
        return tmp_path

    def test_a_missing_zip_is_written_and_scored_then_scored_as_it_is(self, wall: Path) -> None:
        options = [wall, "--submission", wall / "s.zip", "--reference-depth", wall / "depth", "--matcher", "sift"]
        first, again = mapfree(*options), mapfree(wall, "--submission", wall / "s.zip")
        assert first["metrics"]["Precision @ Pose Error < (25.0cm, 5deg)"] == 1.0 == first["recall"]["0.05m_5deg"]
        assert first["metrics"] == again["metrics"] and first["fingerprint"] == again["fingerprint"]
        assert (first["queries"], first["answered"], first["wrong_accepted"]) == (1, 1, 0)
        assert first["settings"]["matcher"] == "sift" and "matcher" not in again["settings"]
        assert first["latency_ms"]["p50"] > 0 and again["latency_ms"]["p50"] is None

    def test_a_report_of_a_run_and_of_a_zip(self, wall: Path) -> None:
        options = [wall, "--submission", wall / "s.zip", "--reference-depth", wall / "depth", "--matcher", "sift"]
        mapfree(*options, "--report", wall / "run")
        mapfree(GOLDEN / "dataset", "--submission", GOLDEN / "submission_good.zip", "--report", wall / "zip")
        run, scored = ((wall / name / "report.html").read_text() for name in ("run", "zip"))
        assert "AUC @ VCRE &lt; 90px" in run and "AUC @ VCRE &lt; 90px" in scored and "s00461" in scored
        assert "<img" in run and "<img" not in scored  # only a run has pictures
        assert json.loads((wall / "zip" / "summary.json").read_text())["metrics"] == pytest.approx(
            EXPECTED["good"]["metrics"], rel=1e-6
        )
        assert len((wall / "zip" / "records.jsonl").read_text().splitlines()) == 38

    def test_an_existing_zip_is_only_replaced_when_told_so(self, wall: Path) -> None:
        submission = wall / "s.zip"
        with zipfile.ZipFile(submission, "w") as archive:
            archive.writestr("pose_s1.txt", "seq1/frame_00000.jpg 1 0 0 0 9 0 0 1")
        options = [wall, "--submission", submission, "--reference-depth", wall / "depth", "--matcher", "sift"]
        assert mapfree(*options)["wrong_accepted"] == 1
        assert mapfree(*options, "--overwrite")["wrong_accepted"] == 0
        assert mapfree(*options)["wrong_accepted"] == 0

    def test_no_valid_pose_has_no_metrics(self) -> None:
        found = mapfree(GOLDEN / "dataset", "--submission", GOLDEN / "submission_empty.zip")
        assert found["metrics"] is None and found["answered"] == 0 and found["complaints"]

    def test_a_split_that_is_not_evaluated_is_wrong_usage(self, wall: Path) -> None:
        files = [str(wall), "--submission", str(wall / "s.zip"), "--split", "train"]
        result = separate_runner().invoke(app, ["evaluate", "mapfree", *files])
        assert result.exit_code == 2 and "val and test" in result.stderr

    def test_for_people(self) -> None:
        files = [str(GOLDEN / "dataset"), "--submission", str(GOLDEN / "submission_drop_scene.zip")]
        result = separate_runner().invoke(app, ["evaluate", "mapfree", *files])
        assert "AUC @ VCRE < 90px" in result.stdout and "0.301" in result.stdout
        assert "s00460 has no pose file: all 60 frames" in result.stderr and "s99999" in result.stderr


def mapfree(*arguments: object) -> dict:
    """What the command prints as JSON."""
    result = separate_runner().invoke(app, ["evaluate", "mapfree", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
