"""The network in separable stages: encode an image once, decode pairs, run only the heads a task needs.

tokens = network.encode(images)                          # once per image
layers1, layers2 = network.decode(tokens[i], tokens[j])  # once per pair
pointmap = network.points(1, layers1, tokens[i])         # view 1 or 2, in camera 1's frame
descriptors = network.descriptors(2, layers2, tokens[j])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.decoder import DecoderBlock, decode_in_lock_step
from mast3r_ros.network.encoder import EncoderBlock, PatchEmbed
from mast3r_ros.network.heads import DescriptorHead, Descriptors, Head, Pointmap, build_head
from mast3r_ros.network.layers import layer_norm
from mast3r_ros.network.rope import Rotation, grid_positions, grid_rotation, rotation
from mast3r_ros.network.stem import ConvStem


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of encoded images.

    Attributes:
        features: (B, N, C) tokens of the upright images, row-major; with a convolutional stem C counts its detail.
        positions: (B, N, 2) int64 (y, x) on the token grid.
        size: (height, width) in pixels of the image arrays.
        portrait: (B,) bool for batches of mixed orientation: those images are stored transposed, in landscape.
    """

    features: Tensor
    positions: Tensor
    size: tuple[int, int]
    portrait: Tensor | None = None

    @classmethod
    def upright(cls, features: Tensor, size: tuple[int, int], patch_size: int) -> Tokens:
        """Tokens (B, N, C) of images (height, width) stored as they stand, e.g. from a cache."""
        grid = grid_positions(size[0] // patch_size, size[1] // patch_size, features.device)
        return cls(features, grid.expand(features.shape[0], -1, -1), size)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> Tokens:
        """Images by index, repetitions allowed: pairs are made by indexing twice."""
        portrait = None if self.portrait is None else self.portrait[rows]
        return Tokens(self.features[rows], self.positions[rows], self.size, portrait)


class ViewPrediction(NamedTuple):
    """All maps of one view, float32; points are in camera 1's frame for both views. DUSt3R has no descriptors."""

    pts3d: Tensor
    conf: Tensor
    desc: Tensor | None = None
    desc_conf: Tensor | None = None


class PointmapNetwork(nn.Module):
    """DUSt3R or MASt3R, by its config. State-dict keys are those of the official checkpoints."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        enc, dec = config.enc_embed_dim, config.dec_embed_dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dec))  # of CroCo's pre-training; unused, but in every file
        self.patch_embed = ConvStem(enc, config.stem_dim) if config.stem_dim else PatchEmbed(enc, config.patch_size)
        self.enc_blocks = nn.ModuleList(EncoderBlock(enc, config.enc_num_heads) for _ in range(config.enc_depth))
        self.enc_norm = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.dec_blocks = nn.ModuleList(DecoderBlock(dec, config.dec_num_heads) for _ in range(config.dec_depth))
        self.dec_norm = layer_norm(dec)
        self.dec_blocks2 = nn.ModuleList(DecoderBlock(dec, config.dec_num_heads) for _ in range(config.dec_depth))
        self.downstream_head1 = build_head(config)
        self.downstream_head2 = build_head(config)

    def encode(self, images: Tensor, true_shape: Tensor | None = None) -> Tokens:
        """Encode a batch of images.

        Args:
            images: (B, 3, H, W) in [-1, 1], sides multiples of the patch size.
            true_shape: (B, 2) (height, width) of the upright images, where some are stored transposed because
                the batch is kept in landscape (W >= H), as in training.

        Raises:
            ValueError: for sides that are no multiples of the patch size, or shapes that do not go with the array.
        """
        size = (int(images.shape[2]), int(images.shape[3]))  # numbers for who traces this as well
        if size[0] % self.config.patch_size or size[1] % self.config.patch_size or 0 in size:
            raise ValueError(f"image size {size[1]}x{size[0]} must be a multiple of {self.config.patch_size}")
        images = images.to(self.patch_embed.proj.weight.dtype)
        portrait = None if true_shape is None else _portrait(true_shape.to(images.device), size)
        embedded, positions = self._embed(images, size, portrait)
        x, detail = embedded.tensor_split((self.config.enc_embed_dim,), dim=-1)
        x = x.contiguous()  # it comes transposed, and would stay so through all residual paths
        head_dim = self.config.enc_embed_dim // self.config.enc_num_heads
        rope = self._rotation(Tokens(x, positions, size, portrait), head_dim)
        for block in self.enc_blocks:
            x = block(x, rope)
        x = self.enc_norm(x)
        return Tokens(torch.cat((x, detail.to(x.dtype)), dim=-1) if detail.shape[-1] else x, positions, size, portrait)

    def decode(self, tokens1: Tokens, tokens2: Tokens) -> tuple[list[Tensor], list[Tensor]]:
        """Decode a batch of pairs.

        Args:
            tokens1, tokens2: B images each; pair b is image b of both. Image 1 defines the coordinate frame.

        Returns:
            for each view the ``dec_depth + 1`` tensors that heads read: the encoder's output (B, N, enc), then
            every layer's (B, N, dec), the last of them normalised.
        """
        head_dim = self.config.dec_embed_dim // self.config.dec_num_heads
        dtype = self.decoder_embed.weight.dtype
        encoded = slice(None, self.config.enc_embed_dim)  # without the detail of a convolutional stem
        x1, x2 = (self.decoder_embed(tokens.features[..., encoded].to(dtype)) for tokens in (tokens1, tokens2))
        rope1, rope2 = self._rotation(tokens1, head_dim), self._rotation(tokens2, head_dim)
        layers1, layers2 = decode_in_lock_step(self.dec_blocks, self.dec_blocks2, x1, x2, rope1, rope2)
        layers1[-1], layers2[-1] = self.dec_norm(layers1[-1]), self.dec_norm(layers2[-1])
        return [tokens1.features, *layers1], [tokens2.features, *layers2]

    def points(self, view: int, layers: Sequence[Tensor], tokens: Tokens) -> Pointmap:
        """Pointmap (B, H, W, 3) of view 1 or 2, both in camera 1's frame, laid out as the image arrays are."""
        return _by_orientation(self.head(view).points, layers, tokens)

    def descriptors(self, view: int, layers: Sequence[Tensor], tokens: Tokens, unit: bool = True) -> Descriptors:
        """Descriptors (B, H, W, D) of view 1 or 2.

        Args:
            unit: False leaves them as the head gives them, see :meth:`DescriptorHead.descriptors`.

        Raises:
            ValueError: if the network has none (DUSt3R).
        """
        head = self.head(view)
        if not isinstance(head, DescriptorHead):
            raise ValueError(f"a network with a '{self.config.head_type}' head has no descriptors")
        return _by_orientation(partial(head.descriptors, unit=unit), layers, tokens)

    def head(self, view: int) -> Head:
        """The head of view 1 or 2."""
        heads: dict[int, Head] = {1: self.downstream_head1, 2: self.downstream_head2}
        return heads[view]

    def forward(
        self,
        images1: Tensor,
        images2: Tensor,
        true_shape1: Tensor | None = None,
        true_shape2: Tensor | None = None,
    ) -> tuple[ViewPrediction, ViewPrediction]:
        """All predictions for a batch of pairs, (B, 3, H, W) each; see :meth:`encode` for the arguments.

        Heads run in the type of their weights, outside of autocast, as in the reference.
        """
        tokens1, tokens2 = self._encode_both(images1, images2, true_shape1, true_shape2)
        layers1, layers2 = self.decode(tokens1, tokens2)
        with torch.autocast(images1.device.type, enabled=False):
            return self._predict(1, layers1, tokens1), self._predict(2, layers2, tokens2)

    def _encode_both(
        self, images1: Tensor, images2: Tensor, true_shape1: Tensor | None, true_shape2: Tensor | None
    ) -> tuple[Tokens, Tokens]:
        """Both images in one batch where their sizes agree."""
        if images1.shape != images2.shape or (true_shape1 is None) != (true_shape2 is None):
            return self.encode(images1, true_shape1), self.encode(images2, true_shape2)
        shapes = None if true_shape1 is None or true_shape2 is None else torch.cat((true_shape1, true_shape2))
        both = self.encode(torch.cat((images1, images2)), shapes)
        return both[: len(images1)], both[len(images1) :]

    def _predict(self, view: int, layers: Sequence[Tensor], tokens: Tokens) -> ViewPrediction:
        pointmap = self.points(view, layers, tokens)
        if not self.config.has_descriptors:
            return ViewPrediction(*pointmap)
        return ViewPrediction(*pointmap, *self.descriptors(view, layers, tokens))

    def _embed(self, images: Tensor, size: tuple[int, int], portrait: Tensor | None) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, N, C) of the upright images and their positions (B, N, 2)."""
        rows, columns = (side // self.config.patch_size for side in size)
        positions = grid_positions(rows, columns, images.device).expand(images.shape[0], -1, -1)
        if portrait is None:
            return self.patch_embed(images), positions
        upright = images.transpose(2, 3)
        across = grid_positions(columns, rows, images.device).expand(images.shape[0], -1, -1)
        choice = portrait[:, None, None]
        return (
            torch.where(choice, self.patch_embed(upright), self.patch_embed(images)),
            torch.where(choice, across, positions),
        )

    def _rotation(self, tokens: Tokens, head_dim: int) -> Rotation:
        """One rotation for the whole batch where all images share their grid."""
        if tokens.portrait is not None:
            return rotation(tokens.positions, head_dim, self.config.rope_base)
        rows, columns = (side // self.config.patch_size for side in tokens.size)
        return grid_rotation(rows, columns, head_dim, self.config.rope_base, tokens.features.device)


Maps = TypeVar("Maps", Pointmap, Descriptors)


def _by_orientation(
    predict: Callable[[Sequence[Tensor], tuple[int, int]], Maps], layers: Sequence[Tensor], tokens: Tokens
) -> Maps:
    """Run a head on the upright images of a batch and store its maps as the images are stored."""
    if tokens.portrait is None:
        return predict(layers, tokens.size)
    height, width = tokens.size
    order, parts = [], []
    for portrait, size in ((False, (height, width)), (True, (width, height))):
        rows = torch.nonzero(tokens.portrait == portrait)[:, 0]
        if len(rows):
            maps = predict([layer[rows] for layer in layers], size)
            parts.append([m.transpose(1, 2) for m in maps] if portrait else list(maps))
            order.append(rows)
    back = torch.cat(order).argsort()
    merged = [torch.cat(same)[back] for same in zip(*parts)]
    return type(maps)(*merged)


def _portrait(true_shape: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,) which images stand upright in a batch stored in landscape."""
    portrait = true_shape[:, 1] < true_shape[:, 0]
    stored = torch.where(portrait[:, None], true_shape.flip(1), true_shape)
    if size[1] < size[0] or not (stored == torch.tensor(size, device=stored.device)).all():
        raise ValueError(f"true shapes {true_shape.tolist()} do not go with a landscape batch of {size[1]}x{size[0]}")
    return portrait
