"""`mast3r_ros evaluate photos`: folders of photographs with poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_map_build import CAMERA, sideways, view, wall  # noqa: F401  # a fixture
from test_scene_evaluations import run  # noqa: F401  # a fixture

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.photos import Photos, evaluate_photos, map_of_photos
from mast3r_ros.lab.runs.results import record_dict, record_of
from mast3r_ros.matching.registry import create

PLACES = {"map": (-0.5, -0.2, 0.1, 0.4, 0.7), "query": (-0.35, 0.25)}


def write_set(folder: Path, picture: NDArray[np.uint8]) -> Path:
    """Seven views of a wall, RGB only."""
    (folder / "images").mkdir(parents=True)
    poses, split = [], []
    for role, places in PLACES.items():
        for number, x in enumerate(places):
            name, pose = f"{role}{number}.png", sideways(x, -6 * x)
            image = view(picture, pose, depth=False).frame.image
            cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
            qx, qy, qz, qw = se3.quaternion(pose)
            poses.append(" ".join(f"{v:.9f}" for v in (qw, qx, qy, qz, *pose[:3, 3])))
            poses[-1] = f"{name} {poses[-1]}"
            split.append(f"{role} {name} - - - tag")
    (folder / "poses.txt").write_text("# name qw qx qy qz tx ty tz\n" + "\n".join(poses) + "\n")
    (folder / "intrinsics.txt").write_text(f"320 240 {CAMERA.fx} {CAMERA.fy} {CAMERA.cx} {CAMERA.cy}\n")
    (folder / "split.txt").write_text("# role name nearest angle distance tag\n" + "\n".join(split) + "\n")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, wall: NDArray[np.uint8]) -> Path:  # noqa: F811
    return write_set(tmp_path_factory.mktemp("photos") / "wall", wall)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, wall: NDArray[np.uint8]) -> Path:  # noqa: F811
    noise = np.random.default_rng(5).integers(0, 255, wall.shape).astype(np.uint8)
    return write_set(tmp_path_factory.mktemp("other") / "noise", cv2.GaussianBlur(noise, (0, 0), 3))


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_queries_are_found_and_strangers_are_not(photos: Path, elsewhere: Path, scale: float) -> None:
    matcher = create("sift", max_features=600)
    with map_of_photos(photos, matcher, scale=scale) as keyframe_map:
        evaluation, _ = evaluate_photos(photos, keyframe_map, matcher, negatives=elsewhere, scale=scale)
    summary = evaluation.summary()
    assert (summary["queries"], summary["negatives"], summary["negatives_accepted"]) == (9, 7, 0)
    assert summary["recall"]["0.05m_5deg"] == summary["ungated_recall"]["0.05m_5deg"] == 1.0
    assert summary["recall"].keys() == summary["ungated_recall"].keys()
    assert summary["wrong_accepted"] == 0 and summary["median_translation_error_m"] < 0.03 * scale
    assert summary["scene_depth_m"] == pytest.approx(3 * scale, rel=0.1)
    protection = summary["protection"]
    assert protection["available"] == 1.0 and protection["hmi"] == 0 and protection["integrity_risk"] == 1e-3
    again = record_of(record_dict(evaluation.records[0]))
    assert again.unit_m == scale and again.bounds == pytest.approx(evaluation.records[0].bounds)


def test_a_set_that_cannot_be_read_names_file_line_and_layout(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder of photographs"):
        Photos(tmp_path / "nowhere", "map")
    for text, words in (
        ("train map0.png", "line 1: expected 'map.query name"),
        ("map map0.png\nquery missing.png", "line 2: poses.txt has no pose of 'missing.png'"),
        ("map map0.png\nquery map0.png", "line 2: 'map0.png' is listed twice"),
        ("map map0.png", "lists no query image"),
    ):
        for name in ("images", "poses.txt", "intrinsics.txt"):
            if not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(photos / name)
        (tmp_path / "split.txt").write_text(text)
        with pytest.raises(DatasetError, match=words):
            Photos(tmp_path, "map")
    assert len(Photos(photos)) == 7, "without a role every image, with or without split.txt"


def test_the_command_prints_the_contract(photos: Path, run: Any) -> None:  # noqa: F811
    code, found, words = run("photos", photos, "--matcher", "sift", "--no-depth", "--scale", 0.1)
    assert code == 0, words
    assert found["answered"] == found["queries"] == 2
    assert {"ungated_recall", "protection", "scene_depth_m", "recall"} <= set(found)
    assert found["scene_depth_m"] == pytest.approx(0.3, rel=0.1)
