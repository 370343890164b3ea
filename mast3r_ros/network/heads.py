"""Heads: the decoder's tokens to dense maps. Points and descriptors are separate, so a task runs what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mast3r_ros.network import postprocess
from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.dpt import Dpt
from mast3r_ros.network.layers import Mlp
from mast3r_ros.network.stem import DETAIL_STRIDE, ResidualConv

#: x, y, z and their confidence.
POINT_CHANNELS = 4


class Pointmap(NamedTuple):
    """Points (B, H, W, 3) in camera 1's frame and their confidence (B, H, W), float32."""

    pts3d: Tensor
    conf: Tensor


class Descriptors(NamedTuple):
    """Unit descriptors (B, H, W, D) and their confidence (B, H, W), float32."""

    desc: Tensor
    desc_conf: Tensor


class Head(nn.Module, ABC):
    """What all heads share: from raw maps to values.

    ``layers`` is always the decoder's token list of one view (``PointmapNetwork.decode``) and ``size`` the
    view's (height, width) in pixels. Tokens are cast to the type of the weights that read them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def point_layers(self) -> tuple[int, ...]:
        """Which of the layers points are made from, ascending."""
        return (0, self.config.dec_depth)

    @property
    def layers_read(self) -> set[int]:
        """Which of the layers anything is made from."""
        return set(self.point_layers)

    @abstractmethod
    def raw_points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, 4, H, W) before activation: x, y, z, confidence."""

    def raw(self, layers: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """All maps before activation: points (B, 4, H, W), and descriptors (B, D[+1], H, W) or None."""
        return self.raw_points(layers, size), None

    def points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Pointmap:
        """The view's pointmap (B, H, W, 3), and its confidence."""
        raw = self.raw_points(layers, size).float().movedim(1, -1)
        conf = postprocess.confidence(raw[..., 3], self.config.conf)
        return Pointmap(postprocess.points(raw[..., :3], self.config.depth), conf)

    @staticmethod
    def _typed(part: nn.Module, *tokens: Tensor) -> list[Tensor]:
        """Tokens in the type of the weights that will read them; parts of a head may differ."""
        dtype = next(part.parameters()).dtype
        return [t.to(dtype) for t in tokens]

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.config.patch_size, size[1] // self.config.patch_size


class LinearHead(Head):
    """DUSt3R's linear head: every token of the last layer becomes its patch of pixels."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.proj = nn.Linear(config.dec_embed_dim, POINT_CHANNELS * config.patch_size**2)

    @property
    def point_layers(self) -> tuple[int, ...]:
        """The last one."""
        return (self.config.dec_depth,)

    def raw_points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, 4, H, W) before activation."""
        (last,) = self._typed(self.proj, layers[-1])
        return unpatch(self.proj(last), self._grid(size), self.config.patch_size)


class DptHead(Head):
    """DPT on the encoder's output and three layers of the decoder."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        depth = config.dec_depth
        self.hooks = (0, depth * 2 // 4, depth * 3 // 4, depth)
        dims = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
        self.dpt = Dpt(dims, POINT_CHANNELS)

    @property
    def point_layers(self) -> tuple[int, ...]:
        """The encoder's output and three layers of the decoder."""
        return self.hooks

    def raw_points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, 4, H, W) before activation."""
        out: Tensor = self.dpt(self._typed(self.dpt, *(layers[hook] for hook in self.hooks)), self._grid(size))
        return out


class DescriptorHead(Head):
    """A head that gives descriptors as well."""

    @property
    def descriptor_layers(self) -> tuple[int, ...]:
        """Which of the layers descriptors are made from, ascending; with those of points that lend their confidence."""
        own = {0, self.config.dec_depth}
        return tuple(sorted(own if self.config.two_confs else own | set(self.point_layers)))

    @property
    def layers_read(self) -> set[int]:
        """Which of the layers anything is made from."""
        return {*self.point_layers, *self.descriptor_layers}

    @abstractmethod
    def raw_descriptors(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, D, H, W) before activation; with ``two_confs`` one channel more, their confidence."""

    @abstractmethod
    def descriptor_part(self) -> nn.Module:
        """What may run in the type of encoder and decoders, as descriptors are robust to it."""

    def raw(self, layers: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Points (B, 4, H, W) and descriptors (B, D[+1], H, W) before activation."""
        return self.raw_points(layers, size), self.raw_descriptors(layers, size)

    def descriptors(self, layers: Sequence[Tensor], size: tuple[int, int], unit: bool = True) -> Descriptors:
        """The view's descriptors (B, H, W, D); without a confidence of their own the points' is computed for them.

        Args:
            unit: False leaves them as they come, of any length and type, for who looks at few of them.
        """
        raw = self.raw_descriptors(layers, size).movedim(1, -1)
        desc = raw[..., : self.config.desc_dim]
        if unit:
            desc = postprocess.descriptors(desc.float())
        if not self.config.two_confs:
            return Descriptors(desc, self.points(layers, size).conf)
        return Descriptors(desc, postprocess.confidence(raw[..., -1].float(), self.config.desc_conf))


class MlpDescriptorHead(DescriptorHead):
    """MASt3R's local features: an MLP on every token's representation by the encoder and by the last layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        channels = config.desc_dim + config.two_confs
        dim = config.enc_embed_dim + config.dec_embed_dim
        self.head_local_features = Mlp(dim, channels * config.patch_size**2)

    def raw_descriptors(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, D, H, W) or (B, D + 1, H, W) before activation."""
        tokens = torch.cat(self._typed(self.head_local_features, layers[0], layers[-1]), dim=-1)
        return unpatch(self.head_local_features(tokens), self._grid(size), self.config.patch_size)

    def descriptor_part(self) -> nn.Module:
        """The MLP."""
        return self.head_local_features


class CatMlpDptHead(DptHead, MlpDescriptorHead):
    """MASt3R's published head: DPT for points, an MLP for descriptors."""


class HalfResolutionPoints(nn.Module):
    """Tokens to a feature map at half resolution, then two convolutions at full resolution."""

    CHANNELS = 25

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.half_patch = patch_size // 2
        self.mlp = Mlp(dim, self.CHANNELS * self.half_patch**2)
        self.head = nn.Sequential(
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(self.CHANNELS, 4 * self.CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * self.CHANNELS, POINT_CHANNELS, 1),
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, dim) -> (B, 4, H, W)."""
        out: Tensor = self.head(unpatch(self.mlp(tokens), grid, self.half_patch))
        return out


class CatConvHead(MlpDescriptorHead):
    """MASt3R's lighter head: MLP and convolutions for points, an MLP for descriptors."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.head_pts3d = HalfResolutionPoints(config.enc_embed_dim + config.dec_embed_dim, config.patch_size)

    def raw_points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, 4, H, W) before activation."""
        tokens = torch.cat(self._typed(self.head_pts3d, layers[0], layers[-1]), dim=-1)
        out: Tensor = self.head_pts3d(tokens, self._grid(size))
        return out


class CatSkipHead(DescriptorHead):
    """The head of small networks: tokens spread over a quarter of the resolution, joined by the stem's detail there.

    Exact positions come from the detail, which does not pass the transformer, and context from the tokens. Points and
    descriptors share all but the last layer.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.width = 3 * config.stem_dim // 2
        self.cells = config.patch_size // DETAIL_STRIDE
        tokens = config.enc_embed_dim + config.dec_embed_dim
        self.spread = nn.Linear(tokens, self.width * self.cells**2)
        self.join = nn.Conv2d(self.width + config.stem_dim, self.width, 3, padding=1)
        self.refine = ResidualConv(self.width)
        self.to_points = nn.Conv2d(self.width, POINT_CHANNELS * DETAIL_STRIDE**2, 1)
        self.to_descriptors = nn.Conv2d(self.width, (config.desc_dim + 1) * DETAIL_STRIDE**2, 1)

    def raw(self, layers: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Points (B, 4, H, W) and descriptors (B, D[+1], H, W) before activation, from one pass."""
        shared = self._shared(layers, size)
        return (
            F.pixel_shuffle(self.to_points(shared), DETAIL_STRIDE),
            F.pixel_shuffle(self.to_descriptors(shared), DETAIL_STRIDE),
        )

    def raw_points(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, 4, H, W) before activation."""
        return F.pixel_shuffle(self.to_points(self._shared(layers, size)), DETAIL_STRIDE)

    def raw_descriptors(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, D + 1, H, W) before activation."""
        return F.pixel_shuffle(self.to_descriptors(self._shared(layers, size)), DETAIL_STRIDE)

    def descriptor_part(self) -> nn.Module:
        """All of it."""
        return self

    def _shared(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(B, width, H / 4, W / 4)."""
        first, last = self._typed(self, layers[0], layers[-1])
        encoded, detail = first.tensor_split((self.config.enc_embed_dim,), dim=-1)
        grid = self._grid(size)
        coarse = unpatch(self.spread(torch.cat((encoded, last), dim=-1)), grid, self.cells)
        return F.relu(
            self.refine(self.join(torch.cat((F.relu(coarse), F.relu(unpatch(detail, grid, self.cells))), dim=1)))
        )


def unpatch(tokens: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """(B, N, channels * p * p) on a grid (h, w) -> (B, channels, h * p, w * p)."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(-1, grid), patch_size)


def build_head(config: NetworkConfig) -> Head:
    """The head that ``config.head_type`` names."""
    heads: dict[str, type[Head]] = {
        "linear": LinearHead,
        "dpt": DptHead,
        "catmlp+dpt": CatMlpDptHead,
        "catconv": CatConvHead,
        "catskip": CatSkipHead,
    }
    return heads[config.head_type](config)
