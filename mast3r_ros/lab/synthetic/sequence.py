"""Recordings from worlds: camera frames with depth, drifting odometry and the exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.lab.synthetic.render import Renderer, RenderSettings
from mast3r_ros.lab.synthetic.sensors import CameraNoise, DepthNoise, OdometryNoise, drifting, exposed, measured
from mast3r_ros.lab.synthetic.trajectory import Trajectory
from mast3r_ros.lab.synthetic.world import World

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SequenceSettings:
    """How a recording is made.

    Attributes:
        camera_noise: of the colour camera.
        depth_noise: of the depth camera; None gives exact depth.
        odometry_noise: of the odometry.
        with_depth: whether frames carry depth at all.
        seed: of all noise.
        start_ns: added to the stamps of the trajectory.
        device: where to render.
        render: how pictures are made.
    """

    camera_noise: CameraNoise = field(default_factory=CameraNoise)
    depth_noise: DepthNoise | None = field(default_factory=DepthNoise)
    odometry_noise: OdometryNoise = field(default_factory=OdometryNoise)
    with_depth: bool = True
    seed: int = 0
    start_ns: int = 0
    device: str | torch.device = "cpu"
    render: RenderSettings = field(default_factory=RenderSettings)


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """One moment of a recording.

    Attributes:
        posed: the camera frame with its true pose.
        odom_T_base: (4, 4) what odometry believes.
        map_T_base: (4, 4) where the base truly was.
        exact_depth: (H, W) float32 metres, without any noise; 0 where nothing is seen.
    """

    posed: PosedFrame
    odom_T_base: Array
    map_T_base: Array
    exact_depth: NDArray[np.float32]


def render_sequence(
    world: World, trajectory: Trajectory, camera: Camera, settings: SequenceSettings | None = None
) -> Iterator[SequenceFrame]:
    """Record a trajectory, frame by frame.

    The noise of a frame depends on the seed and the frame's number only, so a part of a recording
    is the same as that part of the whole.
    """
    settings = settings or SequenceSettings()
    render = RenderSettings(settings.render.smooth_edges, settings.render.sharpness, normals=True)
    renderer = Renderer(world, settings.device, render)
    odom_T_base = drifting(trajectory.map_T_base, settings.odometry_noise, np.random.default_rng([settings.seed, 1]))
    for k in range(len(trajectory)):
        rng = np.random.default_rng([settings.seed, 2, k])
        views = renderer.render(_shutter(trajectory, k, settings.camera_noise), camera)
        # Depth and pose belong to the middle of the exposure, which is rendered first.
        exact = views.depth[0].cpu().numpy()
        image = exposed(views.radiance.mean(dim=0), settings.camera_noise, rng)
        depth = exact if settings.with_depth else None
        if depth is not None and settings.depth_noise is not None and views.normal is not None:
            depth = measured(exact, views.normal[0].cpu().numpy(), camera.pixel_rays, settings.depth_noise, rng)
        frame = Frame(image, camera, int(trajectory.stamps_ns[k]) + settings.start_ns, depth, f"{k:06d}")
        posed = PosedFrame(frame, trajectory.map_T_camera[k])
        yield SequenceFrame(posed, odom_T_base[k], trajectory.map_T_base[k], exact)


def _shutter(trajectory: Trajectory, k: int, noise: CameraNoise) -> Array:
    """Camera poses (S, 4, 4) while the shutter was open around frame k, its middle first."""
    if noise.blur_s <= 0 or noise.blur_steps < 2:
        return trajectory.map_T_camera[k][None]
    offsets = (np.arange(noise.blur_steps) - noise.blur_steps // 2) / noise.blur_steps * noise.blur_s * 1e9
    offsets = sorted(offsets, key=abs)
    poses = [trajectory.at(float(trajectory.stamps_ns[k]) + offset) for offset in offsets]
    return np.stack(poses) @ trajectory.base_T_camera
