"""Localize queries whose pose is known, and say how well that went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.evaluation import metrics
from mast3r_ros.evaluation.environment import machine, versions
from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.localization import PoseEstimate

Array = NDArray[np.float64]


class LocalizesFrames(Protocol):
    """A Localizer or a Tracker."""

    def localize(self, frame: Frame, /) -> PoseEstimate:
        """Find the pose of a frame."""


@dataclass(frozen=True, eq=False)
class Record:
    """What happened to one query.

    Attributes:
        name: what a person calls the frame.
        stamp_ns: its time, nanoseconds.
        accepted: whether its pose may be used.
        reason, detail: why not, by name and as a sentence.
        map_T_camera: (4, 4) the pose that was found, also where it was rejected; None without one.
        truth: (4, 4) the true ``map_T_camera``, or None where nobody knows.
        covariance: (6, 6) of the pose found, as in PoseEstimate.
        keyframes: ids that support the pose.
        evidence: figures behind the verdict, by name.
        confidence: 0 to 1.
        focal_px: focal length used, estimated where the frame had no calibration.
        timings_ms: milliseconds by stage, ``total`` among them.
        group: condition or kind of negative that the query belongs to, where a run has several; else empty.
        negative: whether the map holds nothing of what the query shows, so that every accepted pose is wrong.
    """

    name: str
    stamp_ns: int
    accepted: bool
    reason: str = ""
    detail: str = ""
    map_T_camera: Array | None = None
    truth: Array | None = None
    covariance: Array | None = None
    keyframes: tuple[str, ...] = ()
    evidence: dict[str, float] = field(default_factory=dict)
    confidence: float = 0.0
    focal_px: float = math.nan
    timings_ms: dict[str, float] = field(default_factory=dict)
    group: str = ""
    negative: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        stamp_ns: int,
        estimate: PoseEstimate,
        truth: Array | None = None,
        *,
        group: str = "",
        negative: bool = False,
    ) -> Record:
        """The record of an estimate."""
        return cls(
            name,
            stamp_ns,
            estimate.localized,
            estimate.reason.value,
            estimate.detail,
            estimate.map_T_camera,
            truth,
            estimate.covariance,
            estimate.keyframes,
            asdict(estimate.evidence),
            estimate.confidence,
            estimate.camera_focal_px,
            dict(estimate.timings_ms),
            group,
            negative,
        )

    @property
    def error(self) -> tuple[float, float]:
        """Metres and degrees from the truth, of rejected poses too; NaN where either is unknown."""
        if self.map_T_camera is None or self.truth is None:
            return math.nan, math.nan
        return se3.pose_error(self.map_T_camera, self.truth)

    @property
    def wrong(self) -> bool:
        """Accepted, but off by more than 25 cm or 10 degrees; or accepted where there is nothing to be found."""
        return self.accepted and (self.negative or bool(metrics.is_wrong(*self.error)))

    @property
    def normalised_error(self) -> float:
        """See :func:`metrics.normalised_error`; NaN where something for it is unknown."""
        if self.map_T_camera is None or self.truth is None or self.covariance is None:
            return math.nan
        return metrics.normalised_error(self.map_T_camera, self.truth, self.covariance)


@dataclass
class Evaluation:
    """The records of a run and how it was set up.

    Attributes:
        name: what was evaluated, for people.
        records: one for each query, in their order.
        settings: everything that was chosen, by name; must be representable in JSON.
    """

    name: str
    records: list[Record] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> list[Record]:
        """Records whose pose was accepted."""
        return [record for record in self.records if record.accepted]

    @property
    def positives(self) -> list[Record]:
        """Records of queries that the map can answer; in most runs all of them."""
        return [record for record in self.records if not record.negative]

    @property
    def negatives(self) -> list[Record]:
        """Records of queries that show nothing of the map."""
        return [record for record in self.records if record.negative]

    def summary(self) -> dict[str, Any]:
        """The figures that `evaluate --json` prints; NaN where nothing was measured.

        ``recall`` is over all queries, medians are over accepted poses, ``wrong_accepted`` counts accepted poses
        off by more than 25 cm or 10 degrees, ``coverage`` says how often the truth lies inside the ellipsoid of
        that confidence. Negatives are counted on their own, and only in runs that have any.
        """
        positives, negatives = self.positives, self.negatives
        accepted = [record for record in positives if record.accepted]
        metres, degrees = _columns([record.error for record in accepted])
        normalised = [record.normalised_error for record in accepted]
        known = sum(record.truth is not None for record in positives)
        counted = {"negatives": len(negatives), "negatives_accepted": sum(r.accepted for r in negatives)}
        return {
            "evaluation": self.name,
            "queries": len(positives),
            "answered": len(accepted),
            "wrong_accepted": int(metrics.is_wrong(metres, degrees).sum()),
            "median_translation_error_m": metrics.median(metres),
            "median_rotation_error_deg": metrics.median(degrees),
            "recall": metrics.recall(metres, degrees, known),
            **(counted if negatives else {}),
            "rejected": dict(Counter(record.reason for record in positives if not record.accepted).most_common()),
            "translation_error_m": metrics.percentiles(metres, (50, 90, 95, 100)),
            "rotation_error_deg": metrics.percentiles(degrees, (50, 90, 95, 100)),
            "median_translation_error_interval_m": metrics.bootstrap_interval(metres),
            "median_rotation_error_interval_deg": metrics.bootstrap_interval(degrees),
            "coverage": {f"{share:g}": metrics.coverage(normalised, share) for share in (0.5, 0.9, 0.95, 0.99)},
            "latency_ms": metrics.percentiles([r.timings_ms.get("total", math.nan) for r in self.records]),
            "stages_ms": stage_medians(self.records),
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
        }


#: Called with the record, the query and the full estimate (matches included) after each query.
Watch = Callable[[Record, Frame, PoseEstimate], None]


def evaluate_localization(
    localizer: LocalizesFrames,
    queries: Iterable[PosedFrame],
    *,
    name: str = "localization",
    settings: dict[str, Any] | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Localize every query and compare with its pose.

    Args:
        localizer: each query on its own with a Localizer, in their order with a Tracker.
        queries: frames with their true pose. Their depth is seen by verification: leave it out to test without.
        watch: is shown every result, for progress and pictures.
    """
    evaluation = Evaluation(name, settings=dict(settings or {}))
    for number, query in enumerate(queries):
        estimate = localizer.localize(query.frame)
        frame = query.frame
        record = Record.of(frame.name or f"{number:06d}", frame.stamp_ns, estimate, query.map_T_camera)
        evaluation.records.append(record)
        if watch is not None:
            watch(record, frame, estimate)
    return evaluation


def stage_medians(records: Iterable[Record]) -> dict[str, float]:
    """Median milliseconds by stage over the records that went through it."""
    by_stage: dict[str, list[float]] = {}
    for stage, milliseconds in _stages(records):
        by_stage.setdefault(stage, []).append(milliseconds)
    return {stage: metrics.median(values) for stage, values in by_stage.items()}


def _stages(records: Iterable[Record]) -> Iterator[tuple[str, float]]:
    for record in records:
        yield from record.timings_ms.items()


def _columns(errors: list[tuple[float, float]]) -> tuple[Array, Array]:
    table = np.array(errors, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
