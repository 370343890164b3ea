"""Rotary position embedding in two dimensions (RoFormer, Su et al. 2021; 2-D form of CroCo v2)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

#: Grids whose positions and rotations are kept: a network sees few sizes, each of them at every layer.
GRIDS = 32


class Rotation(NamedTuple):
    """Cosines (B, 1, N, 2, 1, d / 4) and sines (B, 1, N, 2, 2, d / 4) of every token's angles: axis y, then axis x.

    Float32. Sines come twice: negative for the first feature of a pair, positive for the second.
    """

    cos: Tensor
    sin: Tensor


@lru_cache(maxsize=GRIDS)
@torch.inference_mode(False)  # what one caller computes without gradients, another may train with
def grid_positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Positions (N, 2) int64 as (y, x) of all rows * columns tokens, row-major. Cached: do not write to them."""
    y = torch.arange(rows, device=device)
    x = torch.arange(columns, device=device)
    return torch.cartesian_prod(y, x)


@lru_cache(maxsize=GRIDS)
@torch.inference_mode(False)
def grid_rotation(rows: int, columns: int, head_dim: int, base: float, device: torch.device) -> Rotation:
    """:func:`rotation` of a whole grid, for every image of a batch. Cached: do not write to it."""
    return rotation(grid_positions(rows, columns, device)[None], head_dim, base)


def rotation(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Rotation of every token, computed once and shared by all layers.

    Args:
        positions: (B, N, 2) integer (y, x).
        head_dim: length d of one attention head's vectors, a multiple of 4.
        base: of the frequencies ``base ** (-2 i / (d / 2))``.
    """
    exponent = torch.arange(head_dim // 4, dtype=torch.float32, device=positions.device) * (4 / head_dim)
    angles = positions[:, None, :, :, None].float() * base**-exponent
    sin = angles.sin()
    return Rotation(angles.cos()[..., None, :], torch.stack((-sin, sin), dim=-2))


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate queries or keys (B, heads, N, d), in float32, and give them back in their own type.

    The first half of a vector turns with y, the second with x; in each, feature i pairs with i + d / 4.
    """
    pairs = x.unflatten(-1, (2, 2, -1))
    return torch.addcmul(pairs * by.cos, pairs.flip(-2), by.sin).flatten(-3).to(x.dtype)
