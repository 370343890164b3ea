"""Networks of any size that know the truth without training, and the room they know it in: for benchmarks.

Random weights are enough to measure speed, but their poses mean nothing, so nothing could be said of what a faster
way costs in accuracy. Here every wall is painted with its own coordinates, and a network's weights are random but for
one thread through them: pixels pass the encoder untouched, and the descriptor head turns each pixel's colour into a
descriptor of its place. All layers still compute all they ever do, in whatever precision they are run, and
descriptors, matches and poses come out of the network, with the errors that the precision brings.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import NetworkConfig, PointmapNetwork
from mast3r_ros.network.encoder import EncoderBlock
from mast3r_ros.network.heads import MlpDescriptorHead

Array = NDArray[np.float64]

#: Corners of the room in the map frame, metres.
LOW, HIGH = np.array([-2.0, -1.5, -2.0]), np.array([2.0, 1.5, 2.5])
CAMERA = Camera.pinhole(640, 480, 525, 525, 319.5, 239.5)
#: Noise of the camera in grey levels; one is 16 mm of wall. Matches are off by 3 to 6 pixels.
NOISE = 0.5

#: Tokens: 3 x 256 pixels, sums that make their mean zero, constants that fix their length, and random layers' space.
PIXELS, SUMS, CONSTANTS = 768, 96, 64
WORKSPACE = slice(PIXELS + SUMS + CONSTANTS, None)
#: Of the constants; so large that nothing else moves the norm of a token.
AMPLITUDE = 300.0
#: A descriptor's numbers for each coordinate, hidden units that each pixel takes for it, and how sharp they bend.
BINS, SHARPNESS = 8, 16.0
#: Standard deviation of what the random layers add to the descriptors.
CROSSTALK = 0.02
#: Logarithm of every descriptor's confidence.
LOG_CONFIDENCE = 2.0


def see(map_T_camera: Array, camera: Camera = CAMERA, seed: int = 0) -> PosedFrame:
    """What a camera sees in the painted room, with exact depth and noisy colours."""
    rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
    direction = rays @ map_T_camera[:3, :3].T
    origin = map_T_camera[:3, 3]
    with np.errstate(divide="ignore"):
        exits = np.where(direction > 0, (HIGH - origin) / direction, (LOW - origin) / direction)
    depth = exits.min(axis=-1)
    colours = (origin + direction * depth[..., None] - LOW) / (HIGH - LOW) * 235 + 10
    colours += np.random.default_rng(seed).normal(0, NOISE, colours.shape)
    image = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)
    return PosedFrame(Frame(image, camera, depth=depth.astype(np.float32)), map_T_camera)


def views(keyframes: int, queries: int, seed: int = 0) -> tuple[list[PosedFrame], list[PosedFrame]]:
    """Keyframes and queries that look into one corner of the room from different places."""
    rng = np.random.default_rng(seed)

    def poses(count: int) -> list[Array]:
        spread = np.array([0.6, 0.3, 0.4, 0.12, 0.2, 0.1])
        return [se3.exp(np.array([0, 0, -1.0, 0, 0, 0]) + spread * rng.uniform(-1, 1, 6)) for _ in range(count)]

    frames = [see(pose, seed=number) for number, pose in enumerate(poses(keyframes + queries))]
    return frames[:keyframes], frames[keyframes:]


def can_know(config: NetworkConfig) -> bool:
    """Whether a network is wide enough to carry pixels through."""
    units = 4 * (config.enc_embed_dim + config.dec_embed_dim)
    return (
        config.patch_size == 16
        and config.desc_dim == 3 * BINS
        and config.two_confs
        and config.enc_embed_dim >= PIXELS + SUMS + CONSTANTS + 32
        and units >= PIXELS * BINS
    )


@torch.no_grad()
def knowing_network(config: NetworkConfig, seed: int = 0) -> PointmapNetwork:
    """A random network that describes the painted room truthfully.

    Raises:
        ValueError: for an architecture that is too narrow.
    """
    if not can_know(config):
        raise ValueError("a network needs 16-pixel patches, 24 descriptor channels and ViT-L's width to know the room")
    network = random_network(config, seed)
    _carry_pixels(network)
    for head in (network.downstream_head1, network.downstream_head2):
        assert isinstance(head, MlpDescriptorHead)
        _describe_colours(head, config)
    return network.eval().requires_grad_(False)


def _carry_pixels(network: PointmapNetwork) -> None:
    """Pixels into the first 768 numbers of a token, where no layer writes and every norm leaves them as they are."""
    weight, bias = _parameters(network.patch_embed.proj)
    rows = torch.eye(PIXELS)
    weight[:PIXELS] = rows.view(PIXELS, 3, 16, 16)
    weight[PIXELS : PIXELS + SUMS] = -rows.view(SUMS, -1, PIXELS).sum(dim=1).view(SUMS, 3, 16, 16)
    constants = slice(PIXELS + SUMS, PIXELS + SUMS + CONSTANTS)
    weight[constants] = 0
    bias.zero_()
    bias[constants] = AMPLITUDE * torch.tensor([1.0, -1.0]).repeat(CONSTANTS // 2)
    _sum_to_zero(weight[WORKSPACE], bias[WORKSPACE])
    for block in network.enc_blocks:
        assert isinstance(block, EncoderBlock)
        for layer in (block.attn.proj, block.mlp.fc2):
            weight, bias = _parameters(layer)
            weight[: WORKSPACE.start], bias[: WORKSPACE.start] = 0, 0
            _sum_to_zero(weight[WORKSPACE], bias[WORKSPACE])
        _undo_norm(block.norm1.weight)
        _undo_norm(block.norm2.weight)
    _undo_norm(network.enc_norm.weight)


def _parameters(layer: nn.Linear | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that has both."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def _sum_to_zero(weight: Tensor, bias: Tensor) -> None:
    """Outputs that sum to zero, so that they do not move the mean that a norm subtracts."""
    weight -= weight.mean(dim=0, keepdim=True)
    bias -= bias.mean()


def _undo_norm(weight: Tensor) -> None:
    """Multiply by what the norm divides by, and drop the constants that made this the same for all tokens."""
    weight.fill_(AMPLITUDE * math.sqrt(CONSTANTS / len(weight)))
    weight[PIXELS + SUMS : PIXELS + SUMS + CONSTANTS] = 0


def _describe_colours(head: MlpDescriptorHead, config: NetworkConfig) -> None:
    """Every colour channel of every pixel as eight overlapping triangles: a soft one-hot code of a coordinate.

    Triangles are differences of hinges, which GELU units are when they are driven hard. Those left of the middle
    open to the left, those right of it to the right, so that no hinge is far from its corner.
    """
    weight1, bias1 = _parameters(head.head_local_features.fc1)
    weight2, bias2 = _parameters(head.head_local_features.fc2)
    taken = PIXELS * BINS
    weight2.mul_(CROSSTALK / _typical(weight2[:, taken:]))
    bias2.zero_()
    weight1[:taken], bias1[:taken], weight2[:, :taken] = 0, 0, 0
    spacing = 2 / (BINS - 1)
    middle = BINS // 2
    pixels = torch.arange(PIXELS)
    channel, place = pixels // 256, pixels % 256
    for bin in range(BINS):
        left = bin < middle
        corner = bin + 1 if left else bin - 1
        side = -1.0 if left else 1.0
        unit = pixels * BINS + bin
        weight1[unit, pixels] = side * SHARPNESS
        bias1[unit] = -side * SHARPNESS * (-1 + corner * spacing)
        for triangle, share in ((corner - 1, 1.0), (corner, -2.0), (corner + 1, 1.0)):
            if 0 <= triangle < BINS and (triangle < middle) == left:
                weight2[(channel * BINS + triangle) * 256 + place, unit] = share / (spacing * SHARPNESS)
    bias2[config.desc_dim * 256 :] = LOG_CONFIDENCE


def _typical(weight: Tensor) -> float:
    """Standard deviation of a row's output for unit inputs that are half switched off."""
    return float(weight.square().sum(dim=1).mean().div(4).sqrt()) if weight.shape[1] else 1.0
