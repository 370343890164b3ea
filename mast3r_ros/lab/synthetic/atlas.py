"""Textures of a world in one flat buffer, each with its mip pyramid, so that one gather samples them all."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Atlas:
    """Square power-of-two textures with all their mip levels.

    Attributes:
        texels: (N,) int32, RGBA bytes packed, levels of one texture after each other, finest first.
        start: (K,) int64, where each texture begins.
        log2_size: (K,) int64, logarithm of the side of its finest level.
    """

    texels: Tensor
    start: Tensor
    log2_size: Tensor


class AtlasBuilder:
    """Collects images and packs them."""

    def __init__(self) -> None:
        self._images: list[Image] = []

    def add(self, image: Image) -> int:
        """An RGB image (S, S, 3) uint8 with S a power of two -> the number of the texture."""
        side = image.shape[0]
        if image.shape != (side, side, 3) or image.dtype != np.uint8 or side & (side - 1):
            raise ValueError(
                f"a texture must be (S, S, 3) uint8 with S a power of two, got {image.shape} {image.dtype}"
            )
        self._images.append(image)
        return len(self._images) - 1

    def build(self) -> Atlas:
        """Pack everything added so far."""
        levels: list[Image] = []
        starts, logs, total = [], [], 0
        for image in self._images:
            starts.append(total)
            logs.append(image.shape[0].bit_length() - 1)
            level = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
            while True:
                levels.append(level.reshape(-1, 4))
                total += level.shape[0] ** 2
                if level.shape[0] == 1:
                    break
                half = level.shape[0] // 2
                level = cv2.resize(level, (half, half), interpolation=cv2.INTER_AREA).reshape(half, half, 4)
        packed = np.concatenate(levels).view(np.int32).reshape(-1)
        return Atlas(torch.from_numpy(packed), torch.tensor(starts), torch.tensor(logs))


def sample(texels: Tensor, start: Tensor, log2_size: Tensor, uv: tuple[Tensor, Tensor], lod: Tensor) -> Tensor:
    """Trilinear lookup with repeat.

    Args:
        texels: (N,) packed RGBA of an :class:`Atlas`, or (N,) float32 of one channel, laid out like it.
        start, log2_size: (M,) of the texture each sample reads.
        uv: two (M,) coordinates in repeats of the texture; u to the right, v down.
        lod: (M,) mip level wanted, in octaves above the finest.

    Returns:
        (M, 4) float32 in 0..255, or (M, 1) of the one channel.
    """
    lod = torch.minimum(lod.clamp(min=0.0), log2_size.to(lod.dtype))
    level = lod.floor()
    blend = (lod - level)[:, None]
    fine = level.long()
    coarse = torch.minimum(fine + 1, log2_size)
    return torch.lerp(
        _bilinear(texels, start, log2_size, fine, uv), _bilinear(texels, start, log2_size, coarse, uv), blend
    )


def _bilinear(texels: Tensor, start: Tensor, log2_size: Tensor, level: Tensor, uv: tuple[Tensor, Tensor]) -> Tensor:
    """One mip level of :func:`sample`."""
    shift = log2_size - level
    side = torch.ones_like(shift) << shift
    # The levels above are a geometric series: 4/3 (S^2 - s^2) texels.
    base = start + (((torch.ones_like(shift) << (2 * log2_size)) - side * side) << 2) // 3
    scale = side.to(uv[0].dtype)
    x, y = uv[0] * scale - 0.5, uv[1] * scale - 0.5
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    last = side - 1
    left, top = x0.long() & last, y0.long() & last
    right, bottom = (left + 1) & last, ((top + 1) & last) * side + base
    top = top * side + base
    upper = torch.lerp(_unpack(texels, top + left), _unpack(texels, top + right), fx)
    lower = torch.lerp(_unpack(texels, bottom + left), _unpack(texels, bottom + right), fx)
    return torch.lerp(upper, lower, fy)


def _unpack(texels: Tensor, index: Tensor) -> Tensor:
    """Texels (M,) -> (M, 4) float32, or (M, 1) where they already are float32."""
    if texels.dtype == torch.float32:
        return texels[index][:, None]
    return texels[index].view(torch.uint8).view(-1, 4).float()
