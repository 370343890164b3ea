"""Rotation matrices of quaternions that are optimised."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_of(xyzw: Tensor) -> Tensor:
    """Quaternions (..., 4) of any length -> (..., 3, 3)."""
    x, y, z, w = (xyzw / xyzw.norm(dim=-1, keepdim=True)).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], dim=-1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], dim=-1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)
