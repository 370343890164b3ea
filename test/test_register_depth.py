"""Depth registration against a pixel-by-pixel reference, and the forward distortion it leans on against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import distortion, se3
from mast3r_ros.registration import register_depth

#: Depths that no sensor would take for one surface, metres.
LEVELS = 0.5 * 1.6 ** np.arange(5)
RATIONAL = np.array([0.3, 0.1, 0.001, -0.002, 0.02, 0.25, 0.05, 0.01])


def by_pixel(depth: np.ndarray, source: Camera, target: Camera, target_T_source: np.ndarray) -> np.ndarray:
    """The definition, one pixel at a time."""
    registered = np.full((target.height, target.width), np.inf)
    for v, u in np.argwhere(np.isfinite(depth) & (depth > 0)):
        ray = source.rays(np.array([[u, v]]))[0]
        point = se3.apply(target_T_source, np.array([[*ray, 1.0]]) * depth[v, u])
        column, row = np.rint(target.project(point)[0])
        if 0 <= column < target.width and 0 <= row < target.height:
            registered[int(row), int(column)] = min(registered[int(row), int(column)], point[0, 2])
    return np.where(np.isinf(registered), 0, registered)


@pytest.mark.parametrize("D", [np.zeros(0), RATIONAL])
def test_every_measured_point_is_seen_or_something_nearer(D: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    depth = cv2.resize(rng.choice(LEVELS, (6, 8)).astype(np.float32), (48, 36), interpolation=cv2.INTER_NEAREST)
    depth[4:8, 4:20] = 0
    depth[20, 20:24] = np.nan
    source = Camera.pinhole(48, 36, 45, 46, 23.3, 17.9)
    model = "rational_polynomial" if D.size else "none"
    target = Camera(60, 44, np.array([[40.0, 0, 30.2], [0, 41, 22.1], [0, 0, 1]]), model, D)
    motion = se3.exp([-0.1, 0.03, 0.05, 0.02, -0.05, 0.03])
    registered = register_depth(depth, source, target, motion)
    expected = by_pixel(depth, source, target, motion)
    seen = expected > 0
    assert registered.dtype == np.float32 and seen.mean() > 0.3
    # Within half a pixel, a surface that is turned by a few degrees differs by a thousandth.
    assert (registered[seen] > 0).all() and (registered[seen] <= expected[seen] * 1.005).all()
    assert (registered[seen] >= depth[depth > 0].min() * 0.8).all()
    assert np.isclose(registered, expected, rtol=0.005)[seen].mean() > 0.9


class Scene:
    """A slanted wall, a floor, a board in front of the wall and a narrow post in front of all, known exactly."""

    BACK = (((0.3, 0.0, 1.0), 3.5), ((0.0, 1.0, 0.0), 1.0))
    FRONT = ((1.2, -0.5, 0.15), (0.9, 0.6, 0.02))  # depth, middle and half width

    def depth(self, camera: Camera, world_T_camera: np.ndarray) -> np.ndarray:
        """(H, W) metres along the optical axis; 0 where there is nothing."""
        rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
        direction, origin = rays @ world_T_camera[:3, :3].T, world_T_camera[:3, 3]
        nearest = np.full(rays.shape[:2], np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for normal, distance in self.BACK:
                t = (distance - origin @ np.array(normal)) / (direction @ np.array(normal))
                nearest = np.where((t > 0) & (t < nearest), t, nearest)
            for distance, middle, half in self.FRONT:
                t = (distance - origin[2]) / direction[..., 2]
                hit = np.abs(origin[0] + direction[..., 0] * t - middle) < half
                nearest = np.where(hit & (t > 0) & (t < nearest), t, nearest)
        return np.where(np.isfinite(nearest), nearest, 0)


#: The depth camera of a RealSense D435 at 848x480, a quarter as large; its colour camera at 1080p, 640x480 and 424x240.
DEPTH_CAMERA = Camera.pinhole(212, 120, 105.0, 105.0, 105.5, 59.5)
HD = Camera.pinhole(480, 270, 345.0, 345.0, 239.5, 134.5)
COLOUR_CAMERAS = {
    "1080p": HD,
    "vga": Camera.pinhole(160, 120, 152.0, 152.0, 79.5, 59.5),
    "fewer pixels than depth": Camera.pinhole(106, 60, 76.0, 76.0, 52.5, 29.5),
    "distorted": Camera(480, 270, HD.K, "plumb_bob", np.array([0.1, -0.05, 0.001, 0.002, 0.0])),
}
SIDE_BY_SIDE = se3.exp([0.05, 0.01, 0.005, 0.01, -0.02, 0.015])


@pytest.mark.parametrize("turned_deg", [0, 90, 180])
@pytest.mark.parametrize("name", COLOUR_CAMERAS)
def test_depth_of_few_pixels_fills_an_image_of_many(name: str, turned_deg: int) -> None:
    colour = COLOUR_CAMERAS[name]
    colour_T_depth = SIDE_BY_SIDE @ se3.exp([0, 0, 0, 0, 0, np.radians(turned_deg)])
    scene, depth_T_colour = Scene(), se3.inverse(colour_T_depth)
    registered = register_depth(scene.depth(DEPTH_CAMERA, np.eye(4)), DEPTH_CAMERA, colour, colour_T_depth)
    truth = scene.depth(colour, depth_T_colour)
    filled, measured = registered > 0, _measured(scene, colour, depth_T_colour, truth)
    assert filled[measured].mean() > 0.99
    error = np.abs(registered - truth) / truth
    # Depth of more pixels than the image has is as exact as a pixel is small; a floor seen flat is the worst.
    assert np.median(error[filled]) < 1e-3
    assert np.quantile(error[filled], 0.9) < (1e-3 if colour.fx > DEPTH_CAMERA.fx else 1e-2)
    # Only next to an edge, and by no more than a depth pixel, can a surface be taken for its neighbour.
    footprint = max(3, round(2 * colour.fx / DEPTH_CAMERA.fx) + 1)
    box = np.ones((2 * footprint + 1, 2 * footprint + 1), np.uint8)
    lower, upper = cv2.erode(truth, box), cv2.dilate(truth, box)
    assert ((registered >= 0.98 * lower) & (registered <= 1.02 * upper))[filled & measured].all()
    wrong = (error > 0.05) & filled & measured
    assert not wrong[upper < 1.2 * lower].any() and wrong.mean() < 0.02


def _measured(scene: Scene, colour: Camera, depth_T_colour: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where the depth camera sees what the colour camera sees, well inside its image."""
    points = se3.apply(depth_T_colour, colour.backproject(truth).reshape(-1, 3))
    xy = DEPTH_CAMERA.project(points)
    inside = (xy > 1).all(axis=1) & (xy < [DEPTH_CAMERA.width - 2, DEPTH_CAMERA.height - 2]).all(axis=1)
    u, v = np.where(inside[:, None], np.rint(xy), 0).astype(int).T
    open_view = np.abs(scene.depth(DEPTH_CAMERA, np.eye(4))[v, u] / points[:, 2] - 1) < 0.05
    return (inside & open_view).reshape(truth.shape)


def test_noise_leaves_no_holes_and_a_lone_pixel_covers_what_it_saw() -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, (120, 212))
    registered = register_depth(np.full((120, 212), 2.0) * noise, DEPTH_CAMERA, HD, SIDE_BY_SIDE)
    assert (registered[40:200, 60:400] > 0).mean() > 0.98
    assert np.median(np.abs(registered[registered > 0] - 2.0)) < 0.05
    lone = np.zeros((120, 212))
    lone[60, 100] = 2.0
    registered = register_depth(lone, DEPTH_CAMERA, HD, SIDE_BY_SIDE)
    assert 6 <= (registered > 0).sum() <= 20 and np.ptp(np.argwhere(registered), axis=0).max() <= 4


def test_a_surface_close_to_the_colour_camera_costs_no_more_memory_than_an_image() -> None:
    """A wrong transform can put everything right in front of the lens: a footprint would be the whole image."""
    towards = se3.exp([0, 0, -1.999, 0, 0, 0])
    registered = register_depth(np.full((120, 212), 2.0), DEPTH_CAMERA, HD, towards)
    assert registered.shape == (270, 480) and np.isfinite(registered).all()


def test_points_behind_the_camera_and_empty_depth_leave_nothing() -> None:
    camera = Camera.pinhole(48, 36, 45, 45, 24, 18)
    behind = se3.exp([0, 0, -5, 0, 0, 0])
    assert not register_depth(np.full((36, 48), 2.0), camera, camera, behind).any()
    assert not register_depth(np.zeros((36, 48)), camera, camera, np.eye(4)).any()


@pytest.mark.parametrize(
    ("model", "D"),
    [
        ("plumb_bob", np.array([0.1, -0.05, 0.001, 0.002])),
        ("plumb_bob", np.array([0.1, -0.05, 0.001, 0.002, 0.01])),
        ("rational_polynomial", RATIONAL),
        ("rational_polynomial", np.array([*RATIONAL, 0.01, -0.02, 0.03, -0.01])),
        ("rational_polynomial", np.array([*RATIONAL, 0.01, -0.02, 0.03, -0.01, 0.02, -0.03])),
    ],
)
def test_distortion_is_opencvs(model: str, D: np.ndarray) -> None:
    ideal = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    ideal[7] = np.nan
    bent = distortion.distort(ideal, model, D)
    rays = np.concatenate([np.delete(ideal, 7, axis=0), np.ones((499, 1))], axis=1)
    expected = cv2.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), np.eye(3), D)[0][:, 0]
    np.testing.assert_allclose(np.delete(bent, 7, axis=0), expected, atol=1e-12)
    assert np.isnan(bent[7]).all()
