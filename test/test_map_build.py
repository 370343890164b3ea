"""Building maps: which frames become keyframes, and points for those without depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import walls
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.splits import temporary_map
from mast3r_ros.lab.speed.tile import tile_map
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.selection import KEEP_ALL, KeyframeSelector, SelectionSettings, Skip, sharpness
from mast3r_ros.matching.base import Capabilities, Features, Matches, PixelMatches
from mast3r_ros.matching.fake import FakeMatcher
from mast3r_ros.surface import surface_points

CAMERA = Camera.pinhole(320, 240, 260, 260, 159.5, 119.5)
WALL_M = 3.0


@pytest.fixture(scope="module")
def wall() -> NDArray[np.uint8]:
    """A poster of blobs of all sizes, one pixel per 5 mm, centred at the origin of the wall plane z = 3 m."""
    return walls.poster(0, 1000, 1400)


def view(wall: NDArray[np.uint8], pose: NDArray[np.float64], *, depth: bool = True) -> PosedFrame:
    """What a camera at that pose sees of the wall, exactly."""
    camera_T_map = se3.inverse(pose)
    wall_T_pixel = np.array([[0.005, 0, -700 * 0.005], [0, 0.005, -500 * 0.005], [0, 0, 1]])
    plane = np.stack(
        [camera_T_map[:3, 0], camera_T_map[:3, 1], camera_T_map[:3, :3] @ [0, 0, WALL_M] + camera_T_map[:3, 3]]
    )
    image = cv2.warpPerspective(wall, CAMERA.K @ plane.T @ wall_T_pixel, (CAMERA.width, CAMERA.height))
    rays = np.concatenate([CAMERA.pixel_rays, np.ones((CAMERA.height, CAMERA.width, 1))], axis=-1)
    metres = ((WALL_M - pose[2, 3]) / (rays @ pose[2, :3])).astype(np.float32)
    return PosedFrame(Frame(image, CAMERA, 0, metres if depth else None), pose)


def sideways(metres: float, degrees: float = 0.0) -> NDArray[np.float64]:
    return se3.exp([metres, 0, 0, 0, np.radians(degrees), 0])


def test_only_new_views_are_kept(wall: NDArray[np.uint8]) -> None:
    settings = SelectionSettings(distance_m=0.25, angle_deg=15)
    there_and_back = [*np.arange(0, 1.001, 0.05), *np.arange(0.95, -0.001, -0.05)]
    keyframe_map, report = build_map([view(wall, sideways(x)) for x in there_and_back], selection=settings)
    assert [round(k.map_T_camera[0, 3], 2) for k in keyframe_map.keyframes] == [0, 0.25, 0.5, 0.75, 1.0]
    assert (report.frames, report.kept, report.skipped) == (41, 5, {"nothing_new": 36})
    turning, report = build_map([view(wall, sideways(0, angle)) for angle in range(0, 31, 5)], selection=settings)
    assert len(turning) == 3


@pytest.mark.parametrize(("distance", "kept"), [(0.05, 3), (0.15, 2), (0.25, 1)])
def test_distance_is_a_share_of_what_is_seen(distance: float, kept: int, wall: NDArray[np.uint8]) -> None:
    """Views 0.3 m apart of a wall 3 m away: each is a tenth further."""
    selector = KeyframeSelector(SelectionSettings(distance=distance, angle_deg=90, sharpness=0.0))
    verdicts = [selector.judge(view(wall, sideways(0.3 * n))) for n in range(3)]
    assert sum(verdict is None for verdict in verdicts) == kept


def test_a_smeared_frame_is_skipped_and_a_plain_wall_is_not(wall: NDArray[np.uint8]) -> None:
    selector = KeyframeSelector(SelectionSettings(distance_m=0.04, angle_deg=90))
    sharp = [view(wall, sideways(0.01 * i)) for i in range(8)]
    for posed in sharp:
        selector.judge(posed)
    after = view(wall, sideways(0.09))
    smeared = replace(after, frame=replace(after.frame, image=cv2.blur(after.frame.image, (25, 1))))
    assert sharpness(smeared.frame.image) < sharpness(after.frame.image)
    assert selector.judge(smeared) is Skip.BLURRED
    assert selector.judge(after) is None
    lenient = KeyframeSelector(SelectionSettings(distance_m=0.04, angle_deg=90, sharpness=0.0))
    assert lenient.judge(sharp[0]) is None and lenient.judge(smeared) is None
    plain = replace(after, frame=replace(after.frame, image=np.full_like(after.frame.image, 200)))
    assert selector.judge(replace(plain, map_T_camera=sideways(5.0))) is None, "there is nothing to compare it with"


def test_unusable_frames_are_counted_by_reason(wall: NDArray[np.uint8]) -> None:
    good = [view(wall, sideways(x)) for x in (0.0, 1.0, 2.0)]
    source = [
        good[0],
        replace(good[1], frame=Frame(good[1].frame.image)),
        view(wall, sideways(1.0), depth=False),
        replace(good[1], map_T_camera=np.full((4, 4), np.nan)),
        good[1],
        good[2],
    ]
    seen = []
    keyframe_map, report = build_map(
        source, selection=SelectionSettings(max_keyframes=2), progress=lambda *counts: seen.append(counts)
    )
    assert len(keyframe_map) == report.kept == 2
    assert report.skipped == {"no_calibration": 1, "no_depth": 1, "bad_pose": 1, "map_full": 1}
    assert seen[-1] == (6, 2) and report.triangulated == {}
    with pytest.raises(MapError, match="rigid"):
        build_map([replace(good[0], map_T_camera=np.diag([2.0, 1, 1, 1]))])


def test_the_map_is_described_on_request(wall: NDArray[np.uint8]) -> None:
    matcher = FakeMatcher()
    frames = [view(wall, sideways(x)) for x in (0.0, 0.5, 1.0)]
    keyframe_map, _ = build_map(frames, frame_id="hall", matcher=matcher, source_name="a wall")
    assert keyframe_map.frame_id == "hall" and keyframe_map.provenance["source"] == "a wall"
    assert keyframe_map.retrieve(matcher, matcher.describe(frames[1].frame), 1) == ["000001"]


def test_an_empty_source_makes_an_empty_map() -> None:
    keyframe_map, report = build_map([])
    assert len(keyframe_map) == report.frames == 0


def test_points_of_keyframes_without_depth_are_triangulated(wall: NDArray[np.uint8]) -> None:
    poses = [sideways(x, angle) for x, angle in ((0, 0), (0.3, 4), (0.6, -3), (0.9, 5))]
    exact = [view(wall, pose) for pose in poses]
    keyframe_map, report = build_map([view(wall, pose, depth=False) for pose in poses], selection=KEEP_ALL)
    assert not report.without_points
    for keyframe, truth in zip(keyframe_map.keyframes, exact, strict=True):
        assert keyframe.has_depth and report.triangulated[keyframe.id] > 50
        depth = keyframe_map.frame(keyframe.id).depth
        known = depth > 0
        error = np.abs(depth - truth.frame.depth)[known]
        assert 50 < known.sum() < 0.5 * depth.size
        assert np.median(error) < 0.02 and np.quantile(error, 0.95) < 0.10


class Markers:
    """Finds markers of a wall that SIFT sees nothing on: a matcher of pixels that knows no depth."""

    name = signature = "markers"
    capabilities = Capabilities(landmarks=True, pixel_matches=True)
    markers = np.stack(np.meshgrid(np.linspace(-1, 1.6, 14), np.linspace(-1, 1, 9), [WALL_M]), axis=-1).reshape(-1, 3)

    def __init__(self, poses: list[NDArray[np.float64]]) -> None:
        self.poses = poses

    def describe(self, frame: Frame) -> Features:
        xy, seen = CAMERA.seen(se3.apply(se3.inverse(self.poses[frame.stamp_ns]), self.markers))
        return {"xy": xy, "seen": seen, "points": surface_points(frame, xy)}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        return np.ones((1, 8), np.float32)

    def landmarks(self, features: Features) -> NDArray[np.float32]:
        return features["points"][np.isfinite(features["points"][:, 2])]

    def match(self, query: Features, references: list[Features]) -> list[Matches]:
        known = [q["seen"] & np.isfinite(q["points"][:, 2]) & query["seen"] for q in references]
        return [
            Matches(query["xy"][rows], q["xy"][rows], q["points"][rows].astype(float), np.ones(rows.sum()))
            for q, rows in zip(references, known, strict=True)
        ]

    def match_pixels(self, query: Features, references: list[Features]) -> list[PixelMatches]:
        found = []
        for reference in references:
            seen = query["seen"] & reference["seen"]
            found.append(PixelMatches(query["xy"][seen], reference["xy"][seen]))
        return found


def test_points_are_where_the_matcher_finds_something_not_where_sift_does() -> None:
    grey = np.full((CAMERA.height, CAMERA.width, 3), 128, np.uint8)
    poses = [sideways(x, angle) for x, angle in ((0, 0), (0.3, 4), (0.6, -3))]
    matcher = Markers(poses)
    source = [PosedFrame(Frame(grey, CAMERA, stamp), pose) for stamp, pose in enumerate(poses)]
    keyframe_map, report = build_map(source, selection=KEEP_ALL, matcher=matcher, describe=False)
    assert not report.without_points
    for keyframe, pose in zip(keyframe_map.keyframes, poses, strict=True):
        points = matcher.landmarks(keyframe_map.features(matcher, keyframe.id))
        assert len(points) == report.triangulated[keyframe.id] > 40
        assert np.abs(se3.apply(pose, points)[:, 2] - WALL_M).max() < 0.01
    with temporary_map(source, matcher, "markers") as of_an_evaluation:  # type: ignore[arg-type]
        assert all(keyframe.has_depth for keyframe in of_an_evaluation.keyframes)


def test_wrong_poses_and_pure_rotation_give_no_points(wall: NDArray[np.uint8]) -> None:
    turning = [view(wall, sideways(0, angle), depth=False) for angle in (0, 5, 10)]
    _, report = build_map(turning, selection=KEEP_ALL)
    assert sorted(report.without_points) == ["000000", "000001", "000002"], "no baseline, no depth"
    moved = [view(wall, sideways(x), depth=False) for x in (0, 0.3, 0.6)]
    vertical = [replace(p, map_T_camera=se3.exp([0, p.map_T_camera[0, 3], 0, 0, 0, 0])) for p in moved]
    _, honest = build_map(moved, selection=KEEP_ALL)
    _, wrong = build_map(vertical, selection=KEEP_ALL)
    assert sum(wrong.triangulated.values()) < 0.05 * sum(honest.triangulated.values())


def test_keyframes_with_sensor_depth_are_left_alone(wall: NDArray[np.uint8]) -> None:
    source = [view(wall, sideways(0), depth=False), view(wall, sideways(0.4)), view(wall, sideways(0.8))]
    keyframe_map, report = build_map(source, selection=KEEP_ALL)
    assert list(report.triangulated) == ["000000"] and report.triangulated["000000"] > 50
    assert np.allclose(keyframe_map.frame("000001").depth, source[1].frame.depth, atol=6e-4)


def test_a_tiled_map_repeats_poses_and_features(wall: NDArray[np.uint8], tmp_path: Path) -> None:
    matcher = FakeMatcher()
    frames = [view(wall, sideways(x)) for x in (0.0, 0.5, 1.0)]
    small, _ = build_map(frames)
    small.save(tmp_path / "small")
    small.prepare(matcher)
    large = tile_map(tmp_path / "small", tmp_path / "large", 10, spacing_m=20)
    assert len(large) == 10
    assert np.allclose(large["000004"].map_T_camera[:3, 3], [20.5, 0, 0])
    assert np.array_equal(large.frame("000004").image, small.frame("000001").image)
    assert len(list((tmp_path / "large" / "features" / matcher.signature).iterdir())) == 10
    found = large.retrieve(matcher, matcher.describe(frames[1].frame), 3)
    assert sorted(found) == ["000001", "000004", "000007"]
