"""Pictures of worlds: what every pixel sees, its texture under its light, smooth edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mast3r_ros.frames import Camera
from mast3r_ros.lab.synthetic.atlas import sample
from mast3r_ros.lab.synthetic.raycast import Shapes, cast, intersect
from mast3r_ros.lab.synthetic.reflection import mirrored, nearest
from mast3r_ros.lab.synthetic.surface import locate
from mast3r_ros.lab.synthetic.world import SHELL, World

#: Side of one repeat of the grain texture (texture 0 of every atlas) in metres.
GRAIN_METRES = 0.9
#: Samples shaded at once on a CPU (what fits its cache) and on a GPU.
CPU_SAMPLES, GPU_SAMPLES = 1 << 15, 1 << 24
#: Sub-pixel positions that smooth edges: a rotated grid.
SUBPIXELS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))


@dataclass(frozen=True)
class RenderSettings:
    """How pictures are made.

    Attributes:
        smooth_edges: average four samples where a pixel's neighbour shows another surface.
        sharpness: octaves by which textures are sharper than their strict band limit.
        normals: whether views carry surface normals.
    """

    smooth_edges: bool = True
    sharpness: float = 0.35
    normals: bool = False


@dataclass(frozen=True)
class RenderedViews:
    """V rendered views of one size, on the renderer's device.

    Attributes:
        radiance: (V, H, W, 3) float32, linear; 1 is white paper under the average light of the world.
        depth: (V, H, W) float32 metres along the optical axis, exact; 0 where nothing is seen. In a mirror and behind
            glass it is that of the picture seen there, as stereo and structured light measure it.
        primitive: (V, H, W) int64, number in the renderer; -1 where nothing is seen.
        normal: (V, H, W, 3) float32 in the camera frame, or None if not asked for.
    """

    radiance: Tensor
    depth: Tensor
    primitive: Tensor
    normal: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """(V, H, W, 3) uint8 as an ideal, noise-free camera gives them."""
        return (developed(self.radiance) * 255 + 0.5).to(torch.uint8)


def developed(radiance: Tensor) -> Tensor:
    """Linear radiance -> display values 0..1: a soft shoulder for the highlights, then gamma 2."""
    white = 2.5
    return (radiance * (1 + radiance / white**2) / (1 + 0.35 * radiance) * 0.82).clamp(0, 1).sqrt()


class Renderer:
    """Renders one or several worlds on one device.

    Args:
        worlds: one world, or several that are rendered together.
        device: where to compute.
    """

    def __init__(
        self,
        worlds: World | Sequence[World],
        device: str | torch.device = "cpu",
        settings: RenderSettings | None = None,
    ) -> None:
        several = [worlds] if isinstance(worlds, World) else list(worlds)
        self.settings = settings or RenderSettings()
        self.device = torch.device(device)
        kind, centre, axes, look = (
            torch.cat([getattr(w, x).to(self.device) for w in several]) for x in ("kind", "centre", "axes", "look")
        )
        self.shapes = Shapes.of(kind, centre, axes)
        self._look = look
        self._clear = bool((look[:, 14:] > 0).any())
        self._look_index = _merged_index(several).to(self.device)
        self._light = torch.cat([(w.light * w.exposure).to(self.device) for w in several])
        self._texels = _merged_texels(several).to(self.device)
        self._grain_log2 = int(several[0].atlas.log2_size[0])
        grain = self._texels[: (4 << 2 * self._grain_log2) // 3].view(torch.uint8)[::4]
        self._grain = grain.float() / 127.5 - 1
        counts = [len(w) for w in several]
        self._index = torch.full((len(several), max(counts)), -1, device=self.device)
        for row, count in enumerate(counts):
            self._index[row, :count] = torch.arange(count) + sum(counts[:row])

    @torch.no_grad()
    def render(
        self, map_T_camera: ArrayLike | Tensor, camera: Camera | Sequence[Camera], world: Sequence[int] | None = None
    ) -> RenderedViews:
        """Render views.

        Args:
            map_T_camera: (V, 4, 4) camera optical frame -> map frame.
            camera: of all views, or one per view, all of one image size.
            world: (V,) which world each view is in; by default all are in the first.
        """
        poses = torch.as_tensor(np.asarray(map_T_camera) if not isinstance(map_T_camera, Tensor) else map_T_camera)
        poses = poses.to(self.device, torch.float32).reshape(-1, 4, 4)
        which = torch.as_tensor(world if world is not None else [0] * len(poses), device=self.device)
        cameras = [camera] if isinstance(camera, Camera) else list(camera)
        rays = torch.stack([torch.from_numpy(c.pixel_rays).to(self.device, torch.float32) for c in cameras])
        spread = torch.tensor([1 / c.focal for c in cameras], device=self.device).expand(len(poses))
        if self.device.type != "cpu":
            return self._views(poses, which, rays, spread)
        # A CPU is quickest with one view at a time: all samples share a pose and more of it stays in the cache.
        each = [
            self._views(
                poses[k : k + 1], which[k : k + 1], rays[k : k + 1] if len(rays) > 1 else rays, spread[k : k + 1]
            )
            for k in range(len(poses))
        ]
        normal = torch.cat([v.normal for v in each if v.normal is not None]) if self.settings.normals else None
        return RenderedViews(
            torch.cat([v.radiance for v in each]),
            torch.cat([v.depth for v in each]),
            torch.cat([v.primitive for v in each]),
            normal,
        )

    def _views(self, poses: Tensor, which: Tensor, rays: Tensor, spread: Tensor) -> RenderedViews:
        """Views (V) of one batch; ``rays`` (1 or V, H, W, 2) are NaN where a pixel has none."""
        seeing = rays.isfinite().all(dim=-1)
        rays = torch.where(seeing[..., None], rays, 0.0)
        depth, primitive = cast(self.shapes, self._index[which], poses, rays)
        primitive = torch.where(seeing, primitive, -1)
        return self._picture(poses, which, rays, spread, depth, primitive)

    def _picture(
        self, poses: Tensor, which: Tensor, rays: Tensor, spread: Tensor, depth: Tensor, primitive: Tensor
    ) -> RenderedViews:
        """Shade what :func:`cast` found."""
        views, height, width = depth.shape
        seen = primitive.reshape(-1) >= 0
        everywhere = bool(seen.all())
        at = slice(None) if everywhere else seen.nonzero()[:, 0]
        view = torch.arange(views, device=self.device).repeat_interleave(height * width)[at]
        flat = rays.expand(views, -1, -1, -1).reshape(-1, 2)[at]
        path = depth.reshape(-1)[at]
        colour, face, normal = self._shade(poses, spread, view, flat, path, primitive.reshape(-1)[at])
        if self._clear:
            colour, path = self._second_look(poses, which, spread, view, flat, path, face, normal, colour)
        radiance = torch.zeros(views * height * width, 3, device=self.device)
        radiance[at] = colour
        surface = torch.full_like(primitive, -1).view(-1)
        surface[at] = face
        if self.settings.smooth_edges:
            self._smooth(radiance, poses, rays, spread, primitive, surface.view_as(primitive))
        normals = None
        if self.settings.normals:
            normals = torch.zeros_like(radiance)
            normals[at] = normal
            normals = normals.view(views, height, width, 3)
        measured = torch.zeros_like(radiance[:, 0])
        measured[at] = path
        return RenderedViews(radiance.view(views, height, width, 3), measured.view_as(depth), primitive, normals)

    def _second_look(
        self,
        poses: Tensor,
        which: Tensor,
        spread: Tensor,
        view: Tensor,
        rays: Tensor,
        depth: Tensor,
        face: Tensor,
        normal: Tensor,
        colour: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Colour (N, 3) and depth (N,) of samples after mirrors and glass added what is seen in them."""
        share = self._look[face, 14:]
        colour, seen_depth = colour * (1 - share.sum(dim=1, keepdim=True)), depth.clone()
        for world, kind in ((w, k) for w in which.unique().tolist() for k in range(2)):
            at = ((which[view] == world) & (share[:, kind] > 0)).nonzero()[:, 0]
            R, t = poses[view[at], :3, :3], poses[view[at], :3, 3]
            ray = torch.cat([rays[at], torch.ones_like(rays[at][:, :1])], dim=1)
            direction = (R @ ray[:, :, None])[:, :, 0]
            points = t + depth[at][:, None] * direction
            if kind == 0:
                direction = mirrored(direction, (R @ normal[at][:, :, None])[:, :, 0])
            further, hit = nearest(self.shapes, self._index[world], points, direction)
            met = hit >= 0
            at, further, direction = at[met], further[met], direction[met]
            # The mirrored ray is as long as the first one, so what it passes adds up to the picture's depth.
            path = depth[at] + further
            light = self._surface(
                points[met] + further[:, None] * direction, direction, path, spread[view[at]], hit[met]
            )[0]
            colour[at] += share[at, kind, None] * light
            seen_depth[at] = torch.where(share[at, kind] > 0.5, path, seen_depth[at])
        return colour, seen_depth

    def _shade(
        self, poses: Tensor, spread: Tensor, view: Tensor, rays: Tensor, depth: Tensor, primitive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Radiance (N, 3), row (N,) in the table of faces and camera frame normal (N, 3) of samples on surfaces."""
        chunk = CPU_SAMPLES if self.device.type == "cpu" else GPU_SAMPLES
        pieces = [
            self._shade_some(poses, spread, *(x[part : part + chunk] for x in (view, rays, depth, primitive)))
            for part in range(0, max(len(view), 1), chunk)
        ]
        colour, face, normal = zip(*pieces, strict=True)
        return torch.cat(colour), torch.cat(face), torch.cat(normal)

    def _shade_some(
        self, poses: Tensor, spread: Tensor, view: Tensor, rays: Tensor, depth: Tensor, primitive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        one_view = len(poses) == 1
        ray = torch.cat([rays, torch.ones_like(rays[:, :1])], dim=1)
        pose = poses[0] if one_view else poses[view]
        direction = ray @ pose[:3, :3].T if one_view else (pose[:, :3, :3] @ ray[:, :, None])[:, :, 0]
        points = pose[..., :3, 3] + depth[:, None] * direction
        colour, row, outward = self._surface(
            points, direction, depth, spread[0] if one_view else spread[view], primitive
        )
        in_camera = outward.T @ pose[:3, :3] if one_view else (outward.T[:, None] @ pose[:, :3, :3])[:, 0]
        return colour, row, in_camera

    def _surface(
        self, points: Tensor, direction: Tensor, distance: Tensor, spread: Tensor, primitive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a ray sees of the surface it meets.

        Args:
            points, direction: (N, 3) where and along what, map frame.
            distance: (N,) in lengths of ``direction``; spread: (N,) or scalar, width of a pixel at distance 1.

        Returns:
            Radiance (N, 3), row (N,) in the table of faces, normal (3, N) towards the viewer.
        """
        A = self.shapes.unit_A.view(-1, 9)[primitive].T.contiguous().view(3, 3, -1)
        kind = self.shapes.kind[primitive]
        unit = (A * points.T).sum(dim=1) + self.shapes.unit_b[primitive].T
        face, s, t, gradient = locate(kind, unit)
        row = primitive * 6 + face
        normal = (A * gradient[:, None]).sum(dim=0)
        normal = normal * normal.square().sum(dim=0).rsqrt()
        facing = (normal * direction.T).sum(dim=0)
        cosine = facing.abs() * direction.square().sum(dim=1).rsqrt()
        footprint = distance * spread * cosine.clamp(min=0.03).rsqrt()
        colour = self._albedo(row, s, t, footprint) * self._arriving(row, s, t)
        # The inside of a shell is lit and seen from behind its outward normal.
        return colour, row, torch.where(kind == SHELL, -normal, normal)

    def _albedo(self, row: Tensor, s: Tensor, t: Tensor, footprint: Tensor) -> Tensor:
        """Linear colour (N, 3) of the material, band-limited to ``footprint`` metres per pixel."""
        look = self._look[row].T
        a, b, c, d, e, f = look[:6]
        uv = (a * s + b * t + c, d * s + e * t + f)
        index = self._look_index[row].T
        lod = (footprint * look[11]).log2() - self.settings.sharpness
        texel = sample(self._texels, index[0], index[1], uv, lod)[:, :3]
        grain_uv = (s * look[12] / GRAIN_METRES + 7 * c, t * look[13] / GRAIN_METRES + 7 * f)
        log2 = torch.full_like(row, self._grain_log2)
        lod = (footprint * (2.0**self._grain_log2 / GRAIN_METRES)).log2()
        grain = sample(self._grain, torch.zeros_like(row), log2, grain_uv, lod)[:, 0]
        bump = 1 + look[10] * grain
        return texel.square() * ((bump / 255**2)[:, None] * look[6:9].T)

    def _arriving(self, row: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Light (N, 3) on the surface, own light included."""
        _, _, start, columns, rows = self._look_index[row].T
        x = (s * columns - 0.5).clamp(min=0).minimum(columns - 1.0)
        y = (t * rows - 0.5).clamp(min=0).minimum(rows - 1.0)
        left, top = x.long(), y.long()
        right = torch.minimum(left + 1, columns - 1)
        lower = start + torch.minimum(top + 1, rows - 1) * columns
        upper = start + top * columns
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        light = self._light
        light = torch.lerp(
            torch.lerp(light[upper + left], light[upper + right], fx),
            torch.lerp(light[lower + left], light[lower + right], fx),
            fy,
        )
        return light + self._look[:, 9][row][:, None]

    def _smooth(
        self, radiance: Tensor, poses: Tensor, rays: Tensor, spread: Tensor, primitive: Tensor, surface: Tensor
    ) -> None:
        """Replace the colour of pixels at edges by the average of sub-pixel samples of the surfaces around them."""
        edge = torch.zeros_like(surface, dtype=torch.bool)
        for axis in (1, 2):
            n = surface.shape[axis] - 1
            changes = surface.narrow(axis, 0, n) != surface.narrow(axis, 1, n)
            edge.narrow(axis, 0, n).logical_or_(changes)
            edge.narrow(axis, 1, n).logical_or_(changes)
        edge &= primitive >= 0
        view, y, x = edge.nonzero().T
        if not len(view):
            return
        height, width = edge.shape[1:]
        ray_of = view if len(rays) > 1 else torch.zeros_like(view)
        right, below = (x + 1).clamp(max=width - 1), (y + 1).clamp(max=height - 1)
        centre = rays[ray_of, y, x]
        du = rays[ray_of, y, right] - rays[ray_of, y, right - 1]
        dv = rays[ray_of, below, x] - rays[ray_of, below - 1, x]
        offsets = torch.tensor(SUBPIXELS, device=self.device)
        samples = centre[:, None] + offsets[:, :1] * du[:, None] + offsets[:, 1:] * dv[:, None]
        ray = torch.cat([samples, torch.ones_like(samples[..., :1])], dim=2).transpose(1, 2)
        depth = torch.full(samples.shape[:2], torch.inf, device=self.device)
        seen = primitive[view, y, x][:, None].repeat(1, len(SUBPIXELS))
        pose = poses[view]
        for ny, nx in ((y, x), (y, right), (y, (x - 1).clamp(min=0)), (below, x), ((y - 1).clamp(min=0), x)):
            neighbour = primitive[view, ny, nx].clamp(min=0)
            A = self.shapes.unit_A[neighbour]
            origin = A @ pose[:, :3, 3:] + self.shapes.unit_b[neighbour][:, :, None]
            t = intersect(self.shapes.kind[neighbour], (A @ pose[:, :3, :3]) @ ray, origin)
            seen = torch.where(t < depth, neighbour[:, None], seen)
            depth = torch.minimum(depth, t)
        hit = depth.isfinite().view(-1)
        each = view.repeat_interleave(len(SUBPIXELS))
        pixel = (view * height + y) * width + x
        colour = radiance[pixel].repeat_interleave(len(SUBPIXELS), dim=0)
        at = hit.nonzero()[:, 0]
        colour[at] = self._shade(
            poses, spread, each[at], samples.reshape(-1, 2)[at], depth.view(-1)[at], seen.view(-1)[at]
        )[0]
        radiance[pixel] = colour.view(-1, len(SUBPIXELS), 3).mean(dim=1)


def _merged_index(worlds: Sequence[World]) -> Tensor:
    """Tables of faces, with texture and light map starts that point into the merged buffers."""
    tables, light = [], 0
    for world, texels in zip(worlds, _texel_starts(worlds), strict=True):
        table = world.look_index.clone()
        table[:, 0] += texels
        table[:, 2] += light
        light += len(world.light)
        tables.append(table.cpu())
    return torch.cat(tables)


def _texel_starts(worlds: Sequence[World]) -> list[int]:
    """Where each world's textures begin when worlds that share an atlas store it once."""
    starts: dict[int, int] = {}
    total, result = 0, []
    for world in worlds:
        key = world.atlas.texels.data_ptr()
        if key not in starts:
            starts[key] = total
            total += len(world.atlas.texels)
        result.append(starts[key])
    return result


def _merged_texels(worlds: Sequence[World]) -> Tensor:
    """All different atlases, one after the other."""
    different = {world.atlas.texels.data_ptr(): world.atlas.texels for world in worlds}
    return torch.cat([texels.cpu() for texels in different.values()]) if len(different) > 1 else worlds[0].atlas.texels
