"""The dense prediction transformer head (Ranftl et al., ICCV 2021): four token layers fused from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mast3r_ros.network.stem import ResidualConv

#: Channels of the four reassembled maps, fine to coarse, and of the fusion path.
LAYER_DIMS = (96, 192, 384, 768)
FEATURE_DIM = 256
LAST_DIM = 128


class FusionBlock(nn.Module):
    """Adds a finer map to the coarse path and doubles its resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(FEATURE_DIM, FEATURE_DIM, 1)
        self.resConfUnit1 = ResidualConv(FEATURE_DIM)
        self.resConfUnit2 = ResidualConv(FEATURE_DIM)

    def forward(self, path: Tensor, finer: Tensor | None = None) -> Tensor:
        """(B, 256, h, w) -> (B, 256, 2h, 2w)."""
        if finer is not None:
            path = path + self.resConfUnit1(finer)
        out: Tensor = self.out_conv(upsample(self.resConfUnit2(path)))
        return out


class Scratch(nn.Module):
    """What DPT trains from scratch: projections to the fusion width, and the fusion blocks."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(dim, FEATURE_DIM, 3, padding=1, bias=False) for dim in LAYER_DIMS]
        for number, convolution in enumerate(convolutions, start=1):
            self.add_module(f"layer{number}_rn", convolution)
        self.layer_rn = nn.ModuleList(convolutions)  # the same four again: official files name them twice
        self.refinenet1 = FusionBlock()
        self.refinenet2 = FusionBlock()
        self.refinenet3 = FusionBlock()
        self.refinenet4 = FusionBlock()

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Four maps, fine (4h x 4w) to coarse (h/2 x w/2) -> (B, 256, 8h, 8w)."""
        layer1, layer2, layer3, layer4 = (conv(layer) for conv, layer in zip(self.layer_rn, layers))
        rows, columns = layer3.shape[-2:]
        # Odd grids: the coarsest map was rounded up, so its double has a row or column too many.
        path = self.refinenet4(layer4)[..., :rows, :columns]
        path = self.refinenet3(path, layer3)
        path = self.refinenet2(path, layer2)
        out: Tensor = self.refinenet1(path, layer1)
        return out


class Dpt(nn.Module):
    """Token layers -> dense map of raw outputs at image resolution."""

    def __init__(self, token_dims: Sequence[int], out_channels: int) -> None:
        super().__init__()
        d1, d2, d3, d4 = LAYER_DIMS
        self.scratch = Scratch()
        self.head = nn.Sequential(
            nn.Conv2d(FEATURE_DIM, FEATURE_DIM // 2, 3, padding=1),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(FEATURE_DIM // 2, LAST_DIM, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(LAST_DIM, out_channels, 1),
        )
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(token_dims[0], d1, 1), nn.ConvTranspose2d(d1, d1, 4, stride=4)),
                nn.Sequential(nn.Conv2d(token_dims[1], d2, 1), nn.ConvTranspose2d(d2, d2, 2, stride=2)),
                nn.Sequential(nn.Conv2d(token_dims[2], d3, 1)),
                nn.Sequential(nn.Conv2d(token_dims[3], d4, 1), nn.Conv2d(d4, d4, 3, stride=2, padding=1)),
            ]
        )

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Four token tensors (B, h * w, C_k) of a grid (h, w) -> (B, out_channels, 16h, 16w)."""
        maps = [tokens.transpose(1, 2).unflatten(-1, grid) for tokens in layers]
        maps = [reassemble(x) for reassemble, x in zip(self.act_postprocess, maps)]
        out: Tensor = self.head(self.scratch(maps))
        return out


def upsample(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2 h, 2 w), bilinear between corner-aligned samples."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
