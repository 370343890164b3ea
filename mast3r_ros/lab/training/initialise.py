"""Fresh weights, as training starts from them."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.heads import CatSkipHead
from mast3r_ros.network.model import PointmapNetwork
from mast3r_ros.network.stem import DETAIL_STRIDE, ConvStem, ResidualConv


def random_network(config: NetworkConfig, seed: int = 0) -> PointmapNetwork:
    """A network with random weights: Xavier-uniform encoder and decoders, PyTorch's own start for the heads.

    The second decoder starts as a copy of the first. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PointmapNetwork(config)
        for part in (network.enc_blocks, network.decoder_embed, network.dec_blocks):
            part.apply(_initialise_linear)
        if isinstance(network.patch_embed, ConvStem):
            _initialise_stem(network.patch_embed)
            for head in (network.downstream_head1, network.downstream_head2):
                _initialise_skip_head(cast(CatSkipHead, head))
        else:
            weight = network.patch_embed.proj.weight
            nn.init.xavier_uniform_(weight.view(len(weight), -1))
        nn.init.normal_(network.mask_token, std=0.02)
    network.dec_blocks2 = copy.deepcopy(network.dec_blocks)
    return network


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _initialise_stem(stem: ConvStem) -> None:
    """Activations of about unit size at every stage, for images in [-1, 1]."""
    _initialise_convolutions(stem)
    with torch.no_grad():
        stem.to_half.weight *= 2.0  # images have a deviation of about a half


def _initialise_convolutions(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in part.modules():
            if isinstance(module, ResidualConv):  # starts close to the identity
                module.conv2.weight *= 0.1


def _initialise_skip_head(head: CatSkipHead) -> None:
    """All positions that come from one value by pixel shuffle start equal.

    Otherwise neighbouring pixels start with unrelated descriptors, and learning first has to undo that.
    """
    _initialise_convolutions(head)
    for layer, copies in ((head.spread, head.cells**2), (head.to_points, DETAIL_STRIDE**2)):
        _repeat(layer.weight, copies)
    _repeat(head.to_descriptors.weight, DETAIL_STRIDE**2)
    with torch.no_grad():
        head.to_points.weight *= 0.1
        head.to_descriptors.weight[-(DETAIL_STRIDE**2) :] *= 0.1  # the confidence


def _repeat(weight: torch.Tensor, copies: int) -> None:
    """The rows that pixel shuffle spreads over one cell become the same."""
    with torch.no_grad():
        weight.copy_(weight[::copies].repeat_interleave(copies, dim=0))
