"""Light that does not move is computed once per world: soft shadows and ambient occlusion in light maps.

Neighbouring texels of a face form a bundle. A bundle meets only the primitives that can stand between it and what
it looks at, which spares nearly all of the work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mast3r_ros.lab.synthetic.raycast import Shapes, intersect
from mast3r_ros.lab.synthetic.surface import locate, place
from mast3r_ros.lab.synthetic.world import SHELL, AreaLight, World

#: Texels of one bundle.
BUNDLE = 8
#: Pairs of bundle and primitive intersected at once, by device type.
PAIRS = {"cpu": 512, "cuda": 65536}


@dataclass(frozen=True)
class LightingSettings:
    """How the light maps of a world are computed.

    Attributes:
        light_samples: shadow rays per light along each of its sides.
        sky_samples: rays that look for occluders of the ambient light.
        ambient: strength of the ambient light relative to the brightest direct light.
        reach_m: how far an occluder darkens the ambient light.
        smallest_occluder_m: primitives whose second largest side is below this cast no shadow.
    """

    light_samples: int = 3
    sky_samples: int = 20
    ambient: float = 0.6
    reach_m: float = 1.4
    smallest_occluder_m: float = 0.05


@dataclass(frozen=True)
class _Texels:
    """Texels of light maps in bundles: points and normals (B, BUNDLE, 3), where they are stored (B, BUNDLE)."""

    points: Tensor
    normals: Tensor
    index: Tensor
    in_shell: Tensor


def lit(world: World, settings: LightingSettings | None = None, exposure: float | None = None) -> World:
    """The world with its light maps filled, computed on the device it lies on.

    Args:
        exposure: brightness of its images; by default white paper under the room's average light is white.
    """
    settings = settings or LightingSettings()
    texels = _texels(world)
    half = world.axes.norm(dim=1).sort(dim=1).values
    casts = (world.kind != SHELL) & (half[:, 1] * 2 >= settings.smallest_occluder_m)
    # What shines does not shade its own light.
    casts &= world.look[:, 9].view(-1, 6).amax(dim=1) <= 0.5
    shapes = Shapes.of(world.kind[casts], world.centre[casts], world.axes[casts])
    direct = torch.zeros_like(texels.points)
    for lamp in world.lights:
        direct += _direct(lamp, shapes, settings, texels)
    brightest = max(float(direct.mean(dim=2).view(-1).sort().values[int(direct[..., 0].numel() * 0.9)]), 1e-3)
    sky = _sky(shapes, settings, texels)
    light = direct + settings.ambient * brightest * sky[..., None] * direct.new_tensor([0.96, 0.98, 1.0])
    stored = torch.empty_like(world.light)
    stored[texels.index.view(-1)] = light.view(-1, 3)
    mean = float(light[texels.in_shell].mean()) if bool(texels.in_shell.any()) else float(light.mean())
    return replace(world, light=stored, exposure=exposure if exposure is not None else 1.0 / max(mean, 1e-6))


def _texels(world: World) -> _Texels:
    """All texels, cut into bundles face by face; the last texel of a face fills its last bundle up."""
    units, gradients, primitives, index = [], [], [], []
    kinds = world.kind.tolist()
    for row, (_, _, start, columns, rows) in enumerate(world.look_index.tolist()):
        primitive, face = divmod(row, 6)
        # Bundles are short runs along the face's longer side.
        number = torch.arange(columns * rows).view(rows, columns)
        number = (number if columns >= rows else number.T).reshape(-1)
        number = torch.nn.functional.pad(number, (0, -len(number) % BUNDLE), value=columns * rows - 1)
        s, t = (number % columns + 0.5) / columns, (number // columns + 0.5) / rows
        unit = place(kinds[primitive], face, s, t)
        units.append(unit)
        gradients.append(locate(torch.full_like(number, kinds[primitive]), unit)[3])
        primitives.append(torch.full_like(number, primitive))
        index.append(start + number)
    device = world.centre.device
    unit, gradient = (torch.cat(x, dim=1).to(device) for x in (units, gradients))
    primitive = torch.cat(primitives).to(device)
    axes = world.axes[primitive]
    points = (axes @ unit.T[:, :, None])[:, :, 0] + world.centre[primitive]
    normals = (axes / axes.square().sum(dim=1, keepdim=True) @ gradient.T[:, :, None])[:, :, 0]
    normals = normals / normals.norm(dim=1, keepdim=True)
    in_shell = world.kind[primitive] == SHELL
    normals[in_shell] *= -1
    points = (points + 2e-3 * normals).view(-1, BUNDLE, 3)
    return _Texels(
        points, normals.view(-1, BUNDLE, 3), torch.cat(index).to(device).view(-1, BUNDLE), in_shell.view(-1, BUNDLE)
    )


def _open(shapes: Shapes, texels: _Texels, rays: Tensor, meets: Tensor) -> Tensor:
    """Which rays (B, BUNDLE, R, 3) run free over their whole length, where bundles meet only some primitives (B, P)."""
    free = torch.ones(rays.shape[:3], dtype=torch.bool, device=rays.device).flatten(1)
    bundle, primitive = meets.nonzero().T
    samples = rays.shape[2]
    step = PAIRS.get(rays.device.type, 512)
    blocked = torch.zeros_like(free, dtype=torch.int32)
    for part in range(0, len(bundle), step):
        b, p = bundle[part : part + step], primitive[part : part + step]
        A = shapes.unit_A[p]
        origin = A @ texels.points[b].transpose(1, 2) + shapes.unit_b[p][:, :, None]
        t = intersect(
            shapes.kind[p], A @ rays[b].flatten(1, 2).transpose(1, 2), origin.repeat_interleave(samples, dim=2)
        )
        blocked.index_add_(0, b, (t < 0.995).int())
    return (free & (blocked == 0)).view(rays.shape[:3])


def _may_meet(shapes: Shapes, texels: _Texels, to: Tensor, spread: float) -> Tensor:
    """Which primitives may stand between bundles and a ball around ``to`` (B, 3) of radius ``spread``: (B, P)."""
    middle = texels.points.mean(dim=1)
    own = (texels.points - middle[:, None]).norm(dim=2).amax(dim=1)
    reach = shapes.axes.square().sum(dim=(1, 2)).sqrt()
    along = to - middle
    length = along.square().sum(dim=1).clamp(min=1e-9)[:, None]
    ahead = along @ shapes.centre.T - (along * middle).sum(dim=1, keepdim=True)
    share = (ahead / length).clamp(0, 1)
    square = torch.cdist(shapes.centre, middle).square().T
    distance = (square - 2 * share * ahead + share.square() * length).clamp(min=0).sqrt()
    near = distance <= reach + own.clamp(min=spread)[:, None] + 1e-3
    # Nothing that lies wholly behind a flat surface can shade it.
    normal = texels.normals[:, 0]
    extent = torch.einsum("bi,pij->bpj", normal, shapes.axes).abs().sum(dim=2)
    height = normal @ shapes.centre.T - (texels.points[:, 0] * normal).sum(dim=1, keepdim=True)
    curved = ((texels.normals - normal[:, None]).abs().amax(dim=(1, 2)) > 1e-3)[:, None]
    return near & (curved | (height + extent > -1e-3))


def _direct(lamp: AreaLight, shapes: Shapes, settings: LightingSettings, texels: _Texels) -> Tensor:
    """Light (B, BUNDLE, 3) that arrives from one lamp."""
    points = texels.points
    centre, u, v, normal, power = (
        torch.as_tensor(x, dtype=torch.float32, device=points.device)
        for x in (lamp.centre, lamp.half_u, lamp.half_v, lamp.normal, lamp.power)
    )
    steps = (torch.arange(settings.light_samples, device=points.device) + 0.5) / settings.light_samples * 2 - 1
    grid = torch.cartesian_prod(steps, steps).view(-1, 2)
    rays = centre + grid[:, :1] * u + grid[:, 1:] * v - points[:, :, None]
    square = rays.square().sum(dim=3)
    length = square.sqrt()
    arriving = ((rays * texels.normals[:, :, None]).sum(dim=3) / length).clamp(min=0)
    leaving = (-(rays @ normal) / length).clamp(min=0)
    flow = arriving * leaving / (square + 0.05)
    meets = _may_meet(shapes, texels, centre.expand(len(points), 3), float((u + v).norm()))
    meets &= (flow.amax(dim=(1, 2)) > 1e-5)[:, None]
    flow = flow * _open(shapes, texels, rays, meets)
    return flow.mean(dim=2)[..., None] * power


def _sky(shapes: Shapes, settings: LightingSettings, texels: _Texels) -> Tensor:
    """Share (B, BUNDLE) of ambient light that reaches texels: occlusion nearby, and a little less from below."""
    n, normals = settings.sky_samples, texels.normals
    k = np.arange(n) + 0.5
    angle, radius = np.pi * (1 + 5**0.5) * k, np.sqrt(k / n)
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], axis=1)
    helper = torch.where(normals[..., 2:].abs() < 0.9, normals.new_tensor([0, 0, 1.0]), normals.new_tensor([1.0, 0, 0]))
    first = torch.linalg.cross(helper, normals)
    first = first / first.norm(dim=2, keepdim=True)
    frame = torch.stack([first, torch.linalg.cross(normals, first), normals], dim=2)
    rays = (normals.new_tensor(disc) @ frame) * settings.reach_m
    middle = texels.points.mean(dim=1)
    share = _open(shapes, texels, rays, _may_meet(shapes, texels, middle, settings.reach_m)).float().mean(dim=2)
    return (0.25 + 0.75 * share) * (0.85 + 0.15 * normals[..., 2])
