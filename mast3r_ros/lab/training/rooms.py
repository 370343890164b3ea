"""Rendered rooms as training scenes: families, cameras, exposure and noise vary; everything follows from the number.

Rooms of training and of validation have seeds above ``TRAINING_SEEDS`` and ``VALIDATION_SEEDS``: every room seed a
person would ask an evaluation for lies below both, so what is evaluated was never trained on.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic import CameraNoise, LightingSettings, Renderer, RoomSettings, World, exposed, make_room
from mast3r_ros.lab.synthetic.trajectory import OPTICAL
from mast3r_ros.lab.training.views import SceneFile, View, save_scene

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.sharedctypes import Synchronized

Array = NDArray[np.float64]

TRAINING_SEEDS, VALIDATION_SEEDS = 1 << 31, 1 << 30
#: Views whose median depth is less show nothing but a close surface.
NEAREST_M = 0.7
#: Families whose shell, their first primitive, is the sky.
OUTDOORS = ("street",)
#: Changes whenever rooms of the same number come out differently: part of the cache's name.
ROOMS_VERSION = 1


@dataclass(frozen=True)
class RoomsConfig:
    """What rooms are rendered.

    Attributes:
        families: in turn; naming one twice makes it twice as frequent.
        views: per room.
        width, height: of the images in pixels.
        field_of_view_deg: horizontal, least and most.
        camera_height_m: least and most.
        clearance_m: least distance of a camera from anything.
        noise: exposure, photon noise, vignetting and compression like those of real cameras.
        photographs: pack of scripts/training_pictures.py, whose images replace drawn textures; empty: all are drawn.
        photographed: share of the rooms in which they do.
        rolled: share of the rooms whose cameras roll by any angle up to 90 degrees, small ones more often.
        dim: share of the rooms with less light than usual, down to a tenth.
    """

    families: tuple[str, ...] = ("living", "office", "kitchen", "corridor", "warehouse")
    views: int = 64
    width: int = 192
    height: int = 144
    field_of_view_deg: tuple[float, float] = (50.0, 90.0)
    camera_height_m: tuple[float, float] = (0.3, 1.9)
    clearance_m: float = 0.3
    noise: bool = True
    photographs: str = ""
    photographed: float = 0.75
    rolled: float = 0.0
    dim: float = 0.0

    @property
    def name(self) -> str:
        """What the cache calls rooms made like this."""
        import hashlib

        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:10]
        return f"rooms-{self.width}x{self.height}-v{ROOMS_VERSION}-{digest}"


class RenderedRooms:
    """Rooms by number, rendered when they are first asked for and kept in a folder."""

    def __init__(self, config: RoomsConfig, cache: Path, first_seed: int = TRAINING_SEEDS, device: str = "cpu") -> None:
        self.config, self.first_seed, self.device = config, first_seed, device
        # A GPU draws its places in another order and rounds otherwise.
        self.folder = cache / (config.name if device == "cpu" else f"{config.name}-{device}")

    def path(self, number: int) -> Path:
        """Where a room is kept."""
        return self.folder / f"{self.first_seed + number}.safetensors"

    def __getitem__(self, number: int) -> SceneFile:
        self.ensure(number)
        return SceneFile(self.path(number))

    def ensure(self, number: int) -> bool:
        """Render a room where it is missing; whether it was."""
        if self.path(number).exists():
            return False
        save_scene(self.path(number), render_room(self.first_seed + number, self.config, self.device))
        return True


def render_room(seed: int, config: RoomsConfig, device: str = "cpu") -> list[View]:
    """Views of the room with this seed; views with nothing but a close surface are not among them.

    Args:
        device: where light and pictures are computed; a GPU renders all views as one batch.
    """
    rng = np.random.default_rng([seed, 5])
    family = config.families[seed % len(config.families)]
    clutter = float(rng.uniform(0.6, 1.5))
    lighting = LightingSettings(light_samples=2, sky_samples=12)
    # Of their own, so that rooms without them come out as they always did.
    rare = np.random.default_rng([seed, 6])
    rolled = rare.uniform() < config.rolled
    light = float(np.exp(rare.uniform(np.log(0.1), 0.0))) if rare.uniform() < config.dim else 1.0
    photographs = config.photographs if rare.uniform() < config.photographed else ""
    settings = RoomSettings(clutter, lighting, light, device=device, photographs=photographs)
    world = make_room(family, seed, settings)
    renderer = Renderer(world, device)
    shared = float(rng.uniform(*config.field_of_view_deg)) if rng.uniform() < 0.7 else None
    noise = camera_noise(rng) if config.noise else CameraNoise.none()
    views: list[View] = []
    places = clear_places(world, config, rng)
    at_once = 1 if device == "cpu" else config.views
    while len(views) < config.views:
        cameras, poses = [], []
        for _ in range(at_once):
            field_of_view = shared or float(rng.uniform(*config.field_of_view_deg))
            cameras.append(pinhole(config.width, config.height, field_of_view))
            pose = looking_about(places[int(rng.integers(len(places)))], rng)
            poses.append(pose @ rolled_by(rare) if rolled else pose)
        rendered = renderer.render(np.stack(poses), cameras)
        depths, radiance = rendered.depth.cpu().numpy(), rendered.radiance.cpu()
        primitives = rendered.primitive.cpu().numpy()
        for depth, light, seen, pose, camera in zip(depths, radiance, primitives, poses, cameras, strict=True):
            if family in OUTDOORS:
                _without_sky(depth, seen, pose, camera)
            if _shows_enough(depth) and len(views) < config.views:
                views.append(View(exposed(light, noise, rng), depth, pose, camera.K))
    return views


def _shows_enough(depth: NDArray[np.float32]) -> bool:
    """Whether a view shows more than a close surface, or the sky."""
    known = depth > 0
    return bool(known.mean() > 0.3) and float(np.median(depth[known])) >= NEAREST_M


def _without_sky(depth: NDArray[np.float32], primitive: NDArray[np.int64], pose: Array, camera: Camera) -> None:
    """Set the depth (H, W) to 0 where the shell above the ground is seen: the sky has no distance."""
    height = pose[2, 3] + depth * (camera.pixel_rays @ pose[2, :2] + pose[2, 2])
    depth[(primitive == 0) & (height > 0.05)] = 0.0


def rolled_by(rng: np.random.Generator) -> Array:
    """``camera_T_camera``: a turn about the optical axis, by 90 degrees at most."""
    angle = np.clip(rng.normal(0, np.radians(35)), -np.pi / 2, np.pi / 2)
    return se3.exp(np.array([0, 0, 0, 0, 0, angle]))


def camera_noise(rng: np.random.Generator) -> CameraNoise:
    """A camera between good and poor, one per room."""
    return CameraNoise(
        exposure=float(np.exp(rng.uniform(-0.5, 0.3))),
        gain=float(np.exp(rng.uniform(-0.2, 0.3))),
        exposure_jitter=float(rng.uniform(0.0, 0.25)),
        vignetting=float(rng.uniform(0.0, 0.4)),
        photons=float(np.exp(rng.uniform(np.log(300), np.log(8000)))),
        read_noise=float(rng.uniform(0.0, 0.01)),
        jpeg_quality=int(rng.integers(60, 96)) if rng.uniform() < 0.3 else 0,
    )


def pinhole(width: int, height: int, field_of_view_deg: float) -> Camera:
    """An ideal camera by the angle that its image is wide."""
    f = width / 2 / np.tan(np.radians(field_of_view_deg) / 2)
    return Camera.pinhole(width, height, f, f, (width - 1) / 2, (height - 1) / 2)


def clear_places(world: World, config: RoomsConfig, rng: np.random.Generator) -> Array:
    """Camera centres (N, 3) clear of everything, in a few groups: views from one group overlap."""
    half = np.asarray(world.size[:2]) / 2
    low, high = config.camera_height_m
    xy = rng.uniform(-half, half, (4000, 2))
    points = np.column_stack([xy, rng.uniform(low, min(high, world.size[2] - 0.3), len(xy))])
    clear = points[world.clearance(points) > config.clearance_m]
    return clear if len(clear) else points


def looking_about(centre: Array, rng: np.random.Generator) -> Array:
    """``map_T_camera`` of a camera that looks about horizontally in any direction."""
    yaw, pitch, roll = rng.uniform(-np.pi, np.pi), rng.normal(0.08, 0.2), rng.normal(0, 0.07)
    turn = se3.exp(np.array([0, 0, 0, 0, 0, yaw])) @ se3.exp(np.array([0, 0, 0, 0, pitch, 0]))
    turn = turn @ se3.exp(np.array([0, 0, 0, roll, 0, 0]))
    return se3.make(turn[:3, :3] @ OPTICAL, centre)


def render_ahead(
    rooms: RenderedRooms,
    first: int,
    count: int,
    step: int,
    wanted: Synchronized[int],
    held_out: tuple[RenderedRooms, int, int] | None = None,
) -> None:
    """Render every ``step``-th room from ``first`` on, as far as ``wanted`` rooms, which may grow up to ``count``.

    ``held_out``: other rooms, how many of them are shared as well, and how many of the first rooms come before them,
    because nothing can be trained without.

    Meant for a process of its own: it leaves others the right of way, and ends when its parent does.
    """
    import torch

    parent = parent_process()

    os.nice(10)
    torch.set_num_threads(1)
    at_once = min(held_out[2], count) if held_out else 0
    for number in range(first, at_once, step):
        rooms.ensure(number)
    for number in range(first, held_out[1], step) if held_out else ():
        held_out[0].ensure(number)  # type: ignore[index]
    for number in range(first, count, step):
        while number >= wanted.value and _alive(parent):
            time.sleep(0.5)
        if not _alive(parent):
            return
        rooms.ensure(number)


def _alive(parent: BaseProcess | None) -> bool:
    return parent is None or parent.is_alive()
