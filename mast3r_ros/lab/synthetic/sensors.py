"""What real sensors do to the truth: exposure, blur and noise of cameras, holes in depth, drift of odometry."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic.render import developed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CameraNoise:
    """A real colour camera.

    Attributes:
        exposure: factor on the light; the photon noise grows when the gain makes up for it.
        gain: factor after the noise was added (a night picture: exposure 0.05, gain 12).
        exposure_jitter: deviation of the exposure from frame to frame, as a fraction.
        vignetting: light missing in the corners, as a fraction.
        photons: photo electrons at white; fewer are noisier.
        read_noise: deviation of the dark signal, as a fraction of white.
        blur_s: time the shutter is open; motion within it blurs the picture.
        blur_steps: poses averaged over that time.
        jpeg_quality: 1..100, or 0 for no compression.
    """

    exposure: float = 1.0
    gain: float = 1.0
    exposure_jitter: float = 0.03
    vignetting: float = 0.15
    photons: float = 6000.0
    read_noise: float = 0.002
    blur_s: float = 0.0
    blur_steps: int = 4
    jpeg_quality: int = 0

    @classmethod
    def none(cls) -> CameraNoise:
        """An ideal camera."""
        return cls(exposure_jitter=0.0, vignetting=0.0, photons=float("inf"), read_noise=0.0)


@dataclass(frozen=True)
class DepthNoise:
    """An active stereo or structured light camera.

    Attributes:
        quadratic: deviation in metres at 1 m; it grows with the square of the depth.
        minimum_m, maximum_m: nothing is measured outside.
        grazing_deg: surfaces seen at a flatter angle than this are holes.
        edge_holes: share of pixels lost at depth edges.
        unit_m: what one step of the sensor is; 1 mm for 16UC1.
    """

    quadratic: float = 0.0012
    minimum_m: float = 0.3
    maximum_m: float = 8.0
    grazing_deg: float = 8.0
    edge_holes: float = 0.8
    unit_m: float = 0.001


@dataclass(frozen=True)
class OdometryNoise:
    """Wheel or visual odometry: smooth, but it drifts.

    Attributes:
        scale_error: deviation of the one factor on all distances of a run.
        yaw_per_metre, yaw_per_turn: deviation of the yaw drift in rad per sqrt(m) and rad per sqrt(rad turned).
        bias_per_metre: deviation of the constant yaw drift of a run, rad per m.
        slip: deviation of every step's length, as a fraction.
    """

    scale_error: float = 0.01
    yaw_per_metre: float = 0.008
    yaw_per_turn: float = 0.008
    bias_per_metre: float = 0.006
    slip: float = 0.02


def exposed(radiance: Tensor, noise: CameraNoise, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear radiance (H, W, 3) -> the picture (H, W, 3) uint8 that a camera gives."""
    height, width = radiance.shape[:2]
    light = radiance.cpu() * (noise.exposure * max(1 + noise.exposure_jitter * float(rng.normal()), 0.1))
    if noise.vignetting:
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        light = light * (1 - noise.vignetting * (x * x + y * y) / 2)[..., None]
    variance = light.clamp(min=0) / noise.photons + noise.read_noise**2
    if noise.read_noise or np.isfinite(noise.photons):
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        light = light + variance.sqrt() * torch.randn(light.shape, generator=generator)
    image = (developed((light * noise.gain).clamp(min=0)) * 255 + 0.5).to(torch.uint8).numpy()
    if noise.jpeg_quality:
        _, packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, noise.jpeg_quality])
        image = np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
    return image


def measured(
    depth: NDArray[np.float32], normal: NDArray[np.float32], rays: Array, noise: DepthNoise, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Exact depth (H, W) -> what a depth camera reports: (H, W) float32 metres, 0 where it saw nothing.

    Args:
        normal: (H, W, 3) surface normals in the camera frame; rays: (H, W, 2) ``Camera.pixel_rays``.
    """
    unit = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)
    cosine = np.abs((normal * unit).sum(axis=-1)) / np.linalg.norm(unit, axis=-1)
    seen = (depth >= noise.minimum_m) & (depth <= noise.maximum_m) & (cosine >= np.sin(np.radians(noise.grazing_deg)))
    spread = cv2.dilate(depth, np.ones((3, 3))) - cv2.erode(depth, np.ones((3, 3)))
    # A surface seen at an angle also spreads; only what that cannot explain is an edge.
    edge = spread > 0.03 * depth / np.maximum(cosine, 0.1)
    seen &= ~(edge & (rng.uniform(size=depth.shape) < noise.edge_holes))
    noisy = depth + noise.quadratic * depth**2 * rng.normal(size=depth.shape)
    steps = np.round(noisy / noise.unit_m) * noise.unit_m
    return np.where(seen & (steps > 0), steps, 0).astype(np.float32)


def drifting(map_T_base: Array, noise: OdometryNoise, rng: np.random.Generator) -> Array:
    """True base poses (N, 4, 4) -> ``odom_T_base`` (N, 4, 4): starts at identity, is smooth, drifts."""
    scale = 1 + noise.scale_error * rng.normal()
    bias = noise.bias_per_metre * rng.normal()
    poses = [np.eye(4)]
    for before, after in pairwise(map_T_base):
        step = se3.log(se3.inverse(before) @ after)
        moved, turned = float(np.linalg.norm(step[:3])), float(np.linalg.norm(step[3:]))
        step[:3] *= scale * (1 + noise.slip * rng.normal())
        wander = np.hypot(noise.yaw_per_metre * np.sqrt(moved), noise.yaw_per_turn * np.sqrt(turned))
        step[5] += bias * moved + wander * rng.normal()
        poses.append(poses[-1] @ se3.exp(step))
    return np.stack(poses)
