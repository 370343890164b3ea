"""Maps without depth: of a drive whose poses are odometry's, and of photos without any poses."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import photo_worlds
import pytest
from command_line import separate_runner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MapError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets import open_source
from mast3r_ros.lab.metrics.trajectories import absolute_errors, align_trajectory
from mast3r_ros.lab.synthetic.sensors import OdometryNoise, drifting
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric
from mast3r_ros.mapping.selection import SelectionSettings
from mast3r_ros.mapping.session import MappingSession
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.multiview import refine_map as refine_map_module
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.refine_map import _agreeing, is_odometry, refine_map
from mast3r_ros.pipeline import Relocalizer

#: Worse than a good robot's, so that 8 m of driving show it.
DRIFT = OdometryNoise(scale_error=0.01, yaw_per_metre=0.03, bias_per_metre=0.03)


def build(*words: object) -> tuple[dict[str, Any], str]:
    """What `map build` prints as JSON, and what it tells people."""
    result = separate_runner().invoke(app, ["map", "build", *map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), result.stderr


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A recording of a robot's round through the box, and the true poses of its camera."""
    folder = tmp_path_factory.mktemp("drive")
    true = photo_worlds.drive(32)
    driven = drifting(true, DRIFT, np.random.default_rng(5))
    photo_worlds.drive_bag(folder / "drive.mcap", true, driven)
    return folder / "drive.mcap", true @ photo_worlds.BASE_T_CAMERA


@pytest.fixture(scope="module")
def refined(drive: tuple[Path, np.ndarray]) -> tuple[Path, dict[str, Any], str]:
    """The map of that drive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine_map_module, "FEATURES", 500)  # the paper of the walls has thousands
        facts, told = build(drive[0], "-o", drive[0].parent / "map", "--matcher", "sift")
    return drive[0].parent / "map", facts, told


def errors(keyframes: KeyframeMap, truth: np.ndarray, alignment: str = "se3") -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees of keyframes (one for each half second) after alignment."""
    found = np.array([keyframe.map_T_camera for keyframe in keyframes.keyframes])
    true = np.array([truth[keyframe.stamp_ns // 500_000_000 - 1] for keyframe in keyframes.keyframes])
    return absolute_errors(align_trajectory(found, true, alignment), true)


def test_drift_is_taken_out_of_a_map_without_depth(drive: Any, refined: Any) -> None:
    path, facts, told = refined
    made, raw = KeyframeMap.load(path), open_source(drive[0])
    assert (
        is_odometry(raw.map_frame)
        and facts["keyframes"] == facts["refined"] == len(made) >= 24
        and not facts["flagged"]
    )
    given = np.array([raw.pose_at(keyframe.stamp_ns) for keyframe in made.keyframes])
    truth = np.array([drive[1][keyframe.stamp_ns // 500_000_000 - 1] for keyframe in made.keyframes])
    before = absolute_errors(align_trajectory(given, truth, "se3"), truth)[0]
    metres, degrees = errors(made, drive[1])
    assert np.median(before) > 0.08, "the drift is there"
    assert metres.max() < 0.05 and degrees.max() < 0.5
    low, high = facts["scale_interval"]
    assert is_metric(made) and 0.94 < low < 0.98 and 1.02 < high < 1.06
    assert made.provenance["scale"] == "odometry" and "true metres" in made.provenance["scale interval"]
    assert all(keyframe.has_depth for keyframe in made.keyframes), told


def test_what_was_not_on_the_drive_is_found_in_its_map(drive: Any, refined: Any) -> None:
    made = KeyframeMap.load(refined[0])
    to_map = align_trajectory(
        np.array([keyframe.map_T_camera for keyframe in made.keyframes]),
        np.array([drive[1][keyframe.stamp_ns // 500_000_000 - 1] for keyframe in made.keyframes]),
        "se3",
    )
    truth_T_map = to_map[0] @ se3.inverse(made.keyframes[0].map_T_camera)
    relocalizer, off = Relocalizer(made, SiftMatcher()), []
    for place in drive[1][3::4]:
        true = place @ se3.exp([0.1, 0, 0.1, 0.02, 0.1, 0])
        found = relocalizer.localize(photo_worlds.see(true, 0, photo_worlds.ROBOT_CAMERA), photo_worlds.ROBOT_CAMERA)
        off += [se3.pose_error(truth_T_map @ found.map_T_camera, true)[0]] if found.localized else []
    assert len(off) >= 6 and max(off) < 0.06


def test_a_session_without_depth_is_tried_while_it_grows_and_refined_when_saved(
    drive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine_map_module, "FEATURES", 500)
    frames = list(open_source(drive[0]))[:14]
    # Odometry that is bent much more than that of the recording.
    bent = [frames[0].map_T_camera]
    for before, after in pairwise(frames):
        moved = se3.inverse(before.map_T_camera) @ after.map_T_camera
        bent.append(bent[-1] @ moved @ se3.exp([0, 0, 0, 0, 0.02, 0]))
    session = MappingSession(tmp_path / "map", "odom", SelectionSettings(distance_m=0.05), refine=refine_map)
    for posed, pose in zip(frames[:-1], bent[:-1], strict=True):
        session.offer(PosedFrame(posed.frame, pose))
        session.triangulate_newest()
    assert [keyframe.has_depth for keyframe in session.map.keyframes] == [True] * 11 + [False] * 2
    assert "poses refined" in session.save(tmp_path / "map")
    session.offer(PosedFrame(frames[-1].frame, bent[-1]))
    metres, degrees = errors(session.map, drive[1])
    assert len(metres) == 14 and metres.max() < 0.05 and degrees[:-1].max() < 0.6
    assert degrees[-1] < 2.5, "the newest is one step of odometry away from the refined ones, not 14 (16 deg)"
    saved = KeyframeMap.load(tmp_path / "map")
    assert all(keyframe.has_depth for keyframe in saved.keyframes) and saved.provenance["scale"] == "odometry"
    session.save(tmp_path / "map", triangulate=False)  # what was written before is still what the session holds
    assert len(KeyframeMap.load(tmp_path / "map")) == 14


def chain(metres: np.ndarray) -> tuple[Model, np.ndarray]:
    """A model and odometry of a straight way with a step each; images put keyframes aside by so many metres (N,)."""
    driven = np.stack([se3.make(np.eye(3), [0, 0, 0.3 * n]) for n in range(len(metres))])
    seen = {n: pose @ se3.make(np.eye(3), [metres[n], 0, 0]) for n, pose in enumerate(driven)}
    cameras = dict.fromkeys(seen, photo_worlds.CAMERA)
    count, empty = len(metres), np.zeros(0, np.int64)
    points = np.stack([pose[:3, 3] + [0, 0, 2.0] for pose in seen.values()])
    rows = np.arange(count)
    return Model(cameras, seen, points, np.zeros(count), rows, rows, empty, np.zeros((count, 2))), driven


def test_keyframes_that_odometry_contradicts_are_flagged_and_a_slip_of_the_wheels_is_not() -> None:
    aside = np.zeros(30)
    aside[[7, 8, 20]] = 1.0  # a twin of the place, and one picture alone
    kept, wrong = _agreeing(*chain(aside))
    assert set(wrong) == {7, 8, 20} and len(kept) == 27 and "1 m" in wrong[7]
    slipped = np.where(np.arange(30) < 12, 0.0, 1.0)
    kept, wrong = _agreeing(*chain(slipped))
    assert len(kept) == 30 and not wrong


def test_photos_alone_make_a_map_with_a_known_length_and_else_without_a_scale(tmp_path: Path) -> None:
    small = photo_worlds.ROBOT_CAMERA
    truth = photo_worlds.photograph(tmp_path / "photos", photo_worlds.arc(5), camera=small)
    (tmp_path / "intrinsics.txt").write_text(f"240 180 {small.fx} {small.fy} {small.cx} {small.cy}\n")
    words = (tmp_path / "photos", "--matcher", "sift", "--intrinsics", tmp_path / "intrinsics.txt")
    facts, told = build(*words, "-o", tmp_path / "map")
    unknown = KeyframeMap.load(tmp_path / "map")
    assert facts["keyframes"] == 5 and "scale is unknown" in told and not is_metric(unknown)
    with pytest.raises(MapError, match="map scale"):
        Relocalizer(unknown, SiftMatcher())
    length = float(np.linalg.norm(truth["view_00.jpg"][:3, 3] - truth["view_04.jpg"][:3, 3]))
    build(*words, "-o", tmp_path / "map", "--known-length", "view_00.jpg", "view_04.jpg", length)
    metric = KeyframeMap.load(tmp_path / "map")
    found = np.array([metric[Path(name).stem].map_T_camera for name in truth])
    true = np.array(list(truth.values()))
    assert absolute_errors(align_trajectory(found, true, "se3"), true)[0].max() < 0.04 and is_metric(metric)
