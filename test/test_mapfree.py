"""The Map-free benchmark: parity with its own evaluation, the layout's peculiarities, and a run from frames to zip."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import walls
from golden_cases import COMPACT, case
from oracle import CAMERA, OracleNetwork, keyframe_poses, see
from typer.testing import CliRunner

from mast3r_ros.cli.main import app
from mast3r_ros.datasets.mapfree import MapFree, MapFreeScene, by_number, parse_poses
from mast3r_ros.errors import DatasetError, MatcherError
from mast3r_ros.evaluation import metrics
from mast3r_ros.evaluation.localization import Record
from mast3r_ros.evaluation.mapfree import run_mapfree
from mast3r_ros.evaluation.mapfree_score import MapFreeScore, SceneScore, benchmark_figures, score_submission
from mast3r_ros.evaluation.mapfree_submission import read_submission, write_submission
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.matching import create

GOLDEN = COMPACT / "mapfree"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
IDENTITY = "1 0 0 0 0 0 0"


def score(dataset: Path, submission: Path) -> MapFreeScore:
    return score_submission(MapFree(dataset), read_submission(submission))


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


# Parity


@pytest.mark.parametrize("name", EXPECTED)
def test_figures_are_those_of_the_benchmarks_own_evaluation(name: str) -> None:
    found, expected = score(GOLDEN / "dataset", GOLDEN / f"submission_{name}.zip"), EXPECTED[name]
    figures = found.figures()
    if expected["metrics"] is None:
        assert figures is None and sum(scene.failures for scene in found.scenes) == 184
        return
    assert figures == pytest.approx(expected["metrics"], rel=1e-6)
    for scene in found.scenes:
        of_scene = expected["per_scene"][scene.scene]
        assert scene.failures == of_scene["failures"]
        for column, key in enumerate(("trans_err", "rot_err", "reproj_err")):
            assert scene.errors[:, column] == pytest.approx(of_scene.get(key, []), rel=1e-6)
        assert scene.confidence == pytest.approx(of_scene.get("confidence", []))


def test_errors_of_single_poses_are_the_golden_ones() -> None:
    golden = case(GOLDEN / "units.npz")
    width, height = int(golden["W"][0]), int(golden["H"][0])
    order = [1, 2, 3, 0]
    for row in range(len(golden["vcre"])):
        found, true = (
            se3.from_quaternion(golden[f"t_{name}"][row], golden[f"q_{name}"][row][order]) for name in ("est", "gt")
        )
        assert metrics.vcre(found, true, golden["K"], width, height) == pytest.approx(golden["vcre"][row], rel=1e-6)
        turned = metrics.turn(golden["q_est"][row][order], golden["q_gt"][row][order])
        assert turned == pytest.approx(golden["rot_err_deg"][row], rel=1e-6)
        assert metrics.centre_distance(found, true) == pytest.approx(golden["trans_err"][row], rel=1e-6)


@pytest.mark.parametrize("number", range(5))
def test_precision_by_confidence_is_the_golden_one(number: int) -> None:
    golden = case(GOLDEN / "units.npz")
    inputs = golden[f"pr{number}_conf"], golden[f"pr{number}_tp"], int(golden[f"pr{number}_failures"][0])
    precision, recall = metrics.precision_by_confidence(*inputs)
    assert precision == pytest.approx(golden[f"pr{number}_precision"])
    assert recall == pytest.approx(golden[f"pr{number}_recall"], rel=1e-6)
    assert metrics.average_precision(*inputs) == pytest.approx(golden[f"pr{number}_auc"][0], rel=1e-6)


# By hand


def test_vcre_by_hand() -> None:
    points, focal = metrics.virtual_points(), 500.0
    K = np.array([[focal, 0, 2000], [0, focal, 3000], [0, 0, 1]])
    assert metrics.vcre(np.eye(4), np.eye(4), K, 4000, 6000) == 0
    # 10 cm aside moves a point at depth z by f * 0.1 / z.
    aside = se3.exp([0.1, 0, 0, 0, 0, 0])
    shift = np.mean([focal * 0.1 / z for z in (1.8, 2.1, 2.4, 2.7, 3.0, 3.3, 3.6)])
    assert metrics.vcre(aside, np.eye(4), K, 4000, 6000) == pytest.approx(shift)
    # 1000 km aside: every point leaves through the right border and is clamped to it.
    columns = focal * points[:, 0] / points[:, 2] + 2000
    far = se3.exp([1e6, 0, 0, 0, 0, 0])
    assert metrics.vcre(np.eye(4), far, K, 4000, 6000) == pytest.approx(np.mean(4000 - columns))


def test_average_precision_by_hand() -> None:
    # Right at 0.9, wrong at 0.5, one failure: precision 1 up to a third, then 1 / 2 up to two thirds.
    assert metrics.average_precision([0.5, 0.9], [False, True], 1) == pytest.approx(1 / 3 + 1 / 2 / 3)
    assert metrics.average_precision([0.5, 0.5], [False, True], 0) == pytest.approx(1 / 2)
    assert metrics.average_precision([0.5], [True]) == 1 and metrics.average_precision([], [], 3) == 0


def test_figures_where_nothing_is_answered() -> None:
    figures = benchmark_figures([SceneScore("s1", 3, [], np.zeros((0, 3)), np.zeros(0))])
    assert set(figures) == set(EXPECTED["good"]["metrics"])
    medians = {name: figure for name, figure in figures.items() if name.startswith("Average Median")}
    assert len(medians) == 3 and all(math.isnan(figure) for figure in medians.values())
    assert all(figure == 0 for name, figure in figures.items() if name not in medians)


# The layout


CAMERAS = "".join(
    f"seq{s}/frame_{n:05d}.jpg 500 500 200 300 400 600\n" for s, n in [(0, 0), *((1, n) for n in range(11))]
)


def scene_of(folder: Path, poses: str, cameras: str = CAMERAS, split: str = "val") -> Path:
    """A data set with one scene."""
    scene = folder / split / "s1"
    scene.mkdir(parents=True)
    (scene / "poses.txt").write_text(poses)
    (scene / "intrinsics.txt").write_text(cameras)
    return folder


def truth(numbers: range) -> str:
    lines = [f"seq0/frame_00000.jpg {IDENTITY}\n", *(f"seq1/frame_{n:05d}.jpg 1 0 0 0 {n} 0 0\n" for n in numbers)]
    return "".join(lines)


def test_every_fifth_entry_counts_and_query_0_takes_the_place_of_the_reference(tmp_path: Path) -> None:
    scene = MapFree(scene_of(tmp_path, truth(range(11)))).scene("s1")
    assert list(scene.evaluated.values()) == [f"seq1/frame_{n:05d}.jpg" for n in (0, 5, 10)]
    assert len(scene.poses) == 12 and len(by_number(scene.poses)) == 11
    assert by_number(scene.poses)[0].name == "seq1/frame_00000.jpg"


def test_without_query_0_the_reference_counts_as_an_entry(tmp_path: Path) -> None:
    scene = MapFree(scene_of(tmp_path, truth(range(1, 11)))).scene("s1")
    assert list(scene.evaluated) == [0, 5, 10] and scene.evaluated[0] == "seq0/frame_00000.jpg"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("seq1/frame_00005.jpg 1 0 0 0 0 0 0", "8 fields"),
        ("seq1/frame_00005.jpg  1 0 0 0 0 0 0 1", "10 fields"),
        ("seq1/#rame_00005.jpg 1 0 0 0 0 0 0 1", "a comment"),
        ("seq1/frame_000x5.jpg 1 0 0 0 0 0 0 1", "invalid literal"),
        ("seq1/frame_00005.jpg 1 0 0 0 0 inf 0 1", "NaN or infinity"),
        ("seq1/frame_00005.jpg 1 0 0 0 0 0 0 nan", "NaN or infinity"),
        ("seq1/frame_00005.jpg 0 0 0 0 0 0 0 1", "quaternion is zero"),
        ("seq1/frame_00005.jpg one 0 0 0 0 0 0 1", "could not convert"),
        ("", "1 fields"),
    ],
)
def test_lines_that_the_benchmark_ignores_are_left_out_and_told(line: str, reason: str) -> None:
    good = "seq1/frame_00005.jpg 2 0 0 0 0 0 3 7"
    poses, complaints = parse_poses(f"{good}\n{line}\n# comment\n", "pose_s1.txt", with_confidence=True)
    assert [(pose.number, pose.confidence) for pose in poses] == [(5, 7.0)]
    assert poses[0].xyzw.tolist() == [0, 0, 0, 1] and poses[0].world_T_camera[2, 3] == -3
    assert len(complaints) == 1 and "pose_s1.txt, line 2" in complaints[0] and reason in complaints[0]


def test_a_missing_scene_counts_with_all_frames_and_an_empty_file_with_every_fifth(tmp_path: Path) -> None:
    data = scene_of(tmp_path, truth(range(11)))
    assert score(data, zipped(tmp_path / "a.zip", {"pose_s2.txt": ""})).scenes[0].failures == 11
    assert score(data, zipped(tmp_path / "b.zip", {"pose_s1.txt": ""})).scenes[0].failures == 3
    one = score(data, zipped(tmp_path / "c.zip", {"pose_s1.txt": "seq1/frame_00005.jpg 1 0 0 0 5 0 0 2"}))
    assert one.figures()["Precision @ VCRE < 90px"] == pytest.approx(1 / 3)
    assert one.figures()["AUC @ VCRE < 90px"] == pytest.approx(1 / 3)
    assert np.isnan(one.intervals()["AUC @ VCRE < 90px"]).all()  # one scene says nothing of others
    assert [record.accepted for record in one.records] == [False, True, False]


def test_the_last_line_of_a_frame_counts(tmp_path: Path) -> None:
    lines = "seq1/frame_00005.jpg 1 0 0 0 99 0 0 2\nseq1/frame_00005.jpg 1 0 0 0 5 0 0 1\n"
    found = score(scene_of(tmp_path, truth(range(11))), zipped(tmp_path / "s.zip", {"pose_s1.txt": lines}))
    assert found.scenes[0].errors[0, 0] == 0 and found.scenes[0].confidence.tolist() == [1.0]


def test_intrinsics_are_those_of_the_frame_and_the_size_is_that_of_the_last_line(tmp_path: Path) -> None:
    cameras = CAMERAS + "seq1/frame_00011.jpg 100 100 50 60 100 120\n"
    scene = MapFree(scene_of(tmp_path, truth(range(11)), cameras)).scene("s1")
    camera = scene.intrinsics(5)
    assert (camera.fx, camera.cx, camera.width, camera.height) == (500, 200, 100, 120)
    with pytest.raises(DatasetError, match=r"intrinsics.txt has no line of frame 77"):
        scene.intrinsics(77)


@pytest.mark.parametrize(
    ("poses", "cameras", "message"),
    [
        ("nothing\n", CAMERAS, r"poses.txt has no pose: expected lines 'seq1/frame_00000.jpg qw qx"),
        (truth(range(3)), "", r"intrinsics.txt is empty: expected lines"),
        (truth(range(3)), "seq1/frame_00000.jpg 1 2\n", r"intrinsics.txt, line 1: expected 'fx fy cx cy width height'"),
        (truth(range(3)), "a.jpg 500 500 200 300 400 600\n", r"line 1: 'a.jpg' is no image like seq0/frame_00000.jpg"),
        (truth(range(3)), "seq1/frame_00000.jpg -5 5 2 3 4 6\n", r"line 1: focal lengths"),
    ],
)
def test_malformed_files_are_named_with_what_was_expected(
    tmp_path: Path, poses: str, cameras: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        MapFree(scene_of(tmp_path, poses, cameras)).scene("s1")


def test_missing_things_are_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'val': expected .*val/s00000/ with intrinsics.txt"):
        MapFree(tmp_path)
    with pytest.raises(DatasetError, match="unknown split 'dev': use train, val, test"):
        MapFree(tmp_path, "dev")
    (tmp_path / "val" / ".cache").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has no scenes"):
        MapFree(tmp_path)
    (tmp_path / "val" / "s1").mkdir()
    with pytest.raises(DatasetError, match=r"s1/intrinsics.txt cannot be read"):
        MapFree(tmp_path).scene("s1")
    with pytest.raises(DatasetError, match=r"expected a zip with pose_<scene>.txt"):
        read_submission(tmp_path / "missing.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DatasetError, match=r"text.zip is no submission"):
        read_submission(tmp_path / "text.zip")
    data = scene_of(tmp_path / "data", truth(range(3)))
    with pytest.raises(DatasetError, match=r"seq1/frame_00001.jpg cannot be read"):
        MapFree(data).scene("s1").frame("seq1/frame_00001.jpg")
    with pytest.raises(DatasetError, match=r"intrinsics.txt has no line 'seq1/frame_00099.jpg fx fy"):
        MapFree(data).scene("s1").frame("seq1/frame_00099.jpg")


def test_an_image_of_another_shape_than_its_intrinsics_is_refused(tmp_path: Path) -> None:
    folder = scene_of(tmp_path, truth(range(3))) / "val" / "s1"
    (folder / "seq1").mkdir()
    cv2.imwrite(str(folder / "seq1" / "frame_00001.jpg"), np.zeros((400, 600, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"frame_00001.jpg does not fit its line in intrinsics.txt: .*600x400"):
        MapFreeScene(folder).frame("seq1/frame_00001.jpg")


# From frames to zip

REFERENCE = keyframe_poses()[1]


def room(
    folder: Path, split: str = "val", see_from: Callable[[np.ndarray], Frame] = see, camera: Camera = CAMERA
) -> Path:
    """A scene in the room whose colours are coordinates; only the frames that are evaluated have an image."""
    cameras, poses = [], []
    intrinsics = f"{camera.fx} {camera.fy} {camera.cx} {camera.cy} {camera.width} {camera.height}"
    for sequence, number in [(0, 0), *((1, n) for n in range(11))]:
        name = f"seq{sequence}/frame_{number:05d}.jpg"
        moved = se3.exp(np.array([0.2, 0.1, 0.1, 0.02, 0.05, 0.02]) * (number / 5 - 1)) if sequence else np.eye(4)
        camera_T_reference = se3.inverse(moved)
        x, y, z, w = se3.quaternion(camera_T_reference)
        numbers = " ".join(f"{value:.12f}" for value in (w, x, y, z, *camera_T_reference[:3, 3]))
        poses.append(f"{name} {numbers}\n")
        cameras.append(f"{name} {intrinsics}\n")
        if number % 5 == 0:
            file = folder / split / "s1" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
            cv2.imwrite(str(file), see_from(REFERENCE @ moved).image[..., ::-1], options)
    (folder / split / "s1" / "poses.txt").write_text("".join(poses if split == "val" else poses[:0]))
    (folder / split / "s1" / "intrinsics.txt").write_text("".join(cameras))
    return folder


def oracle_matcher():
    network = OracleNetwork(se3.inverse(REFERENCE))
    return create("mast3r", checkpoint=network, size=160, dtype="float32", device="cpu")


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
        folder = scene_of(
            tmp_path, truth(range(1)), CAMERAS.replace("500 500 200 300 400 600", "525 525 320 240 640 480")
        )
        for sequence in (0, 1):
            (folder / "val" / "s1" / f"seq{sequence}").mkdir()
            file = folder / "val" / "s1" / f"seq{sequence}" / "frame_00000.jpg"
            cv2.imwrite(str(file), walls.image(0)[..., ::-1])
        depth = folder / "depth" / "s1" / "seq0" / "frame_00000.sensor.png"
        depth.parent.mkdir(parents=True)
        cv2.imwrite(str(depth), (1000 * walls.depth()).astype(np.uint16))
        return folder

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
        submission = zipped(wall / "s.zip", {"pose_s1.txt": "seq1/frame_00000.jpg 1 0 0 0 9 0 0 1"})
        options = [wall, "--submission", submission, "--reference-depth", wall / "depth", "--matcher", "sift"]
        assert mapfree(*options)["wrong_accepted"] == 1
        assert mapfree(*options, "--overwrite")["wrong_accepted"] == 0
        assert mapfree(*options)["wrong_accepted"] == 0

    def test_no_valid_pose_has_no_metrics(self) -> None:
        found = mapfree(GOLDEN / "dataset", "--submission", GOLDEN / "submission_empty.zip")
        assert found["metrics"] is None and found["answered"] == 0 and found["complaints"]

    def test_a_split_that_is_not_evaluated_is_wrong_usage(self, wall: Path) -> None:
        files = [str(wall), "--submission", str(wall / "s.zip"), "--split", "train"]
        result = CliRunner().invoke(app, ["evaluate", "mapfree", *files])
        assert result.exit_code == 2 and "val and test" in result.stderr

    def test_for_people(self) -> None:
        files = [str(GOLDEN / "dataset"), "--submission", str(GOLDEN / "submission_drop_scene.zip")]
        result = CliRunner().invoke(app, ["evaluate", "mapfree", *files])
        assert "AUC @ VCRE < 90px" in result.stdout and "0.301" in result.stdout
        assert "s00460 has no pose file: all 60 frames" in result.stderr and "s99999" in result.stderr


def mapfree(*arguments: object) -> dict:
    """What the command prints as JSON."""
    result = CliRunner().invoke(app, ["evaluate", "mapfree", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
