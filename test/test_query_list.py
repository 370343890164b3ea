"""Query lists with cameras and poses as Aachen and Cambridge have them, and the submission file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import walls

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.datasets.query_list import QueryList, read_poses, write_poses
from mast3r_ros.mapping.keyframe_map import KeyframeMap

NAMES = {"day/0.png": 0, "day/1.png": 1, "night/99.png": walls.UNKNOWN}
#: walls.CAMERA as COLMAP counts pixels, from the corner of the first one.
CAMERA = "PINHOLE 640 480 525 525 320.5 240.5"


def world_to_camera(number: int) -> str:
    pose = se3.inverse(walls.map_T_camera(number))
    x, y, z, w = se3.quaternion(pose)
    return " ".join(f"{value:.12f}" for value in (w, x, y, z, *pose[:3, 3]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, a list with cameras, and true poses of all but the last."""
    for name, number in NAMES.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), walls.image(number)[..., ::-1])
    (tmp_path / "queries.txt").write_text("".join(f"{name} {CAMERA}\n" for name in NAMES))
    known = [(name, number) for name, number in NAMES.items() if number != walls.UNKNOWN]
    (tmp_path / "truth.txt").write_text("".join(f"{name} {world_to_camera(number)}\n" for name, number in known))
    return tmp_path


def write_model(folder: Path) -> Path:
    """A COLMAP model with the camera and the poses of the first two queries."""
    folder.mkdir()
    (folder / "cameras.txt").write_text(f"1 {CAMERA}\n")
    lines = [f"{n + 1} {world_to_camera(n)} 1 day/{n}.png\n\n" for n in (0, 1)]
    (folder / "images.txt").write_text("".join(lines))
    return folder


def test_queries_come_with_cameras_and_with_poses_where_these_are_known(folder):
    queries = QueryList(folder / "queries.txt", folder / "images", poses=folder / "truth.txt")
    assert len(queries) == 3
    first, second, third = queries
    assert isinstance(first, PosedFrame) and isinstance(second, PosedFrame) and isinstance(third, Frame)
    np.testing.assert_allclose(second.map_T_camera, walls.map_T_camera(1), atol=1e-9)
    assert third.name == "night/99.png" and third.camera is not None and third.camera.same_as(walls.CAMERA)
    np.testing.assert_array_equal(first.frame.image, walls.image(0))


def test_names_alone_take_their_cameras_from_a_colmap_model(folder):
    model = write_model(folder / "model")
    (folder / "names.txt").write_text("day/0.png\nday/1.png\n")
    first, second = QueryList(folder / "names.txt", folder / "images", cameras=model, poses=model)
    assert isinstance(first, PosedFrame) and isinstance(second, PosedFrame)
    assert second.frame.camera is not None and second.frame.camera.same_as(walls.CAMERA)
    np.testing.assert_allclose(second.map_T_camera, walls.map_T_camera(1), atol=1e-9)


def test_cambridge_lists_hold_the_centre_of_the_camera(folder):
    rows = []
    for number in (0, 1):
        pose = walls.map_T_camera(number)
        x, y, z, w = se3.quaternion(se3.inverse(pose))
        rows.append(" ".join(map(str, (f"day/{number}.png", *pose[:3, 3], w, x, y, z))))
    text = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n" + "\n".join(rows) + "\n"
    (folder / "dataset_test.txt").write_text(text)
    poses = read_poses(folder / "dataset_test.txt")
    np.testing.assert_allclose(poses["day/1.png"], walls.map_T_camera(1), atol=1e-9)
    # The same file is a list of queries.
    queries = QueryList(folder / "dataset_test.txt", folder / "images", write_model(folder / "model"))
    assert [query.name for query in queries.queries] == ["day/0.png", "day/1.png"]
    (folder / "dataset_test.txt").write_text(text + "day/2.png 1 2 3\n")
    with pytest.raises(DatasetError, match=r"dataset_test\.txt, line 6: expected 'name X Y Z W P Q R', got 4"):
        read_poses(folder / "dataset_test.txt")


def test_poses_come_back_from_the_file_they_are_written_to(tmp_path):
    poses = [("query/day/a.jpg", se3.exp([1, -2, 3, 0.1, 0.2, -3.0])), ("query/b.jpg", np.eye(4))]
    write_poses(tmp_path / "out" / "poses.txt", poses, scale=2.0)
    back = read_poses(tmp_path / "out" / "poses.txt", scale=2.0)
    for name, pose in poses:
        np.testing.assert_allclose(back[name], pose, atol=1e-7)
    halved = read_poses(tmp_path / "out" / "poses.txt")
    np.testing.assert_allclose(halved["query/day/a.jpg"][:3, 3], [0.5, -1, 1.5], atol=1e-7)
    write_poses(tmp_path / "short.txt", poses, base_names=True)
    first = (tmp_path / "short.txt").read_text().splitlines()
    assert [line.split()[0] for line in first] == ["a.jpg", "b.jpg"]
    assert first[1].split()[1:] == [f"{value:.9f}" for value in (1, 0, 0, 0, 0, 0, 0)]


def test_lists_and_poses_say_what_is_wrong(folder):
    queries, images = folder / "queries.txt", folder / "images"
    for text, match in (
        ("day/0.png PINHOLE 640 480 525\n", "line 1: PINHOLE has parameters 'fx fy cx cy', got 1"),
        ("\nday/0.png FOV 640 480 525 1 2\n", "line 2: camera model FOV"),
        ("day/0.png PINHOLE 640 wide 525 1 2\n", "line 1: expected 'width height parameter1.*wide"),
        ("day/0.png PINHOLE\n", "line 1: expected 'name MODEL width height parameters' or only a name, got 2"),
        ("day/0.png\n", r"line 1: day/0\.png comes without a camera: give the COLMAP model .*--cameras"),
        ("# none\n", r"queries\.txt is empty: expected lines 'name MODEL"),
        (f"day/7.png {CAMERA}\n", r"day/7\.png does not exist .1 of 1 images are missing"),
    ):
        queries.write_text(text)
        with pytest.raises(DatasetError, match=match):
            QueryList(queries, images)
    queries.write_text("night/99.png\n")
    with pytest.raises(DatasetError, match="it is not in the COLMAP model"):
        QueryList(queries, images, cameras=write_model(folder / "model"))
    queries.write_text(f"night/99.png {CAMERA}\n")
    with pytest.raises(DatasetError, match=r"truth\.txt has poses of other images: it knows day/0\.png"):
        QueryList(queries, images, poses=folder / "truth.txt")
    queries.write_text("night/99.png PINHOLE 480 640 525 525 320 240\n")
    with pytest.raises(DatasetError, match=r"night/99\.png in the list queries: the image is 640x480"):
        list(QueryList(queries, images))
    for text, match in (
        ("day/0.png 1 0 0 0 0 0\n", "line 1: expected 'name qw qx qy qz tx ty tz', got 7"),
        ("day/0.png 0 0 0 0 0 0 0\n", "line 1: quaternion is zero"),
        ("", r"bad\.txt is empty"),
    ):
        (folder / "bad.txt").write_text(text)
        with pytest.raises(DatasetError, match=match):
            read_poses(folder / "bad.txt")
    with pytest.raises(DatasetError, match=r"images has no COLMAP model"):
        read_poses(images)


def test_evaluate_queries_writes_a_submission(folder, run):
    keyframe_map = KeyframeMap()
    for number in range(3):
        keyframe_map.add(walls.posed(number), f"wall{number}")
    keyframe_map.save(folder / "map")

    def evaluated(*arguments: object) -> tuple[dict, str]:
        common = (folder / "queries.txt", "--map", folder / "map", "--images", folder / "images", "--json")
        result = run("evaluate", "queries", *common, *arguments)
        assert result.code == 0, result.err
        return result.json, result.err

    output = folder / "poses.txt"
    summary, err = evaluated("--ground-truth", folder / "truth.txt", "-o", output, "--base-names")
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (3, 2, 0)
    # Recall is over the two queries whose truth is known, at the thresholds of the benchmark.
    for name in ("0.25m_2deg", "0.50m_5deg", "5.00m_10deg"):
        assert summary["recall"][name] == 1.0
    assert "2 of 3 queries" in err
    poses = read_poses(output)
    assert set(poses) == {"0.png", "1.png"}
    metres, degrees = se3.pose_error(poses["1.png"], walls.map_T_camera(1))
    assert metres < 0.02 and degrees < 0.3
    # Without ground truth there are poses, but no errors.
    summary, _ = evaluated("-o", output)
    assert summary["answered"] == 2 and summary["median_translation_error_m"] is None
    assert set(read_poses(output)) == {"day/0.png", "day/1.png"}
