"""The loss that training minimises: matching, pointmap regression, both confidences, and attention that matches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mast3r_ros.lab.training import matching_loss, regression
from mast3r_ros.lab.training.pairs import Batch, images_of
from mast3r_ros.lab.training.regression import PointmapLoss, Points
from mast3r_ros.network import PointmapNetwork, postprocess
from mast3r_ros.network.decoder import DecoderBlock
from mast3r_ros.network.rope import Rotation, rotate

#: A decoder block and what it was called with.
Attended = tuple[DecoderBlock, tuple[Tensor, Tensor, Rotation, Rotation]]


@dataclass(frozen=True)
class LossSettings:
    """What is minimised, and with what weights.

    Attributes:
        matching: weight of the matching loss; 0 leaves it out.
        temperature: of the matching loss, where it starts; learned where ``learn_temperature``.
        weigh_by_confidence: the published form, in which confidence weighs the matching loss; otherwise
            the descriptors learn from all matches alike, and confidence learns beside them.
        matching_alpha, negative_quantile: of the descriptors' confidence.
        points: weight of the pointmap regression; 0 leaves it out.
        normalised_share: part of the regression that compares shapes only; the rest is metric.
        points_alpha: of the points' confidence.
        stride: pixels between those the regression looks at; where it begins changes from image to image.
        attention: weight of the loss that makes cross-attention of the middle layers look at corresponding patches.
    """

    matching: float = 1.0
    temperature: float = 0.07
    learn_temperature: bool = True
    weigh_by_confidence: bool = False
    matching_alpha: float = 10.0
    negative_quantile: float | None = 0.9
    confidence: float = 0.02
    points: float = 0.5
    normalised_share: float = 0.5
    points_alpha: float = 0.2
    stride: int = 2
    attention: float = 0.3


class Criterion(nn.Module):
    """Runs a network on a batch of pairs and computes its loss; the temperature is its one parameter."""

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.settings = settings
        inverse = torch.tensor(1 / settings.temperature).log()
        self.log_sharpness = nn.Parameter(inverse, requires_grad=settings.learn_temperature)
        self.metric, self.shape = PointmapLoss(sky_value=0.0), PointmapLoss(metric=False, sky_value=0.0)

    @property
    def temperature(self) -> Tensor:
        """Of the matching loss; never below what half precision of inference could still tell apart."""
        return (-self.log_sharpness.clamp(max=4.6)).exp()

    def forward(
        self, network: PointmapNetwork, batch: Batch, amp: torch.dtype | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its parts without gradient."""
        s = self.settings
        device = network.patch_embed.proj.weight.device
        images = images_of(batch, device)
        batch = {name: values.to(device) for name, values in batch.items() if not name.startswith("image")}
        count, size = len(images) // 2, (images.shape[2], images.shape[3])
        with torch.autocast(device.type, amp or torch.bfloat16, enabled=amp is not None):
            with attention_inputs(network, s.attention > 0) as attended:
                tokens = network.encode(images)
                layers1, layers2 = network.decode(tokens[:count], tokens[count:])
            raw1, raw2 = network.head(1).raw(layers1, size), network.head(2).raw(layers2, size)
            parts: dict[str, Tensor] = {}
            if s.attention:
                parts["attention"] = attention_loss(attended, batch, size, network.config.patch_size)
        if s.matching and raw1[1] is not None and raw2[1] is not None:
            parts["matching"], parts["confidence"] = self._matching(network, raw1[1], raw2[1], batch)
        if s.points:
            parts["points"] = self._regression(network, raw1[0], raw2[0], batch)
        weights = {"matching": s.matching, "confidence": s.confidence, "points": s.points, "attention": s.attention}
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def _matching(self, network: PointmapNetwork, raw1: Tensor, raw2: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Matching loss, and that of the confidences beside it."""
        s, config = self.settings, network.config
        desc, conf = [], []
        for raw, xy in ((raw1, batch["xy1"]), (raw2, batch["xy2"])):
            picked = matching_loss.at_pixels(raw.movedim(1, -1), xy).float()
            desc.append(postprocess.descriptors(picked[..., : config.desc_dim]))
            conf.append(postprocess.confidence(picked[..., -1], config.desc_conf))
        losses, true = matching_loss.infonce(desc[0], desc[1], self.temperature), batch["true"]
        if s.weigh_by_confidence:
            weighed = matching_loss.confident_matching(
                losses, conf[0], conf[1], true, s.matching_alpha, "mean", s.negative_quantile
            )
            return weighed, weighed.detach() * 0.0
        beside = matching_loss.confident_matching(
            losses.detach(), conf[0], conf[1], true, s.matching_alpha, "mean", s.negative_quantile
        )
        return torch.where(true, losses, 0.0).sum() / true.sum().clamp(min=1), beside

    def _regression(self, network: PointmapNetwork, raw1: Tensor, raw2: Tensor, batch: Batch) -> Tensor:
        s, config = self.settings, network.config
        first = int(batch["xy1"].sum())
        found, conf = [], []
        for raw in (raw1, raw2):
            values = every(raw.movedim(1, -1), s.stride, first).float()
            found.append(postprocess.points(values[..., :3], config.depth))
            conf.append(postprocess.confidence(values[..., 3], config.conf))
        valid1, valid2, points1, points2 = (
            every(batch[name], s.stride, first) for name in ("valid1", "valid2", "points1", "points2")
        )
        valid = (valid1, valid2)
        prediction = Points(found[0], found[1], *valid)
        truth = Points(points1, points2, *valid)
        metric = torch.ones(len(raw1), dtype=torch.bool, device=raw1.device)
        total = raw1.new_zeros((), dtype=torch.float32)
        for loss, share in ((self.metric, 1 - s.normalised_share), (self.shape, s.normalised_share)):
            if share:
                errors = loss(prediction, truth, metric, (~valid[0], ~valid[1]))
                total = total + share * regression.confident_error(errors, conf[0], conf[1], s.points_alpha)
        return total


def every(maps: Tensor, stride: int, first: int) -> Tensor:
    """Every n-th row and column of maps (B, H, W, ...), beginning elsewhere in every image.

    Positions within a patch have weights of their own: those that are never looked at would never learn.
    """
    begins = [divmod((first + number) % stride**2, stride) for number in range(len(maps))]
    rows, columns = maps.shape[1] // stride, maps.shape[2] // stride
    return torch.stack([image[y::stride, x::stride][:rows, :columns] for image, (y, x) in zip(maps, begins)])


@contextmanager
def attention_inputs(network: PointmapNetwork, wanted: bool) -> Iterator[list[Attended]]:
    """Collects what the middle blocks of both decoders are given, view 1's before view 2's."""
    seen: list[Attended] = []
    hooks = []
    if wanted:
        first = max(network.config.dec_depth // 2 - 1, 0)
        for layer in range(first, min(first + 2, network.config.dec_depth)):
            for blocks in (network.dec_blocks, network.dec_blocks2):
                hooks.append(blocks[layer].register_forward_pre_hook(lambda block, given: seen.append((block, given))))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def cross_attention(block: DecoderBlock, x: Tensor, other: Tensor, rope: Rotation, other_rope: Rotation) -> Tensor:
    """Shares (B, N, M) that the tokens of this image attend to those of the other with, averaged over heads."""
    part = block.cross_attn
    x = block.norm2(x + block.attn(block.norm1(x), rope))
    q = rotate(part.projq(x).unflatten(-1, (part.num_heads, -1)).transpose(1, 2), rope)
    k = rotate(part.projk(block.norm_y(other)).unflatten(-1, (part.num_heads, -1)).transpose(1, 2), other_rope)
    return ((q @ k.transpose(2, 3)).float() * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)


def attention_loss(attended: list[Attended], batch: Batch, size: tuple[int, int], patch_size: int) -> Tensor:
    """How surprised cross-attention (averaged over heads) is by the patch that a pixel's correspondence lies in."""
    columns = size[1] // patch_size
    cells = [(xy[..., 1] // patch_size) * columns + xy[..., 0] // patch_size for xy in (batch["xy1"], batch["xy2"])]
    true, total = batch["true"], batch["true"].new_zeros((), dtype=torch.float32)
    rows = torch.arange(len(true), device=true.device)[:, None]
    for number, (block, given) in enumerate(attended):
        own, other = cells if number % 2 == 0 else reversed(cells)
        surprise = -cross_attention(block, *given)[rows, own, other].clamp(min=1e-6).log()
        total = total + torch.where(true, surprise, 0.0).sum() / true.sum().clamp(min=1)
    return total / max(len(attended), 1)
