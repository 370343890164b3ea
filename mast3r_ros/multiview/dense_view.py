"""Depth of every pixel of a placed image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera


@dataclass(frozen=True, eq=False)
class DenseView:
    """An image's depth as a network knows it, after alignment.

    Attributes:
        depth: (H, W) along the optical axis, the model's unit; 0 where unknown.
        confidence: (H, W) at least 0.
        xy: (H, W, 2) where the pixels lie in the photo; NaN where nowhere.
    """

    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    xy: NDArray[np.float64]

    def scaled(self, s: float) -> DenseView:
        """In another unit."""
        return replace(self, depth=(self.depth * s).astype(np.float32))


def pixels_of_rays(camera: Camera, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 2) A with ``[x, y, 1] A`` the pixel of the matcher's image at ideal coordinates x, y of the photo's camera.

    The matcher's image is a rectified, cropped and scaled one, so the way is affine.

    Args:
        xy: (H, W, 2) where its pixels lie in the photo.
    """
    height, width = xy.shape[:2]
    rows, columns = np.mgrid[:height:7, :width:7]
    rays = camera.rays(xy[::7, ::7].reshape(-1, 2))
    seen = np.isfinite(rays).all(axis=1)
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)[seen]
    found: NDArray[np.float64] = np.linalg.lstsq(np.c_[rays[seen], np.ones(seen.sum())], pixels, rcond=None)[0]
    return found
