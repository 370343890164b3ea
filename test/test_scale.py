"""Nothing depends on the size of a scene but by its size: neighbours, keyframes, gates, sigmas and limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from test_map_build import CAMERA, sideways, view, wall  # noqa: F401  # a fixture

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.distortion import widest
from mast3r_ros.localization import Localizer, LocalizerSettings, PosePrior, Reason, Tracker
from mast3r_ros.localization.belief import Belief, BeliefSettings
from mast3r_ros.localization.estimate import DepthCheck, PoseEstimate
from mast3r_ros.localization.focal_memory import FocalMemory
from mast3r_ros.localization.map_noise import measure_pose_noise, save_ready
from mast3r_ros.localization.portable import PortableLocalizer, Query
from mast3r_ros.localization.protection import TAIL, alert_limit, protection_level
from mast3r_ros.localization.uncertainty import MEASURED_WITH, noise_with, unproven_noise
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KEEP_ALL, KeyframeSelector
from mast3r_ros.matching.registry import create

Picture = NDArray[np.uint8]
PLACES = [sideways(x, angle) for x, angle in ((-0.5, 6), (-0.2, 2), (0.1, -2), (0.4, -5), (0.7, -8))]
QUERIES = [se3.exp([x, 0.1, z, 0.02, a, 0.05]) for x, z, a in ((-0.3, 0.2, 0.05), (0.2, -0.3, -0.05))]


def larger(posed: PosedFrame, factor: float) -> PosedFrame:
    """The same picture of a world that is so many times as large."""
    pose = posed.map_T_camera.copy()
    pose[:3, 3] *= factor
    depth = None if posed.frame.depth is None else (posed.frame.depth * factor).astype(np.float32)
    return PosedFrame(replace(posed.frame, depth=depth), pose)


@dataclass(frozen=True)
class World:
    """A map and what was found in it."""

    map: KeyframeMap
    truth: list[NDArray[np.float64]]
    found: list[PoseEstimate]


def world(wall: Picture, factor: float, depth: bool, limit_m: float = 0.0) -> World:  # noqa: F811
    matcher = create("sift", max_features=600)
    views = [larger(view(wall, pose, depth=depth), factor) for pose in PLACES]
    keyframe_map, _ = build_map(views, selection=KEEP_ALL, matcher=matcher)
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=4, alert_limit_m=limit_m))
    asked = [larger(view(wall, pose, depth=False), factor) for pose in QUERIES]
    mirrored = replace(asked[0].frame, image=np.ascontiguousarray(asked[0].frame.image[:, ::-1]))
    found = [localizer.localize(frame) for frame in (*(p.frame for p in asked), mirrored)]
    return World(keyframe_map, [p.map_T_camera for p in asked], found)


@pytest.fixture(scope="module", params=[True, False], ids=["depth", "triangulated"])
def usual(request: pytest.FixtureRequest, wall: Picture) -> tuple[World, bool]:  # noqa: F811
    return world(wall, 1.0, request.param, 0.25), request.param


@pytest.mark.parametrize("factor", [0.1, 10.0, 100.0])
def test_a_world_of_another_size_gives_the_same_answers(
    usual: tuple[World, bool],
    wall: Picture,  # noqa: F811
    factor: float,
) -> None:
    before, depth = usual
    after = world(wall, factor, depth, 0.25 * factor)  # what a user can bear is the user's: it grows with the world
    assert [e.reason for e in after.found] == [e.reason for e in before.found]
    assert [e.localized for e in before.found] == [True, True, False]
    assert after.map.scene_depth_m == pytest.approx(factor * before.map.scene_depth_m, rel=2e-3)
    for a, b, pose_a, pose_b in zip(after.found, before.found, after.truth, before.truth, strict=False):
        assert a.map_T_camera is not None and b.map_T_camera is not None
        (metres_a, degrees_a), (metres_b, degrees_b) = (
            se3.pose_error(a.map_T_camera, pose_a),
            se3.pose_error(b.map_T_camera, pose_b),
        )
        assert metres_a / factor == pytest.approx(metres_b, abs=2e-3)
        assert degrees_a == pytest.approx(degrees_b, abs=0.05)
        assert a.evidence.position_sigma_m == pytest.approx(factor * b.evidence.position_sigma_m, rel=0.05)
        assert a.protection.position_m == pytest.approx(factor * b.protection.position_m, rel=0.05)
        assert a.alert_limit and b.alert_limit
        assert a.alert_limit.position_m == pytest.approx(factor * b.alert_limit.position_m)


def test_what_the_user_can_bear_decides_and_scales_too(wall: Picture) -> None:  # noqa: F811
    refused = world(wall, 1.0, True, limit_m=0.001).found[0]
    assert refused.reason is Reason.UNCERTAIN and "alert_limit_m is 0.001" in refused.detail
    assert world(wall, 100.0, True, limit_m=0.1).found[0].reason is Reason.UNCERTAIN
    assert world(wall, 100.0, True, limit_m=25.0).found[0].localized


def test_the_usual_limit_is_25_cm_in_rooms_and_follows_the_scale() -> None:
    assert [alert_limit(depth).position_m for depth in (1.0, 2.5, 5.0)] == [0.25] * 3
    assert [alert_limit(depth).position_m for depth in (0.1, 0.5)] == pytest.approx([0.025, 0.125]), "a quarter"
    assert [alert_limit(depth).position_m for depth in (8.0, 35.0)] == pytest.approx([0.4, 1.75]), "a twentieth"
    limits = [alert_limit(depth).position_m for depth in np.geomspace(0.01, 1000, 400)]
    assert max(np.diff(np.log(limits))) < 0.03, "nowhere does it jump"


def test_errors_exceed_their_protection_level_as_often_as_the_risk_says() -> None:
    """Errors of the distribution that the levels assume: a t distribution whose 90 % ellipsoids hold 90 %."""
    rng = np.random.default_rng(0)
    covariance = np.diag([0.04, 0.02, 0.01, 0.002, 0.01, 0.002]) ** 2
    normal = rng.normal(size=(200_000, 6)) @ np.sqrt(covariance)
    errors = normal / np.sqrt(rng.chisquare(TAIL, size=(len(normal), 1)) / TAIL)
    squared = (errors**2 / np.diag(covariance)).sum(axis=1)
    errors *= np.sqrt(chi2.ppf(0.9, 6) / np.quantile(squared, 0.9))
    for risk in (1e-2, 1e-3):
        level = protection_level(covariance, risk)
        beyond = np.linalg.norm(errors[:, :3], axis=1) > level.position_m
        turned = np.linalg.norm(errors[:, 3:], axis=1) > level.rotation_rad
        assert 0.5 * risk < beyond.mean() < 1.5 * risk and 0.5 * risk < turned.mean() < 1.5 * risk


def test_keyframes_are_chosen_alike_whatever_the_size_and_without_depth(wall: Picture) -> None:  # noqa: F811
    poses = [sideways(x) for x in np.arange(0, 1.0, 0.05)]
    kept = {}
    for depth in (True, False):
        for factor in (0.1, 1.0, 10.0):
            selector = KeyframeSelector()
            frames = [larger(view(wall, pose, depth=depth), factor) for pose in poses]
            kept[depth, factor] = [n for n, posed in enumerate(frames) if selector.judge(posed) is None]
    assert kept[True, 0.1] == kept[True, 1.0] == kept[True, 10.0]
    assert kept[False, 0.1] == kept[False, 1.0] == kept[False, 10.0]
    assert kept[True, 1.0] == [0, 5, 10, 15], "a new view every 8 % of 3 m"
    assert abs(len(kept[False, 1.0]) - 4) <= 1


def test_photographs_far_apart_are_all_kept(wall: Picture) -> None:  # noqa: F811
    selector = KeyframeSelector()
    rng = np.random.default_rng(0)
    others = [cv2.resize(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8), (320, 240)) for _ in range(3)]
    frames = [PosedFrame(Frame(image, CAMERA), sideways(6.0 * n)) for n, image in enumerate(others)]
    assert [selector.judge(posed) for posed in frames] == [None] * 3


def test_left_out_keyframes_measure_the_same_noise(wall: Picture) -> None:  # noqa: F811
    matcher = create("sift", max_features=400)
    rng = np.random.default_rng(1)
    noise = [se3.exp(rng.normal(size=6) * [0.01, 0.01, 0.01, 0.003, 0.003, 0.003]) for _ in range(12)]
    poses = [sideways(x) for x in np.linspace(-0.6, 0.6, 12)]
    measured = []
    for factor in (1.0, 100.0):
        views = [view(wall, pose) for pose in poses]
        given = [PosedFrame(v.frame, n @ v.map_T_camera) for v, n in zip(views, noise, strict=True)]
        keyframe_map, _ = build_map([larger(v, factor) for v in given], selection=KEEP_ALL, matcher=matcher)
        found = measure_pose_noise(keyframe_map, matcher)
        assert found is not None
        measured.append((found.position_m / factor, found.rotation_rad, found.found_elsewhere))
    assert measured[0] == pytest.approx(measured[1], rel=0.15, abs=1e-4)


def test_triangulated_points_are_no_depth_that_a_left_out_keyframe_measured(wall: Picture) -> None:  # noqa: F811
    """Points of a coarse matcher are off by a tenth: held against them, 16 of a desk's 20 keyframes were not found."""
    matcher = create("sift", max_features=400)
    poses = [sideways(x) for x in np.linspace(-0.6, 0.6, 6)]
    keyframe_map, _ = build_map([view(wall, pose) for pose in poses], selection=KEEP_ALL, matcher=matcher)
    localizer = PortableLocalizer(Localizer(keyframe_map, matcher))
    with_depth = localizer(Query("000002", ["000002"]))
    assert with_depth.localized and with_depth.evidence.depth_check is DepthCheck.DONE
    ys, xs = np.mgrid[4:236:8, 4:316:8]
    keyframe_map.set_points("000002", np.column_stack([xs.ravel(), ys.ravel()]), np.full(xs.size, 4.0))
    assert keyframe_map.frame("000002").depth is not None
    without = localizer(Query("000002", ["000002"]))
    assert without.localized and without.evidence.depth_check is DepthCheck.NONE


def test_what_one_matchers_matches_are_worth_says_nothing_of_anothers(wall: Picture, tmp_path: Path) -> None:  # noqa: F811
    """A courtyard's map of SIFT, measured to centimetres, was asked with a network that errs by metres there."""
    sift, orb = create("sift", max_features=400), create("sift", feature="orb", max_features=400)
    keyframe_map, _ = build_map(
        [view(wall, sideways(x)) for x in np.linspace(-0.6, 0.6, 8)], selection=KEEP_ALL, matcher=sift
    )
    save_ready(keyframe_map, sift, tmp_path / "map")
    opened = KeyframeMap.load(tmp_path / "map")
    assert opened.pose_noise is not None and noise_with(opened, sift) == opened.pose_noise
    assert noise_with(opened, orb) == unproven_noise(opened.view_depth_m)
    frame = view(wall, sideways(0.1), depth=False).frame
    levels = [Localizer(opened, matcher).localize(frame).protection.position_m for matcher in (sift, orb)]
    save_ready(opened, orb, tmp_path / "map")
    levels.append(Localizer(KeyframeMap.load(tmp_path / "map"), orb).localize(frame).protection.position_m)
    assert levels[1] > 3 * levels[2] and levels[1] > 3 * levels[0]
    opened.provenance.pop(MEASURED_WITH)
    assert noise_with(opened, sift) == opened.pose_noise, "earlier versions did not note it"


class TestPointsAndDepthOfAnyDistance:
    def test_what_is_far_is_kept_and_what_is_near_is_exact(self, tmp_path: Path, wall: Picture) -> None:  # noqa: F811
        for factor in (0.01, 40.0, 1000.0):
            keyframe_map = KeyframeMap()
            posed = larger(view(wall, sideways(0)), factor)
            keyframe_map.add(posed)
            keyframe_map.save(tmp_path / f"{factor}")
            depth = KeyframeMap.load(tmp_path / f"{factor}").frame("000000").depth
            assert posed.frame.depth is not None
            np.testing.assert_allclose(depth, posed.frame.depth, rtol=1e-3)

    def test_rooms_stay_images_that_people_can_open(self, tmp_path: Path, wall: Picture) -> None:  # noqa: F811
        keyframe_map = KeyframeMap()
        keyframe_map.add(view(wall, sideways(0)))
        keyframe_map.save(tmp_path / "map")
        assert [file.name for file in (tmp_path / "map" / "depth").iterdir()] == ["000000.png"]

    def test_points_come_back_and_damaged_ones_are_named(self, tmp_path: Path, wall: Picture) -> None:  # noqa: F811
        keyframe_map = KeyframeMap()
        keyframe_map.add(view(wall, sideways(0), depth=False))
        keyframe_map.set_points("000000", np.array([[10.0, 20.0], [11.0, 20.0]]), np.array([300.5, 200.25]))
        assert keyframe_map.scene_depth_m == pytest.approx(250.375)
        keyframe_map.save(tmp_path / "map")
        loaded = KeyframeMap.load(tmp_path / "map")
        depth = loaded.frame("000000").depth
        assert depth is not None and depth[20, 9] == np.float32(300.5) and depth[20, 11] == np.float32(200.25)
        assert depth[20, 10] == np.float32(200.25), "the nearest wins"
        assert loaded.scene_depth_m == pytest.approx(250.375) and loaded["000000"].has_depth
        file = tmp_path / "map" / "points" / "000000.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + b"abcd")
        with pytest.raises(MapError, match="changed since it was saved"):
            KeyframeMap.load(tmp_path / "map").frame("000000")

    def test_a_map_of_format_1_is_read_and_saved_as_the_new_one(self, tmp_path: Path, wall: Picture) -> None:  # noqa: F811
        keyframe_map = KeyframeMap()
        keyframe_map.add(view(wall, sideways(0)))
        keyframe_map.save(tmp_path / "map")
        header, lines = tmp_path / "map" / "map.yaml", tmp_path / "map" / "keyframes.jsonl"
        before = lines.read_bytes()
        after = before.replace(b'"format": "png", "bytes"', b'"bytes"')
        assert after != before
        lines.write_bytes(after)
        import hashlib

        digests = [hashlib.sha256(data).hexdigest() for data in (before, after)]
        text = header.read_text().replace("format_version: 2", "format_version: 1").replace(*digests)
        header.write_text(text)
        (tmp_path / "map" / "points").rmdir()
        old = KeyframeMap.load(tmp_path / "map")
        assert old.frame("000000").depth is not None
        old.save(tmp_path / "new")
        assert "format_version: 2" in (tmp_path / "new" / "map.yaml").read_text()
        assert np.array_equal(KeyframeMap.load(tmp_path / "new").frame("000000").depth, old.frame("000000").depth)


class TestLensesThatFold:
    BARREL = Camera(
        640,
        480,
        np.array([[350.0, 0, 319.5], [0, 350.0, 239.5], [0, 0, 1]]),
        "plumb_bob",
        np.array([-0.3, 0.06, 0, 0, 0]),
    )

    @pytest.mark.parametrize(
        ("model", "D"),
        [
            ("plumb_bob", [-0.3, 0.06, 0.001, -0.001, 0]),
            ("plumb_bob", [-0.4, 0.1, 0, 0, -0.02]),
            ("rational_polynomial", [0.2, -0.3, 0, 0, 0.01, 0.5, -0.2, 0.0]),
            ("equidistant", [-0.1, -0.05, 0.0, 0.0]),
            ("equidistant", [0.02, 0.01, 0.0, 0.0]),
        ],
    )
    def test_a_point_is_in_the_image_only_where_its_pixel_looks_at_it(self, model: str, D: list[float]) -> None:
        camera = Camera(640, 480, self.BARREL.K, model, np.array(D))
        angle = np.radians(np.arange(1, 89))
        points = np.stack([np.sin(angle), 0.3 * np.sin(angle), np.cos(angle)], axis=1)
        xy = camera.project(points)
        inside = np.isfinite(xy).all(axis=1) & (xy >= 0).all(axis=1) & (xy < [640, 480]).all(axis=1)
        rays = camera.rays(xy[inside])
        known = np.isfinite(rays).all(axis=1)
        assert inside.sum() > 20 and known.mean() > 0.9
        np.testing.assert_allclose(rays[known], points[inside][known, :2] / points[inside][known, 2:], rtol=1e-3)

    def test_landmarks_far_beside_the_camera_do_not_land_in_the_image(self) -> None:
        limit = widest("plumb_bob", (-0.3, 0.06, 0.0, 0.0, 0.0))
        folded = Camera(640, 480, self.BARREL.K, "plumb_bob", np.array([-0.3, 0, 0, 0, 0]))
        angle = np.radians([66, 70, 76])
        points = np.stack([np.sin(angle), np.zeros(3), np.cos(angle)], axis=1)
        assert np.isnan(folded.project(points)).all()
        assert np.isfinite(folded.project(np.array([[0.5, 0.2, 1.0]]))).all() and limit > 1


class TestBelief:
    SETTINGS = BeliefSettings()

    def test_a_loop_lets_odometry_drift_by_its_length(self) -> None:
        belief = Belief(np.eye(4), np.eye(4), 0, 0.01, 0.005)
        for angle in np.linspace(0, 2 * np.pi, 41)[1:]:
            here = se3.make(np.eye(3), [3.2 * np.sin(angle), 3.2 * (1 - np.cos(angle)), 0])
            belief = belief.travelled(here)
        prior = belief.now(10**10, np.eye(4), self.SETTINGS)
        assert belief.way_m == pytest.approx(20, rel=0.01)
        assert prior.position_sigma_m == pytest.approx(1.0, rel=0.05), "5 % of 20 m, though it is back at the start"
        assert prior.rotation_sigma_rad > 0.5

    def test_a_heading_that_is_off_carries_it_aside(self) -> None:
        belief = Belief(np.eye(4), np.eye(4), 0, 0.0, 0.1)
        far = belief.now(10**9, se3.make(np.eye(3), [10.0, 0, 0]), self.SETTINGS)
        assert far.position_sigma_m > 1.0

    def test_it_expires_with_or_without_odometry_and_when_time_jumps_back(self) -> None:
        found = Belief(np.eye(4), None, 10**11, 0.1, 0.1)
        assert not found.expired(10**11 + 10**10, self.SETTINGS)
        assert found.expired(10**11 + 31 * 10**9, self.SETTINGS) and found.expired(10**11 - 1, self.SETTINGS)
        told = replace(found, told=True)
        assert not told.expired(10**11 - 10**8, self.SETTINGS) and told.expired(10**11 + 31 * 10**9, self.SETTINGS)

    def test_a_belief_that_could_be_anywhere_vouches_for_nothing(self, wall: Picture) -> None:  # noqa: F811
        """An initial pose, five seconds without odometry, a map whose places look alike: nothing is believed."""
        matcher = create("sift", max_features=600)
        keyframe_map, _ = build_map([view(wall, pose) for pose in PLACES], selection=KEEP_ALL, matcher=matcher)
        from mast3r_ros.mapping.keyframe import PoseNoise

        keyframe_map.pose_noise = PoseNoise(0.005, 0.003, found_elsewhere=0.5)
        frame = replace(view(wall, QUERIES[0], depth=False).frame, stamp_ns=10**10)
        told = PosePrior(QUERIES[0], 0.3, 0.2)
        soon, late = Tracker(Localizer(keyframe_map, matcher)), Tracker(Localizer(keyframe_map, matcher))
        soon.set_prior(told, stamp_ns=10**10 - 10**8)
        late.set_prior(told, stamp_ns=5 * 10**9)
        assert soon.localize(frame).localized
        assert late.localize(frame).reason is Reason.AMBIGUOUS_MAP


def test_focal_lengths_are_remembered_by_camera_and_forgotten_with_the_lens() -> None:
    memory = FocalMemory()
    left, right = ("left", 640, 480), ("right", 640, 480)
    for focal in (500.0, 503.0, 498.0, 501.0):
        memory.remember(left, focal)
    assert memory.known(left) is None
    memory.remember(left, 499.0)
    assert memory.known(left) == pytest.approx(500) and memory.known(right) is None
    memory.remember(left, 900.0)
    assert memory.known(left) is None, "it was zoomed: what was known of the other lens does not hold"
