"""Two decoders in lock step: each layer of one image reads what the previous layer knew of the other."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mast3r_ros.network.layers import CrossAttention, Mlp, SelfAttention, layer_norm
from mast3r_ros.network.rope import Rotation
from mast3r_ros.network.streams import both


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other image, MLP."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.norm2 = layer_norm(dim)
        self.norm3 = layer_norm(dim)
        self.mlp = Mlp(dim)
        self.norm_y = layer_norm(dim)

    def forward(self, x: Tensor, other: Tensor, rope: Rotation, other_rope: Rotation) -> Tensor:
        """(B, N, C) of this image, (B, M, C) of the other -> (B, N, C)."""
        x = x + self.attn(self.norm1(x), rope)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(other), rope, other_rope)
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


def decode_in_lock_step(
    blocks1: nn.ModuleList, blocks2: nn.ModuleList, x1: Tensor, x2: Tensor, rope1: Rotation, rope2: Rotation
) -> tuple[list[Tensor], list[Tensor]]:
    """Run both stacks; layer l of either reads the outputs of layer l - 1 of both.

    Args:
        x1, x2: (B, N1, C) and (B, N2, C) embedded tokens of image 1 and 2.

    Returns:
        the outputs of every layer, for image 1 and for image 2.
    """
    outputs1, outputs2 = [], []
    for block1, block2 in zip(blocks1, blocks2):
        x1, x2 = both(partial(block1, x1, x2, rope1, rope2), partial(block2, x2, x1, rope2, rope1), x1.device)
        outputs1.append(x1)
        outputs2.append(x2)
    return outputs1, outputs2
