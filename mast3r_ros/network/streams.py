"""Two independent computations on two streams of a GPU, each too small to occupy it alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def both(first: Callable[[], Tensor], second: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Results of two independent computations, of any shape; on a GPU at the same time, unless gradients are recorded.

    What they read must stay allocated until the current stream waits for the side stream again.
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
