"""Stress runs: conditions show what they say, negatives are negatives, and the figures count what they claim."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import separate_runner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.commands.evaluate_stress import stress
from mast3r_ros.lab.conformance.scene import make_scene
from mast3r_ros.lab.pages.contact_sheet import CAPTION, HEIGHT, WIDTH, contact_sheet
from mast3r_ros.lab.runs.described_once import DescribedOnce
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.stress import negatives
from mast3r_ros.lab.stress.conditions import CONDITIONS, chosen
from mast3r_ros.lab.stress.films import Film, Stage, carried, film, mirrored
from mast3r_ros.lab.stress.run import (
    HELD_OUT_SEED,
    TUNING_SEED,
    Attempt,
    StressRun,
    StressSettings,
    run_stress,
)
from mast3r_ros.lab.stress.scenes import KINDS, Place, Scene, scenes_of, visitors
from mast3r_ros.lab.stress.starts import StartSettings, stage_localizer, starts_on, summarise_starts
from mast3r_ros.lab.stress.summary import summarise_stress, with_odometry
from mast3r_ros.lab.synthetic import LightingSettings, RoomSettings, Shot, make_room, take
from mast3r_ros.localization import Gates, Localizer, LocalizerSettings, TrackerSettings
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.registry import create

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Camera.pinhole(160, 120, 120.0, 120.0, 79.5, 59.5)


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    """The scenes in a furnished room."""
    found = scenes_of(1, ["room", "spot", "orbit"], SMALL, 12)
    return {scene.name.split()[0]: scene for scene in found}


def shots_of(scenes: dict[str, Scene], name: str, count: int = 8) -> list[Shot]:
    condition = CONDITIONS[name]
    return condition.shots(scenes[condition.scene], count, np.random.default_rng(0))


def image_of(shot: Shot) -> np.ndarray:
    return take([shot], 0)[0].frame.image.astype(float)


# ------------------------------------------------------------------------------------------------ conditions


def test_scenes_of_one_place_share_its_world(scenes: dict[str, Scene]) -> None:
    assert scenes["room"].place is scenes["spot"].place
    assert not visitors(scenes["room"].place.world) or len(scenes["room"].place.world) < len(
        scenes["room"].place.furnished
    )
    on_the_spot = np.stack([shot.map_T_camera[:3, 3] for shot in scenes["spot"].mapping])
    assert np.ptp(on_the_spot, axis=0).max() < 1e-9
    assert all(shot.depth_noise is not None for scene in scenes.values() for shot in scene.mapping)


def test_wide_baselines_are_as_wide_as_they_say(scenes: dict[str, Scene]) -> None:
    for shot in shots_of(scenes, "wide_baseline"):
        x, y = shot.map_T_camera[:2, 3]
        angle = abs(math.degrees(math.atan2(y, x)))
        assert abs(angle - float(shot.name.split()[0])) <= 10.01
        middle = shot.camera.project(se3.apply(se3.inverse(shot.map_T_camera), np.array([[0, 0, 0.4]])))
        np.testing.assert_allclose(middle[0], [79.5, 59.5], atol=1e-6)


def test_rotation_queries_stand_on_the_spot_or_off_it(scenes: dict[str, Scene]) -> None:
    away = {}
    for shot in shots_of(scenes, "pure_rotation"):
        away.setdefault(shot.name, []).append(np.linalg.norm(shot.map_T_camera[:3, 3] - scenes["room"].place.spot))
    assert max(away["on the spot"]) < 1e-9 and min(away["elsewhere"]) > 0.3


def test_blur_smears_along_the_rows_and_by_its_length(scenes: dict[str, Scene]) -> None:
    shot = replace(shots_of(scenes, "nominal", 3)[1])
    sharp, *blurred = (image_of(replace(shot, turned_rad=px / SMALL.focal)).mean(axis=2) for px in (0, 4, 16))
    contrast = [np.abs(np.diff(image, axis=1)).mean() for image in (sharp, *blurred)]
    assert contrast[0] > 1.2 * contrast[1] > 1.5 * contrast[2]


def test_night_is_dark_and_too_much_light_is_white(scenes: dict[str, Scene]) -> None:
    shots = {shot.name: shot for shot in shots_of(scenes, "exposure_night", 3)}
    mean = {name: image_of(shot).mean() for name, shot in shots.items()}
    usual = image_of(shots_of(scenes, "nominal", 3)[0]).mean()
    assert mean["8 x under"] < 0.5 * usual and mean["night"] < 0.7 * usual and mean["4 x over"] > 1.3 * usual


def test_people_stand_in_the_picture(scenes: dict[str, Scene]) -> None:
    shots = shots_of(scenes, "moving_objects", 6)
    empty = [replace(shot, world=scenes["room"].place.world) for shot in shots]
    differ = [np.abs(image_of(a) - image_of(b)).max(axis=2) > 40 for a, b in zip(shots, empty, strict=True)]
    covered = [float(image.mean()) for image in differ]
    assert np.median(covered) > 0.05 and {shot.name for shot in shots} == {"1 person", "2 people", "3 people"}


def test_furniture_is_gone_or_elsewhere_but_the_room_stays(scenes: dict[str, Scene]) -> None:
    world = scenes["room"].place.world
    for shot in shots_of(scenes, "changed_furniture", 2):
        assert len(shot.world) < len(world)
        room = shot.world.centre[shot.world.group == 0]
        assert torch.equal(room, world.centre[world.group == 0])
    most = {tuple(row) for row in shots_of(scenes, "changed_furniture", 2)[1].world.centre.tolist()}
    assert len(most - {tuple(row) for row in world.centre.tolist()}) > 0


def test_cameras_are_as_announced(scenes: dict[str, Scene]) -> None:
    focal = {shot.name: shot.camera.focal for shot in shots_of(scenes, "focal_length")}
    assert focal["0.3 x"] == pytest.approx(36) and focal["3 x"] == pytest.approx(360)
    sizes = {shot.name: take([shot], 0)[0].frame.image.shape[:2] for shot in shots_of(scenes, "resolution", 2)}
    assert sizes["160x120"] == (120, 160) and sizes["240x180"] == (180, 240)
    fisheye = shots_of(scenes, "fisheye", 1)[0]
    edge = fisheye.camera.rays(np.array([[0.0, 59.5], [159.0, 59.5]]))
    seen = np.degrees(np.arctan(edge[1, 0]) - np.arctan(edge[0, 0]))
    assert fisheye.camera.model == "equidistant" and 155 < seen < 165


def test_unknown_conditions_and_kinds_are_refused() -> None:
    with pytest.raises(UserError, match=r"'rain'.*nominal"):
        chosen(["rain"])
    with pytest.raises(UserError, match=r"'attic'.*room"):
        list(scenes_of(0, ["attic"], SMALL, 12))
    with pytest.raises(UserError, match="at least one room"):
        StressSettings(rooms=0)
    assert {condition.scene for condition in CONDITIONS.values()} <= set(KINDS)


# ------------------------------------------------------------------------------------------------- negatives


def test_negatives_never_ask_a_map_of_their_own_place() -> None:
    world = None
    places = [Place(name, make, world, 0) for name, make in (("a", "x"), ("b", "x"), ("c", "y"))]  # type: ignore[arg-type]
    queries = [
        (place, Frame(np.zeros((48, 64, 3), np.uint8), name=f"{place.name}{k}")) for place in places for k in (0, 1)
    ]
    found = negatives.negatives(
        queries, places, Camera.pinhole(64, 48, 50, 50, 31.5, 23.5), 40, np.random.default_rng(0)
    )
    asked = [(n.kind, n.frame.name[0], places[n.scene].name) for n in found if n.kind in ("same_make", "wrong_map")]
    assert all({place, asked_of} == {"a", "b"} for kind, place, asked_of in asked if kind == "same_make")
    assert all((place == "c") != (asked_of == "c") for kind, place, asked_of in asked if kind == "wrong_map")
    kinds = [n.kind for n in found]
    assert [kinds.count(k) for k in negatives.SHARES] == [4, 8, 2, 2, 2], (
        "two of each nothing, then all pairs there are"
    )


def test_pictures_of_nothing_show_nothing() -> None:
    rng = np.random.default_rng(0)
    covered = [negatives.occluded(rng, 120, 160) for _ in range(8)]
    sift = create("sift")
    assert all(len(sift.describe(Frame(image))["xy"]) < 10 for image in covered)
    blank = [negatives.blank(rng, 120, 160) for _ in range(8)]
    assert all(len(sift.describe(Frame(image))["xy"]) < 60 for image in blank)
    assert np.mean([len(sift.describe(Frame(negatives.noise(rng, 120, 160)))["xy"]) for _ in range(8)]) > 100


# ---------------------------------------------------------------------------------------------- runs, figures


def test_a_frame_is_described_once() -> None:
    calls = []

    class Counting(type(create("sift"))):  # type: ignore[misc]
        def describe(self, frame: Frame) -> object:
            calls.append(frame)
            return super().describe(frame)

    matcher = DescribedOnce(Counting())
    frame = Frame(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))
    assert matcher.describe(frame) is matcher.describe(frame) and len(calls) == 1
    assert matcher.signature == create("sift").signature and matcher.ratio == 0.85
    del frame
    calls.clear()
    assert len(matcher._known) == 0, "features go with their frame"


def test_an_image_is_described_once_by_localizers_of_several_maps() -> None:
    described: list[Frame] = []

    class Counting(type(create("sift"))):  # type: ignore[misc]
        def describe(self, frame: Frame) -> object:
            described.append(frame)
            return super().describe(frame)

    matcher, frame = DescribedOnce(Counting()), make_scene().reference
    maps = [KeyframeMap(image_format="png") for _ in range(3)]
    for keyframe_map in maps:
        keyframe_map.add(PosedFrame(frame, np.eye(4)))
        keyframe_map.prepare(matcher)
    described.clear()
    answers = [Localizer(keyframe_map, matcher).localize(frame) for keyframe_map in maps]
    assert len(described) == 1 and described[0].depth is None
    assert all(answer.matched and answer.matched[0].inlier.sum() > 50 for answer in answers)
    # Another depth, or another camera, is another frame.
    assert matcher.describe(frame) is not matcher.describe(replace(frame, depth=None)) and len(described) == 2
    matcher.describe(replace(frame, camera=None))
    assert len(described) == 3


def pose(metres: float) -> np.ndarray:
    return se3.make(np.eye(3), [metres, 0, 0])


def test_figures_count_what_they_say() -> None:
    def attempt(condition: str, accepted: bool, metres: float, level: str = "", negative: bool = False) -> Attempt:
        truth = None if negative else pose(0.0)
        covariance = np.eye(6) * 0.05**2
        record = Record(
            "q",
            0,
            accepted,
            "" if accepted else "uncertain",
            "",
            pose(metres),
            truth,
            covariance,
            group=condition,
            negative=negative,
            confidence=0.5,
        )
        return Attempt("sift", condition, level, "room 0", record)

    run = StressRun(
        StressSettings(),
        [
            attempt("nominal", True, 0.01),
            attempt("nominal", True, 0.02),
            attempt("nominal", False, 0.03),
            attempt("motion_blur", True, 0.04, "4 px"),
            attempt("motion_blur", True, 3.0, "8 px"),
            attempt("wrong_map", True, 0.0, negative=True),
            *[attempt("noise", False, 0.0, negative=True)] * 3,
        ],
    )
    summary = summarise_stress(run)
    assert (summary["queries"], summary["answered"], summary["wrong_accepted"]) == (5, 4, 1)
    assert summary["negatives"] == 4 and summary["false_accepts_per_1000"] == 250
    assert summary["coverage_kept"] == 0.75, "one of four poses within 10 cm was rejected"
    assert summary["recall"]["0.10m_5deg"] == 0.6
    assert summary["calibration"] == {"0.50": 0.75, "0.90": 0.75, "0.99": 0.75}
    nominal, blur = summary["conditions"]
    assert nominal["recall"]["0.05m_5deg"] == pytest.approx(2 / 3) and nominal["coverage_kept"] == pytest.approx(2 / 3)
    assert blur["wrong_accepted"] == 1 and [level["level"] for level in blur["levels"]] == ["4 px", "8 px"]
    assert {kind["kind"]: kind["accepted"] for kind in summary["negative_kinds"]} == {"wrong_map": 1, "noise": 0}


def test_a_run_obeys_its_gates_and_keeps_what_they_reject() -> None:
    strict = LocalizerSettings(gates=Gates(min_inliers=100_000))
    conditions = ("planar_scene",)
    run = run_stress(
        [create("sift")], StressSettings(0, 1, conditions, queries=3, negatives=0, keyframes=10, localizer=strict)
    )
    assert [attempt.record.reason for attempt in run.attempts] == ["too_few_inliers"] * 3
    assert max(attempt.record.error[0] for attempt in run.attempts) < 0.1, "kept, for choosing gates"
    assert min(attempt.record.evidence["inliers"] for attempt in run.attempts) > 20
    figures = summarise_stress(run)
    assert figures["coverage_kept"] == 0 and figures["good_poses"] == 3
    assert math.isnan(figures["false_accepts_per_1000"]) and figures["negatives"] == 0
    in_turn = figures["with_odometry"]
    assert (in_turn["queries"], in_turn["answered"], in_turn["coverage_kept"]) == (3, 0, 0)


def test_coverage_with_odometry_is_of_the_queries_that_are_good_alone() -> None:
    def record(name: str, accepted: bool, metres: float) -> Record:
        return Record(name, 0, accepted, "" if accepted else "uncertain", "", pose(metres), pose(0.0))

    alone = [record("kept", True, 0.01), record("refused", False, 0.02), record("bad", False, 2.0)]
    in_turn = [record("kept", False, 0.01), record("refused", True, 0.03), record("bad", True, 0.4)]
    figures = with_odometry(alone, in_turn)
    assert figures["coverage_kept"] == 0.5, "one of the two that are good alone"
    assert (figures["queries"], figures["answered"], figures["wrong_accepted"]) == (3, 2, 1)


def test_the_command_prints_the_contract_and_writes_a_report(tmp_path: Path) -> None:
    arguments = [
        "evaluate",
        "stress",
        "--matcher",
        "sift",
        "--seed",
        "0",
        "--conditions",
        "textureless_walls",
        "--json",
    ]
    result = separate_runner().invoke(app, [*arguments, "--quick", "--report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert 20 < figures["negatives"] <= 60 and set(figures["calibration"]) == {"0.50", "0.90", "0.99"}
    assert {"false_accepts_per_1000", "coverage_kept", "queries", "answered", "wrong_accepted", "recall"} <= set(
        figures
    )
    assert set(figures["starts"]) >= {"tried", "false_commits", "p_second_false"}
    assert isinstance(figures["calibration_by_quartile"], list)
    assert [row["condition"] for row in figures["conditions"]] == ["textureless_walls"]
    assert (tmp_path / "conditions.png").stat().st_size > 10_000
    assert "What was asked" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len((tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()) == 4 + figures["negatives"]


def test_the_command_has_the_defaults_of_the_settings() -> None:
    options, settings = inspect.signature(stress).parameters, StressSettings()
    for name in ("seed", "rooms", "queries", "negatives"):
        assert options[name].default == getattr(settings, name), name
    assert settings.seed == HELD_OUT_SEED > TUNING_SEED


def test_a_contact_sheet_keeps_proportions() -> None:
    sheet = contact_sheet(
        [("wide", np.full((60, 160, 3), 200, np.uint8)), ("tall", np.full((90, 60, 3), 200, np.uint8))], 2
    )
    assert sheet.shape == (HEIGHT + CAPTION, 2 * WIDTH, 3)
    shown = (sheet[CAPTION:] == 200).all(axis=2)
    assert shown[:, :WIDTH].sum() == 320 * 120 and shown[:, WIDTH:].sum() == 160 * 240


def test_a_warehouse_whose_middle_is_full_is_orbited_where_there_is_room() -> None:
    (scene,) = scenes_of(4, ["orbit"], StressSettings().camera, 8)
    assert scene.place.name == "warehouse 4" and len(scene.mapping) >= 5
    positions = np.array([shot.map_T_camera[:3, 3] for shot in scene.mapping])
    assert (scene.place.world.clearance(positions) > 0.25).all()


# ------------------------------------------------------------------------------------------------ starts


class TestStarts:
    @pytest.fixture(scope="class")
    def seen(self, scenes: dict[str, Scene]) -> Film:
        return film(scenes["room"].place, SMALL, 14, np.eye(4))

    def test_a_robot_that_is_carried_away_sees_another_place_and_its_odometry_nothing(self, seen: Film) -> None:
        away = carried(seen, 4, 10)
        assert len(away.frames) == 4 + len(seen.frames) - 10
        np.testing.assert_allclose(away.odom_T_camera[3], away.odom_T_camera[4], atol=1e-9)
        np.testing.assert_allclose(away.truth[4], seen.truth[10])
        assert away.frames[4].image is seen.frames[10].image
        step = se3.inverse(away.odom_T_camera[4]) @ away.odom_T_camera[5]
        np.testing.assert_allclose(step, se3.inverse(seen.odom_T_camera[10]) @ seen.odom_T_camera[11], atol=1e-9)
        stamps = np.array([frame.stamp_ns for frame in away.frames])
        assert (np.diff(stamps) == 5 * 10**8).all()

    def test_the_mirror_image_is_mirrored_with_its_motion(self, seen: Film) -> None:
        mirror = mirrored(seen)
        np.testing.assert_array_equal(mirror.frames[2].image[:, ::-1], seen.frames[2].image)
        ours, theirs = (se3.inverse(f.odom_T_camera[0]) @ f.odom_T_camera[5] for f in (seen, mirror))
        np.testing.assert_allclose(theirs[:3, 3], ours[:3, 3] * [-1, 1, 1], atol=1e-9)
        assert mirror.truth is None and np.linalg.det(theirs[:3, :3]) > 0

    def test_starts_in_the_room_commit_to_it_and_starts_in_its_mirror_image_to_nothing(
        self, scenes: dict[str, Scene], seen: Film
    ) -> None:
        stage = Stage(take(scenes["room"].mapping, 1), {})
        localizer = stage_localizer(stage, create("sift"), LocalizerSettings())
        settings = StartSettings(
            starts=4, tracking=TrackerSettings(joint_frames=1, commit_evidence=0.2, commit_views=2)
        )
        inside = list(starts_on(seen, localizer, settings, "in the map", ""))
        assert len(inside) == 4 and not any(start.false for start in inside)
        assert any(math.isfinite(start.seconds) for start in inside)
        beside = list(starts_on(mirrored(seen), localizer, settings, "mirrored_rooms", ""))
        assert not any(math.isfinite(start.seconds) for start in beside)
        figures = summarise_starts([*inside, *beside], [])
        assert figures["tried"] == 8 and figures["false_commits"] == 0 and 0 < figures["committed_in_the_map"] <= 1
        assert [row["place"] for row in figures["by_place"]] == ["", ""]

    def test_a_twin_has_the_same_walls_and_other_pictures(self) -> None:
        light = LightingSettings(1, 1)
        one, twin = (make_room("kitchen", 3, RoomSettings(make=3, twin=k, lighting=light)) for k in (0, 1))
        assert one.names == twin.names and torch.equal(one.centre, twin.centre)
        assert not torch.equal(one.atlas.texels, twin.atlas.texels)
