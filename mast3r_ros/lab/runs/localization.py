"""Localize queries whose pose is known, and say how well that went."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, tee
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.lab.runs.processor_time import with_processor_time
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.summary import figures_of
from mast3r_ros.lab.runs.viewpoint import Viewpoints
from mast3r_ros.localization import Localizer, PoseEstimate
from mast3r_ros.localization.portable import PortableLocalizer, Query
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.workers import Here, Workers

Array = NDArray[np.float64]


class LocalizesFrames(Protocol):
    """A Localizer or a Tracker."""

    @property
    def map(self) -> KeyframeMap:
        """Where frames are looked for."""

    def localize(self, frame: Frame, /) -> PoseEstimate:
        """Find the pose of a frame."""


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
        """The figures that `evaluate --json` prints: those of :func:`figures_of`, and how the run was set up."""
        return {
            "evaluation": self.name,
            **figures_of(self.records),
            **self.figures,
            "settings": self.settings,
            "fingerprint": self.fingerprint,
            "machine": machine(),
            "versions": versions(),
        }


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
    by: Workers = Here(),
) -> Evaluation:
    """Localize every query and compare with its pose.

    Args:
        localizer: each query on its own with a Localizer, in their order with a Tracker.
        queries: frames with their true pose, or without where nobody knows it. Their depth is seen by verification:
            leave it out to test without.
        watch: is shown every result, for progress and pictures.
        negatives: frames that show nothing of the map, asked after the queries.
        unit_m: metres of the map for each metre that limits are stated in.
        by: who localizes; a Tracker's queries follow each other, and are localized here.

    Raises:
        UserError: if the workers die again and again.
    """
    viewpoints = Viewpoints(localizer.map)
    evaluation = Evaluation(name, settings=dict(settings or {}), map_fingerprint=viewpoints.fingerprint)
    every = chain(((query, False) for query in queries), ((frame, True) for frame in negatives))
    asked, ahead = tee(every)
    frames = (query.frame if isinstance(query, PosedFrame) else query for query, _ in ahead)
    estimates = _estimates(localizer, frames, by)
    for number, ((query, negative), estimate) in enumerate(zip(asked, estimates, strict=True)):
        frame, truth = (query.frame, query.map_T_camera) if isinstance(query, PosedFrame) else (query, None)
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


def _estimates(localizer: LocalizesFrames, frames: Iterable[Frame], by: Workers) -> Iterator[PoseEstimate]:
    """An estimate of each frame, with the processor's time that it took."""
    if isinstance(localizer, Localizer):
        return by.run(partial(_alone, PortableLocalizer(localizer)), frames)
    return (with_processor_time(partial(localizer.localize, frame)) for frame in frames)


def _alone(localizer: PortableLocalizer, frame: Frame) -> PoseEstimate:
    return with_processor_time(partial(localizer, Query(frame)))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
