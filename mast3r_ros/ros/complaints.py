"""Warnings that are logged once, not with every image."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

#: A trouble that goes on is said again after this long, seconds.
REPEAT_S = 60.0
#: A trouble that comes and goes is said at most this often, seconds.
FLAPPING_S = 10.0


@dataclass
class _Trouble:
    said_at: float
    going_on: bool = True
    unsaid: int = 0


class Complaints:
    """Troubles by kind: each is logged when it begins, then once a minute while it lasts. Thread-safe."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._troubles: dict[str, _Trouble] = {}
        self._lock = threading.Lock()
        self.last = ""

    def say(self, kind: str, message: str) -> None:
        """Complain, unless the same kind of trouble was complained about just before."""
        now = time.monotonic()
        with self._lock:
            self.last = message
            known = self._troubles.get(kind)
            if known is not None and now - known.said_at < (REPEAT_S if known.going_on else FLAPPING_S):
                known.going_on = True
                known.unsaid += 1
                return
            unsaid = known.unsaid if known is not None else 0
            self._troubles[kind] = _Trouble(now)
        again = f" ({unsaid} more times since this was last said)" if unsaid else ""
        self._logger.warning(f"{message}{again}")

    def cured(self, *kinds: str) -> None:
        """These troubles are over: the next one of the kind is logged at once."""
        with self._lock:
            for kind in kinds:
                if kind in self._troubles:
                    self._troubles[kind].going_on = False

    @property
    def going_on(self) -> list[str]:
        """Kinds of trouble that have begun and not ended."""
        with self._lock:
            return sorted(kind for kind, trouble in self._troubles.items() if trouble.going_on)
