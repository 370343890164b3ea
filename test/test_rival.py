"""A pose may show less of what the map expects where no other pose explains what it leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_localization import FRAME, everywhere, keyframe, support
from test_matching import CAMERA, texture

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.localization import Localizer
from mast3r_ros.localization.estimate import Evidence
from mast3r_ros.localization.rival import unrivalled
from mast3r_ros.localization.support import Support
from mast3r_ros.localization.verification import gather
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.settings import Gates, SolverSettings


def with_rest(agreeing: int, of: int = 60) -> tuple[Support, Evidence]:
    """A pose with 120 inliers and other matches, some of which agree on another pose."""
    right = support(*everywhere(120), keyframes=3, noise_px=0.3)
    xy, depth = everywhere(of, seed=5)
    points = se3.apply(se3.exp([0.6, 0, 0.2, 0, 0.4, 0]), CAMERA.points(xy, depth))
    points[agreeing:] = np.random.default_rng(6).permutation(points[agreeing:])
    pose = replace(right.pose, inlier=np.r_[right.pose.inlier, np.zeros(of, bool)])
    found = replace(
        right,
        pose=pose,
        query_xy=np.vstack([right.query_xy, xy]),
        points=np.vstack([right.points, points]),
        keyframe=np.r_[right.keyframe, np.zeros(of, int)],
    )
    return found, replace(gather(right, FRAME, np.eye(6)), explained=0.25)


def judged(found: Support, evidence: Evidence) -> bool:
    return unrivalled(found, evidence, CAMERA.rays(found.query_xy), Gates(), SolverSettings(threshold_px=4.0))


def test_mistakes_agree_on_nothing_and_the_rest_of_a_room_does() -> None:
    assert judged(*with_rest(agreeing=0))
    assert not judged(*with_rest(agreeing=30)), "the thing was moved, or is a copy: the room says otherwise"


@pytest.mark.parametrize(
    "less", [{"explained": 0.15}, {"inliers": 40}, {"agreeing_keyframes": 2}, {"explained": np.nan}]
)
def test_weak_poses_are_not_let_off(less: dict[str, float]) -> None:
    found, evidence = with_rest(agreeing=0)
    assert not judged(found, replace(evidence, **less))


def behind(cover: np.ndarray) -> Frame:
    """The wall's picture, three quarters of it behind something."""
    image = texture(2).copy()
    image[:, 80:] = cover[:, 80:]
    return Frame(image, CAMERA)


def test_a_picture_that_is_mostly_covered_is_localized() -> None:
    keyframe_map = KeyframeMap()
    for number in range(3):
        keyframe_map.add(keyframe(2), id=f"wall{number}")
    keyframe_map.prepare(create("sift"))
    localizer = Localizer(keyframe_map, create("sift"))
    estimate = localizer.localize(behind(texture(9)))
    assert estimate.localized and estimate.evidence.explained < Gates().min_explained, estimate.detail
    metres, degrees = se3.pose_error(estimate.map_T_camera, keyframe(2).map_T_camera)
    assert metres < 0.03 and degrees < 1
