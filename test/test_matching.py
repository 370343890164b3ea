"""Matchers: registry, nearest neighbours, RootSIFT and ORB on views of a known plane."""

import dataclasses
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.matching import Matcher, available, create
from mast3r_ros.matching.device_nearest import mutual_nearest_on
from mast3r_ros.matching.nearest import mutual_nearest
from mast3r_ros.surface import depth_points, surface_points

CAMERA = Camera.pinhole(320, 240, 300, 300, 160, 120)


def texture(seed: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
    """Blobs at several scales, full of corners."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for scale in (4, 8, 16, 32):
        noise = rng.uniform(0, 255, (height // scale + 1, width // scale + 1, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST) / 4
    return image.astype(np.uint8)


def plane_views() -> tuple[Frame, Frame, np.ndarray]:
    """A textured plane 2 m away, and the same seen 10 cm further right: reference, query, reference_T_query."""
    image = texture()
    reference = Frame(image, CAMERA, depth=np.full((240, 320), 2.0, np.float32))
    shift = 300 * 0.1 / 2.0
    moved = cv2.warpAffine(image, np.float32([[1, 0, -shift], [0, 1, 0]]), (320, 240))
    return reference, Frame(moved, CAMERA), se3.make(np.eye(3), [0.1, 0, 0])


@pytest.mark.parametrize("feature", ["sift", "orb"])
def test_matches_lie_on_the_same_surface_points(feature):
    reference, query, reference_T_query = plane_views()
    matcher = create("sift", feature=feature)
    matches = matcher.match(matcher.describe(query), [matcher.describe(reference)])[0]
    assert len(matches) > 50
    expected = CAMERA.project(se3.apply(se3.inverse(reference_T_query), matches.points))
    error = np.linalg.norm(expected - matches.query_xy, axis=1)
    assert np.median(error) < 1.0 and (error < 3).mean() > 0.9
    assert ((matches.weights > 0) & (matches.weights <= 1)).all()


@pytest.mark.parametrize("feature", ["sift", "orb"])
def test_features_lie_where_they_are_whichever_way_the_image_is_turned(feature):
    """OpenCV's lie a quarter of a pixel aside, all to the same side: a bias that no number of matches averages away."""
    matcher, image = create("sift", feature=feature), texture()
    upright, turned = (Frame(i, CAMERA, depth=np.ones((240, 320), np.float32)) for i in (image, image[::-1, ::-1]))
    matches = matcher.match(matcher.describe(turned), [matcher.describe(upright)])[0]
    aside = (matches.query_xy + matches.reference_xy - (319, 239)) / 2
    assert len(matches) > 100
    np.testing.assert_allclose(np.median(aside, axis=0), 0, atol=0.06)


def test_a_batch_of_references_gives_what_each_gives_alone():
    reference, query, _ = plane_views()
    other = Frame(texture(5), CAMERA, depth=np.full((240, 320), 3.0, np.float32))
    matcher = create("sift")
    q, features = matcher.describe(query), [matcher.describe(f) for f in (other, reference)]
    together = matcher.match(q, features)
    for one, feature in zip(together, features):
        np.testing.assert_allclose(one.points, matcher.match(q, [feature])[0].points)
    assert len(together[1]) > 10 * max(1, len(together[0]))


def test_images_without_structure_are_described_and_match_nothing():
    reference, _, _ = plane_views()
    matcher = create("sift")
    for image in (np.zeros((240, 320, 3), np.uint8), np.full((1, 1, 3), 7, np.uint8), np.zeros((4000, 3, 3), np.uint8)):
        features = matcher.describe(Frame(image))
        assert len(matcher.match(features, [matcher.describe(reference)])[0]) == 0
        assert len(matcher.match(matcher.describe(reference), [features])[0]) == 0


def test_large_images_keep_their_own_pixel_coordinates():
    large = cv2.resize(texture(), (4096, 3072), interpolation=cv2.INTER_CUBIC)
    xy = create("sift").describe(Frame(large))["xy"]
    assert xy[:, 0].max() > 3000 and xy[:, 0].max() < 4096


def test_depth_edges_and_holes_give_no_surface_point():
    depth = np.full((240, 320), 2.0, np.float32)
    depth[:, 160:] = 1.0
    depth[:, :50] = 0
    points = surface_points(Frame(texture(), CAMERA, depth=depth), np.float32([[20, 100], [100, 100], [160, 100]]))
    assert np.isnan(points[0]).all() and np.isnan(points[2]).all()
    np.testing.assert_allclose(points[1], [(100 - 160) / 300 * 2, (100 - 120) / 300 * 2, 2.0], atol=1e-6)


@pytest.mark.parametrize("search", [mutual_nearest, partial(mutual_nearest_on, torch.device("cpu"))])
def test_mutual_nearest_agrees_with_an_exhaustive_search(search):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 32)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    noisy = base[:150] + 0.1 * rng.normal(size=(150, 32)).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    nothing, (rows, columns, ratio), *_ = search(noisy, [base[:1], base, base[::-1].copy()], ratio=0.8)
    assert [len(found) for found in nothing] == [0, 0, 0], "of one candidate nobody knows whether it stands out"
    distance = np.linalg.norm(noisy[:, None] - base[None], axis=2)
    ordered = np.sort(distance, axis=1)
    wanted = {
        (i, int(distance[i].argmin()))
        for i in range(150)
        if ordered[i, 0] < 0.8 * ordered[i, 1] and distance[:, distance[i].argmin()].argmin() == i
    }
    assert set(zip(rows.tolist(), columns.tolist())) == wanted and len(wanted) > 100
    np.testing.assert_allclose(ratio, ordered[rows, 0] / ordered[rows, 1], rtol=1e-4)


def test_registry_names_what_it_has():
    assert {"sift", "fake"} <= set(available())
    assert isinstance(create("auto"), Matcher)
    with pytest.raises(MatcherError, match="sift"):
        create("superpoint")
    with pytest.raises(MatcherError, match="surf"):
        create("sift", feature="surf")
    with pytest.raises(MatcherError, match="options"):
        create("sift", colour="red")


def test_signatures_tell_features_apart():
    assert create("sift").signature != create("sift", feature="orb").signature
    assert create("sift", ratio=0.7).signature == create("sift").signature


class TestOnePlaceForEach:
    def test_edges_are_left_out_of_depth_only_where_that_is_asked_for(self):
        depth = np.full((240, 320), 2.0, np.float32)
        depth[:, 160:] = 1.0
        depth[:10] = np.nan
        frame = Frame(texture(), CAMERA, depth=depth)
        everything, smooth = depth_points(frame), depth_points(frame, edges=False)
        assert len(everything.points) == 230 * 320 and len(smooth.points) == 230 * 318
        assert {159, 160}.isdisjoint(smooth.columns.tolist())
        pixels = np.column_stack([smooth.columns, smooth.rows])
        np.testing.assert_allclose(CAMERA.project(smooth.points), pixels, atol=1e-6)
        few = depth_points(frame, 4, first=2)
        assert set(few.rows.tolist()) == set(range(10, 240, 4)) and set(few.columns.tolist()) == set(range(2, 320, 4))

    def test_what_a_camera_sees(self):
        points = CAMERA.points(np.array([[-0.4, 0], [-0.6, 0], [319.4, 239.4], [320, 100]]), np.full(4, 3.0))
        xy, inside = CAMERA.seen(np.concatenate([points, [[0, 0, -1.0]]]))
        assert inside.tolist() == [True, False, True, False, False] and np.isnan(xy[4]).all()

    def test_how_much_a_lens_draws_together(self):
        """An equidistant one: the angle t where a pinhole camera has tan t."""
        ideal = np.tan(np.radians([[0.001], [30.0], [70.0]])) * [[0.6, 0.8]]
        angle = np.radians([0.001, 30.0, 70.0])
        expected = 1 / np.sqrt(np.cos(angle) ** 2 * angle / np.tan(angle))
        fisheye = dataclasses.replace(CAMERA, model="equidistant", D=np.zeros(4))
        np.testing.assert_allclose(fisheye.enlargement(ideal), expected, rtol=1e-3)
        np.testing.assert_allclose(CAMERA.enlargement(ideal), 1, rtol=1e-6)

    def test_pixels_of_large_images_are_as_exact_as_the_shrunk_image_was(self):
        large = Frame(cv2.resize(texture(), (2048, 1536), interpolation=cv2.INTER_CUBIC))
        matcher = create("sift")
        (found,) = matcher.match_pixels(matcher.describe(large), [matcher.describe(Frame(texture()))])
        assert found.query_pixel == 2.0 and len(found) > 50
        scale = 2048 / 320
        off = np.linalg.norm((found.query_xy + 0.5) / scale - 0.5 - found.reference_xy, axis=1)
        assert np.median(off) < 0.5 and (found.confidence > 0).all()
        old = {name: array for name, array in matcher.describe(large).items() if name != "pixel"}
        assert matcher.match_pixels(old, [old])[0].query_pixel == 1.0, "features kept by earlier versions still match"
