"""Aligned views: cameras, depth, and the points that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.pointmap import points_from_depth

Array = NDArray[np.float64]

#: A point counts as hidden behind nothing where it is nearer than what an image sees there by this share.
NEARER = 1e-3


@dataclass(frozen=True, eq=False)
class AlignedViews:
    """What is known of every image after alignment. Lengths are in the unit of the pointmaps.

    Attributes:
        world_T_camera: (N, 4, 4).
        focals: (N,) pixels.
        centres: (N, 2) principal points, pixels.
        depths: N images (H, W) along the optical axis.
        confidences: N images (H, W).
        losses: before every step of the optimisation; empty where there was none.
    """

    world_T_camera: Array
    focals: Array
    centres: Array
    depths: Sequence[NDArray[np.floating]]
    confidences: Sequence[NDArray[np.floating]]
    losses: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.focals)

    def points(self, number: int) -> Array:
        """(H, W, 3) points of an image in the world frame."""
        local = points_from_depth(self.depths[number], self.focals[number], self.centres[number])
        return se3.apply(self.world_T_camera[number], local)

    def masks(self, least: float) -> list[NDArray[np.bool_]]:
        """Pixels of more than this confidence."""
        return [confidence > least for confidence in self.confidences]


def clean_confidences(views: AlignedViews) -> list[Array]:
    """Confidences without points that float in front of what another, more confident image sees.

    A point loses its confidence where it projects into another image nearer than that image's depth, and is believed
    less there. Images are visited in order and see what was cleaned before.
    """
    cleaned = [np.array(confidence, dtype=np.float64) for confidence in views.confidences]
    clouds = [views.points(number) for number in range(len(views))]
    for i, cloud in enumerate(clouds):
        for j in range(len(views)):
            if i == j:
                continue
            local = se3.apply(se3.inverse(views.world_T_camera[j]), cloud)
            z = local[..., 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                uv = np.rint(views.focals[j] * local[..., :2] / z[..., None] + views.centres[j])
            height, width = views.depths[j].shape
            inside = (z > 0) & (uv >= 0).all(axis=-1) & (uv[..., 0] < width) & (uv[..., 1] < height)
            u, v = uv[inside].astype(int).T
            nearer = z[inside] < (1 - NEARER) * views.depths[j][v, u]
            bad = np.zeros_like(inside)
            bad[inside] = nearer & (cleaned[i][inside] < cleaned[j][v, u])
            cleaned[i][bad] = cleaned[i][bad].clip(max=0)
    return cleaned
