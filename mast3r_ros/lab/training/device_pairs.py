"""Training pairs made where the network trains: rooms stay on the device, and nothing is copied from step to step.

The same pairs as :mod:`pairs` makes them, but for the noise of colours and of sampling: which views a pair has follows
from seed and position, all else from seed and step, so a training can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.lab.training import device_colours
from mast3r_ros.lab.training.correspondences import NEIGHBOURHOOD
from mast3r_ros.lab.training.pairs import GAP_DEG, OVERLAP_CLASSES, Batch, Overlapping, PairSettings, choose_pair
from mast3r_ros.lab.training.rooms import RenderedRooms

#: Rooms for which memory is taken at once.
ROOMS_AT_ONCE = 64
#: Of seeds: what else is random has numbers of its own.
SAMPLING = 11


@dataclass(frozen=True)
class Views:
    """B views on the device.

    Attributes:
        image: (B, H, W, 3) uint8; depth: (B, H, W) float32 metres, 0 where unknown.
        map_T_camera: (B, 4, 4), K: (B, 3, 3) float32.
    """

    image: Tensor
    depth: Tensor
    map_T_camera: Tensor
    K: Tensor

    @property
    def points(self) -> Tensor:
        """(B, H, W, 3) in the cameras' frames; zero where depth is unknown."""
        height, width = self.depth.shape[1:]
        x = torch.arange(width, device=self.depth.device) - self.K[:, 0, 2, None]
        y = torch.arange(height, device=self.depth.device) - self.K[:, 1, 2, None]
        x, y = x / self.K[:, 0, 0, None], y / self.K[:, 1, 1, None]
        return torch.stack([self.depth * x[:, None], self.depth * y[:, :, None], self.depth], dim=-1)

    def mirrored(self, chosen: Tensor) -> Views:
        """Those chosen (B,) in a mirrored world, x of the map frame negated."""
        mirror = torch.diag(self.K.new_tensor([-1.0, 1.0, 1.0, 1.0]))
        K = self.K.clone()
        K[:, 0, 2] = torch.where(chosen, self.depth.shape[2] - 1 - K[:, 0, 2], K[:, 0, 2])
        return Views(
            torch.where(chosen[:, None, None, None], self.image.flip(2), self.image),
            torch.where(chosen[:, None, None], self.depth.flip(2), self.depth),
            torch.where(chosen[:, None, None], mirror @ self.map_T_camera @ mirror, self.map_T_camera),
            K,
        )


@dataclass(frozen=True)
class _Room:
    """Where a room's views begin, and :func:`choose_pair` in advance: which pairs are of which class of overlap."""

    first: int
    overlap: NDArray[np.floating]
    gap: NDArray[np.floating]
    #: For any gap and for wide ones: pairs (N, 2) of each class.
    classes: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]

    @classmethod
    def of(cls, first: int, scene: Overlapping) -> _Room:
        overlap = np.minimum(scene.overlap, scene.overlap.T).astype(np.float32)
        others = ~np.eye(len(overlap), dtype=bool)
        inside = [(overlap >= low) & (overlap < high) & others for low, high in pairwise(OVERLAP_CLASSES)]
        any_, wide = ([np.argwhere(x & allowed) for x in inside] for allowed in (others, scene.gap >= GAP_DEG))
        return cls(first, scene.overlap, scene.gap, (any_, wide))

    def pair(self, rng: np.random.Generator, wide_share: float) -> tuple[int, int]:
        """What :func:`choose_pair` would draw."""
        order = (1, 0) if rng.uniform() < wide_share else (0, 0)
        for kind in order:
            for k in rng.permutation(len(OVERLAP_CLASSES) - 1):
                pairs = self.classes[kind][k]
                if len(pairs):
                    first, second = pairs[int(rng.integers(len(pairs)))]
                    return self.first + int(first), self.first + int(second)
        first, second = choose_pair(self, rng)
        return self.first + first, self.first + second


class DeviceBatches:
    """Batch by number, all of it on the device.

    Args:
        rooms: read from their files once, when a pair first needs them.
        wait: returns when a room's file, which other processes make, is there; None: what is missing is rendered here.
        others: as for :class:`mast3r_ros.lab.training.pairs.PairBatches`.
    """

    def __init__(
        self,
        rooms: RenderedRooms,
        scene_of: Callable[[int, np.random.Generator], int],
        settings: PairSettings,
        seed: int,
        batch: int,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
        wait: Callable[[Path], None] | None = None,
    ) -> None:
        self.rooms, self.scene_of, self.settings, self.seed, self.wait = rooms, scene_of, settings, seed, wait
        self.batch, self.rank, self.share, self.device = batch, rank, batch // processes, device
        self._rooms: dict[int, _Room] = {}
        self._views: Views | None = None

    def __getitem__(self, step: int) -> Batch:
        start = step * self.batch + self.rank * self.share
        rows = []
        for position in range(start, start + self.share):
            rng = np.random.default_rng([self.seed, 3, position])
            rows.append(self._room(self.scene_of(position, rng)).pair(rng, self.settings.wide_share))
        generator = torch.Generator(self.device).manual_seed(hash((self.seed, SAMPLING, step, self.rank)) & (2**63 - 1))
        first, second = torch.tensor(rows, device=self.device).T
        return make_pairs(self._taken(first), self._taken(second), self.settings, generator)

    def between(self, first: int, end: int) -> Iterator[Batch]:
        """Batches of these numbers."""
        return (self[step] for step in range(first, end))

    def _taken(self, rows: Tensor) -> Views:
        assert self._views is not None
        v = self._views
        return Views(v.image[rows], v.depth[rows].float(), v.map_T_camera[rows], v.K[rows])

    def _room(self, number: int) -> _Room:
        if number not in self._rooms:
            if self.wait is not None:
                self.wait(self.rooms.path(number))
            scene = self.rooms[number]
            first = len(self._rooms) * len(scene)
            self._store(first, scene.arrays())
            self._rooms[number] = _Room.of(first, scene)
        return self._rooms[number]

    def _store(self, first: int, arrays: tuple[NDArray, NDArray, NDArray, NDArray]) -> None:
        """Put a room's views behind those that are there."""
        new = [torch.from_numpy(array).to(self.device) for array in arrays]
        old = None if self._views is None else [getattr(self._views, name) for name in Views.__dataclass_fields__]
        count = len(new[0])
        if old is None or first + count > len(old[0]):
            room = [torch.empty((ROOMS_AT_ONCE * count, *x.shape[1:]), dtype=x.dtype, device=self.device) for x in new]
            old = room if old is None else [torch.cat(both) for both in zip(old, room, strict=True)]
            self._views = Views(*old)
        for there, more in zip(old, new, strict=True):
            there[first : first + count] = more


def make_pairs(view1: Views, view2: Views, settings: PairSettings, generator: torch.Generator) -> Batch:
    """B training pairs: see :func:`mast3r_ros.lab.training.pairs.make_pair` for what they hold."""
    if settings.mirror:
        chosen = torch.rand(len(view1.K), generator=generator, device=generator.device) < 0.5
        view1, view2 = view1.mirrored(chosen), view2.mirrored(chosen)
    points1, points2 = view1.points, view2.points
    camera2_T_camera1 = torch.linalg.inv(view2.map_T_camera) @ view1.map_T_camera
    camera1_T_camera2 = torch.linalg.inv(camera2_T_camera1)
    moved = _moved(points2, camera1_T_camera2)
    there = _landing(points1, _moved(points1, camera2_T_camera1), view2.K)
    back = _landing(points2, moved, view1.K)
    xy1, xy2, true = sample(there, back, view1.depth.shape[2], settings, generator)
    image1, image2 = view1.image, view2.image
    if settings.colours:
        image1, image2 = device_colours.photographed(torch.cat([image1, image2]), settings.colours, generator).chunk(2)
    valid1, valid2 = view1.depth > 0, view2.depth > 0
    return {
        "image1": image1, "image2": image2, "points1": points1, "points2": moved,
        "valid1": valid1, "valid2": valid2, "xy1": xy1, "xy2": xy2, "true": true,
    }  # fmt: skip


def sample(
    there: Tensor, back: Tensor, width: int, settings: PairSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Some true correspondences and random false ones, as :func:`mast3r_ros.lab.training.correspondences.sample` does.

    Args:
        there: (B, P) pixel of view 2 on which each of view 1 lands, -1 for none; back: the same from view 2.

    Returns:
        x, y of both views (B, N, 2) and which rows are true (B, N).
    """
    count = settings.correspondences
    wanted = min(int(count * (1 - settings.negative_share)), there.shape[1])
    near = int(wanted * settings.clustered_share)
    places = torch.arange(there.shape[1], device=there.device)
    reciprocal = (there >= 0) & (back.gather(1, there.clamp(min=0)) == places)

    def drawn(among: Tensor, number: int, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """So many random pixels (B, number), those that are ``first`` first, and which of them are among (B, P)."""
        keys = torch.rand(among.shape, generator=generator, device=among.device)
        found = torch.where(among, keys if first is None else keys + first, keys - 1).topk(number, dim=1)
        return found.indices, found.values >= 0

    seeds, sure = drawn(reciprocal, wanted - near)
    centres = max(near // 8, 1)
    around = torch.zeros_like(reciprocal, dtype=torch.float32)
    around.scatter_(1, seeds[:, :centres], sure[:, :centres].float())
    square = 2 * NEIGHBOURHOOD + 1
    maps = around.view(len(around), 1, -1, width)
    around = torch.nn.functional.max_pool2d(maps, square, 1, NEIGHBOURHOOD).flatten(1)
    others, also = drawn(reciprocal.scatter(1, seeds, False), near, around)
    chosen, true = torch.cat([seeds, others], dim=1), torch.cat([sure, also], dim=1)
    taken = torch.zeros_like(there).scatter_add_(1, there.clamp(min=0), reciprocal.long()) > 0
    negative1, _ = drawn(~reciprocal, count)
    negative2, _ = drawn(~taken, count)
    true = torch.nn.functional.pad(true, (0, count - wanted))
    first = torch.where(true[:, :wanted], chosen, negative1[:, :wanted])
    second = torch.where(true[:, :wanted], there.gather(1, chosen), negative2[:, :wanted])
    pixels1 = torch.cat([first, negative1[:, wanted:]], dim=1)
    pixels2 = torch.cat([second, negative2[:, wanted:]], dim=1)
    return _xy(pixels1, width), _xy(pixels2, width), true


def _moved(points: Tensor, motion: Tensor) -> Tensor:
    """Points (B, H, W, 3) by motions (B, 4, 4)."""
    flat = points.flatten(1, 2) @ motion[:, :3, :3].transpose(1, 2) + motion[:, None, :3, 3]
    return flat.view_as(points)


def _landing(points: Tensor, moved: Tensor, K: Tensor) -> Tensor:
    """Flat index (B, H W) of the pixel nearest to where points, moved to a camera's frame, are seen; -1 for none."""
    height, width = points.shape[1:3]
    x, y, z = moved.flatten(1, 2).unbind(dim=2)
    u = (x / z * K[:, 0, 0, None] + K[:, 0, 2, None]).round()
    v = (y / z * K[:, 1, 1, None] + K[:, 1, 2, None]).round()
    inside = (z > 1e-6) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & (points[..., 2].flatten(1) > 0)
    return torch.where(inside, torch.where(inside, v, 0) * width + torch.where(inside, u, 0), -1).long()


def _xy(pixels: Tensor, width: int) -> Tensor:
    return torch.stack([pixels % width, pixels // width], dim=-1)
