"""Two computations at the same time on a GPU that neither of them fills."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def both(first: Callable[[], Tensor], second: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Results of two computations that need nothing of each other; beside each other on a GPU, without gradients.

    What they read must live on until the current stream waits for the next time, as the layers of a decoder do.
    """
    if device.type != "cuda" or torch.is_grad_enabled():
        return first(), second()
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        beside = second()
    result = first()
    current.wait_stream(side)
    return result, beside


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
