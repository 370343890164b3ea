"""Raw network outputs to points, confidences and descriptors. Always float32, channels last."""

from __future__ import annotations

import torch
from torch import Tensor

from mast3r_ros.network.config import Activation


def points(raw: Tensor, activation: Activation) -> Tensor:
    """Raw (B, H, W, 3) -> points (B, H, W, 3): the direction is kept, the distance goes through the activation."""
    if activation.kind == "linear":
        return raw
    distance = raw.norm(dim=-1, keepdim=True)
    direction = raw / distance.clamp_min(1e-8)
    out: Tensor = direction * (torch.expm1(distance) if activation.kind == "exp" else distance.square())
    return out


def confidence(raw: Tensor, activation: Activation) -> Tensor:
    """Raw (B, H, W) -> confidence in [low, high]."""
    span = activation.high - activation.low
    if activation.kind == "sigmoid":
        return activation.low + span * torch.sigmoid(raw)
    return activation.low + raw.exp().clamp(max=span)


def descriptors(raw: Tensor) -> Tensor:
    """Raw (B, H, W, D) -> unit length."""
    out: Tensor = raw / raw.norm(dim=-1, keepdim=True)
    return out
