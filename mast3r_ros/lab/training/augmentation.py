"""What cameras and light do to the same view: colours, contrast, blur, noise; and the world in a mirror."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab.training.views import View

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def mirrored(view: View) -> View:
    """The view of a mirrored world (x of the map frame negated): every pair of such views is consistent."""
    K = view.K.copy()
    K[0, 2] = view.image.shape[1] - 1 - K[0, 2]
    image, depth = np.ascontiguousarray(view.image[:, ::-1]), np.ascontiguousarray(view.depth[:, ::-1])
    return View(image, depth, MIRROR @ view.map_T_camera @ MIRROR, K)


def photographed(view: View, rng: np.random.Generator, strength: float = 1.0) -> View:
    """The same view by another camera: white balance, saturation, gamma, contrast, blur, noise."""
    image = _recoloured(view.image, rng, strength)
    if rng.uniform() < 0.25 * strength:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.1)))
    if rng.uniform() < 0.4 * strength:
        noise = rng.normal(0, rng.uniform(1, 8), (*image.shape[:2], 1)) + rng.normal(0, rng.uniform(0, 4), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return replace(view, image=image)


def _recoloured(image: NDArray[np.uint8], rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Saturation by a matrix, all else by one table per channel."""
    grey = 1 - float(np.exp(rng.normal(0, 0.25 * strength)))
    matrix = (1 - grey) * np.eye(3) + grey * np.array([[0.3, 0.59, 0.11]] * 3)
    levels = np.arange(256) / 255
    gamma, gain = np.exp(rng.normal(0, 0.25 * strength)), np.exp(rng.normal(0, 0.2 * strength))
    pivot, offset = 0.5, rng.normal(0, 0.06 * strength)
    white = np.exp(rng.normal(0, 0.08 * strength, 3))
    table = ((levels**gamma)[:, None] * white - pivot) * gain + pivot + offset
    lut = np.clip(table * 255, 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(np.asarray(cv2.transform(image, matrix), np.uint8), lut), np.uint8)
