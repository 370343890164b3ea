"""Milliseconds by stage of the last call, on whatever device the work runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the time spent in named stages.

    Attributes:
        ms: milliseconds by stage since :meth:`reset`.
        exact: wait for the device around each stage, so that the time of a GPU's work is counted where it belongs;
            off, because waiting costs a little. Without it a stage is charged with what it had to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.ms: dict[str, float] = {}
        self.exact = False
        self._device = device

    def reset(self) -> None:
        """Start from nothing."""
        self.ms = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.ms[name] = self.ms.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.exact and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
