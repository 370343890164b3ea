"""A matcher that knows the truth: exact pointmaps and matches of a hall, with noise and wrong pairs as one chooses.

What a perfect network would say, at no cost: alignment is measured apart from any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.matching.base import Capabilities, Features, Matches, PixelMatches
from mast3r_ros.matching.pair_maps import PairMaps, ViewPoints

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hall:
    """An empty box and cameras in it.

    Attributes:
        half: (3,) half the sides, metres.
        camera: of all images.
        poses: (N, 4, 4) map_T_camera.
    """

    half: Array
    camera: Camera
    poses: Array

    @classmethod
    def of(cls, count: int, seed: int = 0, metres_each: float = 0.5, camera: Camera | None = None) -> Hall:
        """As long as the number of images asks for; they look at its walls from all over, in no order."""
        rng = np.random.default_rng(seed)
        half = np.array([max(metres_each * count / 2, 3.0), 2.5, 1.6])
        along = (np.linspace(-1, 1, count) + rng.uniform(-0.5, 0.5, count) / count) * (half[0] - 1.5)
        position = np.stack([along, rng.uniform(-0.8, 0.8, count), rng.uniform(-0.3, 0.3, count)], axis=1)
        side = rng.choice([-1.0, 1.0], count) if metres_each < 0.3 else np.ones(count)
        target = position * [1, 0, 0] + np.stack(
            [rng.uniform(-1.5, 1.5, count), side * half[1], rng.uniform(-0.6, 0.6, count)], axis=1
        )
        poses = [_looking(*both) for both in zip(position, target, strict=True)]
        camera = camera or Camera.pinhole(128, 96, 104, 104, 63.5, 47.5)
        return cls(half, camera, np.array(poses)[rng.permutation(count)])

    def surface(self, number: int) -> Array:
        """(H, W, 3) points of the walls that an image sees."""
        camera, pose = self.camera, self.poses[number]
        rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
        directions, origin = rays @ pose[:3, :3].T, pose[:3, 3]
        with np.errstate(divide="ignore"):
            distance = np.where(directions > 0, self.half - origin, -self.half - origin) / directions
        return np.asarray(origin + directions * distance.min(axis=-1)[..., None])

    def image(self, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) walls painted with where they are."""
        wave = np.sin(self.surface(number) * [1.7, 2.3, 3.1] + [0.3, 1.1, 2.0])
        return np.asarray(127.5 + 120 * wave).round().astype(np.uint8)


class PointmapOracle:
    """Reads an image's number off its name; see the module.

    Args:
        noise: relative standard deviation of every distance, alike for a whole pointmap's every pixel.
        wrong: share of the pairs that say, with as much confidence as any, that the second camera is elsewhere.
        unit: metres are multiplied with.
        spacing: pixels between those that matching starts from.
    """

    name = "oracle"
    capabilities = Capabilities(pixel_matches=True, pointmaps=True, predicted_depth=False, metric=False)

    def __init__(
        self,
        hall: Hall,
        noise: float = 0.01,
        wrong: float = 0.0,
        unit: float = 1.0,
        metric: bool = True,
        spacing: int = 8,
    ) -> None:
        self.hall, self.noise, self.wrong, self.unit, self.spacing = hall, noise, wrong, unit, spacing
        self.capabilities = replace(type(self).capabilities, metric=metric)

    @property
    def signature(self) -> str:
        """Of everything that decides an answer."""
        hall = self.hall
        return f"oracle-{len(hall.poses)}-{hall.poses.sum():.9f}-{self.noise}-{self.wrong}-{self.unit}-{self.spacing}"

    def describe(self, frame: Frame) -> Features:
        """The image's number, and where a few of its points are."""
        number = int("".join(c for c in frame.name.rsplit(".", 1)[0] if c.isdigit()))
        points = self.hall.surface(number)[4::12, 4::12].reshape(-1, 3)
        return {"number": np.array([number]), "points": points.astype(np.float32)}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, 24) alike where points are near each other."""
        waves = np.random.default_rng(7).normal(size=(3, 12)) * 1.2
        phase = features["points"] @ waves
        found = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Nothing: there are no keyframes here."""
        return [Matches.empty() for _ in references]

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """The matches of :meth:`predict_pairs`."""
        found = self.predict_pairs(query, references)
        return [PixelMatches(maps.xy_i.astype(float), maps.xy_j.astype(float)) for maps in found]

    def pixel_grid(self, features: Features) -> Array:
        """The matcher's image is the image."""
        y, x = np.mgrid[: self.hall.camera.height, : self.hall.camera.width]
        return np.stack([x, y], axis=-1).astype(np.float64)

    def predict_pairs(self, first: Features, others: Sequence[Features]) -> list[PairMaps]:
        """Pointmaps with noise, and the matches that follow from where the cameras are said to be."""
        return [self._pair(int(first["number"][0]), int(other["number"][0])) for other in others]

    def _pair(self, i: int, j: int) -> PairMaps:
        rng = np.random.default_rng((min(i, j), max(i, j), 3))
        lie = np.eye(4)
        if rng.random() < self.wrong:
            # Somewhere else and turned, but still such that both see much of the same.
            lie = se3.exp([*rng.uniform(-0.6, 0.6, 3), *rng.choice([-1, 1], 3) * rng.uniform(0.15, 0.35, 3)])
        hall = replace(self.hall, poses=np.array([self.hall.poses[i], self.hall.poses[j] @ lie]))
        true = [hall.surface(0), hall.surface(1)]
        T = [se3.inverse(pose) for pose in hall.poses]
        views = []
        for camera, image in ((0, 0), (0, 1), (1, 1), (1, 0)):
            points = se3.apply(T[camera], true[image])
            noisy = self.unit * points * (1 + self.noise * rng.standard_normal((*points.shape[:2], 1)))
            views.append(
                ViewPoints(noisy.astype(np.float32), (5 + 5 * rng.random(points.shape[:2])).astype(np.float32))
            )
        xy_i, xy_j = self._matches(hall, true)
        return PairMaps(views[0], views[1], views[2], views[3], xy_i, xy_j, np.full(len(xy_i), 5, np.float32))

    def _matches(self, hall: Hall, true: list[Array]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = []
        for a in range(2):
            y, x = np.mgrid[
                self.spacing // 2 : hall.camera.height : self.spacing,
                self.spacing // 2 : hall.camera.width : self.spacing,
            ]
            start = np.stack([x.ravel(), y.ravel()], axis=1)
            there, seen = hall.camera.seen(se3.apply(se3.inverse(hall.poses[1 - a]), true[a][start[:, 1], start[:, 0]]))
            pair = [start[seen], np.rint(there[seen]).astype(np.int64).clip(0)]
            found.append(pair if a == 0 else pair[::-1])
        xy_i, xy_j = (np.concatenate(both) for both in zip(*found, strict=True))
        return xy_i, xy_j


def _looking(position: Array, target: Array) -> Array:
    """map_T_camera (4, 4) of an upright camera; z is up in the map."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    return se3.make(np.stack([x, np.cross(z, x), z], axis=1), position)
