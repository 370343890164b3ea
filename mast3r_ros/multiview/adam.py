"""Adam (Kingma and Ba, ICLR 2015): importing ``torch.optim`` takes longer than most of our optimisations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BETA, EPSILON = 0.9, 1e-8


class Adam:
    """Moves parameters against their gradients, both moments with :data:`BETA`, as both alignments are published."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters, self._steps = list(parameters), 0
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]
        self._clear()

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with the gradients that were found, which are cleared."""
        self._steps += 1
        unbiased = 1 - BETA**self._steps
        for parameter, first, second in zip(self._parameters, self._first, self._second, strict=True):
            if parameter.grad is None:
                continue
            first.lerp_(parameter.grad, 1 - BETA)
            second.mul_(BETA).addcmul_(parameter.grad, parameter.grad, value=1 - BETA)
            parameter.sub_(rate / unbiased * first / ((second / unbiased).sqrt() + EPSILON))
        self._clear()

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
