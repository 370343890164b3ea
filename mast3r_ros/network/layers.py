"""Attention with rotary positions and the transformer's MLP. Module names are those of the official checkpoints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mast3r_ros.network.fused_rope import rotate
from mast3r_ros.network.rope import Rotation

#: Epsilon of every LayerNorm in encoder and decoders.
NORM_EPS = 1e-6


def layer_norm(dim: int) -> nn.LayerNorm:
    """The LayerNorm of these networks."""
    return nn.LayerNorm(dim, eps=NORM_EPS)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them; four times as wide inside."""

    def __init__(self, dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out_dim)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of one image."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rotation) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        qk, v = _heads(self.qkv(x), 3 * self.num_heads).split((2 * self.num_heads, self.num_heads), dim=1)
        q, k = rotate(qk, rope).chunk(2, dim=1)
        out: Tensor = self.proj(_attend(q, k, v))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention from the tokens of one image to those of the other."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, rope: Rotation, memory_rope: Rotation) -> Tensor:
        """(B, N, C), memory (B, M, C) -> (B, N, C)."""
        q = rotate(_heads(self.projq(x), self.num_heads), rope)
        k = rotate(_heads(self.projk(memory), self.num_heads), memory_rope)
        out: Tensor = self.proj(_attend(q, k, _heads(self.projv(memory), self.num_heads)))
        return out


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    out: Tensor = x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (B, heads, N, d), keys and values (B, heads, M, d) -> (B, N, heads * d)."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
