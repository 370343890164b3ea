"""Relative poses of image pairs against the truth: the protocol of ScanNet-1500 and MegaDepth-1500.

Sarlin et al., "SuperGlue", CVPR 2020, section 5.2: a pair's error is the larger of the rotation's and the translation
direction's angle, AUC is the area under the share of pairs below an error. Directions are compared **unsigned**,
min(a, 180 - a), as there (and as PoseDiffusion's RRA, RTA and mAA do), whatever the route of the pose.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.io.documents import pose_dict
from mast3r_ros.lab import metrics
from mast3r_ros.lab.datasets.image_pairs import ImagePair, PairList
from mast3r_ros.lab.runs.bins import binned
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.lab.runs.pair_poses import EssentialFinder, MetricFinder, PairPose
from mast3r_ros.lab.runs.processor_time import PROCESSOR, with_processor_time

Array = NDArray[np.float64]

#: Degrees of rotation or direction up to which an answer of unknown scale is not called wrong.
WRONG_DEG = 20.0
#: Where the breakdown by angle between the two views is cut, degrees.
ANGLE_EDGES_DEG = (0.0, 10.0, 20.0, 40.0, 60.0, 180.0)
#: And the one by the share of surface that both see.
OVERLAP_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: A true baseline shorter than this has no direction to be compared with; metres, or the list's unit.
NO_BASELINE = 1e-6


@dataclass(frozen=True, eq=False)
class PairRecord:
    """What happened to one pair.

    Attributes:
        name1, name2: the images.
        truth: (4, 4) ``camera1_T_camera2`` of the upright images.
        camera1_T_camera2: (4, 4) what was found, also where it was rejected; None without one.
        accepted: whether it may be used; only accepted poses count.
        metric: whether the length of its translation means anything.
        matches, inliers: how many, and how many the pose explains.
        reason, detail: why there is no accepted pose.
        overlap: share of the surface that both see; NaN where unknown.
        timings_ms: milliseconds by stage.
    """

    name1: str
    name2: str
    truth: Array
    camera1_T_camera2: Array | None
    accepted: bool
    metric: bool
    matches: int
    inliers: int
    reason: str = ""
    detail: str = ""
    overlap: float = math.nan
    timings_ms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: ImagePair, truth: Array, found: PairPose) -> PairRecord:
        """The record of a pose."""
        return cls(
            pair.first.name,
            pair.second.name,
            truth,
            found.camera1_T_camera2,
            found.accepted,
            found.metric,
            len(found.matches),
            int(found.inlier.sum()),
            found.reason,
            found.detail,
            pair.overlap,
            found.timings_ms,
        )

    @property
    def rotation_error_deg(self) -> float:
        """Angle between the rotations, degrees; NaN without a pose."""
        if self.camera1_T_camera2 is None:
            return math.nan
        return float(metrics.rotation_angle(self.camera1_T_camera2[:3, :3], self.truth[:3, :3]))

    @property
    def direction_error_deg(self) -> float:
        """Unsigned angle between the translations, degrees; NaN without a pose, 0 where the truth has no baseline."""
        if self.camera1_T_camera2 is None:
            return math.nan
        if np.linalg.norm(self.truth[:3, 3]) < NO_BASELINE:
            return 0.0
        return float(metrics.direction_angle(self.camera1_T_camera2[:3, 3], self.truth[:3, 3], signed=False))

    @property
    def translation_error_m(self) -> float:
        """Distance of the camera centres; NaN without a pose or where its scale is unknown."""
        if self.camera1_T_camera2 is None or not self.metric:
            return math.nan
        return se3.pose_error(self.camera1_T_camera2, self.truth)[0]

    @property
    def error_deg(self) -> float:
        """The larger of rotation and direction error; infinite without an accepted pose."""
        if not self.accepted:
            return math.inf
        return float(metrics.pose_errors(self.rotation_error_deg, self.direction_error_deg))

    @property
    def wrong(self) -> bool:
        """Accepted but off: by the usual limits where it is metric, else by more than 20 degrees."""
        if not self.accepted:
            return False
        if self.metric:
            return bool(metrics.is_wrong(self.translation_error_m, self.rotation_error_deg))
        return self.error_deg > WRONG_DEG

    @property
    def view_angle_deg(self) -> float:
        """True angle between the two cameras' orientations."""
        return math.degrees(se3.angle(self.truth))

    def as_dict(self) -> dict[str, Any]:
        """For a line of records.jsonl."""
        return {
            "image1": self.name1,
            "image2": self.name2,
            "status": "localized" if self.accepted else "rejected",
            "reason": self.reason,
            "detail": self.detail,
            "camera1_T_camera2": pose_dict(self.camera1_T_camera2),
            "true_camera1_T_camera2": pose_dict(self.truth),
            "metric": self.metric,
            "rotation_error_deg": self.rotation_error_deg,
            "direction_error_deg": self.direction_error_deg,
            "translation_error_m": self.translation_error_m,
            "matches": self.matches,
            "inliers": self.inliers,
            "overlap": self.overlap,
            "timings_ms": self.timings_ms,
        }


@dataclass
class PairEvaluation:
    """The records of a run and how it was set up; see :class:`Evaluation` for its sister with a map."""

    name: str
    records: list[PairRecord] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures that `evaluate pairs --json` prints; NaN where nothing was measured. Intervals hold 95 %.

        ``recall`` is the share of all pairs with an accepted pose within the thresholds: in degrees of rotation and
        direction, and, where poses are metric, those of every `evaluate`. Medians are over accepted poses.
        """
        records = self.records
        accepted = [record for record in records if record.accepted]
        metres = [record.translation_error_m for record in accepted]
        degrees = [record.rotation_error_deg for record in accepted]
        directions = [record.direction_error_deg for record in accepted]
        return {
            "evaluation": self.name,
            "queries": len(records),
            "answered": len(accepted),
            "wrong_accepted": sum(record.wrong for record in records),
            "median_translation_error_m": metrics.median(metres),
            "median_rotation_error_deg": metrics.median(degrees),
            "median_direction_error_deg": metrics.median(directions),
            "median_translation_error_interval_m": metrics.bootstrap_interval(metres),
            "median_rotation_error_interval_deg": metrics.bootstrap_interval(degrees),
            "median_direction_error_interval_deg": metrics.bootstrap_interval(directions),
            "recall": self._recall(),
            **benchmark_figures(records),
            "direction": "unsigned",
            "rejected": dict(Counter(record.reason for record in records if not record.accepted).most_common()),
            "matches": metrics.percentiles([record.matches for record in records], (5, 50, 95)),
            "inliers": metrics.percentiles([record.inliers for record in records], (5, 50, 95)),
            "breakdown": breakdown(records),
            "latency_ms": metrics.percentiles([record.timings_ms.get("total", math.nan) for record in records]),
            "processor_ms": metrics.percentiles([record.timings_ms.get(PROCESSOR, math.nan) for record in records]),
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
        }

    def _recall(self) -> dict[str, float]:
        errors = np.array([record.error_deg for record in self.records])
        shares = {f"{t:g}deg": float(np.mean(errors <= t)) if errors.size else math.nan for t in (5, 10, 20)}
        if not any(record.metric for record in self.records):
            return shares
        accepted = [record for record in self.records if record.accepted]
        metres = [record.translation_error_m for record in accepted]
        return shares | metrics.recall(metres, [r.rotation_error_deg for r in accepted], len(self.records))


def evaluate_pairs(
    pairs: PairList,
    finder: EssentialFinder | MetricFinder,
    *,
    settings: Mapping[str, Any] | None = None,
    watch: Callable[[PairRecord, Frame, Frame, PairPose], None] | None = None,
) -> PairEvaluation:
    """Find the pose of every pair and compare it with the truth.

    Args:
        settings: everything that was chosen, goes into the summary.
        watch: is shown every result, for progress and pictures.

    Raises:
        DatasetError: for an image that cannot be read.
    """
    matcher = finder.matcher
    chosen = {"matcher": matcher.name, "features": matcher.signature, "metric": finder.metric, **(settings or {})}
    evaluation = PairEvaluation(f"Pairs of {pairs.name}", settings=chosen)
    for pair in pairs.pairs:
        frame1, frame2 = pairs.frame(pair.first), pairs.frame(pair.second)
        found = with_processor_time(partial(finder.find, frame1, frame2))
        record = PairRecord.of(pair, pairs.truth(pair), found)
        evaluation.records.append(record)
        if watch is not None:
            watch(record, frame1, frame2, found)
    return evaluation


def benchmark_figures(records: Sequence[PairRecord]) -> dict[str, Any]:
    """``auc`` at 5, 10 and 20 degrees, ``rra`` and ``rta`` at 5, 15 and 30, ``maa30``, and their intervals.

    Over all pairs; those without an accepted pose are failures.
    """
    rotation = np.array([record.rotation_error_deg if record.accepted else math.nan for record in records])
    direction = np.array([record.direction_error_deg if record.accepted else math.nan for record in records])
    figures = _flat(rotation, direction)
    drawn = metrics.intervals(_flat, rotation, direction, rounds=400) if records else {}
    # Shares have exact intervals, which do not claim to be sure where all pairs are within a threshold.
    shares = {name: share for name, share in figures.items() if name.startswith(("rra", "rta")) and records}
    drawn |= {name: metrics.share_interval(round(s * len(records)), len(records)) for name, s in shares.items()}
    return _nested(figures) | {f"{name}_interval": value for name, value in _nested(drawn).items()}


def breakdown(records: Sequence[PairRecord]) -> dict[str, list[dict[str, Any]]]:
    """Figures by true angle between the views, and by overlap where it is known."""
    found = {"view_angle_deg": _bins(records, [record.view_angle_deg for record in records], ANGLE_EDGES_DEG)}
    if any(math.isfinite(record.overlap) for record in records):
        found["overlap"] = _bins(records, [record.overlap for record in records], OVERLAP_EDGES)
    return found


def _bins(records: Sequence[PairRecord], values: Sequence[float], edges: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each bin that holds a pair."""
    rows = []
    for low, high, inside in binned(records, values, edges):
        auc = metrics.pose_auc([record.error_deg for record in inside])
        counts = {"queries": len(inside), "answered": sum(record.accepted for record in inside)}
        rows.append({"from": low, "to": high, **counts, "wrong": sum(r.wrong for r in inside), "auc": auc})
    return rows


def _flat(rotation: Array, direction: Array) -> dict[str, float]:
    """All figures of the benchmarks by ``name/threshold``."""
    found = {f"auc/{t}": v for t, v in metrics.pose_auc(metrics.pose_errors(rotation, direction)).items()}
    found |= {f"rra/{t}": v for t, v in metrics.accuracy_at(rotation).items()}
    found |= {f"rta/{t}": v for t, v in metrics.accuracy_at(direction).items()}
    return found | {"maa30": metrics.mean_average_accuracy(rotation, direction)}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, threshold = name.partition("/")
        if threshold:
            nested.setdefault(group, {})[threshold] = value
        else:
            nested[group] = value
    return nested
