"""Training in several processes (torchrun): each makes its part of every batch, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join() -> tuple[int, int]:
    """(rank, number of processes) as torchrun started them; (0, 1) without it."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def leave() -> None:
    """Take leave of the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(modules: Iterable[nn.Module], processes: int) -> None:
    """Replace gradients by their means over all processes, in one message."""
    if processes == 1:
        return
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def average(values: Tensor, processes: int) -> Tensor:
    """Mean of a tensor over all processes."""
    if processes > 1:
        dist.all_reduce(values)
        values = values / processes
    return values
