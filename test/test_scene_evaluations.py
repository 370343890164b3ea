"""12-Scenes and TUM RGB-D: tiny data sets in their original layouts, read and evaluated by their commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import walls
from command_line import Result

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets import FrameList, open_source
from mast3r_ros.io.datasets.twelvescenes import TwelveScenes
from mast3r_ros.lab.runs.tum import TumSplit


@pytest.fixture
def run(run: Callable[..., Result]) -> Callable[..., tuple[int, Any, str]]:
    """`mast3r_ros evaluate ...` in this process: exit code, what --json printed (or None), standard error."""

    def call(*arguments: object) -> tuple[int, Any, str]:
        result = run("evaluate", *arguments, "--json")
        return result.code, result.json if result.out else None, result.err

    return call


# 12-Scenes

INFO = """m_versionNumber = 4
m_sensorName = StructureSensor
m_colorWidth = 640
m_colorHeight = 480
m_depthWidth = 320
m_depthHeight = 240
m_depthShift = 1000
m_calibrationColorIntrinsic = 525 0 320 0 0 525 240 0 0 0 1 0 0 0 0 1
m_calibrationColorExtrinsic = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
m_calibrationDepthIntrinsic = 262.5 0 159.75 0 0 262.5 119.75 0 0 0 1 0 0 0 0 1
m_calibrationDepthExtrinsic = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1
m_frames.size = 8
"""


def write_twelvescenes(scene: Path, numbers: tuple[int, ...] = (0, 1, walls.UNKNOWN, 2, 0, 1, 2)) -> Path:
    """A test sequence of four frames, the last without a pose, and a training sequence of the walls."""
    data = scene / "data"
    data.mkdir(parents=True)
    for frame, wall in enumerate(numbers):
        stem = f"{data}/frame-{frame:06d}"
        cv2.imwrite(f"{stem}.color.jpg", walls.image(wall)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
        depth = cv2.resize(walls.depth(), (320, 240), interpolation=cv2.INTER_AREA)
        cv2.imwrite(f"{stem}.depth.png", np.rint(1000 * depth).astype(np.uint16))
        np.savetxt(f"{stem}.pose.txt", walls.map_T_camera(wall))
    (data / "frame-000003.pose.txt").write_text("-INF -INF -INF -INF\n" * 4)
    (scene / "info.txt").write_text(INFO)
    (scene / "split.txt").write_text("sequence0 [frames=4] [start=0 ; end=3]\nsequence1 [frames=3] [start=4 ; end=6]\n")
    return scene


def test_twelvescenes_is_read_with_its_split_and_lost_frames_left_out(tmp_path):
    scene = write_twelvescenes(tmp_path / "apt1" / "kitchen")
    source = open_source(scene)
    assert isinstance(source, TwelveScenes) and len(source) == 6 and source.name == "apt1/kitchen"
    test, train = TwelveScenes(scene, "test"), TwelveScenes(scene, "train")
    assert [posed.frame.name for posed in test] == [f"frame-{n:06d}" for n in (0, 1, 2)]
    assert [posed.frame.name for posed in train] == [f"frame-{n:06d}" for n in (4, 5, 6)]
    np.testing.assert_allclose(train[1].map_T_camera, walls.map_T_camera(1), atol=1e-9)
    frame = train[0].frame
    assert frame.camera is not None and frame.camera.same_as(walls.CAMERA)
    # Depth has half the resolution: it fills the colour image without holes, at the right distances.
    assert frame.depth is not None and frame.depth.shape == (480, 640)
    assert (frame.depth > 0).mean() > 0.99
    known = frame.depth > 0
    assert np.abs(frame.depth - walls.depth())[known].max() < 0.02
    assert TwelveScenes(scene, use_depth=False)[0].frame.depth is None


def test_twelvescenes_extrinsics_move_depth_to_the_colour_camera(tmp_path):
    scene = write_twelvescenes(tmp_path / "scene")
    shifted = INFO.replace("DepthExtrinsic = 1 0 0 0", "DepthExtrinsic = 1 0 0 0.1")
    (scene / "info.txt").write_text(shifted)
    posed = TwelveScenes(scene)[0]
    # The depth camera sits 0.1 m to the right of the colour camera; the pose on disk is its own.
    moved = se3.inverse(walls.map_T_camera(0)) @ posed.map_T_camera
    np.testing.assert_allclose(moved[:3, 3], [-0.1, 0, 0], atol=1e-9)
    assert posed.frame.depth is not None
    columns = (posed.frame.depth > 0).any(axis=0)
    assert not columns[:10].any()  # a strip on the left was never measured


def test_twelvescenes_names_what_is_wrong(tmp_path):
    scene = write_twelvescenes(tmp_path / "scene")
    for text, match in (
        (INFO.replace("m_colorWidth = 640", "m_colorWidth = wide"), r"info\.txt: expected 'm_colorWidth = <pixels>'"),
        (INFO.replace(" 525 0 320", " 525 320"), r"info\.txt: expected 'm_calibrationColorIntrinsic = <16 .*got 15"),
        (INFO.replace(" 525 0 320", " x 0 320"), "m_calibrationColorIntrinsic should be 16 numbers"),
        (INFO.replace(" 525 0 320", " -5 0 320"), "m_calibrationColorIntrinsic: focal"),
        ("nonsense\n" + INFO, "line 1: expected 'name = value', got 'nonsense'"),
    ):
        (scene / "info.txt").write_text(text)
        with pytest.raises(DatasetError, match=match):
            TwelveScenes(scene)
    (scene / "info.txt").write_text(INFO)
    (scene / "split.txt").write_text("sequence0 4\n")
    with pytest.raises(DatasetError, match=r"split\.txt, line 1: expected 'sequence0 \[frames=357\]"):
        TwelveScenes(scene, "test")
    (scene / "split.txt").unlink()
    with pytest.raises(DatasetError, match=r"split\.txt cannot be read"):
        TwelveScenes(scene, "train")
    (scene / "data" / "frame-000000.pose.txt").unlink()
    with pytest.raises(DatasetError, match=r"frame-000000\.pose\.txt cannot be read"):
        TwelveScenes(scene)
    with pytest.raises(DatasetError, match="has no frames: expected data/frame-000000"):
        TwelveScenes(tmp_path)


def test_evaluate_twelvescenes(run, tmp_path):
    scene = write_twelvescenes(tmp_path / "apt1" / "kitchen")
    code, summary, error = run("twelvescenes", scene, "--matcher", "sift")
    assert code == 0, error
    assert summary["evaluation"] == "12-Scenes kitchen" and summary["settings"]["map_keyframes"] == 3
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (3, 2, 0)
    assert summary["recall"]["0.05m_5deg"] == pytest.approx(2 / 3)


# TUM RGB-D


def write_tum(folder: Path, numbers: tuple[int, ...]) -> Path:
    """A frame of the walls each second; depth 10 ms later, ground truth at 10 Hz."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    rgb, depth, truth = ["# timestamp filename"], ["# timestamp filename"], ["# timestamp tx ty tz qx qy qz qw"]
    for second, wall in enumerate(numbers):
        cv2.imwrite(f"{folder}/rgb/{second}.png", walls.image(wall)[..., ::-1])
        cv2.imwrite(f"{folder}/depth/{second}.png", np.rint(5000 * walls.depth()).astype(np.uint16))
        rgb.append(f"{100 + second:.6f} rgb/{second}.png")
        depth.append(f"{100.01 + second:.6f} depth/{second}.png")
        pose = walls.map_T_camera(wall)
        line = " ".join(f"{value:.9f}" for value in (*pose[:3, 3], *se3.quaternion(pose)))
        truth += [f"{100 + second + offset:.6f} {line}" for offset in (-0.05, 0.05)]
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_tum_stretches_are_mapped_and_held_out_in_turn(tmp_path):
    sequence = write_tum(tmp_path / "freiburg1_walls", (0, 1, 2, 0, 1, 2, 0, 1))
    split = TumSplit(sequence, hold_out_s=2.0)

    def seconds(frames: FrameList) -> list[int]:
        return [round(posed.frame.stamp_ns * 1e-9) - 100 for posed in frames]

    assert seconds(split.map_frames()) == [0, 1, 4, 5]
    assert seconds(split.query_frames(use_depth=False)) == [2, 3, 6, 7]
    assert seconds(TumSplit(sequence, hold_out_s=2.0, every=3).query_frames(use_depth=True)) == [2, 7]
    with pytest.raises(DatasetError, match=r"is 7\.0 s long, too short to hold out .* 60 s"):
        TumSplit(sequence, hold_out_s=60.0).query_frames(use_depth=False)


def test_evaluate_tum_with_another_sequence_for_the_queries(run, tmp_path):
    mapping = write_tum(tmp_path / "walls", (0, 1, 2))
    queries = write_tum(tmp_path / "again", (1, walls.UNKNOWN, 2))
    camera = walls.CAMERA
    numbers = f"{camera.fx},{camera.fy},{camera.cx},{camera.cy}"
    code, summary, error = run(
        "tum", mapping, "--queries", queries, "--intrinsics", numbers, "--report", tmp_path / "r"
    )
    assert code == 0, error
    assert summary["evaluation"] == "TUM again in walls" and summary["settings"]["map_keyframes"] == 3
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (3, 2, 0)
    assert (tmp_path / "r" / "report.html").exists()
    # Its own stretches of one second: each wall was mapped before it is looked for.
    alone = write_tum(tmp_path / "alone", (0, 1, 1, 0))
    code, summary, _ = run("tum", alone, "--hold-out", 1, "--intrinsics", numbers)
    assert code == 0 and (summary["queries"], summary["answered"]) == (2, 2)


def test_tum_intrinsics_are_numbers_or_a_file(run, tmp_path):
    sequence = write_tum(tmp_path / "walls", (0, 1, 2, 0))
    code, _, error = run("tum", sequence)
    assert code == 1 and "give its calibration (--intrinsics)" in error
    code, _, error = run("tum", sequence, "--intrinsics", "525,525,320")
    assert code == 2 and "expected 4, 8 or 9 numbers" in error.replace("\n", " ")
    code, _, error = run("tum", sequence, "--intrinsics", tmp_path / "camera.yaml")
    assert code == 1 and "camera.yaml cannot be read" in error
    from mast3r_ros.lab.commands.evaluate_scenes import _camera

    bent = _camera("525,525,320,240,0.1,-0.2,0,0,0.05", sequence)
    assert bent.model == "plumb_bob" and bent.D.tolist() == [0.1, -0.2, 0, 0, 0.05]
    assert _camera("525,525,320,240", sequence).same_as(Camera.pinhole(640, 480, 525, 525, 320, 240))
