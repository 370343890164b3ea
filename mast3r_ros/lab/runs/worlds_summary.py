"""Figures of an evaluation on unseen rooms: of all poses that were found, gates or not, and of the accepted ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.bins import binned
from mast3r_ros.lab.runs.summary import errors_of

if TYPE_CHECKING:
    from mast3r_ros.lab.runs.localization import Record

Array = NDArray[np.float64]

#: A pose within both is a success: metres, degrees.
SUCCESS_M, SUCCESS_DEG = 0.25, 5.0
SUCCESS = "success_5deg_0.25m"
#: Pixels within which a match is right.
RIGHT_PX = (1, 3, 6)
#: Where the breakdowns are cut: share of the surface, degrees between the optical axes.
OVERLAP_EDGES = (0.05, 0.15, 0.25, 0.3, 0.5, 0.7, 0.9, 0.95)
GAP_EDGES_DEG = (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0)


def worlds_figures(records: Sequence[Record]) -> dict[str, Any]:
    """Figures beside those of every summary; medians here are over all poses that were found, gates or not.

    ``by_overlap`` and ``by_viewpoint_gap`` have a row for each bin that holds a pair; ``slices`` has rows of parts
    that are often asked for; ``accepted`` is of the poses that passed the gates, as everywhere else.
    """
    figures = row(records)
    counts = {"queries", "answered", "wrong_accepted"}
    by_room = metrics.intervals(_share, *errors_of(records), groups=[record.evidence["room"] for record in records])
    return {
        **{name: value for name, value in figures.items() if name not in counts},
        "median_translation_error_interval_m": figures["median_translation_error_m_interval"],
        "median_rotation_error_interval_deg": figures["median_rotation_error_deg_interval"],
        f"{SUCCESS}_interval_by_room": by_room[SUCCESS],
        "match_precision": {
            f"{px}px": metrics.mean([record.evidence[f"match_precision_{px}px"] for record in records])
            for px in RIGHT_PX
        },
        "matches": metrics.percentiles([record.evidence["matches"] for record in records], (10, 50, 90)),
        "poses_found": sum(math.isfinite(record.error[0]) for record in records),
        "by_overlap": list(_bins(records, "overlap", OVERLAP_EDGES)),
        "by_viewpoint_gap": list(_bins(records, "viewpoint_gap_deg", GAP_EDGES_DEG)),
        "slices": _slices(records),
        "accepted": row([record for record in records if record.accepted]),
    }


def row(records: Sequence[Record]) -> dict[str, Any]:
    """Success, medians and match precision of some pairs, each with its interval."""
    metres, degrees = errors_of(records)
    good = int(np.sum((metres <= SUCCESS_M) & (degrees <= SUCCESS_DEG)))
    precision = [record.evidence["match_precision_3px"] for record in records]
    return {
        "queries": len(records),
        "answered": sum(record.accepted for record in records),
        "wrong_accepted": sum(record.wrong for record in records),
        SUCCESS: good / len(records) if records else math.nan,
        f"{SUCCESS}_interval": metrics.share_interval(good, len(records)),
        "median_rotation_error_deg": metrics.median(degrees),
        "median_rotation_error_deg_interval": metrics.bootstrap_interval(degrees),
        "median_translation_error_m": metrics.median(metres),
        "median_translation_error_m_interval": metrics.bootstrap_interval(metres),
        "match_precision_3px": metrics.mean(precision),
        "match_precision_3px_interval": metrics.bootstrap_interval(precision, metrics.mean),
    }


def _bins(records: Sequence[Record], name: str, edges: Sequence[float]) -> Iterator[dict[str, Any]]:
    """A row for each bin that holds a pair."""
    for low, high, inside in binned(records, [record.evidence[name] for record in records], edges):
        yield {"from": low, "to": high, **row(inside)}


def _slices(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Parts that overlap with each other and with the bins."""
    parts = {
        "overlap_0.25_to_0.9": lambda e: 0.25 <= e["overlap"] <= 0.9,
        "overlap_below_0.3": lambda e: e["overlap"] < 0.3,
        "viewpoint_gap_above_30deg": lambda e: e["viewpoint_gap_deg"] > 30,
    }
    return {name: row([r for r in records if part(r.evidence)]) for name, part in parts.items()}


def _share(metres: Array, degrees: Array) -> dict[str, float]:
    return {SUCCESS: float(np.mean((metres <= SUCCESS_M) & (degrees <= SUCCESS_DEG)))}
