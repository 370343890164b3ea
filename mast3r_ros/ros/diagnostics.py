"""What /diagnostics says about a node that processes frames."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mast3r_ros.localization.estimate import Track

#: Latencies and rates are those of this many recent frames.
WINDOW = 200
#: A rate is counted over this many seconds.
RATE_SPAN_S = 10.0
#: A bound of the error beyond this share of its alert limit is a warning, beyond the limit an error: as Autoware's
#: localization_error_monitor has it (warn at 1.2 m of 1.5 m).
WARN_SHARE = 0.8


class Statistics:
    """Counts what happens to frames. Thread-safe.

    Counter names: ``received``, ``skipped`` (by max_rate), ``replaced`` (by a newer frame), ``stale``,
    ``refused <kind>``, ``accepted``, ``rejected <reason>``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._attempts: deque[float] = deque(maxlen=WINDOW)
        self._accepted_at: float | None = None
        self._recent: deque[bool] = deque(maxlen=50)
        self._bounds: dict[str, float] = {}
        self._refusal = ""
        #: Whether the track is believed, and what is missing, after the latest attempt.
        self.track: tuple[Track, str] = (Track.NONE, "")

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += number

    def attempt(
        self, accepted: bool, reason: str, stages_ms: Mapping[str, float], bounds: Mapping[str, float] | None = None
    ) -> None:
        """A frame was localized or rejected, taking so many milliseconds by stage.

        Args:
            bounds: of its pose's error, as :attr:`PoseEstimate.bounds`.
        """
        now = time.monotonic()
        with self._lock:
            self._attempts.append(now)
            self._recent.append(accepted)
            self._counts["accepted" if accepted else f"rejected {reason}"] += 1
            if accepted:
                self._accepted_at, self._bounds = now, dict(bounds or {})
            self._refusal = "" if accepted else reason
            for stage, ms in stages_ms.items():
                self._latencies[stage].append(ms)

    def counts(self) -> dict[str, int]:
        """All counters."""
        with self._lock:
            return dict(self._counts)

    @property
    def acceptance(self) -> float | None:
        """Share of the recent attempts that were accepted; None before the first."""
        with self._lock:
            return sum(self._recent) / len(self._recent) if self._recent else None

    @property
    def rate_hz(self) -> float:
        """Attempts per second over the last ten seconds."""
        now = time.monotonic()
        with self._lock:
            recent = [at for at in self._attempts if now - at <= RATE_SPAN_S]
        return len(recent) / max(min(RATE_SPAN_S, now - recent[0]), 1.0) if recent else 0.0

    @property
    def pose_age_s(self) -> float | None:
        """Seconds since the last accepted pose; None before the first."""
        with self._lock:
            return None if self._accepted_at is None else time.monotonic() - self._accepted_at

    @property
    def bounds(self) -> dict[str, float]:
        """Bounds of the last accepted pose's error and their limits; empty before the first."""
        with self._lock:
            return dict(self._bounds)

    @property
    def refusal(self) -> str:
        """Why the last attempt was refused; empty where it was not."""
        with self._lock:
            return self._refusal

    def health(self, state: str) -> tuple[bytes, str]:
        """Level of a node in that lifecycle state, and one sentence."""
        if state != "active":
            return DiagnosticStatus.WARN, state
        acceptance = self.acceptance
        if acceptance is None:
            return DiagnosticStatus.WARN, "active, no image was looked at yet"
        if not self.rate_hz:
            return DiagnosticStatus.ERROR, "active, but no usable images come"
        level = DiagnosticStatus.OK if acceptance >= 0.5 else DiagnosticStatus.WARN
        message = f"active, {100 * acceptance:.0f} % of the last frames localized"
        track, detail = self.track
        if track is Track.LOST:
            return DiagnosticStatus.ERROR, f"{message}; the track is lost, map -> odom is withdrawn: {detail}"
        if track is Track.TENTATIVE:
            return DiagnosticStatus.WARN, f"{message}; {detail}"
        return level, message

    def values(self) -> dict[str, str]:
        """Everything as texts, for a DiagnosticStatus."""
        counts, age = self.counts(), self.pose_age_s
        rejected = sum(n for name, n in counts.items() if name.startswith("rejected "))
        values = {
            "rate (Hz)": f"{self.rate_hz:.1f}",
            "age of the last pose (s)": "never" if age is None else f"{age:.1f}",
            "accepted": str(counts.pop("accepted", 0)),
            "rejected": str(rejected),
            "track": self.track[0].value,
        }
        values.update({name: str(counts[name]) for name in sorted(counts)})
        with self._lock:
            for stage, ms in self._latencies.items():
                p50, p95 = np.percentile(ms, [50, 95])
                values[f"latency {stage} p50/p95 (ms)"] = f"{p50:.1f} / {p95:.1f}"
        return values


def error_status(name: str, statistics: Statistics, forget_s: float) -> DiagnosticStatus:
    """How large the error of the last answer may be beside what can be borne.

    OK while both bounds are within WARN_SHARE of their alert limits; WARN up to the limits, and while attempts since
    were refused; ERROR beyond them, and where there was no answer for longer than a belief lasts.
    """
    age_s, bounds, refusal = statistics.pose_age_s, statistics.bounds, statistics.refusal
    values = {key: f"{value:.6g}" for key, value in bounds.items()}
    values |= {"age of the last pose (s)": "never" if age_s is None else f"{age_s:.1f}", "refused since": refusal}
    if age_s is None or age_s > forget_s:
        message = "no pose yet" if age_s is None else f"no pose for {age_s:.0f} s"
        return status(name, "", DiagnosticStatus.ERROR, f"{message}: nothing bounds the error", values)
    limits = (("protection_m", "alert_limit_m"), ("protection_deg", "alert_limit_deg"))
    share = max(bounds.get(level, math.inf) / bounds.get(limit, math.nan) for level, limit in limits)
    level = DiagnosticStatus.OK if share <= WARN_SHARE and not refusal else DiagnosticStatus.WARN
    if not share <= 1:
        level = DiagnosticStatus.ERROR
    message = f"the error of the last pose may be {100 * share:.0f} % of the alert limit"
    return status(name, "", level, message + (f"; refused since: {refusal}" if refusal else ""), values)


def status(name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    """A diagnostic_msgs/DiagnosticStatus from plain values."""
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, hardware_id=hardware_id, level=level, message=message, values=pairs)
