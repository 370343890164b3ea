"""The ViT encoder: patches to tokens, then pre-norm transformer blocks. Positions enter by rotation only."""

from __future__ import annotations

from torch import Tensor, nn

from mast3r_ros.network.layers import Mlp, SelfAttention, layer_norm
from mast3r_ros.network.rope import Rotation


class PatchEmbed(nn.Module):
    """One linear map per patch, as a convolution with stride = kernel = patch size."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, C), tokens in row-major order."""
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each behind a LayerNorm and around a residual path."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, rope: Rotation) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.attn(self.norm1(x), rope)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
