"""MASt3R's sparse global alignment: cameras and a few hundred depths of every image, from matches.

Leroy et al., "Grounding Image Matching in 3D with MASt3R", ECCV 2024, and Duisterhof et al., "MASt3R-SfM", 3DV 2025,
section 3.3: first matched points are brought together in space, then every point to its match in the image.

The loss is a sum over matches and is differentiated slab by slab, so memory does not grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from mast3r_ros.multiview.adam import Adam
from mast3r_ros.multiview.rotations import rotation_of

Array = NDArray[np.float64]

#: Exponents of the robust losses in space and in the image.
COARSE, FINE = 1.5, 0.5
#: Stands for Cauchy's loss of a pixel, which weighs the errors of matched pixels as what they are: a pixel's rounding.
POLISH = 0.0
#: The pointmaps' depths are believed to within this, one standard deviation of their logarithm.
DEPTH_SIGMA = 0.1
#: Matches that are differentiated at once.
SLAB = 200_000
#: Focal lengths stay within this factor of the image's diagonal.
FOCALS = (0.25, 10.0)


@dataclass(frozen=True)
class SparseSettings:
    """How it is optimised: steps and step sizes of Adam, first in space, then in the image.

    Attributes:
        coarse_steps, fine_steps: published: 300 each, from nothing; here a graph of similarities of the same
            points stands for the first stage.
        polish_steps: of the image again, with a loss that is exact rather than robust.
        coarse_rate, fine_rate, polish_rate: step sizes at the beginning, which fall to zero along a cosine.
        depths: optimise the anchors' depths in the image.
    """

    coarse_steps: int = 0
    fine_steps: int = 150
    coarse_rate: float = 0.02
    fine_rate: float = 0.01
    polish_steps: int = 120
    polish_rate: float = 0.005
    depths: bool = True


@dataclass(frozen=True, eq=False)
class MatchSide:
    """One side of M matches.

    Attributes:
        image: (M,).
        anchor: (M,) rows of all images' anchors together.
        ratio: (M,) depth by the anchor's.
        uv: (M, 2) undistorted pixels about the principal point, of the matcher's image.
    """

    image: NDArray[np.int64]
    anchor: NDArray[np.int64]
    ratio: NDArray[np.floating]
    uv: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class SparseProblem:
    """What is aligned. Images 0 to N - 1 are connected by the matches.

    Attributes:
        sides: of the matches, the same rows in both.
        confidence: (M,) of the matches.
        anchors: (A,) depth of all images' anchors, one image after the other, in the units of the images.
        anchor_image: (A,) image of each.
        lens: (N,) rows of ``focals``.
        focals: (L,) first focal lengths, pixels of the matcher's image.
        free: (L,) which of them are to be found.
        told: (N,) focal length that each image's pointmap was seen with.
        diagonals: (N,) of the matcher's images, pixels.
        s, R, t: (N,), (N, 3, 3), (N, 3) first similarities from each image's frame to the world.
        fixed: (N,) bool, images whose camera is known and kept: R and t are its pose then, and s its unit.
    """

    sides: tuple[MatchSide, MatchSide]
    confidence: NDArray[np.floating]
    anchors: NDArray[np.floating]
    anchor_image: NDArray[np.int64]
    lens: NDArray[np.int64]
    focals: Array
    free: NDArray[np.bool_]
    told: Array
    diagonals: Array
    s: Array
    R: Array
    t: Array
    fixed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SparseResult:
    """Cameras and depths.

    Attributes:
        world_T_camera: (N, 4, 4).
        focals: (L,) pixels of the matcher's image.
        s: (N,) the unit of each image's pointmap in units of the world.
        anchors: (A,) depths in the world's unit.
        losses: of the steps.
    """

    world_T_camera: Array
    focals: Array
    s: Array
    anchors: Array
    losses: list[float]


def robust(distance: Tensor, gamma: float) -> Tensor:
    """``(d + o)^gamma - o^gamma`` with the offset at which its slope is 1 at a distance of zero."""
    offset = (1 / gamma) ** (1 / (gamma - 1))
    found: Tensor = (distance + offset) ** gamma - offset**gamma
    return found


class SparseAlignment:
    """Parameters and losses; see :func:`align_sparsely` for the usual way."""

    def __init__(self, problem: SparseProblem, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._p = p = problem
        self._first, self._second = (self._on_device(side) for side in p.sides)
        self._confidence = self._floats(p.confidence)
        images = len(p.s)
        self._median = self._floats([float(np.median(p.anchors[p.anchor_image == n])) for n in range(images)])
        self._lens, self._anchor_image = (torch.as_tensor(v, device=self._device) for v in (p.lens, p.anchor_image))
        self._told, self._fixed = self._floats(p.told), torch.as_tensor(p.fixed, device=self._device)
        self._known = self._floats(p.t)
        middle = np.array([self._median[n].item() for n in range(images)])
        self.rotations = self._floats(Rotation.from_matrix(p.R).as_quat()).requires_grad_()
        self.log_scale = self._floats(np.log(p.s)).requires_grad_()
        # The point on the optical axis at the median depth, about which a camera turns with least harm.
        axis = p.s * middle * p.focals[p.lens] / p.told
        self.on_axis = self._floats(p.t + axis[:, None] * p.R[:, :, 2]).requires_grad_()
        self.log_focal = self._floats(np.log(p.focals)).requires_grad_()
        self.log_depth = self._floats(np.zeros(len(p.anchors))).requires_grad_()
        self._anchors = self._floats(p.anchors)
        self._free = torch.as_tensor(p.free, device=self._device)
        # One known camera can be met by moving the whole; two and more decide the unit.
        self._free_unit = int(p.fixed.sum()) < 2
        self._unit = float(np.log(p.s).mean())

    # -- geometry ----------------------------------------------------------------------------------

    def focals(self) -> Tensor:
        """(L,) pixels."""
        known = self._floats(np.log(self._p.focals))
        return torch.where(self._free, self.log_focal, known).exp()

    def scales(self) -> Tensor:
        """(N,)."""
        logs = self.log_scale
        return (logs - logs.mean() + self._unit if self._free_unit else logs).exp()

    def cameras(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotations (N, 3, 3), centres (N, 3), focal lengths (N,) and scales (N,) of all images."""
        focal, s = self.focals()[self._lens], self.scales()
        R = rotation_of(torch.where(self._fixed[:, None], self.rotations.detach(), self.rotations))
        axis = s * self._median * focal / self._told
        centre = self.on_axis - axis[:, None] * R[:, :, 2]
        return R, torch.where(self._fixed[:, None], self._known, centre), focal, s

    def anchor_depths(self, focal: Tensor, s: Tensor) -> Tensor:
        """(A,) depths in the world's unit, of images' focal lengths and scales (N,)."""
        of = self._anchor_image
        return s[of] * self._anchors * self.log_depth.exp() * (focal / self._told)[of]

    def loss(self, gamma: float, rows: slice, depths: Tensor, cameras: tuple[Tensor, ...]) -> Tensor:
        """Sum over some matches: in space for :data:`COARSE`, in the images for :data:`FINE`."""
        R, centre, focal, _ = cameras
        sides = [side.part(rows) for side in (self._first, self._second)]
        world = []
        for side in sides:
            f, told = focal[side.image], self._told[side.image]
            z = depths[side.anchor] * (1 + (side.ratio - 1) * told / f)
            local = torch.cat([z[:, None] * side.uv / f[:, None], z[:, None]], dim=1)
            world.append(torch.einsum("mij,mj->mi", R[side.image], local) + centre[side.image])
        weight = self._confidence[rows]
        if gamma == COARSE:
            return (weight * robust(_length(world[0] - world[1]), gamma)).sum()
        total = torch.zeros((), device=self._device)
        for side, point in ((sides[0], world[1]), (sides[1], world[0])):
            off = self._reprojected(side, point, cameras) - side.uv
            loss = torch.log1p(off.square().sum(dim=1)) if gamma == POLISH else robust(_length(off), gamma)
            total = total + (weight * loss).sum()
        return total / 2

    def _reprojected(self, side: _Side, point: Tensor, cameras: tuple[Tensor, ...]) -> Tensor:
        R, centre, focal, _ = cameras
        local = torch.einsum("mji,mj->mi", R[side.image], point - centre[side.image])
        # A point behind the camera is far off, with a slope that brings it back.
        z = local[:, 2:].clamp(min=1e-3)
        return (focal[side.image][:, None] * local[:, :2] / z).clamp(-4000, 4000)

    # -- optimisation ------------------------------------------------------------------------------

    def optimise(
        self, settings: SparseSettings = SparseSettings(), progress: Callable[[int, int], None] = lambda d, n: None
    ) -> list[float]:
        """Both stages; the loss before every step."""
        total = settings.coarse_steps + settings.fine_steps + settings.polish_steps
        cameras = [self.rotations, self.on_axis, self.log_scale]
        more = [self.log_focal, self.log_depth] if settings.depths else [self.log_focal]
        losses, done = list[float](), 0
        for gamma, parameters, steps, rate in (
            (COARSE, cameras, settings.coarse_steps, settings.coarse_rate),
            (FINE, cameras + more, settings.fine_steps, settings.fine_rate),
            (POLISH, cameras + more, settings.polish_steps, settings.polish_rate),
        ):
            losses += self._descend(gamma, parameters, steps, rate, lambda n, before=done: progress(before + n, total))  # type: ignore[misc]
            done += steps
        return losses

    def _descend(
        self, gamma: float, parameters: list[Tensor], steps: int, rate: float, told: Callable[[int], None]
    ) -> list[float]:
        optimiser = Adam(parameters)
        losses = []
        for step in range(steps):
            losses.append(self._differentiated(gamma))
            if not math.isfinite(losses[-1]):
                break
            optimiser.step(rate * (1 + math.cos(math.pi * step / steps)) / 2)
            self._keep_in_bounds()
            told(step + 1)
        return losses

    def _differentiated(self, gamma: float) -> float:
        """The mean loss of a match; gradients of the parameters are left in them."""
        count, total = len(self._confidence), 0.0
        weight = float(self._confidence.sum())
        for start in range(0, count, SLAB):
            cameras = self.cameras()
            depths = self.anchor_depths(*cameras[2:])
            loss = self.loss(gamma, slice(start, start + SLAB), depths, cameras) / weight
            loss.backward()
            total += float(loss.detach())
        if gamma != COARSE:
            prior = (self.log_depth / DEPTH_SIGMA).square().sum() / (2 * count)
            prior.backward()
            total += float(prior.detach())
        return total

    @torch.no_grad()
    def _keep_in_bounds(self) -> None:
        self.rotations /= self.rotations.norm(dim=1, keepdim=True)
        diagonal = np.zeros(len(self._p.focals))
        np.maximum.at(diagonal, self._p.lens, self._p.diagonals)
        low, high = (self._floats(np.log(share * np.maximum(diagonal, 1.0))) for share in FOCALS)
        self.log_focal.copy_(torch.minimum(torch.maximum(self.log_focal, low), high))

    @torch.no_grad()
    def result(self, losses: Sequence[float] = ()) -> SparseResult:
        """What the parameters mean."""
        R, centre, focal, s = self.cameras()
        poses = np.tile(np.eye(4), (len(s), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = R.double().cpu().numpy(), centre.double().cpu().numpy()
        depths = self.anchor_depths(focal, s).double().cpu().numpy()
        focals = self.focals().double().cpu().numpy()
        return SparseResult(poses, focals, s.double().cpu().numpy(), depths, list(losses))

    def _on_device(self, side: MatchSide) -> _Side:
        image, anchor = (torch.as_tensor(rows, device=self._device) for rows in (side.image, side.anchor))
        return _Side(image, anchor, self._floats(side.ratio), self._floats(side.uv))

    def _floats(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._device).clone()


@dataclass(frozen=True, eq=False)
class _Side:
    """:class:`MatchSide` on the device."""

    image: Tensor
    anchor: Tensor
    ratio: Tensor
    uv: Tensor

    def part(self, rows: slice) -> _Side:
        return _Side(self.image[rows], self.anchor[rows], self.ratio[rows], self.uv[rows])


def align_sparsely(
    problem: SparseProblem,
    settings: SparseSettings = SparseSettings(),
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SparseResult:
    """Cameras and depths of all images that bring their matches together."""
    alignment = SparseAlignment(problem, device)
    return alignment.result(alignment.optimise(settings, progress))


def _length(vectors: Tensor) -> Tensor:
    """Euclidean norms (M,), with a slope of zero at zero."""
    return (vectors.square().sum(dim=1) + 1e-12).sqrt()
