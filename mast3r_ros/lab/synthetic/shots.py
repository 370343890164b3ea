"""Single pictures, each with a camera, a world and a noise of its own: what a film cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic.recording import cores, single_threaded
from mast3r_ros.lab.synthetic.render import Renderer, RenderSettings
from mast3r_ros.lab.synthetic.sensors import CameraNoise, DepthNoise, exposed, measured
from mast3r_ros.lab.synthetic.world import World

Array = NDArray[np.float64]

#: Poses averaged while the shutter is open.
BLUR_STEPS = 9


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture to take.

    Attributes:
        world: what is there.
        map_T_camera: (4, 4) where the camera is in the middle of the exposure.
        camera: its calibration.
        name: what a person calls it.
        noise: of the camera.
        depth_noise: of its depth sensor, or None for a camera without one.
        turned_rad: angle the camera turns by, about its y axis, while the shutter is open.
    """

    world: World
    map_T_camera: Array
    camera: Camera
    name: str = ""
    noise: CameraNoise = field(default_factory=CameraNoise)
    depth_noise: DepthNoise | None = None
    turned_rad: float = 0.0


def take(shots: Sequence[Shot], seed: int) -> list[PosedFrame]:
    """Take pictures, one on each core. The noise of a picture depends on the seed and its number only."""
    # One renderer for each world, and rays computed once, before threads share them.
    settings = RenderSettings(normals=True)
    renderers = {id(shot.world): Renderer(shot.world, settings=settings) for shot in shots}
    for shot in shots:
        shot.camera.pixel_rays  # noqa: B018

    def one(number: int) -> PosedFrame:
        torch.set_num_threads(1)
        shot = shots[number]
        return _taken(renderers[id(shot.world)], shot, np.random.default_rng([seed, 3, number]))

    with single_threaded(), ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, range(len(shots))))


def _taken(renderer: Renderer, shot: Shot, rng: np.random.Generator) -> PosedFrame:
    views = renderer.render(_shutter(shot), shot.camera)
    image = exposed(views.radiance.mean(dim=0), shot.noise, rng)
    depth = None
    if shot.depth_noise is not None and views.normal is not None:
        exact, normal = views.depth[0].cpu().numpy(), views.normal[0].cpu().numpy()
        depth = measured(exact, normal, shot.camera.pixel_rays, shot.depth_noise, rng)
    return PosedFrame(Frame(image, shot.camera, depth=depth, name=shot.name), shot.map_T_camera)


def _shutter(shot: Shot) -> Array:
    """Poses (S, 4, 4) during the exposure, its middle first."""
    if shot.turned_rad == 0:
        return shot.map_T_camera[None]
    angles = sorted((np.arange(BLUR_STEPS) / (BLUR_STEPS - 1) - 0.5) * shot.turned_rad, key=abs)
    return np.stack([shot.map_T_camera @ se3.exp([0, 0, 0, 0, angle, 0]) for angle in angles])
