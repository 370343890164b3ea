"""Milliseconds by stage of the last call, on whatever device the work runs."""

from __future__ import annotations

import threading
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
        self._threads = 1
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Stopwatch], tuple[torch.device]]:
        """In another process it starts from nothing."""
        return Stopwatch, (self._device,)

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
            spent = 1e3 * (time.perf_counter() - start) / self._threads
            with self._lock:
                self.ms[name] = self.ms.get(name, 0.0) + spent

    @contextmanager
    def shared(self, threads: int) -> Iterator[None]:
        """Inside, so many threads are at work at the same time: each counts for its share."""
        self._threads = threads
        try:
            yield
        finally:
            self._threads = 1

    def _wait(self) -> None:
        if self.exact and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
