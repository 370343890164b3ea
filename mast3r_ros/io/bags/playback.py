"""Recording time as a function of wall time."""

from __future__ import annotations

import threading
import time


class PlaybackClock:
    """Runs through a recording's time at a rate, and can be paused. All methods may be called from any thread.

    Every instant is computed from one anchor, not added up from sleeps, so playing never drifts.

    Args:
        start_ns: recording time at which to start, nanoseconds.
        rate: seconds of recording per second.
        paused: start standing still.
    """

    def __init__(self, start_ns: int, rate: float = 1.0, paused: bool = False) -> None:
        self._anchor_ns, self._anchor_wall = start_ns, time.monotonic()
        self._rate, self._paused, self._stopped = rate, paused, False
        self._change = threading.Condition()

    def now_ns(self) -> int:
        """Recording time now."""
        with self._change:
            return self._now_ns()

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._paused

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def pause(self) -> None:
        """Pause."""
        self._restart(paused=True)

    def resume(self) -> None:
        """Resume."""
        self._restart(paused=False)

    def set_rate(self, rate: float) -> None:
        """Go on at another rate."""
        self._restart(rate=rate)

    def jump(self, to_ns: int) -> None:
        """Go on from another instant."""
        self._restart(at_ns=to_ns)

    def stop(self) -> None:
        """End every wait, now and later."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def wait_until(self, instant_ns: int, at_most_s: float) -> bool:
        """Sleep until recording time reaches an instant.

        Returns:
            False if it has not after ``at_most_s`` seconds, or because the clock was changed or stopped meanwhile.
        """
        with self._change:
            left = self._seconds_until(instant_ns)
            if left > 0 and not self._stopped:
                self._change.wait(min(left, at_most_s))
            return not self._stopped and self._seconds_until(instant_ns) <= 0

    def _seconds_until(self, instant_ns: int) -> float:
        """Wall time until an instant; nothing is ever due while time stands still."""
        if self._paused:
            return float("inf")
        return max((instant_ns - self._now_ns()) / 1e9 / self._rate, 0.0)

    def _now_ns(self) -> int:
        if self._paused:
            return self._anchor_ns
        return self._anchor_ns + round((time.monotonic() - self._anchor_wall) * self._rate * 1e9)

    def _restart(self, at_ns: int | None = None, rate: float | None = None, paused: bool | None = None) -> None:
        with self._change:
            self._anchor_ns = self._now_ns() if at_ns is None else at_ns
            self._anchor_wall = time.monotonic()
            self._rate = self._rate if rate is None else rate
            self._paused = self._paused if paused is None else paused
            self._change.notify_all()
