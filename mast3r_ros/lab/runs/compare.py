"""Two runs side by side: what differs, by how much, and whether that is more than chance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mast3r_ros.errors import UserError
from mast3r_ros.io.datasets.base import read_text
from mast3r_ros.lab.runs.paired import Difference, compare_paired, verdict_of
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.results import read_records

#: Parts of a summary that say how a run was made; what differs between two runs is listed.
CIRCUMSTANCES = ("settings", "versions", "machine")
#: Figures that rise as a run gets better, and those that fall, by what their names hold.
HIGHER, LOWER = (
    ("recall", "answered", "auc", "rra", "rta", "maa", "coverage_kept", "precision"),
    (
        "error",
        "false_accepts",
        "risk_coverage",
        "rmse",
        "latency",
        "vcre",
    ),
)

_Key = tuple[str, str, int, int]


@dataclass(frozen=True)
class ComparedRun:
    """A run as it was saved.

    Attributes:
        path: what was read.
        summary: its figures.
        records: its queries; None where only the figures were saved.
    """

    path: Path
    summary: dict[str, Any]
    records: list[Record] | None = None


def load_run(path: Path) -> ComparedRun:
    """Read the folder of a report, a summary.json in it, or what `evaluate --json` printed into a file.

    Raises:
        DatasetError: if a file cannot be read; UserError: if it is no run.
    """
    file = path / "summary.json" if path.is_dir() else path
    try:
        summary = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(
            f"{file} is no run: {error}; give a report's folder, or a file with `evaluate --json`"
        ) from error
    if not isinstance(summary, dict) or not ({"evaluation", "recall", "metrics", "auc"} & summary.keys()):
        raise UserError(
            f"{file} is no run: expected what `mast3r_ros evaluate ... --json` prints, or its --report folder"
        )
    records = file.with_name("records.jsonl")
    saved_together = file.name == "summary.json" and records.exists()
    return ComparedRun(path, summary, read_records(records) if saved_together else None)


def compare(a: ComparedRun, b: ComparedRun) -> dict[str, Any]:
    """Differences of two runs, with 95 % intervals.

    Where both have records of the same queries, queries are paired: see :mod:`paired`. Otherwise only the intervals of
    the two summaries can be held against each other, which shows less.

    Returns:
        ``comparable`` and the ``reasons`` why not; ``paired`` and ``common_queries``; ``figures``, each with both
        values, difference (b - a), interval and verdict; ``differing`` circumstances.
    """
    pairs = _pairs(a.records or [], b.records or [])
    reasons = [*_reasons(a, b, len(pairs))]
    figures = compare_paired([x for x, _ in pairs], [y for _, y in pairs]) if pairs else unpaired(a.summary, b.summary)
    return {
        "a": _about(a),
        "b": _about(b),
        "comparable": not reasons,
        "reasons": reasons,
        "paired": bool(pairs),
        "common_queries": len(pairs) if pairs else None,
        "figures": [figure.as_dict() for figure in figures],
        "differing": {name: _differing(a.summary.get(name), b.summary.get(name)) for name in CIRCUMSTANCES},
    }


def common_records(a: ComparedRun, b: ComparedRun) -> tuple[list[Record], list[Record]]:
    """The records of the queries that both runs have, in one order."""
    pairs = _pairs(a.records or [], b.records or [])
    return [x for x, _ in pairs], [y for _, y in pairs]


def unpaired(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    """Differences of all figures that both summaries have with an interval, from the intervals alone.

    The interval of a difference from those of its parts (MOVER: Zou and Donner, Statistics in Medicine 27, 2008), for
    independent runs: with ``d = b - a`` from ``d - sqrt((b - low_b)^2 + (high_a - a)^2)`` to
    ``d + sqrt((high_b - b)^2 + (a - low_a)^2)``. Where both runs had the same queries it is too wide.
    """
    mine, other = dict(_with_intervals(a)), dict(_with_intervals(b))
    found = []
    for name in (name for name in mine if name in other):
        (x, (low_x, high_x)), (y, (low_y, high_y)) = mine[name], other[name]
        low = y - x - math.hypot(y - low_y, high_x - x)
        high = y - x + math.hypot(high_y - y, x - low_x)
        better = 1 if any(word in name for word in HIGHER) else -1 if any(word in name for word in LOWER) else 0
        found.append(Difference(name, x, y, (low, high), better, verdict_of((low, high), better)))
    return found


def _with_intervals(summary: dict[str, Any]) -> Iterator[tuple[str, tuple[float, tuple[float, float]]]]:
    """Figures that stand in a summary beside their interval: ``x`` and ``x_interval``, numbers or tables of them."""
    for name, bounds in summary.items():
        value = summary.get(name.replace("_interval", "", 1)) if "_interval" in name else None
        figure = name.replace("_interval", "", 1)
        if isinstance(value, dict) and isinstance(bounds, dict):
            for key in value:
                if _known(value[key], bounds.get(key)):
                    yield f"{figure} {key}", (value[key], tuple(bounds[key]))
        elif _known(value, bounds):
            assert value is not None
            yield figure, (value, tuple(bounds))


def _known(value: Any, bounds: Any) -> bool:
    return isinstance(value, int | float) and isinstance(bounds, list) and None not in bounds


def _reasons(a: ComparedRun, b: ComparedRun, common: int) -> Iterator[str]:
    """Why the figures of two runs do not say which is better."""
    mine, other = a.summary.get("fingerprint", {}), b.summary.get("fingerprint", {})
    if not mine or not other:
        yield "one of the runs does not say which queries and which map it had"
        return
    if mine.get("map") != other.get("map"):
        yield f"other maps: {_map_of(a.summary)}, and {_map_of(b.summary)}"
    if mine.get("queries") != other.get("queries"):
        text = f"other queries: {a.summary.get('queries', '?')}, and {b.summary.get('queries', '?')}"
        if a.records is None or b.records is None:
            yield f"{text}; which of them are the same is not known without records.jsonl"
        else:
            yield f"{text}; {common} are the same{', and only these are compared' if common else ''}"
    elif mine.get("truth") != other.get("truth"):
        yield "the same queries have another truth: errors were measured against different poses"


def _map_of(summary: dict[str, Any]) -> str:
    settings = summary.get("settings", {})
    return f"{settings.get('map', 'a map')} with {settings.get('map_keyframes', '?')} keyframes"


def _about(run: ComparedRun) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "evaluation": run.summary.get("evaluation"),
        "queries": run.summary.get("queries"),
        "records": run.records is not None,
    }


def _pairs(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Records of the same query with the same truth, in the order of ``a``."""
    other = dict(_keyed(b))
    found = ((record, other.get(key)) for key, record in _keyed(a))
    return [(x, y) for x, y in found if y is not None and x.negative == y.negative and _same_truth(x, y)]


def _keyed(records: Sequence[Record]) -> Iterator[tuple[_Key, Record]]:
    """Records by group, name, time, and how often these came before."""
    seen: Counter[tuple[str, str, int]] = Counter()
    for record in records:
        name = (record.group, record.name, record.stamp_ns)
        yield (*name, seen[name]), record
        seen[name] += 1


def _same_truth(a: Record, b: Record) -> bool:
    if a.truth is None or b.truth is None:
        return a.truth is b.truth
    return bool(np.allclose(a.truth, b.truth, atol=1e-5))


def _differing(a: Any, b: Any) -> dict[str, list[Any]]:
    """Entries that two runs do not share."""
    mine, other = a or {}, b or {}
    return {name: [mine.get(name), other.get(name)] for name in {**mine, **other} if mine.get(name) != other.get(name)}
