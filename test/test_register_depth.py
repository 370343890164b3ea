"""Depth registration against a pixel-by-pixel reference, and the forward distortion it leans on against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mast3r_ros.frames import Camera, register_depth
from mast3r_ros.geometry import distortion, se3

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
def test_registration_is_what_its_definition_says(D: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    depth = cv2.resize(rng.uniform(0.5, 4.0, (6, 8)).astype(np.float32), (48, 36), interpolation=cv2.INTER_NEAREST)
    depth[4:8, 4:20] = 0
    depth[20, 20:24] = np.nan
    source = Camera.pinhole(48, 36, 45, 46, 23.3, 17.9)
    model = "rational_polynomial" if D.size else "none"
    target = Camera(60, 44, np.array([[40.0, 0, 30.2], [0, 41, 22.1], [0, 0, 1]]), model, D)
    motion = se3.exp([-0.1, 0.03, 0.05, 0.02, -0.05, 0.03])
    registered = register_depth(depth, source, target, motion)
    expected = by_pixel(depth, source, target, motion)
    # Single precision may round a point that falls between two pixels the other way.
    differ = ~np.isclose(registered, expected, atol=1e-5)
    assert differ.sum() <= 4 and registered.dtype == np.float32
    assert (registered > 0).mean() > 0.3


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
