"""Tasks for workers that die in the middle; light to import, because every worker does."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


def die_once(folder: Path, number: int) -> int:
    """The same, but the first to do the seventh is killed."""
    if number == 7 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return double(number)


def die_always(number: int) -> int:
    """Nobody survives it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number
