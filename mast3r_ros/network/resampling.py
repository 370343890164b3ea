"""Pillow's resizing of 8-bit images as matrix products, for images that are on a GPU.

Pillow weights every pixel under a kernel that is as wide as an output pixel at least, along the rows and then along the
columns, with weights of 22 binary places, and rounds to 8 bits after each. So does this, exactly: in two products of 11
places each, of which float32 rounds no sum (of images up to ten times as large).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

#: Binary places of a weight.
PLACES = 22
#: Weights of that many pairs of lengths are kept: two for each size of image.
LENGTHS = 16


def resized(image: Tensor, height: int, width: int, kernel: str) -> Tensor:
    """Resize an image.

    Args:
        image: (C, H, W) float32, whole numbers from 0 to 255.
        kernel: ``lanczos`` or ``bicubic``.

    Returns:
        (C, height, width) float32, whole numbers from 0 to 255.
    """
    rows = _along_rows(image, width, kernel)
    return _along_rows(rows.mT, height, kernel).mT


def _along_rows(image: Tensor, length: int, kernel: str) -> Tensor:
    """(C, H, W) -> (C, H, length)."""
    if image.shape[2] == length:
        return image
    high, low = (image @ part.T for part in _weights(image.shape[2], length, kernel, image.device))
    total = high.int() * 2 ** (PLACES // 2) + low.int()
    rounded: Tensor = (total + 2 ** (PLACES - 1)) >> PLACES
    return rounded.clamp(0, 255).float()


@lru_cache(maxsize=LENGTHS)
@torch.inference_mode(False)
def _weights(length: int, new_length: int, kernel: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weights (new_length, length) of a row's pixels for those of the resized row: upper and lower binary places."""
    function, reach = KERNELS[kernel]
    scale = length / new_length
    stretch = max(scale, 1.0)
    centres = (np.arange(new_length) + 0.5) * scale
    first = np.maximum((centres - reach * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + reach * stretch + 0.5).astype(np.int64), length)
    pixels = np.arange(length)
    under = (pixels >= first[:, None]) & (pixels < end[:, None])
    weights = np.where(under, function((pixels + 0.5 - centres[:, None]) / stretch), 0.0)
    scaled = weights / weights.sum(axis=1, keepdims=True) * 2**PLACES
    whole = np.trunc(scaled + np.copysign(0.5, scaled))
    high = np.round(whole / 2 ** (PLACES // 2))
    parts = high, whole - high * 2 ** (PLACES // 2)
    first_part, second_part = (torch.from_numpy(part).float().to(device) for part in parts)
    return first_part, second_part


def _lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _bicubic(x: Array) -> Array:
    """Cubic convolution (Keys, 1981) with a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


#: Kernels and how far they reach, in pixels of the larger image of the two.
KERNELS: dict[str, tuple[Callable[[Array], Array], float]] = {"lanczos": (_lanczos, 3.0), "bicubic": (_bicubic, 2.0)}
