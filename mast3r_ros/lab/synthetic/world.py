"""A world: textured boxes, cylinders and spheres inside a room shell, with the light that falls on them.

The map frame is z up, metres, the floor at z = 0. Every primitive is an affine image of a unit shape
(the cube [-1, 1]^3, the unit cylinder along z, the unit sphere): intersections are computed exactly
in the unit frame, where they are trivial.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mast3r_ros.lab.synthetic.atlas import Atlas, AtlasBuilder

#: Kinds of primitives. A shell is a box seen from inside: walls, floor and ceiling of a room.
BOX, SHELL, CYLINDER, SPHERE = range(4)
#: Faces of a box, by outward axis. Cylinders use "+x" for the side and "+z", "-z" for the caps, spheres "+x".
FACES = {"+x": 0, "-x": 1, "+y": 2, "-y": 3, "+z": 4, "-z": 5}
#: Side of a light map texel in metres in a room of usual size, and the most texels along one side of a face.
LIGHT_TEXEL, LIGHT_TEXELS_MAX = 0.11, 64


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: number in the world's atlas.
        metres: side of one repeat of the texture; None stretches it over the face once, like a picture.
        tint: linear colour the texture is multiplied with.
        emission: 0 reflects light, above 0 also shines by that much (screens, lamps, windows).
        grain: contrast of the fine grain that keeps surfaces detailed from near.
        turned: whether the texture is turned by a quarter (the direction of wood grain).
        window: part of the texture to show when stretched: left, top, width, height in 0..1.
        reflects, transmits: shares of the light that come from where a mirror would show, and from straight behind;
            the rest is the surface's own.
    """

    texture: int
    metres: float | None = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    emission: float = 0.0
    grain: float = 0.15
    turned: bool = False
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    reflects: float = 0.0
    transmits: float = 0.0


@dataclass(frozen=True)
class AreaLight:
    """A rectangular light that shines to one side.

    Attributes:
        centre: (3,) metres, map frame.
        half_u, half_v: (3,) half sides of the rectangle, metres.
        normal: (3,) unit direction it shines to.
        power: (3,) linear RGB.
    """

    centre: NDArray[np.float64]
    half_u: NDArray[np.float64]
    half_v: NDArray[np.float64]
    normal: NDArray[np.float64]
    power: NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Everything a renderer needs, as tensors. P primitives with six face slots each.

    Attributes:
        kind: (P,) int64, one of BOX, SHELL, CYLINDER, SPHERE.
        centre: (P, 3) float32 metres, map frame.
        axes: (P, 3, 3) float32, columns are the half sides as vectors in the map frame.
        group: (P,) int64 index into ``names``: which object a primitive belongs to.
        look: (P * 6, 16) float32: texture affine (6), tint (3), emission, grain, texels per metre, face size (2),
            share reflected, share transmitted.
        look_index: (P * 6, 5) int64: texture start, its log2 size, light map start, columns, rows.
        light: (L, 3) float32 light maps: linear RGB arriving at the texels of every face.
        atlas: the textures; number 0 is the grain.
        exposure: factor that brings the radiance of this world to a well exposed image.
        size: length, width, height of the room in metres, centred at the map origin.
        names: names of the groups.
        lights: the lamps and windows.
        family, seed: where it came from.
    """

    kind: Tensor
    centre: Tensor
    axes: Tensor
    group: Tensor
    look: Tensor
    look_index: Tensor
    light: Tensor
    atlas: Atlas
    exposure: float
    size: tuple[float, float, float]
    names: tuple[str, ...]
    lights: tuple[AreaLight, ...]
    family: str = ""
    seed: int = 0

    def __len__(self) -> int:
        return len(self.kind)

    def to(self, device: str | torch.device) -> World:
        """The same world on another device."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        atlas = Atlas(self.atlas.texels.to(device), self.atlas.start.to(device), self.atlas.log2_size.to(device))
        return replace(self, atlas=atlas, **moved)

    def without(self, *names: str) -> World:
        """The world after somebody carried away the objects of these names (their old shadows stay)."""
        gone = [i for i, name in enumerate(self.names) if name in names]
        keep = ~torch.isin(self.group, torch.tensor(gone, device=self.group.device))
        faces = keep.repeat_interleave(6)
        return replace(
            self,
            kind=self.kind[keep],
            centre=self.centre[keep],
            axes=self.axes[keep],
            group=self.group[keep],
            look=self.look[faces],
            look_index=self.look_index[faces],
        )

    def moved(self, name: str, map_T_map: NDArray[np.float64]) -> World:
        """The world after somebody moved one object by a rigid motion (4, 4) of the map frame (its shadow stays)."""
        if name not in self.names:
            raise KeyError(f"the world holds no '{name}'")
        motion = torch.as_tensor(map_T_map, dtype=torch.float32, device=self.centre.device)
        mine = (self.group == self.names.index(name))[:, None]
        centre = torch.where(mine, self.centre @ motion[:3, :3].T + motion[:3, 3], self.centre)
        return replace(self, centre=centre, axes=torch.where(mine[..., None], motion[:3, :3] @ self.axes, self.axes))

    def clearance(self, points: ArrayLike) -> NDArray[np.float64]:
        """Distance in metres from points (..., 3) to the nearest surface; negative inside a solid or outside the room.

        Cylinders and spheres count as their bounding boxes.
        """
        points = np.asarray(points, dtype=np.float64)
        axes = self.axes.double().cpu().numpy()
        half = np.linalg.norm(axes, axis=1)
        local = np.einsum(
            "...pi,pij->...pj", points[..., None, :] - self.centre.double().cpu().numpy(), axes / half[:, None]
        )
        beyond = np.abs(local) - half
        outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(axis=-1), 0)
        shell = (self.kind == SHELL).cpu().numpy()
        return np.asarray(np.where(shell, -outside, outside).min(axis=-1))

    def floor_clearance(self, xy: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
        """Horizontal distance in metres from places (..., 2) to what stands or hangs between two heights.

        Negative inside of it or outside the room. Assumes what :class:`WorldBuilder` makes: yaw after tilt.
        """
        xy = np.asarray(xy, dtype=np.float64)
        axes, centre = self.axes.double().cpu().numpy(), self.centre.double().cpu().numpy()
        tall = np.abs(axes[:, 2]).sum(axis=1)
        within = (centre[:, 2] + tall > low) & (centre[:, 2] - tall < high)
        axes, centre, shell = axes[within], centre[within], (self.kind == SHELL).cpu().numpy()[within]
        first = axes[:, :2, 0] / np.linalg.norm(axes[:, :2, 0], axis=1, keepdims=True)
        frame = np.stack([first, np.stack([-first[:, 1], first[:, 0]], axis=1)], axis=1)
        half = np.abs(frame @ axes[:, :2]).sum(axis=2)
        beyond = np.abs(np.einsum("...pi,pji->...pj", xy[..., None, :] - centre[:, :2], frame)) - half
        outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(axis=-1), 0)
        return np.asarray(np.where(shell, -outside, outside).min(axis=-1))


class WorldBuilder:
    """Collects primitives, materials and lights; furniture is built in its own frame inside :meth:`at`."""

    def __init__(self, rng: np.random.Generator, grain: NDArray[np.uint8]) -> None:
        self.rng = rng
        self.atlas = AtlasBuilder()
        self.atlas.add(grain)
        self.lights: list[AreaLight] = []
        self._frame = np.eye(4)
        self._names: list[str] = []
        self._rows: list[tuple[int, NDArray[np.float64], NDArray[np.float64], int, dict[str, Material]]] = []

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0, name: str | None = None) -> WorldBuilder:
        """Set the frame of what follows, in the map frame, and start a new object if it has a name."""
        c, s = np.cos(yaw), np.sin(yaw)
        self._frame = np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])
        if name is not None:
            self._names.append(f"{name} {sum(n.startswith(name + ' ') for n in self._names) + 1}")
        return self

    def box(
        self,
        centre: ArrayLike,
        size: ArrayLike,
        material: Material,
        yaw: float = 0.0,
        tilt: float = 0.0,
        faces: dict[str, Material] | None = None,
    ) -> None:
        """A box of ``size`` (3,) metres, tilted about x, then turned about z; ``faces`` override the material."""
        self._add(BOX, centre, size, yaw, tilt, dict.fromkeys(FACES, material) | (faces or {}))

    def shell(self, size: ArrayLike, faces: dict[str, Material]) -> None:
        """The room itself, standing on z = 0 and seen from inside."""
        size = np.asarray(size, dtype=np.float64)
        self._add(SHELL, (0, 0, size[2] / 2), size, 0.0, 0.0, faces)

    def cylinder(
        self, centre: ArrayLike, radius: float, height: float, material: Material, cap: Material | None = None
    ) -> None:
        """An upright cylinder."""
        faces = dict.fromkeys(FACES, cap or material) | {"+x": material}
        self._add(CYLINDER, centre, (2 * radius, 2 * radius, height), 0.0, 0.0, faces)

    def sphere(self, centre: ArrayLike, size: ArrayLike, material: Material) -> None:
        """An ellipsoid with the three diameters ``size``."""
        self._add(SPHERE, centre, size, 0.0, 0.0, dict.fromkeys(FACES, material))

    def light(
        self, centre: ArrayLike, half_u: ArrayLike, half_v: ArrayLike, normal: ArrayLike, power: ArrayLike
    ) -> None:
        """An area light, given in the current frame."""
        R, t = self._frame[:3, :3], self._frame[:3, 3]
        middle, u, v, n = (R @ np.asarray(x, dtype=np.float64) for x in (centre, half_u, half_v, normal))
        self.lights.append(AreaLight(middle + t, u, v, n, np.asarray(power, dtype=np.float64)))

    def build(self, size: tuple[float, float, float], family: str, seed: int) -> World:
        """The world without light: :func:`mast3r_ros.lab.synthetic.lighting.lit` computes that."""
        atlas = self.atlas.build()
        texel = LIGHT_TEXEL * float(np.clip(np.sqrt(size[0] * size[1] / 30), 1.0, 2.0))
        log2 = atlas.log2_size.tolist()
        start = atlas.start.tolist()
        look, index, texels = [], [], 0
        for kind, _, axes, _, faces in self._rows:
            sides = 2 * np.linalg.norm(axes, axis=0)
            for name, face in FACES.items():
                material = faces[name]
                extent = _face_size(kind, face, sides)
                look.append(_look(material, extent, log2[material.texture], kind, face, self.rng))
                columns, rows = (int(np.clip(np.ceil(side / texel) + 1, 3, LIGHT_TEXELS_MAX)) for side in extent)
                index.append((start[material.texture], log2[material.texture], texels, columns, rows))
                texels += columns * rows
        return World(
            kind=torch.tensor([row[0] for row in self._rows]),
            centre=torch.tensor(np.stack([row[1] for row in self._rows]), dtype=torch.float32),
            axes=torch.tensor(np.stack([row[2] for row in self._rows]), dtype=torch.float32),
            group=torch.tensor([row[3] for row in self._rows]),
            look=torch.tensor(np.stack(look), dtype=torch.float32),
            look_index=torch.tensor(index),
            light=torch.ones(texels, 3),
            atlas=atlas,
            exposure=1.0,
            size=size,
            names=tuple(self._names),
            lights=tuple(self.lights),
            family=family,
            seed=seed,
        )

    def _add(
        self, kind: int, centre: ArrayLike, size: ArrayLike, yaw: float, tilt: float, faces: dict[str, Material]
    ) -> None:
        if not self._names:
            self._names.append("room 1")
        c, s, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
        axes = self._frame[:3, :3] @ turn * (np.asarray(size, dtype=np.float64) / 2)
        middle = self._frame[:3, :3] @ np.asarray(centre, dtype=np.float64) + self._frame[:3, 3]
        self._rows.append((kind, middle, axes, len(self._names) - 1, faces))


def _face_size(kind: int, face: int, sides: NDArray[np.float64]) -> tuple[float, float]:
    """Width and height of a face in metres, as unrolled on the plane."""
    if face < 4 and kind in (CYLINDER, SPHERE):
        return float(np.pi * sides[0]), float(sides[2])
    width = sides[1] if face < 2 else sides[0]
    return float(width), float(sides[1] if face >= 4 else sides[2])


def _look(
    material: Material, extent: tuple[float, float], log2: int, kind: int, face: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One row of ``World.look``: u = a s + b t + c and v = d s + e t + f for face coordinates s, t in 0..1."""
    if material.metres is None:
        left, top, width, height = material.window
        affine = np.array([width, 0, left, 0, height, top])
    else:
        u, v = (side / material.metres for side in extent)
        affine = np.array([u, 0, rng.uniform(), 0, v, rng.uniform()])
    if material.turned:
        affine = np.concatenate([affine[3:], affine[:3]])
    if kind == SHELL:  # seen from inside, right becomes left
        affine[[2, 5]] += affine[[0, 3]]
        affine[[0, 3]] *= -1
    size = np.array([extent[0], extent[0], extent[1], extent[1]])
    density = 2.0**log2 * float(np.max(np.abs(affine[[0, 3, 1, 4]]) / size))
    own = [*material.tint, material.emission, material.grain]
    return np.array([*affine, *own, density, *extent, material.reflects, material.transmits])
