"""Evaluation in unseen rooms: rooms nobody trained on, pairs that overlap as they say, figures that count right."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import separate_runner
from oracle import CAMERA, OracleNetwork, keyframe_poses, see
from torch import Tensor

from mast3r_ros.cli.main import app
from mast3r_ros.errors import MatcherError, UserError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.results import read_records
from mast3r_ros.lab.runs.world_pairs import FIRST_ROOM, MOST_ROOMS, ROOMS, WorldPair, first_room, world_pairs
from mast3r_ros.lab.runs.worlds import WorldsSettings, evaluate_worlds, match_precision
from mast3r_ros.lab.runs.worlds_summary import worlds_figures
from mast3r_ros.lab.stress.run import HELD_OUT_SEED
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.lab.training.rooms import TRAINING_SEEDS, VALIDATION_SEEDS, RoomsConfig
from mast3r_ros.localization import Localizer
from mast3r_ros.localization.single_reference import photo_matcher, reference_map
from mast3r_ros.matching import create
from mast3r_ros.matching.base import PixelMatches, predicts_depth
from mast3r_ros.matching.two_views import TwoViewMatcher, triangulated
from mast3r_ros.network.heads import Pointmap

pytestmark = pytest.mark.usefixtures("one_thread")

ROOM = RoomsConfig(width=192, height=144)


@pytest.fixture(scope="module")
def pairs() -> list[WorldPair]:
    """The pairs of one room."""
    return list(world_pairs(3, 1, 12, ROOM))


@pytest.mark.parametrize("seed", [0, 1, 2**16, 2**31, 2**63, 10**30])
def test_rooms_of_every_seed_are_apart_from_those_of_training_and_tuning(seed: int) -> None:
    first = first_room(seed)
    assert HELD_OUT_SEED < FIRST_ROOM <= first < FIRST_ROOM + ROOMS
    assert first + MOST_ROOMS < VALIDATION_SEEDS < TRAINING_SEEDS
    assert abs(first_room(seed + 1) - first) >= MOST_ROOMS, "neighbouring seeds share no room"


def test_pairs_are_different_overlap_and_are_where_they_say(pairs: list[WorldPair]) -> None:
    assert len(pairs) == 12 and len({pair.query.name for pair in pairs}) == 12
    assert {pair.room for pair in pairs} == {first_room(3)}
    assert min(pair.overlap for pair in pairs) < 0.2 and max(pair.overlap for pair in pairs) > 0.5
    assert max(pair.gap_deg for pair in pairs) > 30 and all(pair.gap_deg <= 90 for pair in pairs)
    for pair in pairs:
        assert pair.query.depth is None and pair.reference.image.shape == (144, 192, 3)
        assert 0.02 < pair.overlap < 1
        share = _seen_in_query(pair)
        assert share >= pair.overlap - 0.03, "occlusion only lowers what projects into the query"


def _seen_in_query(pair: WorldPair) -> float:
    """Share of the reference's pixels whose point projects into the query, occluded or not."""
    assert pair.reference.camera is not None and pair.query.camera is not None and pair.reference.depth is not None
    rays = np.concatenate([pair.reference.camera.pixel_rays, np.ones((144, 192, 1))], axis=-1)
    points = (rays * pair.reference.depth[..., None]).reshape(-1, 3)
    moved = se3.apply(se3.inverse(pair.reference_T_query), points)
    xy = pair.query.camera.project(moved)
    inside = (moved[:, 2] > 0) & (xy > -0.5).all(axis=1) & (xy < [191.5, 143.5]).all(axis=1)
    return float(inside.mean())


def test_the_same_seed_gives_the_same_pairs(pairs: list[WorldPair]) -> None:
    again = next(iter(world_pairs(3, 1, 12, ROOM)))
    np.testing.assert_array_equal(again.reference.image, pairs[0].reference.image)
    np.testing.assert_array_equal(again.reference_T_query, pairs[0].reference_T_query)


def test_more_rooms_than_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="3 pairs of 4 rooms"):
        next(world_pairs(0, 4, 3, ROOM))


def test_precision_is_the_share_of_matches_near_the_truth(pairs: list[WorldPair]) -> None:
    pair = max(pairs, key=lambda pair: pair.overlap)
    assert pair.reference.camera is not None and pair.query.camera is not None and pair.reference.depth is not None
    xy = np.stack(np.meshgrid(np.arange(20, 170, 6.0), np.arange(20, 120, 6.0)), axis=-1).reshape(-1, 2)
    z = pair.reference.depth[xy[:, 1].astype(int), xy[:, 0].astype(int)].astype(np.float64)
    points = np.concatenate([pair.reference.camera.rays(xy), np.ones((len(xy), 1))], axis=1) * z[:, None]
    truth = pair.query.camera.project(se3.apply(se3.inverse(pair.reference_T_query), points))
    xy, truth = xy[np.isfinite(truth).all(axis=1)], truth[np.isfinite(truth).all(axis=1)]
    exact = match_precision(pair, xy, truth)
    assert exact["match_precision_1px"] > 0.95, "depth is read between pixels, which costs a little at slopes"
    half = np.where(np.arange(len(xy))[:, None] % 2, truth, truth + np.array([4, 0]))
    assert match_precision(pair, xy, half)["match_precision_3px"] == pytest.approx(0.5, abs=0.1)
    assert match_precision(pair, xy, half)["match_precision_6px"] > 0.95
    none = match_precision(pair, np.zeros((0, 2)), np.zeros((0, 2)))
    assert none["match_precision_3px"] == 0 and math.isnan(none["median_match_error_px"])


def record(metres: float, overlap: float, gap: float, accepted: bool = True, found: bool = True) -> Record:
    evidence = {"room": float(int(10 * overlap)), "overlap": overlap, "viewpoint_gap_deg": gap, "matches": 50.0}
    evidence |= {f"match_precision_{px}px": 0.5 for px in (1, 3, 6)}
    pose = se3.exp(np.array([metres, 0, 0, 0, 0, 0])) if found else None
    return Record("q", 0, accepted, map_T_camera=pose, truth=np.eye(4), evidence=evidence)


def test_success_counts_every_pose_and_the_gates_are_told_apart() -> None:
    records = [
        record(0.1, 0.10, 35),
        record(0.2, 0.40, 10, accepted=False),
        record(0.3, 0.26, 31),
        record(0.0, 0.96, 91, accepted=False, found=False),
    ]
    figures = worlds_figures(records)
    assert figures["success_5deg_0.25m"] == 0.5 and figures["accepted"]["success_5deg_0.25m"] == 0.5
    low, high = figures["success_5deg_0.25m_interval"]
    assert low == pytest.approx(0.0676, abs=1e-3) and high == pytest.approx(1 - low)
    assert figures["median_translation_error_m"] == pytest.approx(0.2), "of all poses that were found"
    assert figures["accepted"]["queries"] == 2 and figures["accepted"]["wrong_accepted"] == 1
    assert figures["poses_found"] == 3 and figures["match_precision_3px"] == 0.5
    rows = {(r["from"], r["to"]): r for r in figures["by_overlap"]}
    assert sum(r["queries"] for r in rows.values()) == 4 and rows[0.9, 0.95]["success_5deg_0.25m"] == 0
    assert rows[0.25, 0.3]["success_5deg_0.25m"] == 0 and rows[0.3, 0.5]["success_5deg_0.25m"] == 1
    assert [r["queries"] for r in figures["by_viewpoint_gap"]] == [1, 2, 1]
    assert figures["slices"]["overlap_below_0.3"]["queries"] == 2
    assert figures["slices"]["overlap_0.25_to_0.9"]["success_5deg_0.25m"] == 0.5
    assert figures["slices"]["viewpoint_gap_above_30deg"]["queries"] == 3


class TestTwoViews:
    """Points triangulated between one photo and the query, at the pointmap's scale."""

    PHOTO = keyframe_poses()[1]
    QUERY = PHOTO @ se3.exp([0.3, 0.1, 0.2, 0.05, 0.1, 0.05])

    def found(self, network: OracleNetwork, two_views: bool) -> tuple[float, float]:
        matcher = create("mast3r", checkpoint=network, size=320, dtype="float32", device="cpu")
        keyframe_map = reference_map(replace(see(self.PHOTO), depth=None), matcher)
        localizer = Localizer(keyframe_map, TwoViewMatcher(matcher) if two_views else matcher)
        estimate = localizer.localize(replace(see(self.QUERY), depth=None))
        assert estimate.map_T_camera is not None, estimate.detail
        assert "network's own" in estimate.matched[0].matches.note
        return se3.pose_error(estimate.map_T_camera, se3.inverse(self.PHOTO) @ self.QUERY)

    def test_a_crooked_pointmap_spoils_the_pose_less(self) -> None:
        crooked = CrookedNetwork(se3.inverse(self.PHOTO))
        metres, degrees = self.found(crooked, two_views=True)
        assert metres < 0.05 and degrees < 0.2
        spoiled = self.found(crooked, two_views=False)
        assert spoiled[0] > 1.15 * metres and spoiled[1] > 8 * degrees

    def test_the_length_is_the_pointmaps(self) -> None:
        network = OracleNetwork(se3.inverse(self.PHOTO), unit=2.0)
        metres, degrees = self.found(network, two_views=True)
        baseline = np.linalg.norm((se3.inverse(self.PHOTO) @ self.QUERY)[:3, 3])
        assert metres == pytest.approx(baseline, rel=0.15) and degrees < 1.0

    def test_points_are_in_front_of_both_and_exact(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.uniform([-1, -1, 2], [1, 1, 4], (200, 3))
        camera2_T_camera1 = se3.exp([0.6, 0, 0.8, 0, 0.1, 0])
        camera2_T_camera1[:3, 3] /= np.linalg.norm(camera2_T_camera1[:3, 3])
        xy1, xy2 = CAMERA.project(points), CAMERA.project(se3.apply(camera2_T_camera1, points))
        xy2[:20] += 30  # wrong matches
        found1, _, back = triangulated(PixelMatches(xy2, xy1), CAMERA, CAMERA)
        assert 175 <= len(back) <= 190
        rows = [int(np.argmin(np.linalg.norm(xy1 - xy, axis=1))) for xy in found1]
        assert np.median(np.linalg.norm(back - points[rows], axis=1)) < 1e-3

    def test_a_motion_that_few_matches_fit_is_none(self) -> None:
        """Most matches are of nothing here: what the others agree on is not believed."""
        rng = np.random.default_rng(0)
        points = rng.uniform([-1, -1, 2], [1, 1, 4], (200, 3))
        camera2_T_camera1 = se3.exp([0.6, 0, 0.8, 0, 0.1, 0])
        xy1, xy2 = CAMERA.project(points), CAMERA.project(se3.apply(camera2_T_camera1, points))
        xy2[60:] = rng.uniform(0, 200, (140, 2))
        assert len(triangulated(PixelMatches(xy2, xy1), CAMERA, CAMERA)[2]) == 0
        assert len(triangulated(PixelMatches(xy2[:60], xy1[:60]), CAMERA, CAMERA)[2]) == 60

    def test_only_small_networks_and_photos_without_depth_are_asked_this_way(self) -> None:
        photo = replace(see(self.PHOTO), depth=None)
        stem = replace(OracleNetwork().config, head_type="catskip", stem_dim=16)
        small = create("mast3r", checkpoint=random_network(stem), device="cpu")
        assert isinstance(photo_matcher(small, photo), TwoViewMatcher)
        assert predicts_depth(photo_matcher(small, photo))
        assert photo_matcher(small, see(self.PHOTO)) is small
        published = create("mast3r", checkpoint=OracleNetwork(), size=320, device="cpu")
        assert photo_matcher(published, photo) is published

    def test_matches_of_nothing_have_no_points(self) -> None:
        few = PixelMatches(np.zeros((5, 2)), np.zeros((5, 2)))
        assert len(triangulated(few, CAMERA, CAMERA)[2]) == 0


class CrookedNetwork(OracleNetwork):
    """Its points are right in the middle, too near on one side and too far on the other."""

    def points(self, view: int, layers: list[Tensor], tokens: object) -> Pointmap:
        points, conf = super().points(view, layers, tokens)  # type: ignore[arg-type]
        return Pointmap(points * torch.linspace(0.5, 1.5, points.shape[2])[None, None, :, None], conf)


def test_sift_has_no_scale_without_depth() -> None:
    with pytest.raises(MatcherError, match="--no-depth"):
        evaluate_worlds([create("sift")], WorldsSettings(rooms=1, pairs=1, depth=False))


def test_the_command(tmp_path: Path) -> None:
    options = ["--pairs", "6", "--rooms", "1", "--seed", "3", "--size", "256", "192"]
    command = ["evaluate", "worlds", "--matcher", "sift", "--report", str(tmp_path), *options, "--json"]
    result = separate_runner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for key in ("queries", "answered", "wrong_accepted", "recall", "match_precision_3px", "median_rotation_error_deg"):
        assert key in found
    assert found["queries"] == 6 and found["success_5deg_0.25m"] >= 0.5 and found["match_precision_3px"] > 0.4
    for bins in (found["by_overlap"], found["by_viewpoint_gap"]):
        assert sum(row["queries"] for row in bins) == 6
        for row in bins:
            low, high = row["success_5deg_0.25m_interval"]
            assert low <= row["success_5deg_0.25m"] <= high
            assert {"median_translation_error_m_interval", "median_rotation_error_deg_interval"} <= row.keys()
    assert found["settings"]["rooms_numbered"] == [first_room(3), first_room(3)]
    assert len(read_records(tmp_path / "records.jsonl")) == 6 and (tmp_path / "report.html").stat().st_size > 10000
