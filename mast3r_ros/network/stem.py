"""A convolutional stem: few tokens for the transformer, and fine detail that goes past it to the heads.

Early convolutions make small transformers learn faster (Xiao et al., "Early Convolutions Help Transformers See
Better", NeurIPS 2021). The detail is kept at a quarter of the resolution, folded into the token of its patch, so that
an encoded image stays one (N, C) array.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Pixels between two positions of the detail.
DETAIL_STRIDE = 4


class ResidualConv(nn.Module):
    """Two pre-activated 3x3 convolutions around a skip connection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class ConvStem(nn.Module):
    """Strided convolutions down to patches of 16 pixels.

    Args:
        dim: C of the tokens.
        stem_dim: channels D of the detail.
    """

    def __init__(self, dim: int, stem_dim: int) -> None:
        super().__init__()
        self.to_half = nn.Conv2d(3, stem_dim // 2, 4, stride=2, padding=1)
        self.to_quarter = nn.Conv2d(stem_dim // 2, stem_dim, 4, stride=2, padding=1)
        self.refine = nn.Sequential(ResidualConv(stem_dim), ResidualConv(stem_dim))
        self.to_eighth = nn.Conv2d(stem_dim, 2 * stem_dim, 4, stride=2, padding=1)
        self.proj = nn.Conv2d(2 * stem_dim, dim, 4, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, C + 16 D): each token of C, then the detail of its patch."""
        detail = self.refine(self.to_quarter(F.relu(self.to_half(images))))
        tokens = self.proj(F.relu(self.to_eighth(F.relu(detail))))
        return torch.cat((tokens, F.pixel_unshuffle(detail, DETAIL_STRIDE)), dim=1).flatten(2).transpose(1, 2)
