"""Threads that each match pairs of their own, for networks whose single operations are too short to be shared.

Threads that share every operation of a small network wake and wait for each other a thousand times a frame: two of
them are one and a half times as fast as one where nothing else runs, and no faster beside a robot's other processes.
With pairs of its own, each waits for the others once a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss
import torch

Task = TypeVar("Task")
Result = TypeVar("Result")

#: More are not needed for the keyframes of one query.
MOST = 8


class PairThreads:
    """As many threads as PyTorch would share an operation among, each of which computes alone."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self.size = min(threads, MOST)
        self._pool = ThreadPoolExecutor(self.size, "threads", _alone)
        met = threading.Barrier(self.size)
        for arrived in [self._pool.submit(met.wait) for _ in range(self.size)]:
            arrived.result()
        # A thread's setting also holds for threads that begin later, which are not ours: set it back.
        torch.set_num_threads(threads)

    def __reduce__(self) -> tuple[type[PairThreads], tuple[()]]:
        """A matcher that is sent to another process gets threads of that process."""
        return PairThreads, ()

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Results in the order of tasks; raises what the first failing one raises."""
        return list(self._pool.map(work, tasks))


def _alone() -> None:
    torch.get_num_threads()  # PyTorch gives every thread the common number when it first asks, not later
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
