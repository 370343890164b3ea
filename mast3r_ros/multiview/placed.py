"""Images that an alignment has placed, and the model of points and observations that follows from their matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.multiview.dense_view import DenseView
from mast3r_ros.multiview.matched_pairs import Grids, MatchedPair
from mast3r_ros.multiview.model import Model

Array = NDArray[np.float64]

#: A point stays where it is seen within this, pixels of the matcher's images.
NEAR_PX = 3.0
#: Points of a model.
MOST_POINTS = 400_000


@dataclass(frozen=True, eq=False)
class PlacedImages:
    """One component.

    Attributes:
        cameras, world_T_camera: by image number.
        depths: by pair, depth (K,) of its matches in images i and j.
        dense: depth and confidence (H, W) of an image, by number.
        metres: for each unit, as a metric network believes, and one standard deviation of its logarithm.
    """

    cameras: Mapping[int, Camera]
    world_T_camera: Mapping[int, Array]
    depths: Mapping[int, tuple[Array, Array]]
    dense: Callable[[int], tuple[NDArray[np.float32], NDArray[np.float32]]]
    metres: tuple[float, float] | None


def model_of(placed: PlacedImages, pairs: Mapping[int, MatchedPair], grids: Grids) -> Model:
    """A point for every match whose two images agree where it is: the mean of what both say."""
    pairs = {number: pair for number, pair in pairs.items() if number in placed.depths}
    step = -(-sum(len(pair.verified) for pair in pairs.values()) // MOST_POINTS)
    points, errors, images, pixels = [], [], [], []
    for number, pair in pairs.items():
        world, off = _points_of(placed, pair, placed.depths[number], grids)
        kept = np.flatnonzero(off < NEAR_PX)[:: max(step, 1)]
        points.append(world[kept])
        errors.append(off[kept] * grids.pixel(pair.verified.i))
        images.append(np.tile(pair.images, (len(kept), 1)))
        pixels.append(np.stack([pair.verified.xy_i[kept], pair.verified.xy_j[kept]], axis=1))
    image, xy = (
        _joined(images, 2).astype(np.int64).reshape(-1),
        np.concatenate([np.zeros((0, 2, 2)), *pixels]).reshape(-1, 2),
    )
    return Model(
        placed.cameras,
        placed.world_T_camera,
        _joined(points, 3),
        np.concatenate([np.zeros(0), *errors]),
        np.repeat(np.arange(len(image) // 2), 2),
        image,
        _running(image),
        xy,
        dense=lambda n: DenseView(*placed.dense(n), grids.of(n)),
        metres=placed.metres,
    )


def _points_of(
    placed: PlacedImages, pair: MatchedPair, depths: tuple[Array, Array], grids: Grids
) -> tuple[Array, Array]:
    """Points (K, 3) in the world, and the larger error (K,) of both images in pixels of the matcher's."""
    world = []
    raw = (pair.verified.xy_i, pair.verified.xy_j)
    for n, xy, depth in zip(pair.images, raw, depths, strict=True):
        world.append(se3.apply(placed.world_T_camera[n], placed.cameras[n].points(xy, depth)))
    middle = (world[0] + world[1]) / 2
    off = np.zeros(len(middle))
    for n, xy in zip(pair.images, raw, strict=True):
        local = se3.apply(se3.inverse(placed.world_T_camera[n]), middle)
        error = np.linalg.norm(placed.cameras[n].project(local) - xy, axis=1) / grids.pixel(n)
        off = np.maximum(off, np.nan_to_num(error, nan=np.inf))
    return middle, off


def _joined(arrays: Sequence[NDArray[np.generic]], width: int) -> Array:
    return np.concatenate([np.zeros((0, width)), *arrays])


def _running(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) 0, 1, 2, ... of the observations of each image."""
    order = np.argsort(image, kind="stable")
    first = np.searchsorted(image[order], image[order])
    running = np.empty(len(image), np.int64)
    running[order] = np.arange(len(image)) - first
    return running


def metres_of(
    told: Mapping[int, NDArray[np.floating]], found: Mapping[int, NDArray[np.floating]]
) -> tuple[float, float]:
    """Metres for each unit, the median of what the images' pointmaps say, and how far they differ about it.

    Args:
        told: depths of each image in metres, as the network has them.
        found: the same pixels' depths after alignment.
    """
    logs = np.array([float(np.median(np.log(np.maximum(told[n], 1e-9) / np.maximum(found[n], 1e-9)))) for n in told])
    middle = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - middle))) / float(np.sqrt(max(len(logs), 1)))
    return float(np.exp(middle)), spread
