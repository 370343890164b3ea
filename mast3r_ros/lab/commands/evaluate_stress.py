"""`mast3r_ros evaluate stress`: what makes localization fail, and does it know?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, print_table, stages
from mast3r_ros.cli.options import DEFAULT_KEYFRAMES, ComparedMatchers, JsonOption, KeyframesCount, grouped

#: What --quick takes instead of the defaults.
QUICK = {"rooms": 1, "queries": 4, "negatives": 60, "keyframes": 16}


@grouped
def stress(
    *,
    compared: ComparedMatchers,
    keyframes: KeyframesCount = DEFAULT_KEYFRAMES,
    seed: Annotated[
        int, typer.Option(min=0, help="First room; 0 to 999 are for tuning, the default is held out from it.")
    ] = 1000,
    rooms: Annotated[int, typer.Option(min=1, help="Seeds; each gives a world of every kind.")] = 2,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each condition in each room.")] = 12,
    conditions: Annotated[str, typer.Option(help="Only these, comma separated; by default all.")] = "",
    negatives: Annotated[int, typer.Option(min=0, help="Queries that the map cannot answer.")] = 3000,
    quick: Annotated[bool, typer.Option("--quick", help="One room, few queries, 60 negatives: does it run?")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.html, conditions.png, summary.json, records.jsonl.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Localize in generated worlds under hard conditions, and where there is nothing to be found."""
    from mast3r_ros.lab.stress.conditions import CONDITIONS
    from mast3r_ros.lab.stress.report import StressPictures, write_stress
    from mast3r_ros.lab.stress.run import StressSettings, ignore, run_stress
    from mast3r_ros.lab.stress.summary import summarise_stress
    from mast3r_ros.localization import LocalizerSettings

    matchers = compared.make()
    sizes: dict[str, int] = QUICK if quick else {"rooms": rooms, "queries": queries, "negatives": negatives}
    names = tuple(name.strip() for name in conditions.split(",") if name.strip()) or tuple(CONDITIONS)
    settings = StressSettings(seed, conditions=names, localizer=LocalizerSettings(keyframes=keyframes), **sizes)
    pictures = StressPictures(matchers)
    with stages() as show:
        # Pictures of matches are only drawn for a report.
        run = run_stress(matchers, settings, progress=show, watch=pictures.offer if report is not None else ignore)
    if report is not None:
        for page in write_stress(report, run, pictures):
            note(f"report: {page}")
    summary = summarise_stress(run)
    if json:
        print_json(summary)
    else:
        print_stress(summary)


def print_stress(summary: dict[str, Any]) -> None:
    """The table of conditions, the negatives, and what the gates cost."""
    columns = ("condition", "matcher", "queries", "answered", "recall", "error", "wrong")
    rows = []
    for row in summary["conditions"]:
        rows.append((row["condition"], row["matcher"], *_cells(row)))
        rows += [(f"  {level['level']}", "", *_cells(level)) for level in row.get("levels", ())]
    print_table("recall within 10 cm and 5 deg; wrong: accepted, but off by more than 25 cm or 10 deg", columns, rows)
    for name, figures in (summary["matchers"] or {summary["settings"]["matcher"]: summary}).items():
        kinds = [
            (row["kind"], str(row["negatives"]), str(row["accepted"]), f"{row['false_accepts_per_1000']:.1f}")
            for row in figures["negative_kinds"]
        ]
        if kinds:
            print_table(f"negatives, {name}", ("kind", "asked", "accepted", "per 1000"), kinds)
        print_facts(name, _facts(figures))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    metres, degrees = row["median_translation_error_m"], row["median_rotation_error_deg"]
    error = f"{100 * metres:.1f} cm {degrees:.2f} deg" if math.isfinite(metres) else "-"
    recall = f"{row['recall']['0.10m_5deg']:.0%}"
    return str(row["queries"]), str(row["answered"]), recall, error, str(row["wrong_accepted"])


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    low, high = figures["false_accepts_per_1000_interval"]
    rate = f"{figures['false_accepts_per_1000']:.2f} of 1000  (95 %: {low:.2f} to {high:.2f})"
    kept = f"{_percent(figures['coverage_kept'])} of the poses within 10 cm and 5 deg pass the gates"
    return {
        "negatives accepted": rate if figures["negatives"] else "none asked",
        "coverage kept": kept,
        "inside the ellipsoids": ", ".join(f"{float(k):.0%}: {_percent(v)}" for k, v in figures["calibration"].items()),
        "answered": f"{figures['answered']} of {figures['queries']}",
        "wrong accepted": f"{figures['wrong_accepted']} of {figures['queries']}",
    }


def _percent(share: float) -> str:
    return f"{share:.1%}" if math.isfinite(share) else "-"
