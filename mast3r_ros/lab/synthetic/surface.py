"""The surface of primitives: which face a point lies on, where on that face, and which way it looks."""

from __future__ import annotations

import torch
from torch import Tensor

from mast3r_ros.lab.synthetic.world import BOX, CYLINDER, SHELL, SPHERE


def locate(kind: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points on unit shapes.

    Args:
        kind: (M,) of the shapes; unit: (3, M) points in their unit frames.

    Returns:
        Face 0..5 (M,) int64, its coordinates s to the right and t down as seen from outside, both (M,) in 0..1,
        and the gradient (3, M) of the shape's implicit function in the unit frame, which points outwards.
    """
    x, y, z = unit
    ax, ay, az = unit.abs()
    axis = torch.where(az >= torch.maximum(ax, ay), 2, (ay > ax).long())
    round_ = kind >= CYLINDER
    has_round = bool(round_.any())
    if has_round:
        capped = (kind == CYLINDER) & (az > torch.maximum(x * x + y * y, torch.full_like(x, 0.9999)))
        axis = torch.where(round_, torch.where(capped, 2, 0), axis)
    along = torch.where(axis == 2, z, torch.where(axis == 1, y, x))
    negative = along < 0
    sign = 1.0 - 2.0 * negative
    s = torch.where(axis == 2, x, torch.where(axis == 1, -x, y)) * sign
    t = torch.where(axis == 2, -y, -z)
    gradient = torch.stack([torch.where(axis == i, sign, 0.0) for i in range(3)])
    face = 2 * axis + negative
    if has_round:
        side = round_ & (axis == 0)
        face = torch.where(side, 0, face)
        s = torch.where(side, torch.atan2(y, x) / torch.pi, s)
        ball = side & (kind == SPHERE)
        gradient = torch.where(side, torch.stack([x, y, torch.where(ball, z, torch.zeros_like(z))]), gradient)
    return face, (0.5 + 0.5 * s).clamp(0, 1), (0.5 + 0.5 * t).clamp(0, 1), gradient


def place(kind: int, face: int, s: Tensor, t: Tensor) -> Tensor:
    """Inverse of :func:`locate` for one face: coordinates (M,) -> points (3, M) on the unit shape."""
    s, t = 2 * s - 1, 2 * t - 1
    sign = 1.0 - 2.0 * (face % 2)
    one = torch.full_like(s, sign)
    if kind in (BOX, SHELL) or face >= 4:
        if face < 2:
            return torch.stack([one, s * sign, -t])
        if face < 4:
            return torch.stack([-s * sign, one, -t])
        return torch.stack([s * sign, -t, one])
    radius = (1 - t * t).clamp(min=0).sqrt() if kind == SPHERE else torch.ones_like(t)
    return torch.stack([radius * torch.cos(torch.pi * s), radius * torch.sin(torch.pi * s), -t])
