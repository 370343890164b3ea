"""Passive waiting of worker threads, for the programs of this package, never for a process that imports it.

A robot's cores have other work, and threads that spin while they wait for each other make everything several times
slower beside other work: PyTorch's OpenMP threads are asked to sleep instead, and numpy's OpenBLAS, which cannot,
gets one thread for its small products. docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import os

#: Read by OpenMP and OpenBLAS when PyTorch and numpy are first imported, and inherited by child processes.
DEFAULTS = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}


def use_passive_waiting() -> None:
    """Set what the user has not set. For entry points, before anything imports numpy or PyTorch."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
