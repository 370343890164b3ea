"""What every `evaluate` command does at its end: write the report, and print the figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, progress

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.lab.runs.gallery import Gallery, Picture
    from mast3r_ros.lab.runs.localization import Evaluation, Watch
    from mast3r_ros.lab.runs.record import Record
    from mast3r_ros.localization import PoseEstimate
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

ReportOption = Annotated[
    Path | None, typer.Option(help="Folder for report.html, summary.json, records.jsonl and trajectories.")
]


@contextmanager
def watching(gallery: Gallery, frames: int) -> Iterator[Watch]:
    """Shows every result of a recording to the gallery, and how far it is."""
    done = count(1)
    with progress("localizing", frames) as show:

        def watch(record: Record, frame: Frame, estimate: PoseEstimate) -> None:
            gallery.offer(record, frame, estimate)
            show(next(done), None, record.reason or "localized")

        yield watch


def finish(
    evaluation: Evaluation, keyframe_map: KeyframeMap, pictures: list[Picture], report: Path | None, json: bool
) -> None:
    """Write the report where one is wanted, and print the figures."""
    written = None
    if report is not None:
        from mast3r_ros.lab.pages.report import write_run

        written = write_run(report, evaluation, keyframe_map, pictures)
    print_summary(evaluation, written, json)


def print_summary(evaluation: Evaluation, report: Path | None, json: bool) -> None:
    """The figures of a run, for people or as JSON."""
    summary = evaluation.summary()
    if report is not None:
        note(f"report: {report}")
    if json:
        print_json(summary)
        return
    facts = {
        "frames": summary["queries"],
        "localized": summary["answered"],
        "rejected": ", ".join(f"{count} {reason}" for reason, count in summary["rejected"].items()) or "none",
    }
    if any(record.judged for record in evaluation.records):
        facts |= _accuracy(summary)
    facts["latency"] = f"{summary['latency_ms']['p50']:.0f} ms median, {summary['latency_ms']['p95']:.0f} ms p95"
    print_facts(evaluation.name, facts)


def _accuracy(summary: dict[str, Any]) -> dict[str, str]:
    """Figures that need a truth, each with its 95 % interval."""
    from mast3r_ros.lab.runs.gallery import length

    metres, degrees = summary["median_translation_error_m"], summary["median_rotation_error_deg"]
    facts = {
        "wrong accepted": f"{summary['wrong_accepted']}  (off by more than 25 cm or 10 deg)",
        "false accepts": f"{summary['false_accepts_per_1000']:.3g} in 1000"
        + _between(summary["false_accepts_per_1000_interval"], "{:.3g}"),
        "median error": f"{length(metres)}, {degrees:.2f} deg",
    }
    for name, share in summary["recall"].items():
        facts[f"within {name.replace('_', ', ')}"] = f"{share:.1%}" + _between(
            summary["recall_interval"][name], "{:.1%}"
        )
    inside = (f"{share:.0%} of the {float(name):.0%} ones" for name, share in summary["calibration"].items())
    facts["in the ellipsoids"] = ", ".join(inside)
    if "trajectory" in summary:
        ate, rpe = summary["trajectory"]["ate_rmse_m"], summary["trajectory"].get("rpe_second_rmse_m", math.nan)
        facts["trajectory (RMSE)"] = f"ATE {length(ate)}, RPE {length(rpe)} in a second"
    return facts


def _between(bounds: Sequence[float], form: str) -> str:
    low, high = bounds
    return f"  ({form.format(low)} to {form.format(high)})" if math.isfinite(low) else ""
