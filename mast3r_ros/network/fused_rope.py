"""Rotary positions by one kernel on a GPU; PyTorch's own operations read and write queries and keys four times."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from mast3r_ros.network import rope
from mast3r_ros.network.rope import Rotation

logger = logging.getLogger(__name__)


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """:func:`mast3r_ros.network.rope.rotate`, by the kernel where that is possible: on a GPU, without gradients."""
    wanted = x.is_cuda and by.cos.shape[0] == 1 and x.stride(-1) == 1 and not torch.compiler.is_compiling()
    if not wanted or (torch.is_grad_enabled() and x.requires_grad) or _kernels() is None:
        return rope.rotate(x, by)
    return rotate_fused(x, by)


def rotate_fused(x: Tensor, by: Rotation) -> Tensor:
    """Queries or keys (B, heads, N, d) of any strides but the last, rotated by one grid; in memory (B, N, heads, d).

    Needs Triton.
    """
    batch, heads, count, dim = x.shape
    out = torch.empty((batch, count, heads, dim), dtype=x.dtype, device=x.device).transpose(1, 2)
    kernels = _kernels()
    assert kernels is not None
    sizes = {"HEADS": _power_of_two(heads), "HALF": dim // 2, "LANES": _power_of_two(dim // 2)}
    strides = (*x.stride()[:3], *out.stride()[:3])
    kernels.rotate[(batch * count,)](x, out, by.cos, by.sin, count, heads, *strides, **sizes)
    return out


def _power_of_two(number: int) -> int:
    """The smallest that is not smaller."""
    return 1 << (number - 1).bit_length()


@cache
def _kernels() -> ModuleType | None:
    """The module with the kernel, or None where there is no Triton."""
    try:
        from mast3r_ros.network import kernels
    except ImportError as error:
        logger.info("rotary positions take four kernels instead of one: Triton is missing (%s)", error)
        return None
    return kernels
