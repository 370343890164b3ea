"""Ending a node's process in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """While in the block, SIGINT and SIGTERM call ``stop``, as often as they come, and do nothing else.

    For processes that initialise rclpy without its own handlers (``SignalHandlerOptions.NO``): those shut the
    context down under the threads that use it, and a second Ctrl-C would interrupt the cleaning up. ``stop`` runs
    on the main thread between two instructions of it: it may only set a flag or release a wait.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
