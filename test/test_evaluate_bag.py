"""Evaluation on recordings: truth from TF, topics and files, association in time, alignment, the result bag."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import walls
from typer.testing import CliRunner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import DatasetError, UserError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter, open_bag
from mast3r_ros.io.datasets.recorded_poses import read_trajectory
from mast3r_ros.io.documents import write_tum
from mast3r_ros.lab.runs.bag import Align, evaluate_bag, trajectory_figures
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.replay import Replay, ReplaySettings, pose_at, recorded_truth
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.pipeline import Relocalizer

COUNT = 5
START_NS = 1_700_000_000_123_456_789
#: The map in the frame of a motion capture system.
MOCAP_T_MAP = se3.exp([3.0, -2.0, 1.0, 0.3, -0.2, 1.1])


def place(number: int) -> np.ndarray:
    """Where wall ``number`` is seen from; not all on one line."""
    return se3.exp([0.6 * number, 0.4 * (number % 2), 0.1 * number**2, 0, 0.2 * number, 0])


def stamp(number: int) -> int:
    return START_NS + number * 200_000_000


@dataclass
class Files:
    folder: Path
    keyframe_map: KeyframeMap

    @property
    def bag(self) -> Path:
        return self.folder / "bag.mcap"

    @property
    def bag_with_map(self) -> Path:
        return self.folder / "with_map.mcap"

    def evaluate(
        self, truth: str, align: str = "none", settings: ReplaySettings = ReplaySettings(), bag: Path | None = None
    ) -> Replay:
        relocalizer = Relocalizer(self.keyframe_map, create("sift"))
        return evaluate_bag(bag or self.bag, relocalizer, truth, Align(align), settings)


def write(path: Path, map_in_tf: bool) -> None:
    odom_T_map = se3.exp([1.0, 2.0, 0, 0, 0, 0.5])
    base_T_camera = walls.BASE_T_CAMERA
    with BagWriter(path) as bag:
        bag.transform("base_link", "camera", base_T_camera, 0, static=True)
        for number in range(COUNT):
            at = stamp(number)
            map_T_base = place(number) @ se3.inverse(base_T_camera)
            bag.transform("odom", "base_link", odom_T_map @ map_T_base, at)
            if map_in_tf:
                bag.transform("map", "odom", se3.inverse(odom_T_map), at)
            bag.image("/image", walls.image(number), at, "camera")
            bag.camera_info("/camera_info", walls.CAMERA, at, "camera")
            bag.odometry("/true_base", map_T_base, at, "map", "base_link")
            bag.pose("/mocap", MOCAP_T_MAP @ place(number), np.eye(6), at, "mocap")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("bags")
    keyframe_map = KeyframeMap()
    for number in range(COUNT):
        keyframe_map.add(PosedFrame(walls.posed(number).frame, place(number)), f"wall{number}")
    keyframe_map.save(folder / "map")
    write(folder / "bag.mcap", map_in_tf=False)
    write(folder / "with_map.mcap", map_in_tf=True)
    write_tum(folder / "truth.tum", [(stamp(n), place(n)) for n in range(COUNT)])
    return Files(folder, KeyframeMap.load(folder / "map"))


@pytest.mark.smoke
def test_truth_of_a_robot_on_a_topic_is_carried_to_the_camera(files):
    records = files.evaluate("/true_base").evaluation.records
    assert [record.accepted for record in records] == [True] * COUNT
    for number, record in enumerate(records):
        np.testing.assert_allclose(record.truth, place(number), atol=1e-9)
        assert record.error[0] < 0.02
        assert (record.viewpoint_m, record.viewpoint_deg) == pytest.approx((0, 0), abs=1e-5)


def test_truth_from_tf_and_a_result_that_does_not_fight_with_it(files, tmp_path):
    options = ["--map", str(files.folder / "map"), "--ground-truth", "/tf", "--report", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, ["evaluate", "bag", str(files.bag_with_map), *options], catch_exceptions=False)
    assert result.exit_code == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (COUNT, COUNT, 0)
    assert summary["recall"]["0.05m_5deg"] == 1 and summary["trajectory"]["ate_rmse_m"] < 0.02
    assert set(summary["stage_percentiles_ms"]["match"]) == {"p50", "p95", "p99"}
    with open_bag(files.bag_with_map) as recording, open_bag(tmp_path / "result.mcap") as bag:
        assert bag.topics["/relocalizer/pose"].count == COUNT
        # No frame has two parents when both recordings are played.
        parents = {t.child_frame_id: t.header.frame_id for _, _, m in recording.messages(["/tf"]) for t in m.transforms}
        ours = {t.child_frame_id: t.header.frame_id for _, _, m in bag.messages(["/tf"]) for t in m.transforms}
        assert ours == {"relocalizer/base_link": "map"} and not set(ours) & set(parents)
        robot = bag.transforms().lookup("map", "relocalizer/base_link", stamp(2))
        assert se3.pose_error(robot, place(2) @ se3.inverse(walls.BASE_T_CAMERA))[0] < 0.02
        truth = bag.first("/relocalizer/ground_truth").poses
        assert len(truth) == COUNT and truth[0].header.stamp.nanosec == stamp(0) % 10**9


def test_truth_from_a_file_keeps_nanoseconds(files):
    assert [at for at, _ in read_trajectory(files.folder / "truth.tum")] == [stamp(n) for n in range(COUNT)]
    run = files.evaluate(str(files.folder / "truth.tum"))
    # Also the first and the last frame, which nothing lies beyond.
    assert run.evaluation.figures["frames_with_truth"] == COUNT
    assert max(record.error[0] for record in run.evaluation.records) < 0.02


def test_truth_is_interpolated_over_short_gaps_only(files, tmp_path):
    """Poses at 0 and 2, then at 3 and a little after 4."""
    sparse = [(stamp(0), place(0)), (stamp(2), place(2)), (stamp(3), place(3)), (stamp(4) + 15_000_000, place(4))]
    write_tum(tmp_path / "sparse.tum", sparse)
    known = {}
    for gap, difference in ((0.5, 0.02), (0.3, 0.02), (0.1, 0.02), (0.1, 0.01)):
        settings = ReplaySettings(truth_file=tmp_path / "sparse.tum", truth_gap_s=gap, truth_difference_s=difference)
        truth = recorded_truth(files.bag, settings)
        poses = [pose_at(truth, stamp(number)) for number in range(COUNT)]
        known[gap, difference] = [number for number, pose in enumerate(poses) if pose is not None]
        if gap == 0.5:
            np.testing.assert_allclose(poses[1], se3.interpolate(place(0), place(2), 0.5), atol=1e-8)
        if (gap, difference) == (0.1, 0.02):
            np.testing.assert_allclose(poses[4], place(4), atol=1e-8)
    assert known == {
        (0.5, 0.02): [0, 1, 2, 3, 4],
        (0.3, 0.02): [0, 2, 3, 4],
        (0.1, 0.02): [0, 2, 3, 4],
        (0.1, 0.01): [0, 2, 3],
    }


def test_clocks_may_differ_by_a_known_offset(files, tmp_path):
    late = tmp_path / "late.tum"
    write_tum(late, [(stamp(n) + 7_500_000_000, place(n)) for n in range(COUNT)])
    with pytest.raises(DatasetError, match="none of 1 frames has a pose at its time.*one clock"):
        files.evaluate(str(late), settings=ReplaySettings(every=COUNT))
    truth = recorded_truth(files.bag, ReplaySettings(truth_file=late, truth_offset_s=7.5))
    np.testing.assert_allclose(pose_at(truth, stamp(3)), place(3), atol=1e-8)


def test_another_frame_is_refused_unless_it_is_said_to_be_the_map_or_aligned(files):
    with pytest.raises(UserError, match="in 'mocap', those of the map in 'map'.*--align se3"):
        files.evaluate("/mocap")
    wrong = files.evaluate("/mocap", settings=ReplaySettings(truth_frame="mocap", every=3)).evaluation.summary()
    assert wrong["wrong_accepted"] == wrong["answered"] == 2 and wrong["false_accepts_per_1000"] == 1000
    run = files.evaluate("/mocap", "se3")
    alignment = run.evaluation.figures["alignment"]
    moved, turned = se3.pose_error(np.array(alignment["map_T_truth"]), se3.inverse(MOCAP_T_MAP))
    assert moved < 0.05 and turned < 1.5 and alignment["scale"] == pytest.approx(1)
    assert run.evaluation.summary()["median_translation_error_m"] < 0.01


def test_a_similarity_finds_the_scale_of_the_truth(files, tmp_path):
    half = [(stamp(n), se3.make(place(n)[:3, :3], 0.5 * place(n)[:3, 3])) for n in range(COUNT)]
    write_tum(tmp_path / "half.tum", half)
    run = files.evaluate(str(tmp_path / "half.tum"), "sim3", ReplaySettings(every=2))
    assert run.evaluation.figures["alignment"]["scale"] == pytest.approx(2, rel=0.01)
    assert run.evaluation.figures["trajectory"]["ate_rmse_m"] < 0.01


def test_a_straight_way_cannot_be_aligned(files, tmp_path):
    write_tum(tmp_path / "line.tum", [(stamp(n), se3.exp([n, 0, 0, 0, 0, 0])) for n in range(COUNT)])
    with pytest.raises(UserError, match="not a straight line"):
        files.evaluate(str(tmp_path / "line.tum"), "se3", ReplaySettings(every=2))


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ("/nothing", "neither a topic .* nor a file.*/true_base, /mocap"),
        ("/image", "/image is sensor_msgs/msg/Image"),
        ("/tf", r"TF \(it has base_link, camera, odom\) does not lead from 'map'"),
    ],
)
def test_truth_that_is_not_there_is_named(files, truth, words):
    with pytest.raises(UserError, match=words):
        files.evaluate(truth, settings=ReplaySettings(every=COUNT))


def test_trajectory_errors_are_those_of_the_papers():
    """The estimate drifts by 1 cm a frame along x, and misses one frame."""
    truth = [se3.exp([0.1 * n, 0, 0, 0, 0, 0]) for n in range(11)]
    records = [
        Record(str(n), n * 10**8, n != 5, map_T_camera=pose @ se3.exp([0.01 * n, 0, 0, 0, 0, 0]), truth=pose)
        for n, pose in enumerate(truth)
    ]
    figures = trajectory_figures(records)
    errors = [0.01 * n for n in range(11) if n != 5]
    assert figures["poses"] == 10 and figures["ate_rmse_m"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert figures["rpe_frame_s"] == pytest.approx(0.1) and figures["rpe_frame_rmse_m"] == pytest.approx(0.01)
    assert figures["rpe_second_s"] == pytest.approx(1) and figures["rpe_second_rmse_m"] == pytest.approx(0.1)
    assert figures["ate_rmse_deg"] == pytest.approx(0, abs=1e-6)
    low, high = figures["ate_rmse_interval_m"]
    assert low < figures["ate_rmse_m"] < high
