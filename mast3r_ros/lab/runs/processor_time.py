"""What an answer costs on a machine that does other things as well: the processor's time, not the wall clock's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

#: Its name beside the stages of ``timings_ms``.
PROCESSOR = "processor"


class Timed(Protocol):
    """A dataclass with milliseconds by stage."""

    @property
    def timings_ms(self) -> dict[str, float]:
        """Milliseconds."""


_Timed = TypeVar("_Timed", bound=Timed)


def with_processor_time(answer: Callable[[], _Timed]) -> _Timed:
    """An answer with the time that all threads of this process computed for it, among its ``timings_ms``.

    With one thread and nothing to wait for this is what the wall clock shows on an idle machine. What a GPU computes
    is not in it.
    """
    began = time.process_time()
    found = answer()
    spent = 1e3 * (time.process_time() - began)
    return replace(found, timings_ms={**found.timings_ms, PROCESSOR: spent})  # type: ignore[type-var]
