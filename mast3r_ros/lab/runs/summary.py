"""The figures of a run, each with its interval: accuracy, false accepts, calibration, latency, and where it fails."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.bins import binned
from mast3r_ros.lab.runs.difficulty import calibration_by_quartile
from mast3r_ros.lab.runs.processor_time import PROCESSOR
from mast3r_ros.lab.runs.record import Record

Array = NDArray[np.float64]

#: Where a breakdown is cut: metres and degrees between a query and its nearest keyframe, and the overlap of both.
DISTANCE_EDGES_M = (0.0, 0.25, 0.5, 1.0, 2.0, math.inf)
ANGLE_EDGES_DEG = (0.0, 10.0, 20.0, 40.0, 60.0, 180.0)
OVERLAP_EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
#: The recall that stands for all in breakdowns: metres, degrees.
HEADLINE = (0.10, 5.0)


def figures_of(records: Sequence[Record]) -> dict[str, Any]:
    """The figures of a run's records; NaN where nothing was measured. Intervals hold 95 %.

    ``queries``, ``answered`` and ``wrong_accepted`` count all queries; an answer is wrong when it is off by more than
    25 cm or 10 degrees, and always where the query is a negative. ``recall`` is over the queries that have a truth:
    never over negatives. Medians, percentiles and calibration are over accepted poses with a truth.
    """
    accepted = [record for record in records if record.accepted]
    negatives = [record for record in records if record.negative]
    metres, degrees = errors_of(accepted)
    return {
        "queries": len(records),
        "answered": len(accepted),
        "wrong_accepted": sum(record.wrong for record in records),
        "negatives": len(negatives),
        "negatives_accepted": sum(record.accepted for record in negatives),
        "median_translation_error_m": metrics.median(metres),
        "median_rotation_error_deg": metrics.median(degrees),
        "median_translation_error_interval_m": metrics.bootstrap_interval(metres),
        "median_rotation_error_interval_deg": metrics.bootstrap_interval(degrees),
        **_recall(records),
        **_trust(records),
        **_calibration(accepted),
        "calibration_by_quartile": calibration_by_quartile(accepted),
        "protection": _protection(records),
        "rejected": dict(Counter(record.reason for record in records if not record.accepted).most_common()),
        "translation_error_m": metrics.percentiles(metres, (50, 90, 95, 100)),
        "rotation_error_deg": metrics.percentiles(degrees, (50, 90, 95, 100)),
        "breakdown": breakdown(records),
        "latency_ms": metrics.percentiles([r.timings_ms.get("total", math.nan) for r in records]),
        "processor_ms": metrics.percentiles([r.timings_ms.get(PROCESSOR, math.nan) for r in records]),
        "stages_ms": stage_medians(records),
        "stage_percentiles_ms": {name: metrics.percentiles(values) for name, values in _by_stage(records).items()},
    }


def errors_of(records: Iterable[Record], stated: bool = False) -> tuple[Array, Array]:
    """Metres (N,) and degrees (N,) of records; NaN where unknown.

    Args:
        stated: in the metres that limits are stated in (see :class:`Record`), to be held against them.
    """
    table = np.array([record.stated_error if stated else record.error for record in records], dtype=np.float64).reshape(
        -1, 2
    )
    return table[:, 0], table[:, 1]


def stage_medians(records: Iterable[Record]) -> dict[str, float]:
    """Median milliseconds by stage over the records that went through it."""
    return {stage: metrics.median(values) for stage, values in _by_stage(records).items()}


def breakdown(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Figures by distance, angle and overlap with the nearest keyframe, and by group where records have one."""
    found: dict[str, list[dict[str, Any]]] = {}
    seen = [record for record in records if record.truth is not None and math.isfinite(record.viewpoint_m)]
    if seen:
        found["viewpoint_distance_m"] = list(_bins(seen, lambda record: record.viewpoint_m, DISTANCE_EDGES_M))
        found["viewpoint_angle_deg"] = list(_bins(seen, lambda record: record.viewpoint_deg, ANGLE_EDGES_DEG))
    if overlapping := [record for record in seen if math.isfinite(record.view_overlap)]:
        found["view_overlap"] = list(_bins(overlapping, lambda record: record.view_overlap, OVERLAP_EDGES))
    groups = dict.fromkeys(record.group for record in records)
    if any(groups):
        found["group"] = [{"group": group, **_row([r for r in records if r.group == group])} for group in groups]
    return found


def _recall(records: Sequence[Record]) -> dict[str, Any]:
    known = [record for record in records if record.truth is not None and not record.negative]
    metres, degrees = errors_of((record for record in known if record.accepted), stated=True)
    shares = metrics.recall(metres, degrees, len(known))
    return {
        "recall": shares,
        "recall_interval": {
            name: metrics.share_interval(round(share * len(known)) if known else 0, len(known))
            for name, share in shares.items()
        },
    }


def _trust(records: Sequence[Record]) -> dict[str, Any]:
    """How often the answer is wrong, at which share of answers, and whether the confidence knows."""
    judged = [record for record in records if record.judged]
    answers = [record for record in judged if record.accepted]
    wrong = np.array([record.wrong for record in answers], dtype=bool)
    confidence = np.array([record.confidence for record in answers])
    rate = metrics.false_accepts(int(wrong.sum()), len(judged))
    # Without a wrong answer every sample of a bootstrap has none: it would claim to be sure that there are none.
    area = metrics.intervals(_area, confidence, wrong)["area"] if wrong.any() else (math.nan, math.nan)
    found = {
        "false_accepts_per_1000": rate.per_1000,
        "false_accepts_per_1000_interval": (rate.low, rate.high),
        "answered_fraction": sum(record.accepted for record in records) / len(records) if records else math.nan,
        "answered_fraction_interval": metrics.share_interval(sum(r.accepted for r in records), len(records)),
        "risk_coverage_area": _area(confidence, wrong)["area"],
        "risk_coverage_area_interval": area,
    }
    if any(record.negative for record in records):
        negatives = [record for record in records if record.negative]
        own = metrics.false_accepts(sum(record.accepted for record in negatives), len(negatives))
        found |= {
            "false_accepts_per_1000_negatives": own.per_1000,
            "false_accepts_per_1000_negatives_interval": (own.low, own.high),
        }
    return found


def _protection(records: Sequence[Record]) -> dict[str, Any]:
    """The promise (the risk that an error exceeds its protection level) and what came of it.

    ``hmi`` counts hazardously misleading answers: errors beyond the alert limit without an alarm. ``available`` is the
    share of the queries that were answered. ``beyond_level`` counts answers whose error exceeded its own level.
    """
    asked = [record for record in records if not record.negative]
    limits = [record.bounds for record in records if math.isfinite(record.bounds.get("integrity_risk", math.nan))]
    first = limits[0] if limits else {}
    errors = [(*record.error, record.bounds) for record in asked if record.accepted]
    return {
        "integrity_risk": first.get("integrity_risk", math.nan),
        "alert_limit_m": first.get("alert_limit_m", math.nan),
        "alert_limit_deg": first.get("alert_limit_deg", math.nan),
        "hmi": sum(record.hazardous for record in records),
        "available": sum(record.accepted for record in asked) / len(asked) if asked else math.nan,
        "beyond_level": sum(
            metres > bounds.get("protection_m", math.nan) or degrees > bounds.get("protection_deg", math.nan)
            for metres, degrees, bounds in errors
        ),
    }


def _area(confidence: Array, wrong: NDArray[np.bool_]) -> dict[str, float]:
    return {"area": metrics.risk_coverage(confidence, wrong).area}


def _calibration(accepted: Sequence[Record]) -> dict[str, Any]:
    normalised = [record.normalised_error for record in accepted]
    nees = metrics.consistency(normalised)
    return {
        "coverage": {f"{share:g}": metrics.coverage(normalised, share) for share in (0.5, 0.9, 0.95, 0.99)},
        "calibration": metrics.calibration(normalised),
        "calibration_interval": metrics.calibration_intervals(normalised),
        "nees": nees.nees,
        "nees_interval": metrics.bootstrap_interval(normalised, metrics.mean),
        "nees_of_right_covariances": (nees.low, nees.high),
    }


def _bins(
    records: Sequence[Record], value: Callable[[Record], float], edges: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """A row for each bin that holds a record."""
    for low, high, inside in binned(records, [value(record) for record in records], edges):
        yield {"from": low, "to": high, **_row(inside)}


def _row(records: Sequence[Record]) -> dict[str, Any]:
    known = [record for record in records if record.truth is not None and not record.negative]
    accepted = [record for record in records if record.accepted]
    metres, degrees = errors_of(accepted)
    good = int(np.sum((errors_of(accepted, stated=True)[0] <= HEADLINE[0]) & (degrees <= HEADLINE[1])))
    return {
        "queries": len(records),
        "negatives": sum(record.negative for record in records),
        "answered": sum(record.accepted for record in records),
        "wrong_accepted": sum(record.wrong for record in records),
        "recall": good / len(known) if known else math.nan,
        "recall_interval": metrics.share_interval(good, len(known)),
        "median_translation_error_m": metrics.median(metres),
        "median_rotation_error_deg": metrics.median(degrees),
    }


def _by_stage(records: Iterable[Record]) -> dict[str, list[float]]:
    by_stage: dict[str, list[float]] = {}
    for record in records:
        for stage, milliseconds in record.timings_ms.items():
            by_stage.setdefault(stage, []).append(milliseconds)
    return by_stage
