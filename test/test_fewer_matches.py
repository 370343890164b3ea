"""A pose is solved from few, well-spread, most trusted matches of each keyframe."""

from __future__ import annotations

import numpy as np
from test_localization import keyframe
from test_matching import CAMERA

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import solve_pose
from mast3r_ros.localization.cells import CELLS, cells_of
from mast3r_ros.localization.correspondences import most_trusted
from mast3r_ros.localization.visibility import MapLandmarks
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.matching.base import Matches

SIZE = CAMERA.width, CAMERA.height


def dense_matches(count: int = 3072, wrong: float = 0.3) -> tuple[np.ndarray, Matches]:
    """A camera's pose (camera_T_map), and matches as of a network, with one pixel of noise."""
    rng = np.random.default_rng(0)
    truth = se3.exp([0.2, -0.1, 0.3, 0.1, 0.2, -0.05])
    xy = rng.uniform(0, 1, (count, 2)) * SIZE
    points = CAMERA.points(xy, rng.uniform(1, 4, count))
    noisy = xy + rng.normal(0, 1, xy.shape)
    bad = rng.random(count) < wrong
    noisy[bad] = rng.uniform(0, 1, (int(bad.sum()), 2)) * SIZE
    weights = np.where(bad, rng.uniform(0.1, 0.8, count), rng.uniform(0.4, 1, count))
    return truth, Matches(noisy, xy, se3.apply(se3.inverse(truth), points), weights)


def test_every_part_of_the_image_gives_its_most_trusted_matches() -> None:
    _, matches = dense_matches()
    lonely = cells_of(matches.query_xy, *SIZE) == 5
    matches = matches[~lonely | (np.cumsum(lonely) <= 4)]  # one cell has four matches only
    few = most_trusted(matches, 480, *SIZE)
    assert len(few) == 480
    cells, kept = cells_of(matches.query_xy, *SIZE), np.isin(matches.query_xy[:, 0], few.query_xy[:, 0])
    np.testing.assert_array_equal(matches[kept].points, few.points)  # in their order, and whole rows
    counts = np.bincount(cells[kept], minlength=CELLS)
    assert counts[5] == 4 and set(np.delete(counts, 5)) == {10, 11}
    for cell in np.delete(np.arange(CELLS), 5):
        mine = cells == cell
        assert matches.weights[mine & kept].min() >= matches.weights[mine & ~kept].max()
    assert most_trusted(matches, len(matches), *SIZE) is matches


def test_the_pose_hardly_moves() -> None:
    """Trust is worth as much as numbers: a sixth of the matches leaves the pose as exact as all of them do."""
    truth, matches = dense_matches()
    poses = []
    for some in (matches, most_trusted(matches, 500, *SIZE)):
        pose = solve_pose(CAMERA.rays(some.query_xy), some.points, some.weights, CAMERA.focal)
        assert pose is not None
        poses.append(se3.pose_error(pose.map_T_camera, se3.inverse(truth)))
    (metres, degrees), (metres_few, degrees_few) = poses
    assert metres < 0.005 and degrees < 0.1
    assert metres_few < 0.01 and degrees_few < 0.2


def test_landmarks_are_those_of_the_keyframe_as_it_is_now() -> None:
    keyframe_map, matcher = KeyframeMap(), create("sift")
    posed = keyframe(0)
    keyframe_map.add(posed, id="wall")
    known = MapLandmarks(keyframe_map, matcher)
    before = known.of(["wall"])
    assert len(before) > 50 and known.of(["wall"]).shape == before.shape and known.of([]).shape == (0, 3)
    depth = posed.frame.depth
    assert depth is not None
    v, u = np.nonzero(depth > 0)
    keyframe_map.set_points("wall", np.stack([u, v], axis=1).astype(float), 2 * depth[v, u])
    fresh = MapLandmarks(keyframe_map, matcher).of(["wall"])
    np.testing.assert_array_equal(known.of(["wall"]), fresh)
    assert not np.allclose(fresh, before)


def test_fewer_keyframes_are_remembered_than_asked_for(monkeypatch) -> None:
    from mast3r_ros.localization import visibility

    monkeypatch.setattr(visibility, "REMEMBERED", 1)
    keyframe_map, matcher = KeyframeMap(), create("sift")
    for index in range(2):
        keyframe_map.add(keyframe(index), id=f"wall{index}")
    known = MapLandmarks(keyframe_map, matcher)
    both = known.of(["wall0", "wall1"])
    np.testing.assert_array_equal(known.of(["wall0", "wall1"]), both)
    assert list(known._known) == ["wall1"]
