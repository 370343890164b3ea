"""Memory that this process has, and has had, in RAM or on a GPU."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resident_mib() -> float:
    """Memory that is in RAM now, files that are mapped included; the most so far where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return peak_mib()


def peak_mib(device: torch.device | None = None) -> float:
    """Most memory that was in RAM so far, files that are mapped included; on a GPU, what PyTorch took of it."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        # Not getrusage, where there is a choice: on Linux it counts what the parent had before it started this program.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return float(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def forget_peak(device: torch.device | None = None) -> None:
    """Start :func:`peak_mib` anew, where the system can; elsewhere it stays the peak of the process so far."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not Linux, or not allowed
        return
