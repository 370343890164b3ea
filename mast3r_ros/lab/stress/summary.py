"""The figures of a stress run: for each condition and matcher, for the negatives, and what the gates cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.summary import errors_of
from mast3r_ros.lab.stress.conditions import CONDITIONS
from mast3r_ros.lab.stress.negatives import TITLES
from mast3r_ros.lab.stress.run import Attempt, StressRun
from mast3r_ros.lab.stress.starts import summarise_starts

#: A pose this near to the truth is one that gates should let pass: metres, degrees.
GOOD_M, GOOD_DEG = 0.10, 5.0
#: Figures of a summary that count queries: negatives are counted on their own.
OF_POSITIVES = (
    "queries",
    "answered",
    "wrong_accepted",
    "rejected",
    "answered_fraction",
    "answered_fraction_interval",
)


def evaluations(run: StressRun) -> dict[str, Evaluation]:
    """The run of each matcher, by name, as any other evaluation: queries first, then negatives."""
    return {
        matcher: _evaluation(run, matcher) for matcher in run.matchers or dict.fromkeys(a.matcher for a in run.attempts)
    }


def summarise_stress(run: StressRun) -> dict[str, Any]:
    """What `evaluate stress --json` prints: the first matcher's figures, and every matcher's conditions.

    ``false_accepts_per_1000`` is over the negatives, ``wrong_accepted`` over the queries. ``coverage_kept`` is the
    share of queries whose pose is within 10 cm and 5 degrees, accepted or not, that the gates accept.
    ``with_odometry`` has the same of a tracker that is asked the queries of a condition one after the other.
    ``calibration`` is the share of the accepted poses' errors inside the 50, 90 and 99 % ellipsoids;
    ``calibration_by_quartile`` the same from the easiest quarter of the answers to the hardest.
    """
    of_each = {matcher: evaluation.summary() for matcher, evaluation in evaluations(run).items()}
    first = next(iter(of_each.values()))
    rows = [row for summary in of_each.values() for row in summary["conditions"]]
    order = list(dict.fromkeys(row["condition"] for row in rows))
    rows.sort(key=lambda row: order.index(row["condition"]))  # matchers beside each other
    starts = summarise_starts(run.starts, run.kidnappings)
    return {**first, "conditions": rows, "starts": starts, "matchers": of_each if len(of_each) > 1 else {}}


def coverage_kept(records: Iterable[Record]) -> tuple[int, int]:
    """How many good poses the gates let pass, and how many were found."""
    good = [record for record in records if _is_good(record)]
    return sum(record.accepted for record in good), len(good)


def with_odometry(alone: Iterable[Record], in_turn: Iterable[Record]) -> dict[str, Any]:
    """Of the queries whose pose alone is good before any gate, how many a tracker answers as well."""
    found = {record.name for record in alone if _is_good(record)}
    asked = list(in_turn)
    good = [record for record in asked if record.name in found]
    kept = sum(record.accepted and _is_good(record) for record in good)
    return {
        "queries": len(asked),
        "answered": sum(record.accepted for record in asked),
        "wrong_accepted": sum(record.wrong for record in asked),
        "coverage_kept": kept / len(good) if good else math.nan,
        "coverage_kept_interval": metrics.share_interval(kept, len(good)),
    }


def _is_good(record: Record) -> bool:
    return record.error[0] <= GOOD_M and record.error[1] <= GOOD_DEG


def _evaluation(run: StressRun, matcher: str) -> Evaluation:
    attempts = [attempt for attempt in run.attempts if attempt.matcher == matcher]
    records = [attempt.record for attempt in attempts]
    name = f"stress worlds, {matcher}"
    settings = {"matcher": matcher, **asdict(run.settings)}
    positives = Evaluation(name, [record for record in records if not record.negative]).summary()
    figures = {key: positives[key] for key in OF_POSITIVES}
    figures["with_odometry"] = with_odometry((r for r in records if not r.negative), run.in_turn.get(matcher, ()))
    return Evaluation(name, records, settings, {**figures, **_trust(records), "conditions": _conditions(attempts)})


def _trust(records: Sequence[Record]) -> dict[str, Any]:
    """What is known about negatives and gates."""
    negatives = [record for record in records if record.negative]
    rate = metrics.false_accepts(sum(record.accepted for record in negatives), len(negatives))
    kept, good = coverage_kept(record for record in records if not record.negative)
    kinds = [kind for kind in TITLES if any(record.group == kind for record in negatives)]
    return {
        "false_accepts_per_1000": rate.per_1000,
        "false_accepts_per_1000_interval": (rate.low, rate.high),
        "negative_kinds": [_kind(kind, [r for r in negatives if r.group == kind]) for kind in kinds],
        "coverage_kept": kept / good if good else math.nan,
        "coverage_kept_interval": metrics.share_interval(kept, good),
        "good_poses": good,
    }


def _kind(kind: str, records: Sequence[Record]) -> dict[str, Any]:
    rate = metrics.false_accepts(sum(record.accepted for record in records), len(records))
    return {
        "kind": kind,
        "title": TITLES[kind],
        "negatives": rate.queries,
        "accepted": rate.count,
        "false_accepts_per_1000": rate.per_1000,
        "false_accepts_per_1000_interval": (rate.low, rate.high),
    }


def _conditions(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """One row for each condition, with one for each of its levels."""
    asked = [attempt for attempt in attempts if not attempt.record.negative]
    rows = []
    for condition, of_condition in _grouped(asked, lambda attempt: attempt.condition).items():
        levels = _grouped(of_condition, lambda attempt: attempt.level)
        about = {"condition": condition, "title": CONDITIONS[condition].title, "matcher": of_condition[0].matcher}
        row: dict[str, Any] = about | _row([attempt.record for attempt in of_condition])
        if len(levels) > 1:
            row["levels"] = [
                {"level": level, **_row([attempt.record for attempt in found])} for level, found in levels.items()
            ]
        rows.append(row)
    return rows


def _grouped(attempts: Iterable[Attempt], key: Callable[[Attempt], str]) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(key(attempt), []).append(attempt)
    return found


def _row(records: Sequence[Record]) -> dict[str, Any]:
    """The figures of some queries."""
    metres, degrees = errors_of(record for record in records if record.accepted)
    wrong = metrics.false_accepts(int(np.sum(metrics.is_wrong(metres, degrees))), len(records))
    kept, good = coverage_kept(records)
    return {
        "queries": len(records),
        "answered": int(metres.size),
        "wrong_accepted": wrong.count,
        "false_accepts_per_1000": wrong.per_1000,
        "false_accepts_per_1000_interval": (wrong.low, wrong.high),
        "median_translation_error_m": metrics.median(metres),
        "median_rotation_error_deg": metrics.median(degrees),
        "recall": metrics.recall(metres, degrees, len(records)),
        "coverage_kept": kept / good if good else math.nan,
        "rejected": dict(Counter(record.reason for record in records if not record.accepted).most_common()),
    }
