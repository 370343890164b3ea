"""What a run over image pairs leaves behind: figures, records, and a page with the pairs worth looking at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mast3r_ros.frames import Frame
from mast3r_ros.io.documents import to_json, write_json
from mast3r_ros.lab.pages import page, plots
from mast3r_ros.lab.runs.gallery import Picture
from mast3r_ros.lab.runs.pair_poses import PairPose
from mast3r_ros.lab.runs.pairs import PairEvaluation, PairRecord
from mast3r_ros.pictures.two_images import draw_match_picture


class PairGallery:
    """Keeps pictures of a run: the worst answers, some rejections, some typical answers.

    Args:
        progress: called with the number of pairs seen.
        most: pictures of each kind.
    """

    def __init__(self, progress: Callable[[int], None] = lambda done: None, most: int = 6) -> None:
        self._progress, self._most, self._seen = progress, most, 0
        self._kept: dict[str, list[tuple[float, int, Picture]]] = {"worst": [], "rejected": [], "typical": []}

    def offer(self, record: PairRecord, frame1: Frame, frame2: Frame, found: PairPose) -> None:
        """Show a result to the gallery, which keeps a picture of it or not."""
        self._seen += 1
        self._progress(self._seen)
        # A fixed order without pattern, so that samples come from the whole run and stay the same.
        shuffled = (self._seen * 0.6180339887498949) % 1.0
        orders = {"worst": -record.error_deg, "typical": shuffled} if record.accepted else {"rejected": shuffled}
        for kind, order in orders.items():
            kept = self._kept[kind]
            if len(kept) < self._most or order < kept[-1][0]:
                kept.append((order, self._seen, _picture(record, frame1, frame2, found, kind)))
                kept.sort(key=lambda item: item[:2])
                del kept[self._most :]

    def pictures(self) -> list[Picture]:
        """The worst first, then rejections, then typical answers; none twice."""
        shown: dict[int, Picture] = {}
        for kept in self._kept.values():
            for _, number, picture in kept:
                shown.setdefault(number, picture)
        return list(shown.values())


def write_pair_run(folder: Path, evaluation: PairEvaluation, pictures: Sequence[Picture] = ()) -> Path:
    """Write report.html, summary.json and records.jsonl; returns the path of the report."""
    summary = evaluation.summary()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", summary)
    lines = "".join(to_json(record.as_dict()) + "\n" for record in evaluation.records)
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    parts = [
        page.header(evaluation.name, f"{summary['queries']} pairs, features {evaluation.settings['features']}"),
        page.tiles_of(_tiles(summary)),
        page.section("Figures", _figures(summary), "Over all pairs. Directions are compared unsigned."),
        page.section("How many are how good", _error_curves(evaluation.records), "Share of all pairs within an error."),
        page.section("Where it works", _breakdown(summary)),
    ]
    titles = {"worst": "The worst answers", "rejected": "Rejections", "typical": "Typical answers"}
    for kind, title in titles.items():
        chosen = [picture for picture in pictures if picture.kind == kind]
        if chosen:
            parts.append(page.section(title, page.gallery(chosen), "Lines: the surest match of each region."))
    parts.append(page.section("All figures", page.details(summary)))
    page.write_page(folder / "report.html", evaluation.name, parts)
    return folder / "report.html"


def _picture(record: PairRecord, frame1: Frame, frame2: Frame, found: PairPose, kind: str) -> Picture:
    title = f"{record.name1} and {record.name2}: "
    if record.accepted:
        title += f"off by {record.rotation_error_deg:.1f} deg, direction by {record.direction_error_deg:.1f} deg"
        if record.metric:
            title += f", {100 * record.translation_error_m:.0f} cm"
    else:
        title += f"rejected, {record.reason.replace('_', ' ')}"
    caption = f"{record.inliers} of {record.matches} matches; views {record.view_angle_deg:.0f} deg apart"
    if math.isfinite(record.overlap):
        caption += f", overlap {record.overlap:.0%}"
    drawn = draw_match_picture(frame1.image, frame2.image, found.matches, f"{record.name1} - {record.name2}")
    return Picture(drawn, title, f"{caption}. {record.detail}".strip(), record.accepted and not record.wrong, kind)


def _tiles(summary: dict[str, Any]) -> list[page.Tile]:
    wrong = summary["wrong_accepted"]
    return [
        *((_percent(value), f"AUC at {degrees} degrees", "") for degrees, value in summary["auc"].items()),
        (_percent(summary["maa30"]), "mAA(30)", ""),
        (f"{summary['answered']}", f"answered of {summary['queries']}", ""),
        (f"{wrong}", "wrong answers", "bad" if wrong else "good"),
    ]


def _figures(summary: dict[str, Any]) -> str:
    rows = []
    for name, label in (("auc", "AUC"), ("rra", "RRA"), ("rta", "RTA")):
        for degrees, value in summary[name].items():
            rows.append((f"{label} at {degrees} degrees", _percent(value), _interval(summary, name, degrees)))
    rows.append(("mAA(30)", _percent(summary["maa30"]), _interval(summary, "maa30")))
    for name, label in (("rotation", "median rotation error"), ("direction", "median direction error")):
        value = summary[f"median_{name}_error_deg"]
        low, high = summary[f"median_{name}_error_interval_deg"]
        rows.append((label, _degrees(value), f"{_degrees(low)} to {_degrees(high)}"))
    return page.table(("", "figure", "95 % interval"), rows)


def _interval(summary: dict[str, Any], name: str, key: str = "") -> str:
    found = summary.get(f"{name}_interval", (math.nan, math.nan))
    low, high = found[key] if key else found
    return f"{_percent(low)} to {_percent(high)}"


def _breakdown(summary: dict[str, Any]) -> str:
    tables = []
    heads = {
        "view_angle_deg": ("angle between the views", "{:g} to {:g} deg"),
        "overlap": ("overlap", "{:.0%} to {:.0%}"),
    }
    for name, rows in summary["breakdown"].items():
        head, form = heads[name]
        lines = [
            (
                form.format(row["from"], row["to"]),
                str(row["queries"]),
                str(row["answered"]),
                str(row["wrong"]),
                *(_percent(value) for value in row["auc"].values()),
            )
            for row in rows
        ]
        tables.append(page.table((head, "pairs", "answered", "wrong", "AUC 5", "AUC 10", "AUC 20"), lines))
    return "".join(tables)


def _error_curves(records: Sequence[PairRecord]) -> str:
    """Cumulative rotation, direction and larger error."""
    columns = {
        "rotation": [record.rotation_error_deg for record in records if record.accepted],
        "direction": [record.direction_error_deg for record in records if record.accepted],
        "the larger of both": [record.error_deg for record in records if record.accepted],
    }
    with rc_context(plots.STYLE):
        figure = Figure(figsize=(9.6, 2.8), layout="constrained")
        axes = figure.subplots()
        colours = (plots.SECOND, plots.STAGE_COLOURS["describe"], plots.ACCEPTED)
        for (name, errors), colour in zip(columns.items(), colours, strict=True):
            found = np.sort(errors)
            share = np.arange(1, len(found) + 1) / max(len(records), 1)
            axes.step([0.0, *found, 90.0], [0.0, *share, share[-1] if len(share) else 0.0], where="post", label=name)
            axes.lines[-1].set_color(colour)
        for mark in (5, 10, 20):
            axes.axvline(mark, color=plots.INK, alpha=0.35, linewidth=1, linestyle=":")
        axes.set_xlim(0, 30)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("error (deg)")
        axes.set_ylabel("share of pairs")
        axes.legend(loc="lower right")
        return plots.svg(figure)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"


def _degrees(value: float) -> str:
    return f"{value:.2f}°" if math.isfinite(value) else "-"
