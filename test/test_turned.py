"""Cameras held otherwise than the map's: images, calibrations and poses turn alike, and networks look once more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import walls

from mast3r_ros.errors import CalibrationError
from mast3r_ros.frames import Camera, Frame, turned_back, turned_T_camera
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.photos import Photos
from mast3r_ros.localization import Gates, Localizer, LocalizerSettings, PoseEstimate, PosePrior, Reason
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import Capabilities, create
from mast3r_ros.matching.base import Features, upright_only
from mast3r_ros.matching.fake import FakeMatcher

QUARTERS = (0, 1, 2, 3)
LENSES = {
    "none": (),
    "plumb_bob": (-0.2, 0.05, 0.003, -0.002, 0.01),
    "rational_polynomial": (0.1, 0.02, 0.001, -0.003, 0.01, 0.2, 0.03, 0.002, 0.001, 0.002, -0.003, 0.004),
    "equidistant": (0.01, 0.02, -0.003, 0.001),
}


class UprightMatcher(FakeMatcher):
    """Says that it knows upright images only, and counts how many it has seen."""

    capabilities = Capabilities(upright=True, keyframes_on_track=2)
    described = 0

    def describe(self, frame: Frame) -> Features:
        self.described += 1
        return super().describe(frame)


@pytest.fixture
def localizer() -> Localizer:
    """In a map of three walls, each of which one keyframe has seen."""
    made = KeyframeMap()
    for number in range(3):
        made.add(walls.posed(number), id=f"wall{number}")
    return Localizer(made, UprightMatcher(), LocalizerSettings(gates=Gates(min_agreeing_keyframes=1)))


def held(number: int, quarters: int) -> tuple[Frame, np.ndarray]:
    """A wall by a camera that is held turned, without its depth, and where that camera is."""
    posed = walls.posed(number)
    frame = replace(posed.frame, depth=None).turned(quarters)
    return frame, posed.map_T_camera @ se3.inverse(turned_T_camera(quarters))


@pytest.mark.parametrize("quarters", QUARTERS)
@pytest.mark.parametrize("model", LENSES)
def test_a_calibration_turns_with_its_image(model: str, quarters: int) -> None:
    camera = Camera(640, 480, np.array([[500.0, 0, 310], [0, 480, 250], [0, 0, 1]]), model, np.array(LENSES[model]))
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.5, 0.5, (50, 2)), np.ones(50)])
    turned = camera.turned(quarters)
    seen = turned.project(se3.apply(turned_T_camera(quarters), points))
    np.testing.assert_allclose(turned_back(seen, quarters, 640, 480), camera.project(points), atol=1e-9)
    assert turned.turned(-quarters).same_as(camera)


@pytest.mark.parametrize("quarters", QUARTERS)
def test_image_and_depth_turn_with_the_pixels(quarters: int) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (48, 64)).astype(np.float32)
    frame = Frame(
        rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), Camera.pinhole(64, 48, 60, 60, 32, 24), depth=depth
    )
    turned = frame.turned(quarters)
    xy = np.array([[3, 5], [40, 17]])
    x, y = turned_back(xy.astype(float), quarters, 64, 48).astype(int).T
    assert turned.depth is not None
    np.testing.assert_array_equal(turned.image[xy[:, 1], xy[:, 0]], frame.image[y, x])
    np.testing.assert_array_equal(turned.depth[xy[:, 1], xy[:, 0]], depth[y, x])


@pytest.mark.parametrize(("skew", "model", "D"), [(2.0, "none", ()), (0.0, "rational_polynomial", (0.1,) * 14)])
def test_what_has_no_calibration_after_a_turn_is_refused(
    localizer: Localizer, skew: float, model: str, D: tuple[float, ...]
) -> None:
    camera = Camera(640, 480, np.array([[500.0, skew, 310], [0, 480, 250], [0, 0, 1]]), model, np.array(D))
    assert not camera.can_turn and camera.turned(4).same_as(camera)
    with pytest.raises(CalibrationError, match="cannot be turned"):
        camera.turned(1)
    assert not localizer.localize(Frame(walls.image(1)[::-1].copy(), camera)).localized, "and nobody tries"


@pytest.mark.parametrize("quarters", QUARTERS)
def test_a_camera_held_turned_is_found_where_it_is(localizer: Localizer, quarters: int) -> None:
    frame, truth = held(1, quarters)
    estimate = localizer.localize(frame)
    assert right(estimate, truth)
    (matched,) = estimate.matched[:1]
    assert frame.camera is not None
    points = se3.apply(localizer.map["wall1"].map_T_camera, matched.matches.points)
    seen = frame.camera.project(se3.apply(se3.inverse(truth), points))
    np.testing.assert_allclose(matched.matches.query_xy, seen, atol=0.51, err_msg="of the given image; whole pixels")


@pytest.mark.parametrize("quarters", QUARTERS)
def test_on_track_nobody_asks_how_a_camera_is_held(localizer: Localizer, quarters: int) -> None:
    """The prior, rolled by 20 degrees more than the camera, turns with the image; a vague one says nothing."""
    frame, truth = held(2, quarters)
    localizer.map.prepare(localizer.matcher)
    assert isinstance(localizer.matcher, UprightMatcher)
    before = localizer.matcher.described
    rolled = truth @ se3.exp([0, 0, 0, 0, 0, 0.35])
    assert right(localizer.localize(frame, PosePrior(rolled, 0.05, 0.2)), truth)
    assert localizer.matcher.described - before == 1
    assert right(localizer.alone(frame), truth)
    assert localizer.matcher.described - before == (5 if quarters else 2)


def test_how_a_camera_is_held_is_remembered_until_it_is_held_otherwise(localizer: Localizer) -> None:
    matcher = localizer.matcher
    assert isinstance(matcher, UprightMatcher)

    def described(number: int, quarters: int) -> int:
        frame, truth = held(number, quarters)
        before = matcher.described
        assert right(localizer.localize(frame), truth)
        return matcher.described - before

    localizer.map.prepare(matcher)
    # In all four directions; then as it was held before.
    assert [described(0, 1), described(1, 1), described(2, 3), described(0, 3)] == [4, 1, 4, 1]
    alone = held(0, 1)[0]
    assert localizer.alone(alone).localized and described(1, 3) == 1, "a query on its own leaves nothing behind"


def test_who_does_not_ask_for_it_gets_no_other_look(localizer: Localizer) -> None:
    frame, _ = held(1, 1)
    assert not Localizer(localizer.map, FakeMatcher(), localizer.settings).localize(frame).localized
    assert not upright_only(create("sift")) and upright_only(create("mast3r", device="cpu"))


def test_what_is_in_no_map_is_not_found_turned_either(localizer: Localizer) -> None:
    estimate = localizer.localize(Frame(walls.image(walls.UNKNOWN), walls.CAMERA))
    assert not estimate.localized and estimate.reason is Reason.TOO_FEW_MATCHES


def test_the_small_network_finds_a_rolled_camera_over_a_desk(shared_dir: Path) -> None:
    """Photographs by a camera that rolls by 80 and 115 degrees against those of the map, which show the same desk."""
    folder = shared_dir / "data" / "photos" / "tum_fr1_rpy"
    mapped, queries, made = Photos(folder, "map"), Photos(folder, "query"), KeyframeMap()
    for index in (0, 3, 4, 13, 17, 18):
        made.add(mapped.read(index))
    localizer = Localizer(made, create("mast3r", device="cpu"))
    for index in (11, 14):
        posed = queries.read(index)
        assert right(localizer.alone(posed.frame), posed.map_T_camera, 0.05, 5)


def right(estimate: PoseEstimate, truth: np.ndarray, metres: float = 0.01, degrees: float = 0.2) -> bool:
    """Whether a frame was localized, and where it was taken."""
    assert estimate.localized and estimate.map_T_camera is not None, estimate.detail
    off_m, off_deg = se3.pose_error(estimate.map_T_camera, truth)
    return off_m < metres and off_deg < degrees
