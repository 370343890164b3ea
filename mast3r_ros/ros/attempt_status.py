"""``~/status``: how each attempt ended, rejected ones too, as a message and back.

A DiagnosticArray with one status is understood by every ROS tool and needs no message type of our own. Its header
has the image's stamp, so that statuses, poses and images can be joined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from mast3r_ros.io.documents import EVIDENCE, LATENCY, status_values
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.ros import conversions, diagnostics


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt, as read from ``~/status``.

    Attributes:
        stamp_ns: stamp of the image.
        accepted: whether a pose was published.
        reason, detail: why not, by name and as a sentence.
        keyframes: ids of keyframes that support the pose.
        confidence: 0 to 1.
        evidence: figures behind the verdict.
        timings_ms: milliseconds by stage; ``image to pose`` counts from the arrival of the image.
        track, track_detail: whether the track is believed, and what is missing, see :class:`Track`.
    """

    stamp_ns: int
    accepted: bool
    reason: str = ""
    detail: str = ""
    keyframes: tuple[str, ...] = ()
    confidence: float = 0.0
    evidence: dict[str, float] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    track: str = ""
    track_detail: str = ""


def to_message(name: str, estimate: PoseEstimate, timings_ms: Mapping[str, float], frame_id: str) -> DiagnosticArray:
    """The message of an attempt of the node ``name``."""
    values = status_values(
        reason=estimate.reason.value,
        keyframes=estimate.keyframes,
        confidence=estimate.confidence,
        evidence=asdict(estimate.evidence),
        timings_ms=timings_ms,
        bounds=estimate.bounds,
    )
    values |= {
        "depth check": estimate.evidence.depth_check.value,
        "track": estimate.track.value,
        "track detail": estimate.track_detail,
    }
    level = DiagnosticStatus.OK if estimate.localized else DiagnosticStatus.WARN
    message = "localized" if estimate.localized else estimate.detail
    status = diagnostics.status(f"{name}: attempt", "", level, message, values)
    return DiagnosticArray(header=conversions.header(frame_id, estimate.stamp_ns), status=[status])


def from_message(message: DiagnosticArray) -> AttemptStatus:
    """Read what :func:`to_message` wrote."""
    status = message.status[0]
    values = {pair.key: pair.value for pair in status.values}
    accepted = status.level == DiagnosticStatus.OK
    return AttemptStatus(
        stamp_ns=conversions.stamp_ns(message.header.stamp),
        accepted=accepted,
        reason=values.get("reason", ""),
        detail="" if accepted else status.message,
        keyframes=tuple(values.get("keyframes", "").split()),
        confidence=_number(values.get("confidence", "0")),
        evidence=_figures(values, EVIDENCE),
        timings_ms=_figures(values, LATENCY),
        track=values.get("track", ""),
        track_detail=values.get("track detail", ""),
    )


def _figures(values: Mapping[str, str], prefix: str) -> dict[str, float]:
    return {key[len(prefix) :]: _number(value) for key, value in values.items() if key.startswith(prefix)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
