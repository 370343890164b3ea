"""Queries that a map cannot answer: every pose accepted for one of them is a false accept.

Pairs of a query and a map, so that a query that was rendered and described once asks many maps. Pairs with the same
query or the same map are not independent: an interval computed as if they were is too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.lab.stress.scenes import Place

Rng = np.random.Generator
Image = NDArray[np.uint8]

#: Kinds of negatives and the share of each. What cannot be had in full (a run has few rooms of one make) is made up
#: for by the wrong maps; pictures of nothing are kept few, for they are easily rejected.
SHARES = {"same_make": 0.4, "wrong_map": 0.45, "occluded_lens": 0.05, "noise": 0.05, "blank": 0.05}
#: The kinds for people.
TITLES = {
    "same_make": "another room of the same make",
    "wrong_map": "the map of another place",
    "occluded_lens": "the lens is covered",
    "noise": "nothing but noise",
    "blank": "blank or saturated",
}


@dataclass(frozen=True, eq=False)
class Negative:
    """A query that is asked of a map which holds nothing of it.

    Attributes:
        kind: one of :data:`SHARES`.
        frame: the query.
        scene: number of the scene whose map is asked.
    """

    kind: str
    frame: Frame
    scene: int


def negatives(
    queries: Sequence[tuple[Place, Frame]], maps: Sequence[Place], camera: Camera, count: int, rng: Rng
) -> list[Negative]:
    """As many negatives as asked for, or as the queries and maps allow, in the order of the maps.

    Args:
        queries: pictures and where they were taken.
        maps: where each map was made.
        camera: of the pictures of nothing.
    """
    found: list[Negative] = []
    for kind, picture in PICTURES.items():
        wanted = round(SHARES[kind] * count)
        frames = [
            Frame(picture(rng, camera.height, camera.width), camera, name=f"{kind} {k}")
            for k in range(-(-wanted // max(len(maps), 1)))
        ]
        pairs = [Negative(kind, frame, scene) for frame in frames for scene in range(len(maps))]
        found += pairs[:wanted]
    alike = [
        Negative("same_make", frame, scene)
        for place, frame in queries
        for scene, other in enumerate(maps)
        if place.make == other.make and place.name != other.name
    ]
    found += _some(alike, round(SHARES["same_make"] * count), rng)
    elsewhere = [
        Negative("wrong_map", frame, scene)
        for place, frame in queries
        for scene, other in enumerate(maps)
        if place.make != other.make
    ]
    found += _some(elsewhere, count - len(found), rng)
    return sorted(found, key=lambda negative: negative.scene)


def _some(pairs: list[Negative], count: int, rng: Rng) -> list[Negative]:
    return [pairs[k] for k in rng.permutation(len(pairs))[:count]]


def occluded(rng: Rng, height: int, width: int) -> Image:
    """A cap, a finger or cloth right before the lens: dark, or a colour without any edge, with sensor noise."""
    colour = rng.uniform(4, 20, 3) if rng.uniform() < 0.5 else rng.uniform(30, 150, 3)
    shade = cv2.resize(rng.uniform(0.6, 1.2, (3, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
    return _as_image(shade[..., None] * colour + rng.normal(0, rng.uniform(1, 4), (height, width, 3)))


def noise(rng: Rng, height: int, width: int) -> Image:
    """A sensor or cable that gives nothing but noise: white, coarse, salt and pepper, or of all scales."""
    kind = int(rng.integers(4))
    if kind == 0:
        return _as_image(rng.uniform(0, 256, (height, width, 3)))
    if kind == 1:
        cells = rng.uniform(0, 256, (height // 8, width // 8, 3))
        return _as_image(cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST))
    if kind == 2:
        return _as_image(np.repeat(255.0 * (rng.uniform(size=(height, width, 1)) < 0.5), 3, axis=2))
    octaves = [rng.normal(0, 60, (-(-height // side), -(-width // side), 3)) for side in (2, 4, 8, 16, 32)]
    smooth = [cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves]
    return _as_image(128 + np.sum(smooth, axis=0) / 2)


def blank(rng: Rng, height: int, width: int) -> Image:
    """One colour, a gradient, or a picture that is saturated but for a few specks."""
    kind = int(rng.integers(3))
    if kind == 0:
        return _as_image(np.broadcast_to(rng.uniform(0, 256, 3), (height, width, 3)))
    if kind == 1:
        ramp = np.linspace(rng.uniform(0, 100), rng.uniform(150, 255), width)
        return _as_image(np.broadcast_to(ramp[None, :, None], (height, width, 3)))
    return _as_image(np.where(rng.uniform(size=(height, width, 1)) < 2e-3, 200.0, 255.0) * np.ones(3))


def _as_image(values: NDArray[np.floating]) -> Image:
    return np.clip(values, 0, 255).astype(np.uint8)


#: Kinds that are pictures of nothing.
PICTURES: dict[str, Callable[[Rng, int, int], Image]] = {"occluded_lens": occluded, "noise": noise, "blank": blank}
