"""The Map-free benchmark: parity with its own evaluation, and the layout with its peculiarities."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from golden_cases import COMPACT, case

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics
from mast3r_ros.lab.datasets.mapfree import MapFree, MapFreeScene, by_number, parse_poses
from mast3r_ros.lab.runs.mapfree_score import MapFreeScore, SceneScore, benchmark_figures, score_submission
from mast3r_ros.lab.runs.mapfree_submission import read_submission

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
    assert scene.queries == ["seq1/frame_00005.jpg", "seq1/frame_00010.jpg"]


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
    with pytest.raises(DatasetError, match=r"seq1/frame_00001.jpg is missing: expected the image of that line"):
        MapFree(data).scene("s1").frame("seq1/frame_00001.jpg")
    with pytest.raises(DatasetError, match=r"intrinsics.txt has no line 'seq1/frame_00099.jpg fx fy"):
        MapFree(data).scene("s1").frame("seq1/frame_00099.jpg")


def test_an_image_of_another_shape_than_its_intrinsics_is_refused(tmp_path: Path) -> None:
    folder = scene_of(tmp_path, truth(range(3))) / "val" / "s1"
    (folder / "seq1").mkdir()
    cv2.imwrite(str(folder / "seq1" / "frame_00001.jpg"), np.zeros((400, 600, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"frame_00001.jpg does not fit its line in intrinsics.txt: .*600x400"):
        MapFreeScene(folder).frame("seq1/frame_00001.jpg")
