"""What cameras and light do to views, for many images at once on their device: see :mod:`augmentation`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Pixels to either side that a blur mixes.
REACH = 3
LUMINANCE = (0.3, 0.59, 0.11)


def photographed(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images (B, H, W, 3) uint8 by other cameras: white balance, saturation, gamma, contrast, blur, noise."""
    pixels = _recoloured(image.float(), strength, generator)
    pixels = _blurred(pixels, strength, generator)
    noisy = _uniform(generator, len(image)) < 0.4 * strength
    alike = _normal(generator, *image.shape[:3], 1) * (1 + 7 * _uniform(generator, len(image)))[:, None, None, None]
    each = _normal(generator, *image.shape) * (4 * _uniform(generator, len(image)))[:, None, None, None]
    pixels = pixels + torch.where(noisy[:, None, None, None], alike + each, 0.0)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _recoloured(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Saturation by a matrix, all else by a curve per channel."""
    count = len(pixels)

    def deviate(sigma: float, *shape: int) -> Tensor:
        return sigma * strength * _normal(generator, count, *(shape or (1,)))[:, None, None]

    grey = 1 - deviate(0.25).exp()
    luminance = pixels @ pixels.new_tensor(LUMINANCE)
    pixels = ((1 - grey) * pixels + grey * luminance[..., None]).clamp(0, 255)
    gamma, gain, offset = deviate(0.25).exp(), deviate(0.2).exp(), deviate(0.06)
    white = deviate(0.08, 3).exp()
    curve = ((pixels / 255).clamp(min=1e-6) ** gamma * white - 0.5) * gain + 0.5 + offset
    return (curve * 255).clamp(0, 255)


def _blurred(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A quarter of them by Gaussians of 0.3 to 1.1 pixels."""
    count, height, width, _ = pixels.shape
    sigma = 0.3 + 0.8 * _uniform(generator, count)
    blurs = _uniform(generator, count) < 0.25 * strength
    offset = torch.arange(-REACH, REACH + 1, device=pixels.device)
    kernel = (-0.5 * (offset / sigma[:, None]) ** 2).exp()
    kernel = torch.where(blurs[:, None], kernel / kernel.sum(dim=1, keepdim=True), (offset == 0).float())
    kernel = kernel.repeat_interleave(3, dim=0)
    maps = pixels.permute(0, 3, 1, 2).reshape(1, 3 * count, height, width)
    for shape, pad in (((1, -1), (REACH, REACH, 0, 0)), ((-1, 1), (0, 0, REACH, REACH))):
        maps = F.conv2d(F.pad(maps, pad, mode="reflect"), kernel.view(3 * count, 1, *shape), groups=3 * count)
    return maps.view(count, 3, height, width).permute(0, 2, 3, 1)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
