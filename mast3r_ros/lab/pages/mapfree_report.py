"""What a run on the Map-free benchmark leaves behind: the benchmark's figures beside the usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mast3r_ros.io.documents import write_json
from mast3r_ros.lab.pages.page import figure
from mast3r_ros.lab.pages.report import write_report
from mast3r_ros.lab.runs.gallery import Picture
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.mapfree_score import MapFreeScore
from mast3r_ros.lab.runs.results import write_records


def benchmark_summary(score: MapFreeScore | None) -> dict[str, Any]:
    """Figures for :class:`Evaluation`: ``metrics`` are the benchmark's own by its names, None where there are none.

    Args:
        score: of the submission; None where the ground truth is not public.
    """
    figures = None if score is None else score.figures()
    return {
        "metrics": figures,
        "metrics_interval": None if score is None or figures is None else score.intervals(),
        "metrics_at_45px": None if score is None or figures is None else score.strict_figures(),
        "complaints": [] if score is None else score.complaints,
    }


def write_mapfree_run(folder: Path, evaluation: Evaluation, pictures: Sequence[Picture] = ()) -> Path:
    """Write report.html, summary.json and records.jsonl; returns the path of the report.

    Poses of many scenes are no trajectory, so none is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", evaluation.summary())
    write_records(folder / "records.jsonl", evaluation)
    shares = {name: value for name, value in (evaluation.figures["metrics"] or {}).items() if " @ " in name}
    tiles = [(figure(value, "{:.1%}"), name, "") for name, value in shares.items()]
    write_report(folder / "report.html", evaluation, None, pictures, tiles=tiles)
    return folder / "report.html"
