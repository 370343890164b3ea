"""Where the time of one attempt goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Milliseconds by stage.

    Attributes:
        ms: of the stages so far.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def finished(self) -> dict[str, float]:
        """All stages and their total since the clock was made."""
        return {**self.ms, "total": 1e3 * (time.perf_counter() - self._start)}
