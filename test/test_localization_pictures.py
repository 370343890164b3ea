"""What is shown of an estimate: the match picture, the query's cloud, and the covariance of the robot's pose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.localization import draw
from mast3r_ros.localization.cloud import query_cloud
from mast3r_ros.localization.estimate import KeyframeMatches, PoseEstimate, Reason, Status
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matches

CAMERA = Camera.pinhole(64, 48, 60, 60, 31.5, 23.5)


def test_carried_covariance_is_that_of_the_attached_frame() -> None:
    rng = np.random.default_rng(1)
    map_T_camera = se3.exp([1, 2, 3, 0.4, -1.0, 0.3])
    camera_T_base = se3.exp([0.5, -1.5, 0.8, 1.0, 0.2, -0.7])
    L = 0.01 * rng.normal(size=(6, 6))
    samples = rng.normal(size=(100_000, 6)) @ L.T
    turned = Rotation.from_rotvec(samples[:, 3:]) * Rotation.from_matrix(map_T_camera[:3, :3])
    bases = map_T_camera[:3, 3] + samples[:, :3] + turned.apply(camera_T_base[:3, 3])
    nominal = map_T_camera @ camera_T_base
    base_rotation = turned * Rotation.from_matrix(camera_T_base[:3, :3])
    spins = (base_rotation * Rotation.from_matrix(nominal[:3, :3]).inv()).as_rotvec()
    measured = np.cov(np.hstack([bases - nominal[:3, 3], spins]).T)
    carried = se3.carry_covariance(L @ L.T, map_T_camera, camera_T_base)
    np.testing.assert_allclose(carried, measured, atol=0.03 * np.abs(measured).max())
    lever = np.abs(carried - L @ L.T).max()
    assert lever > 0.3 * np.abs(measured).max()  # without the lever arm this test would fail


def estimate_of(matches: Matches, inlier: np.ndarray, status: Status) -> PoseEstimate:
    return PoseEstimate(
        status,
        Reason.NONE if status is Status.LOCALIZED else Reason.TOO_FEW_INLIERS,
        "3 of 15",
        np.eye(4),
        np.eye(6) * 1e-4,
        matched=(KeyframeMatches("k0", matches, inlier),),
    )


@pytest.fixture
def small_map() -> KeyframeMap:
    made = KeyframeMap("map")
    made.add(PosedFrame(Frame(np.full((48, 64, 3), 90, np.uint8), CAMERA), np.eye(4)), "k0")
    return made


def test_the_picture_has_lines_between_matches_and_the_verdict_in_colour(small_map: KeyframeMap) -> None:
    image = np.full((48, 64, 3), 120, np.uint8)
    matches = Matches(np.array([[32.0, 24.0]]), np.array([[32.0, 24.0]]), np.ones((1, 3)), np.ones(1))
    picture = draw.draw_matches(image, estimate_of(matches, np.array([True]), Status.LOCALIZED), small_map)
    assert picture.dtype == np.uint8 and picture.shape == (520, 2 * 640 + draw.GAP, 3)
    assert tuple(picture[20, 4]) == draw.ACCEPTED
    row = picture[draw.BANNER + 240]
    assert np.ptp(row[325:960].astype(int), axis=1).min() > 40  # coloured from one end of the line to the other
    assert np.ptp(row[:300].astype(int), axis=1).max() < 20  # and grey outside
    rejected = draw.draw_matches(image, estimate_of(matches, np.array([False]), Status.REJECTED), small_map)
    assert tuple(rejected[20, 4]) == draw.REJECTED


@pytest.mark.parametrize("shape", [(1, 1), (48, 64), (33, 2000)])
def test_a_query_without_matches_is_shown_alone(small_map: KeyframeMap, shape: tuple[int, int]) -> None:
    nothing = PoseEstimate(Status.REJECTED, Reason.NOTHING_RETRIEVED)
    picture = draw.draw_matches(np.zeros((*shape, 3), np.uint8), nothing, small_map)
    assert picture.shape[0] == 520 and tuple(picture[20, 4]) == draw.REJECTED


def test_the_cloud_is_the_depth_at_the_pose() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, (48, 64)).astype(np.float32)
    depth[0, :], depth[1, :] = 0, np.nan
    frame = Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), CAMERA, depth=depth)
    pose = se3.exp([1, 2, 3, 0.4, -1.0, 0.3])
    cloud = query_cloud(frame, PoseEstimate(Status.LOCALIZED, map_T_camera=pose))
    assert cloud is not None
    xyz, rgb, confidence = cloud
    assert len(xyz) == len(rgb) == len(confidence) == 46 * 64
    seen = CAMERA.project(se3.apply(se3.inverse(pose), xyz))
    v, u = np.mgrid[2:48, :64]
    np.testing.assert_allclose(seen, np.stack([u, v], axis=-1).reshape(-1, 2), atol=1e-3)
    np.testing.assert_array_equal(rgb, frame.image[2:].reshape(-1, 3))
    assert (confidence[np.argsort(depth[2:].reshape(-1))][:-1] >= np.sort(confidence)[::-1][1:] - 1e-6).all()
    assert query_cloud(Frame(frame.image, CAMERA), PoseEstimate(Status.LOCALIZED, map_T_camera=pose)) is None
