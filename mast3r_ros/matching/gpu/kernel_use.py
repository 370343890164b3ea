"""Where the kernels run, and what happens where they do not: the plain search, and one sentence in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

#: Compute capability from which on Triton uses a card's matrix units.
OLDEST = (8, 0)
#: Why kernels are not tried any more in this process; empty while they are.
_given_up: list[str] = []


@cache
def kernels() -> ModuleType:
    """The module :mod:`~mast3r_ros.matching.gpu.kernels`, imported when a GPU is first searched.

    Raises:
        ImportError: where Triton is not installed.
    """
    from mast3r_ros.matching.gpu import kernels as module

    return module


def with_kernels(device: torch.device, fused: Callable[[], Found], plain: Callable[[], Found]) -> Found:
    """What ``fused`` finds; where the kernels do not run, from then on what ``plain`` finds.

    Kernels are compiled when they are first used, which needs Triton, a C compiler and a working driver. Whatever of
    these is missing is said once. What fails either way is raised, and so is a lack of memory.
    """
    if _given_up:
        return plain()
    try:
        _check_age(device)
        return fused()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler, a driver and an interpreter can fail in any way
        found = plain()
        _given_up.append(_reason(error))
        logger.warning(
            "the fused GPU kernels of the matching do not run here (%s): the slower search of PyTorch is used",
            _given_up[0],
        )
        return found


def _check_age(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST:
        name, oldest = torch.cuda.get_device_name(device), ".".join(map(str, OLDEST))
        raise RuntimeError(f"{name} is older than compute capability {oldest}")


def _reason(error: Exception) -> str:
    """The first line of an error, which may be many screens of compiler output."""
    if isinstance(error, ModuleNotFoundError) and error.name == "triton":
        return "Triton is not installed: pip install triton"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
