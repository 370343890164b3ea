"""Rotary positions by one kernel on a GPU; PyTorch's own operations read and write queries and keys four times."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from mast3r_ros.network import rope
from mast3r_ros.network.rope import Rotation

logger = logging.getLogger(__name__)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """:func:`mast3r_ros.network.rope.rotate` of (B, heads, N, d), by the kernel on a GPU without gradients."""
    wanted = x.is_cuda and by.cos.shape[0] == 1 and x.stride(-1) == 1 and not torch.compiler.is_compiling()
    if not wanted or (torch.is_grad_enabled() and x.requires_grad) or not _works(x.device):
        return rope.rotate(x, by)
    return rotate_fused(x, by)


def rotate_fused(x: Tensor, by: Rotation) -> Tensor:
    """Queries or keys (B, heads, N, d) of any strides but the last, rotated by one grid; in memory (B, N, heads, d).

    Needs Triton.
    """
    batch, heads, count, dim = x.shape
    out = torch.empty((batch, count, heads, dim), dtype=x.dtype, device=x.device).transpose(1, 2)
    from mast3r_ros.network import kernels  # Triton, on first use

    sizes = {"HEADS": _power_of_two(heads), "HALF": dim // 2, "LANES": _power_of_two(dim // 2)}
    strides = (*x.stride()[:3], *out.stride()[:3])
    kernels.rotate[(batch * count,)](x, out, by.cos, by.sin, count, heads, *strides, **sizes)
    return out


def _power_of_two(number: int) -> int:
    """The smallest that is not smaller."""
    return 1 << (number - 1).bit_length()


@cache
def _works(device: torch.device) -> bool:
    """Whether the kernel can be compiled and runs, which needs Triton, a C compiler and a card that it knows."""
    try:
        rotate_fused(torch.zeros(1, 1, 1, 8, device=device), rope.grid_rotation(1, 1, 8, 100.0, device))
    except Exception as error:  # a compiler and a driver can fail in any way
        why = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning("rotary positions take four kernels instead of one on %s: %s", device, why[0])
        return False
    return True
