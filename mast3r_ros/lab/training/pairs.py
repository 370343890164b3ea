"""Batches of training pairs. What a batch holds follows from the seed and its number alone, so training can resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mast3r_ros.geometry import se3
from mast3r_ros.lab.training import correspondences
from mast3r_ros.lab.training.augmentation import mirrored, photographed
from mast3r_ros.lab.training.views import SceneFile, View

#: Bounds of the overlap classes that pairs are drawn from in equal parts: most classes are of hard pairs.
OVERLAP_CLASSES = (0.05, 0.15, 0.3, 0.45, 0.65, 0.95)
Batch = dict[str, Tensor]


class Scenes(Protocol):
    """Scenes by number; rendered rooms make them when they are first asked for."""

    def __getitem__(self, number: int) -> SceneFile: ...


class Overlapping(Protocol):
    """How views see each other, see :class:`SceneFile`."""

    @property
    def overlap(self) -> NDArray[np.floating]: ...

    @property
    def gap(self) -> NDArray[np.floating]: ...


@dataclass(frozen=True)
class PairSettings:
    """How pairs are made.

    Attributes:
        correspondences: N per pair, false ones included.
        negative_share, clustered_share: see :func:`mast3r_ros.lab.training.correspondences.sample`.
        colours: strength of the changes of colour, blur and noise.
        mirror: whether half of the pairs are of the mirrored world.
        least_gap_share: of pairs, this part looks for axes at least ``GAP_DEG`` apart.
    """

    correspondences: int = 512
    negative_share: float = 0.25
    clustered_share: float = 0.4
    colours: float = 0.6
    mirror: bool = True
    wide_share: float = 0.3


#: Degrees between optical axes above which a pair counts as wide.
GAP_DEG = 30.0


def choose_pair(scene: Overlapping, rng: np.random.Generator, wide_share: float = 0.0) -> tuple[int, int]:
    """Two views by overlap class, those of a wide viewpoint gap first in a part of the draws."""
    overlap = np.minimum(scene.overlap, scene.overlap.T).astype(np.float32)
    allowed = np.ones_like(overlap, dtype=bool)
    if rng.uniform() < wide_share:
        allowed = scene.gap >= GAP_DEG
    np.fill_diagonal(allowed, False)
    for chosen in (allowed, ~np.eye(len(overlap), dtype=bool)):
        classes = rng.permutation(len(OVERLAP_CLASSES) - 1)
        for k in classes:
            inside = chosen & (overlap >= OVERLAP_CLASSES[k]) & (overlap < OVERLAP_CLASSES[k + 1])
            first, second = np.nonzero(inside)
            if len(first):
                at = int(rng.integers(len(first)))
                return int(first[at]), int(second[at])
    # No two views overlap as wanted: the best there are.
    np.fill_diagonal(overlap, -1)
    first, second = divmod(int(overlap.argmax()), len(overlap))
    return first, second


def make_pair(view1: View, view2: View, rng: np.random.Generator, settings: PairSettings) -> dict[str, NDArray]:
    """One training pair: images, points in camera 1's frame, correspondences."""
    if settings.mirror and rng.uniform() < 0.5:
        view1, view2 = mirrored(view1), mirrored(view2)
    pixels = correspondences.reciprocal_pixels(view1, view2)
    sizes = [(v.depth.shape[0], v.depth.shape[1]) for v in (view1, view2)]
    xy1, xy2, true = correspondences.sample(
        *pixels,
        (sizes[0], sizes[1]),
        settings.correspondences,
        rng,
        settings.negative_share,
        settings.clustered_share,
    )
    camera1_T_camera2 = se3.inverse(view1.map_T_camera) @ view2.map_T_camera
    points2 = se3.apply(camera1_T_camera2, correspondences.camera_points(view2)).astype(np.float32)
    if settings.colours:
        view1, view2 = (photographed(view, rng, settings.colours) for view in (view1, view2))
    return {
        "image1": view1.image,
        "image2": view2.image,
        "points1": correspondences.camera_points(view1),
        "points2": points2,
        "valid1": view1.depth > 0,
        "valid2": view2.depth > 0,
        "xy1": xy1,
        "xy2": xy2,
        "true": true,
    }


class PairBatches(Dataset[Batch]):
    """Batch by number.

    Args:
        scenes: by number.
        scene_of: position of a pair in the whole training, a random generator -> number of its scene.
        seed: of everything random.
        batch: pairs of all processes together.
        rank, processes: which part of each batch this process makes.
    """

    def __init__(
        self,
        scenes: Scenes,
        scene_of: Callable[[int, np.random.Generator], int],
        settings: PairSettings,
        seed: int,
        batch: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.scenes, self.scene_of, self.settings, self.seed = scenes, scene_of, settings, seed
        self.batch, self.rank, self.share = batch, rank, batch // processes

    def __getitem__(self, step: int) -> Batch:
        first = step * self.batch + self.rank * self.share
        return collate([self._pair(position) for position in range(first, first + self.share)])

    def _pair(self, position: int) -> dict[str, NDArray]:
        rng = np.random.default_rng([self.seed, 3, position])
        scene = self.scenes[self.scene_of(position, rng)]
        first, second = choose_pair(scene, rng, self.settings.wide_share)
        return make_pair(scene[first], scene[second], rng, self.settings)


def collate(pairs: Sequence[dict[str, NDArray]]) -> Batch:
    """Pairs of one size as tensors (B, ...)."""
    return {name: torch.from_numpy(np.stack([pair[name] for pair in pairs])) for name in pairs[0]}


def images_of(batch: Batch, device: torch.device) -> Tensor:
    """(2 B, 3, H, W) in [-1, 1]: all first views, then all second ones."""
    pixels = torch.cat((batch["image1"], batch["image2"])).to(device)
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
