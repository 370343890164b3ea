"""Frames that say too little alone, solved together: a rig, and odometry that drifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import walls

import mast3r_ros as m
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.rig_pose import RigView, ransac_rig_pose, refine_rig_pose
from mast3r_ros.mapping.keyframe_map import KeyframeMap

FOCAL = 300.0
TRUTH = se3.exp([0.4, -0.2, 1.1, 0.1, -0.3, 0.2])


def seen(
    rng: np.random.Generator,
    rig_T_camera: np.ndarray,
    count: int,
    believed: np.ndarray | None = None,
    wrong: int = 0,
    sigmas: tuple[float, float] = (0.0, 0.0),
) -> RigView:
    """``count`` points 1 to 5 m away, with half a pixel of noise; the first ``wrong`` matches are of other points."""
    ideal = rng.uniform([-0.5, -0.4], [0.5, 0.4], (count, 2))
    depth = rng.uniform(1, 5, count)
    points = se3.apply(TRUTH @ rig_T_camera, np.column_stack([ideal * depth[:, None], depth]))
    ideal = ideal + rng.normal(0, 0.5 / FOCAL, ideal.shape)
    points[:wrong] = points[:wrong] + rng.uniform(0.5, 2, (wrong, 3))
    return RigView(rig_T_camera if believed is None else believed, ideal, points, np.ones(count), FOCAL, *sigmas)


@pytest.mark.smoke
def test_three_matches_in_each_of_three_cameras_make_a_pose() -> None:
    """No camera alone has the four that a pose is attempted from."""
    rng = np.random.default_rng(0)
    rig = [np.eye(4), se3.exp([0.3, 0, 0, 0, 0.8, 0]), se3.exp([-0.3, 0.1, 0, 0, -0.8, 0])]
    views = [seen(rng, rig_T_camera, 3) for rig_T_camera in rig]
    start = ransac_rig_pose(views)
    assert start is not None
    found = refine_rig_pose(start, views)
    assert found is not None and found.pose.inlier.all()
    metres, degrees = se3.pose_error(found.pose.map_T_camera, TRUTH)
    assert metres < 0.02 and degrees < 0.5
    for pose, rig_T_camera in zip(found.map_T_cameras, rig, strict=True):
        np.testing.assert_allclose(pose, found.map_T_cameras[0] @ rig_T_camera, atol=1e-3)


def test_wrong_matches_are_told_from_right_ones_over_all_views() -> None:
    rng = np.random.default_rng(1)
    rig = [se3.exp([0.2 * k, 0, 0, 0, 0.3 * k, 0]) for k in range(4)]
    views = [seen(rng, rig_T_camera, 16, wrong=10) for rig_T_camera in rig]
    start = ransac_rig_pose(views)
    assert start is not None
    found = refine_rig_pose(start, views)
    assert found is not None
    right = found.pose.inlier.reshape(4, 16)
    assert right[:, 10:].mean() > 0.9 and right[:, :10].mean() < 0.15
    assert se3.pose_error(found.pose.map_T_camera, TRUTH)[0] < 0.02


def test_errors_under_drift_are_as_large_as_the_covariance_says() -> None:
    """Odometry between the views is off; what they say of the first one's pose weighs as much as that leaves."""
    squared, alone = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        views = [seen(rng, np.eye(4), 6)]
        for k in range(1, 5):
            way = se3.exp([0.25 * k, 0, 0, 0, 0.2 * k, 0])
            sigmas = 0.01 * k, 0.005 * k
            off = np.concatenate([rng.normal(0, sigmas[0], 3), rng.normal(0, sigmas[1], 3)])
            views.append(seen(rng, way, 30, way @ se3.exp(off), sigmas=sigmas))
        start = ransac_rig_pose(views)
        assert start is not None
        found, own = refine_rig_pose(start, views), refine_rig_pose(start, views[:1])
        assert found is not None and own is not None
        error = se3.difference(found.pose.map_T_camera, TRUTH)
        squared.append(error @ found.pose.information @ error)
        alone.append(np.trace(np.linalg.inv(own.pose.information)[:3, :3]))
        assert np.trace(np.linalg.inv(found.pose.information)[:3, :3]) < alone[-1], "more views say more"
    assert 2 < np.mean(squared) < 14


class TestTogether:
    """Pictures of a wall of which each shows a part, in a map of three walls."""

    @pytest.fixture(scope="class")
    def relocalizer(self) -> m.Relocalizer:
        keyframes = KeyframeMap()
        for number in range(3):
            keyframes.add(walls.posed(number))
        return m.Relocalizer(keyframes, m.load_matcher("sift"))

    @staticmethod
    def strip(left: int, right: int) -> m.Frame:
        """A camera that sees these columns of the second wall only."""
        whole = walls.CAMERA
        K = whole.K - [[0, 0, left], [0, 0, 0], [0, 0, 0]]
        image = np.ascontiguousarray(walls.image(1)[:, left:right])
        return m.Frame(image, replace(whole, width=right - left, K=K))

    @pytest.fixture
    def strict(self, relocalizer: m.Relocalizer) -> Iterator[m.Relocalizer]:
        """Wants half more inliers than the first strip alone has."""
        found = relocalizer.localize(self.strip(0, 210)).evidence.inliers
        before = relocalizer.settings
        relocalizer.settings = before.changed({"gates.min_inliers": int(1.5 * found)})
        yield relocalizer
        relocalizer.settings = before

    def test_what_each_camera_of_a_rig_shows_too_little_of_all_show_together(self, strict: m.Relocalizer) -> None:
        parts = [self.strip(0, 210), self.strip(210, 420), self.strip(420, 640)]
        alone = strict.localize(parts[0])
        assert alone.reason is m.Reason.TOO_FEW_INLIERS
        answer = strict.localize_rig(parts, np.stack([np.eye(4)] * 3))
        assert answer.localized and answer.frames == 3 and answer.evidence.inliers > 1.5 * alone.evidence.inliers
        metres, degrees = se3.pose_error(answer.map_T_camera, walls.posed(1).map_T_camera)
        assert metres < 0.02 and degrees < 0.5
        assert answer.protection.position_m < answer.alert_limit.position_m

    def test_the_same_picture_three_times_says_no_more_than_once(self, strict: m.Relocalizer) -> None:
        answer = strict.localize_rig([self.strip(0, 210)] * 3, np.stack([np.eye(4)] * 3))
        assert answer.reason is m.Reason.TOO_FEW_INLIERS and answer.frames == 1

    def test_the_first_camera_must_show_something_itself(self, strict: m.Relocalizer) -> None:
        blank = replace(self.strip(0, 210), image=np.full_like(self.strip(0, 210).image, 128))
        assert not strict.localize_rig([blank, self.strip(210, 640)], np.stack([np.eye(4)] * 2)).localized
