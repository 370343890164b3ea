"""DUSt3R's global alignment: cameras and depth of many images from pointmaps of pairs of them.

Wang et al., "DUSt3R: Geometric 3D Vision Made Easy", CVPR 2024, section 3.4: every pair gets a similarity of its own,
every image a camera and a depth image, such that both say the same of where each pixel's point is in the world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.multiview.alignment_settings import AlignmentSettings, KnownViews
from mast3r_ros.multiview.alignment_start import AlignmentStart, start_from_poses, start_from_tree
from mast3r_ros.multiview.pointmap_pair import TRANSFORMS, PointmapPair, image_confidences, image_shapes
from mast3r_ros.multiview.rotations import rotation_of
from mast3r_ros.multiview.scene import AlignedViews

#: How much a focal length and a principal point are slowed down against the other parameters.
FOCAL_BRAKE, CENTRE_BRAKE = 20.0, 10.0
#: Geometric mean of the pairs' scales, where nothing fixes the scale.
MEAN_SCALE = 0.5


class GlobalAlignment:
    """Parameters of the alignment and its loss; see :func:`align` for the usual way.

    Args:
        start: first values of all parameters.
        known: poses and focal lengths that are kept.
    """

    def __init__(
        self,
        pairs: Sequence[PointmapPair],
        start: AlignmentStart,
        settings: AlignmentSettings = AlignmentSettings(),
        known: KnownViews = KnownViews(),
        device: str | torch.device = "cpu",
    ) -> None:
        self._known_centres = known.centres
        self._settings, self._free_scale, self._device = settings, not known.fixes_scale, torch.device(device)
        self._sides = _sides(pairs, settings.weight, self._device)
        self._shapes = image_shapes(pairs)
        self.confidences = image_confidences(pairs)
        self.pair_poses = self._tensor([_packed_pair(similarity) for similarity in start.pairs]).requires_grad_()
        self.poses = [self._tensor(_packed_pose(pose)) for pose in start.world_T_camera]
        self.focals = [self._tensor([FOCAL_BRAKE * math.log(focal)]) for focal in start.focals]
        self.centres = [self._tensor([0.0, 0.0]) for _ in self._shapes]
        # A point behind its camera starts at a depth of one.
        self.depths = [self._tensor(_log_depth(depth)).requires_grad_() for depth in start.depths]
        for number in range(len(self._shapes)):
            self.poses[number].requires_grad_(number not in known.poses)
            self.focals[number].requires_grad_(number not in known.focals)
            self.centres[number].requires_grad_(settings.principal_points)
        self._grids = [self._tensor(_grid(shape)) for shape in self._shapes]

    @property
    def parameters(self) -> list[Tensor]:
        """All that is optimised."""
        every = [self.pair_poses, *self.depths, *self.poses, *self.focals, *self.centres]
        return [parameter for parameter in every if parameter.requires_grad]

    def loss(self) -> Tensor:
        """Weighted mean distance between where images and where pairs put the pixels' points."""
        numbers = {shape: [n for n, s in enumerate(self._shapes) if s == shape] for shape in set(self._shapes)}
        world = {shape: torch.stack([self._points(n) for n in listed]) for shape, listed in numbers.items()}
        scales, rotations, translations = self._similarities()
        totals = [self._tensor(0.0), self._tensor(0.0)]
        for side in self._sides:
            place = [numbers[side.shape].index(n) for n in side.images]
            of_pair = rotations[side.pairs].transpose(1, 2)
            placed = side.points @ of_pair + translations[side.pairs][:, None]
            gap = (world[side.shape][place] - scales[side.pairs][:, None, None] * placed).square().sum(dim=-1)
            distance = gap if self._settings.distance == "l2" else _root(gap)
            total = (side.weights * distance).sum()
            totals[side.view] = totals[side.view] + (total / gap.shape[1] if self._settings.each_pair_alike else total)
        if self._settings.each_pair_alike:
            return (totals[0] + totals[1]) / len(self.pair_poses)
        areas = [sum(s.points[..., 0].numel() for s in self._sides if s.view == view) for view in range(2)]
        return totals[0] / areas[0] + totals[1] / areas[1]

    def optimise(self, progress: Callable[[int, int], None] | None = None) -> list[float]:
        """Adam with a falling step size; returns the loss before every step."""
        settings = self._settings
        optimiser = torch.optim.Adam(self.parameters, lr=settings.rate, betas=(0.9, 0.9))
        losses = []
        for step in range(settings.iterations):
            t = step / settings.iterations
            share = (1 + math.cos(math.pi * t)) / 2 if settings.schedule == "cosine" else 1 - t
            for group in optimiser.param_groups:
                group["lr"] = settings.last_rate + (settings.rate - settings.last_rate) * share
            optimiser.zero_grad()
            loss = self.loss()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            if progress is not None:
                progress(step + 1, settings.iterations)
        return losses

    @torch.no_grad()
    def views(self, losses: Sequence[float] = ()) -> AlignedViews:
        """The parameters' meaning."""
        poses = np.tile(np.eye(4), (len(self._shapes), 1, 1))
        for pose, parameter in zip(poses, self.poses, strict=True):
            pose[:3, :3] = rotation_of(parameter[:4]).double().cpu().numpy()
            pose[:3, 3] = _unpacked(parameter[4:7]).double().cpu().numpy()
        numbers = range(len(self._shapes))
        return AlignedViews(
            poses,
            np.array([float(self._focal(n)) for n in numbers]),
            np.array([self._centre(n).double().cpu().numpy() for n in numbers]),
            [depth.exp().cpu().numpy() for depth in self.depths],
            self.confidences,
            list(losses),
        )

    def _similarities(self) -> tuple[Tensor, Tensor, Tensor]:
        logs = self.pair_poses[:, 7]
        if self._free_scale:
            logs = logs + (math.log(MEAN_SCALE) - logs.mean())
        return logs.exp(), rotation_of(self.pair_poses[:, :4]), _unpacked(self.pair_poses[:, 4:7])

    def _points(self, number: int) -> Tensor:
        depth = self.depths[number].exp()[..., None]
        rays = (self._grids[number] - self._centre(number)) / self._focal(number)
        local = torch.cat([depth * rays, depth], dim=-1)
        pose = self.poses[number]
        return local.reshape(-1, 3) @ rotation_of(pose[:4]).T + _unpacked(pose[4:7])

    def _focal(self, number: int) -> Tensor:
        return (self.focals[number][0] / FOCAL_BRAKE).exp()

    def _centre(self, number: int) -> Tensor:
        height, width = self._shapes[number]
        first = self._known_centres.get(number, [width / 2, height / 2])
        return self._tensor(first) + CENTRE_BRAKE * self.centres[number]

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._device).clone()


def align(
    pairs: Sequence[PointmapPair],
    settings: AlignmentSettings = AlignmentSettings(),
    known: KnownViews = KnownViews(),
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> AlignedViews:
    """Cameras and depth of all images.

    Args:
        pairs: pointmaps of pairs that connect images 0 to N - 1.
        known: poses and focal lengths that are kept; where all are known the alignment starts from them.
        progress: is told (step, steps).

    Raises:
        ValueError: for images without gaps in their numbers, sizes that differ, or pairs that do not hang together.
    """
    everything = len(known.poses) == len(known.focals) == len(image_shapes(pairs))
    start = start_from_poses(pairs, settings, known) if everything else start_from_tree(pairs, settings, known)
    alignment = GlobalAlignment(pairs, start, settings, known, device)
    return alignment.views(alignment.optimise(progress))


@dataclass(frozen=True, eq=False)
class _Side:
    """One view of all pairs in which it has the same size, E of them.

    Attributes:
        view: 0 or 1.
        shape: (H, W).
        pairs, images: numbers of the pairs and of the view's images.
        points: (E, H * W, 3).
        weights: (E, H * W).
    """

    view: int
    shape: tuple[int, int]
    pairs: list[int]
    images: list[int]
    points: Tensor
    weights: Tensor


def _sides(pairs: Sequence[PointmapPair], transform: str, device: torch.device) -> list[_Side]:
    shapes, sides = image_shapes(pairs), []
    for view in range(2):
        images = [pair.j if view else pair.i for pair in pairs]
        for shape in sorted(set(shapes)):
            rows = [row for row, n in enumerate(images) if shapes[n] == shape]
            if not rows:
                continue
            points = [pairs[row].points_j if view else pairs[row].points_i for row in rows]
            beliefs = [pairs[row].confidence_j if view else pairs[row].confidence_i for row in rows]
            sides.append(
                _Side(
                    view,
                    shape,
                    rows,
                    [images[row] for row in rows],
                    _on(device, np.stack(points)).flatten(1, 2),
                    _on(device, TRANSFORMS[transform](np.stack(beliefs))).flatten(1, 2),
                )
            )
    return sides


def _on(device: torch.device, values: NDArray[Any]) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32), device=device)


def _root(squared: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero."""
    positive = squared > 0
    return torch.where(positive, squared.where(positive, torch.ones_like(squared)).sqrt(), 0.0)


def _unpacked(t: Tensor) -> Tensor:
    """Inverse of the signed logarithm that translations are kept as."""
    return t.sign() * t.abs().expm1()


def _packed(t: NDArray[Any]) -> NDArray[np.float64]:
    packed: NDArray[np.float64] = np.sign(t) * np.log1p(np.abs(t))
    return packed


def _packed_pose(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([Rotation.from_matrix(pose[:3, :3]).as_quat(), _packed(pose[:3, 3])])


def _packed_pair(of_pair: Similarity) -> NDArray[np.float64]:
    quaternion, s = Rotation.from_matrix(of_pair.R).as_quat(), of_pair.scale
    return np.concatenate([quaternion, _packed(of_pair.t / s), [math.log(s)]])


def _log_depth(depth: NDArray[np.floating]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.log(np.asarray(depth, np.float64)), nan=0.0, neginf=0.0)


def _grid(shape: tuple[int, int]) -> NDArray[np.float64]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([x, y], axis=-1).astype(np.float64)
