"""Localize queries whose pose is known, and say how well that went."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.summary import summarise
from mast3r_ros.lab.runs.viewpoint import Viewpoint, Viewpoints
from mast3r_ros.localization import PoseEstimate
from mast3r_ros.mapping.keyframe_map import KeyframeMap

Array = NDArray[np.float64]


class LocalizesFrames(Protocol):
    """A Localizer or a Tracker."""

    @property
    def map(self) -> KeyframeMap:
        """Where frames are looked for."""

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
        viewpoint_m, viewpoint_deg, view_overlap: of the true pose beside the nearest keyframe, see :class:`Viewpoint`.
        unit_m: metres of the map for each metre that limits are stated in: not 1 where a data set was made larger.
        bounds: protection levels and alert limits by name, see :attr:`PoseEstimate.bounds`.
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
    viewpoint_m: float = math.nan
    viewpoint_deg: float = math.nan
    view_overlap: float = math.nan
    unit_m: float = 1.0
    bounds: dict[str, float] = field(default_factory=dict)

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
        viewpoint: Viewpoint = Viewpoint(),
        unit_m: float = 1.0,
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
            *viewpoint,
            unit_m=unit_m,
            bounds=estimate.bounds,
        )

    @property
    def error(self) -> tuple[float, float]:
        """Metres and degrees from the truth, of rejected poses too; NaN where either is unknown, and of negatives."""
        if self.map_T_camera is None or self.truth is None or self.negative:
            return math.nan, math.nan
        return se3.pose_error(self.map_T_camera, self.truth)

    @property
    def stated_error(self) -> tuple[float, float]:
        """The error in the metres that limits are stated in, and degrees."""
        metres, degrees = self.error
        return metres / self.unit_m, degrees

    @property
    def wrong(self) -> bool:
        """Accepted, but off by more than 25 cm or 10 degrees; or accepted where there is nothing to be found."""
        return self.accepted and (self.negative or bool(metrics.is_wrong(*self.stated_error)))

    @property
    def hazardous(self) -> bool:
        """Answered with an error beyond the alert limit, so that somebody relies on it who must not."""
        metres, degrees = self.error
        beyond = metres > self.bounds.get("alert_limit_m", math.nan) or degrees > self.bounds.get(
            "alert_limit_deg", math.nan
        )
        return self.accepted and (self.negative or beyond)

    @property
    def judged(self) -> bool:
        """Whether it is known if an answer is right."""
        return self.negative or self.truth is not None

    @property
    def normalised_error(self) -> float:
        """See :func:`metrics.normalised_error`; NaN where something for it is unknown."""
        if self.map_T_camera is None or self.truth is None or self.covariance is None or self.negative:
            return math.nan
        return metrics.normalised_error(self.map_T_camera, self.truth, self.covariance)


@dataclass
class Evaluation:
    """The records of a run and how it was set up.

    Attributes:
        name: what was evaluated, for people.
        records: one for each query, in their order.
        settings: everything that was chosen, by name; must be representable in JSON.
        figures: more figures for the summary, of this kind of run alone.
        map_fingerprint: tells maps apart, see :class:`Viewpoints`; empty where a run has no map or many.
    """

    name: str
    records: list[Record] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    map_fingerprint: str = ""

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

    @property
    def fingerprint(self) -> dict[str, str]:
        """What tells whether two runs asked the same: of the map, of the queries, and of their truth."""
        names = [(record.name, record.stamp_ns) for record in self.records]
        truth = [None if r.truth is None else np.round(r.truth * 1e6).astype(int).tolist() for r in self.records]
        return {"map": self.map_fingerprint, "queries": _digest(names), "truth": _digest(truth)}

    def summary(self) -> dict[str, Any]:
        """The figures of the run, see :func:`summarise`."""
        return summarise(self)


#: Called with the record, the query and the full estimate (matches included) after each query.
Watch = Callable[[Record, Frame, PoseEstimate], None]


def evaluate_localization(
    localizer: LocalizesFrames,
    queries: Iterable[PosedFrame | Frame],
    *,
    name: str = "localization",
    settings: dict[str, Any] | None = None,
    watch: Watch | None = None,
    negatives: Iterable[Frame] = (),
    unit_m: float = 1.0,
) -> Evaluation:
    """Localize every query and compare with its pose.

    Args:
        localizer: each query on its own with a Localizer, in their order with a Tracker.
        queries: frames with their true pose, or without where nobody knows it. Their depth is seen by verification:
            leave it out to test without.
        watch: is shown every result, for progress and pictures.
        negatives: frames that show nothing of the map, asked after the queries.
        unit_m: metres of the map for each metre that limits are stated in.
    """
    viewpoints = Viewpoints(localizer.map)
    evaluation = Evaluation(name, settings=dict(settings or {}), map_fingerprint=viewpoints.fingerprint)
    asked = chain(((query, False) for query in queries), ((frame, True) for frame in negatives))
    for number, (query, negative) in enumerate(asked):
        frame, truth = (query.frame, query.map_T_camera) if isinstance(query, PosedFrame) else (query, None)
        estimate = localizer.localize(frame)
        record = Record.of(
            frame.name or f"{number:06d}",
            frame.stamp_ns,
            estimate,
            truth,
            group="negatives" if negative else "",
            negative=negative,
            viewpoint=viewpoints.nearest(truth),
            unit_m=unit_m,
        )
        evaluation.records.append(record)
        if watch is not None:
            watch(record, frame, estimate)
    return evaluation


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
