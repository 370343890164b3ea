"""Exact ray casting of primitives, many views and worlds at once, on any torch device.

A ray is written with z = 1 in the camera frame, so its parameter *is* the depth along the optical axis.
Images are cut into tiles. Each tile visits only the primitives whose projection touches it, nearest
first, and stops as soon as nothing nearer can follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mast3r_ros.lab.synthetic.world import BOX, CYLINDER, SHELL, SPHERE

#: Side of a tile in pixels.
TILE = 16
#: Surfaces nearer than this to the camera are not seen, metres.
NEAR = 0.01
#: Tiles handled at once: on a CPU what fits its cache, on a GPU what fills it.
CPU_TILES, GPU_TILES = 256, 65536

_EDGES = torch.tensor([(a, a | 1 << axis) for axis in range(3) for a in range(8) if not a >> axis & 1])


@dataclass(frozen=True)
class Shapes:
    """Primitives as seen by rays: ``unit = unit_A @ point + unit_b``.

    Attributes:
        kind: (P,) int64; centre: (P, 3); axes: (P, 3, 3): as in :class:`World`.
        unit_A: (P, 3, 3), unit_b: (P, 3): map frame -> unit frame.
    """

    kind: Tensor
    centre: Tensor
    axes: Tensor
    unit_A: Tensor
    unit_b: Tensor

    @classmethod
    def of(cls, kind: Tensor, centre: Tensor, axes: Tensor) -> Shapes:
        """From primitives of one or several worlds."""
        exact = axes.double()
        # The columns are orthogonal: the inverse is the transpose over the squared lengths.
        A = exact.transpose(1, 2) / exact.square().sum(dim=1)[:, :, None]
        b = -(A @ centre.double()[:, :, None])[:, :, 0]
        return cls(kind, centre, axes, A.float().contiguous(), b.float())


def intersect(kind: Tensor, direction: Tensor, origin: Tensor) -> Tensor:
    """Ray parameters at which rays meet unit shapes; infinity where they miss.

    Args:
        kind: (M,) of the shapes; direction: (M, 3, R) and origin: (M, 3, 1 or R) of rays in their unit frames.

    Returns:
        (M, R) float32, greater than NEAR.
    """
    direction = direction + 1e-20  # keeps 0 * infinity out of the slabs
    t = torch.full_like(direction[:, 0], torch.inf)
    for code, solver in ((BOX, _box), (SHELL, _shell), (CYLINDER, _cylinder), (SPHERE, _sphere)):
        chosen = (kind == code).nonzero()[:, 0]
        if len(chosen) == len(kind):
            return solver(direction, origin)
        if len(chosen):
            t[chosen] = solver(direction[chosen], origin[chosen])
    return t


def _slabs(direction: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    inverse = direction.reciprocal()
    middle = -origin * inverse
    reach = inverse.abs_()
    near, far = middle - reach, middle.add_(reach)
    return (
        torch.maximum(torch.maximum(near[:, 0], near[:, 1]), near[:, 2]),
        torch.minimum(torch.minimum(far[:, 0], far[:, 1]), far[:, 2]),
    )


def _box(direction: Tensor, origin: Tensor) -> Tensor:
    near, far = _slabs(direction, origin)
    return near.masked_fill_((near > far) | (near < NEAR), torch.inf)


def _shell(direction: Tensor, origin: Tensor) -> Tensor:
    near, far = _slabs(direction, origin)
    return far.masked_fill_((near > far) | (far < NEAR), torch.inf)


def _quadric(direction: Tensor, origin: Tensor, axes: int) -> Tensor:
    """Entry into the unit circle (two axes) or sphere (three axes)."""
    d, o = direction[:, :axes], origin[:, :axes]
    a = d.square().sum(dim=1)
    b = (d * o).sum(dim=1)
    # The discriminant from the closest approach to the axis does not cancel, unlike b^2 - a c.
    closest = o - (b / a)[:, None] * d
    room = 1 - closest.square().sum(dim=1)
    t = (-b - (a * room.clamp(min=0)).sqrt()) / a
    return t.masked_fill_((room < 0) | (t < NEAR), torch.inf)


def _sphere(direction: Tensor, origin: Tensor) -> Tensor:
    return _quadric(direction, origin, 3)


def _cylinder(direction: Tensor, origin: Tensor) -> Tensor:
    side = _quadric(direction, origin, 2)
    z = origin[:, 2] + side * direction[:, 2]
    side.masked_fill_(~(z.abs() <= 1), torch.inf)
    cap = (-origin[:, 2] - direction[:, 2].sign()) / direction[:, 2]
    off_axis = (origin[:, :2] + cap[:, None] * direction[:, :2]).square().sum(dim=1)
    cap = cap.masked_fill((off_axis > 1) | (cap < NEAR), torch.inf)
    return torch.minimum(side, cap)


def cast(shapes: Shapes, index: Tensor, map_T_camera: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """What every pixel sees first.

    Args:
        shapes: all primitives.
        index: (V, P) which of them each view looks at; -1 fills up.
        map_T_camera: (V, 4, 4) float32.
        rays: (1 or V, H, W, 2) ideal image coordinates at z = 1, finite.

    Returns:
        Depth (V, H, W) float32 metres, infinite where nothing is hit, and primitive (V, H, W) int64, -1 there.
    """
    views, (height, width) = len(index), rays.shape[1:3]
    tiles = _tiled(rays)
    low, high, near = _rectangles(shapes, index, map_T_camera)
    near, order = near.sort(dim=1)
    low, high, index = (_along(x, order) for x in (low, high, index))
    tile_low, tile_high = tiles[..., :2, :].amin(dim=-1), tiles[..., :2, :].amax(dim=-1)
    touches = torch.isfinite(near)[:, None] & torch.ones_like(tile_low[..., :1], dtype=torch.bool)
    for axis in range(2):
        touches = touches & (low[:, None, :, axis] <= tile_high[..., axis, None])
        touches &= high[:, None, :, axis] >= tile_low[..., axis, None]
    depth = torch.full((views * tiles.shape[1], TILE * TILE), torch.inf, device=rays.device)
    seen = torch.full(depth.shape, -1, dtype=torch.int64, device=rays.device)
    _visit(shapes, touches, index, near, map_T_camera, tiles, depth, seen)
    rows, columns = -(-height // TILE), -(-width // TILE)

    def untiled(x: Tensor) -> Tensor:
        x = x.view(views, rows, columns, TILE, TILE).transpose(2, 3)
        return x.reshape(views, rows * TILE, columns * TILE)[:, :height, :width]

    return untiled(depth), untiled(seen)


def _visit(
    shapes: Shapes,
    touches: Tensor,
    index: Tensor,
    near: Tensor,
    map_T_camera: Tensor,
    tiles: Tensor,
    depth: Tensor,
    seen: Tensor,
) -> None:
    """Fill ``depth`` and ``seen`` (V * T, TILE^2): round r lets every tile look at its r-th nearest candidate."""
    views, count = touches.shape[:2]
    touches = touches.reshape(views * count, -1)
    candidate = touches.nonzero()[:, 1]
    left = touches.sum(dim=1)
    cursor = left.cumsum(0) - left
    active = left.nonzero()[:, 0]
    chunk = CPU_TILES if depth.device.type == "cpu" else GPU_TILES
    while len(active):
        slot = candidate[cursor[active]]
        view = active // count
        # Candidates come nearest first: behind a finished tile there is nothing left to see.
        open_ = near[view, slot] < depth[active].amax(dim=1)
        active, slot, view = active[open_], slot[open_], view[open_]
        for part in range(0, len(active), chunk):
            a, s, v = (x[part : part + chunk] for x in (active, slot, view))
            primitive = index[v, s]
            pose = map_T_camera[v]
            unit = shapes.unit_A[primitive]
            origin = unit @ pose[:, :3, 3:] + shapes.unit_b[primitive][:, :, None]
            rays = tiles[v if len(tiles) > 1 else torch.zeros_like(v), a % count]
            t = intersect(shapes.kind[primitive], (unit @ pose[:, :3, :3]) @ rays, origin)
            nearer = t < depth[a]
            depth[a] = torch.minimum(t, depth[a])
            seen[a] = torch.where(nearer, primitive[:, None], seen[a])
        cursor[active] += 1
        left[active] -= 1
        active = active[left[active] > 0]


def _tiled(rays: Tensor) -> Tensor:
    """Rays (B, H, W, 2) -> (B, T, 3, TILE^2) with z = 1; borders repeat the last pixel."""
    batch, height, width = rays.shape[:3]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = rays.permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(padded, (0, columns * TILE - width, 0, rows * TILE - height), mode="replicate")
    padded = torch.cat([padded, torch.ones_like(padded[:, :1])], dim=1)
    cut = padded.view(batch, 3, rows, TILE, columns, TILE).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, rows * columns, 3, TILE * TILE)


def _along(x: Tensor, order: Tensor) -> Tensor:
    """Reorder the second axis of (V, P, ...) by (V, P)."""
    return x[torch.arange(len(x), device=x.device)[:, None], order]


def _rectangles(shapes: Shapes, index: Tensor, map_T_camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of every primitive in every view: low and high (V, P, 2) at z = 1, least depth (V, P), inf if unseen."""
    device = index.device
    corners = torch.tensor([[(i >> axis & 1) * 2.0 - 1 for axis in range(3)] for i in range(8)], device=device)
    primitive = index.clamp(min=0)
    world = shapes.centre[primitive][:, :, None] + corners @ shapes.axes[primitive].transpose(-1, -2)
    R, t = map_T_camera[:, :3, :3], map_T_camera[:, :3, 3]
    points = (world - t[:, None, None]) @ R[:, None]
    ends = points[:, :, _EDGES.to(device)]
    z = ends[..., 2]
    step = (NEAR - z) / (z.flip(-1) - z)
    clipped = torch.where((z < NEAR)[..., None], ends + step[..., None] * (ends.flip(-2) - ends), ends)
    usable = (z.amax(dim=-1, keepdim=True) > NEAR).expand_as(z)[..., None]
    flat = clipped[..., :2] / clipped[..., 2:]
    margin = 1e-4
    low = torch.where(usable, flat, torch.inf).flatten(2, 3).amin(dim=2) - margin
    high = torch.where(usable, flat, -torch.inf).flatten(2, 3).amax(dim=2) + margin
    near = torch.where(usable[..., 0], clipped[..., 2], torch.inf).flatten(2, 3).amin(dim=2) * (1 - 1e-5)
    near = torch.where(index >= 0, near, torch.inf)
    return low, high, near
