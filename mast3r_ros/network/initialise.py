"""Fresh weights, as training starts from them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.model import PointmapNetwork


def random_network(config: NetworkConfig, seed: int = 0) -> PointmapNetwork:
    """A network with random weights: Xavier-uniform encoder and decoders, PyTorch's own start for the heads.

    The second decoder starts as a copy of the first. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PointmapNetwork(config)
        for part in (network.enc_blocks, network.decoder_embed, network.dec_blocks):
            part.apply(_initialise_linear)
        weight = network.patch_embed.proj.weight
        nn.init.xavier_uniform_(weight.view(len(weight), -1))
        nn.init.normal_(network.mask_token, std=0.02)
    network.dec_blocks2 = copy.deepcopy(network.dec_blocks)
    return network


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
