"""The compiled kernels, imported when a GPU is first searched: nothing else of the program needs Triton."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def kernels() -> ModuleType:
    """The module :mod:`~mast3r_ros.matching.gpu.kernels`.

    Raises:
        ImportError: where Triton is not installed.
    """
    from mast3r_ros.matching.gpu import kernels as module

    return module
