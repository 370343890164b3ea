"""`mast3r_ros evaluate stress`: what makes localization fail, and does it know?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, print_table, stages
from mast3r_ros.cli.options import JsonOption, grouped
from mast3r_ros.lab.commands.options import DEFAULT_KEYFRAMES, ComparedMatchers, KeyframesCount

#: What --quick takes instead of the defaults.
QUICK = {"rooms": 1, "queries": 4, "negatives": 60, "keyframes": 16, "starts": 4}


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
    starts: Annotated[
        int, typer.Option(min=0, help="Starts on each film of twin_rooms, mirrored_rooms, equal_doors; 0: none.")
    ] = 80,
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
    from mast3r_ros.lab.stress.starts import CONDITIONS as START_CONDITIONS
    from mast3r_ros.lab.stress.summary import summarise_stress
    from mast3r_ros.localization import LocalizerSettings

    matchers = compared.make()
    sizes = {"rooms": rooms, "queries": queries, "negatives": negatives, "starts": starts}
    sizes = {**sizes, **QUICK} if quick else sizes
    names = [name.strip() for name in conditions.split(",") if name.strip()] or [*CONDITIONS, *START_CONDITIONS]
    settings = StressSettings(
        seed,
        conditions=tuple(name for name in names if name not in START_CONDITIONS),
        start_conditions=tuple(name for name in names if name in START_CONDITIONS) if sizes["starts"] else (),
        localizer=LocalizerSettings(keyframes=keyframes),
        **sizes,
    )
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
        if figures["queries"]:
            print_facts(name, _facts(figures))
    if summary["starts"]["tried"]:
        print_starts(summary["starts"])


def print_starts(figures: dict[str, Any]) -> None:
    """Starts by place, and what became of kidnappings."""
    columns = ("condition", "place", "tried", "answered", "first_false", "second_false", "committed", "false_commits")
    print_table("starts", columns, [tuple(str(row[key]) for key in columns) for row in figures["by_place"]])
    low, high = figures["false_commits_per_1000_interval"]
    seconds, noticed = figures["seconds_to_commit"], figures["seconds_to_notice"]
    facts = {
        "false commits": f"{figures['false_commits_per_1000']:.2f} of 1000 starts  (95 %: {low:.2f} to {high:.2f})",
        "second answer false, the first being so": _percent(figures["p_second_false"]),
        "seconds to commit": f"{seconds['p50']:.1f} (median), {seconds['p95']:.1f} (95 %)",
        "kidnappings noticed within 5 s": f"{figures['noticed_within_5_s']} of {figures['kidnappings']}",
        "seconds to notice": f"{noticed['p50']:.1f} (median), {noticed['p100']:.1f} (longest)",
    }
    print_facts("starts", facts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    metres, degrees = row["median_translation_error_m"], row["median_rotation_error_deg"]
    error = f"{100 * metres:.1f} cm {degrees:.2f} deg" if math.isfinite(metres) else "-"
    recall = f"{row['recall']['0.10m_5deg']:.0%}"
    return str(row["queries"]), str(row["answered"]), recall, error, str(row["wrong_accepted"])


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    low, high = figures["false_accepts_per_1000_interval"]
    rate = f"{figures['false_accepts_per_1000']:.2f} of 1000  (95 %: {low:.2f} to {high:.2f})"
    kept = f"{_percent(figures['coverage_kept'])} of the poses within 10 cm and 5 deg pass the gates"
    turn = figures["with_odometry"]
    in_turn = f"{_percent(turn['coverage_kept'])}; {turn['answered']} answered, {turn['wrong_accepted']} wrong"
    return {
        "negatives accepted": rate if figures["negatives"] else "none asked",
        "coverage kept": kept,
        "the same one after the other, with odometry": in_turn,
        "inside the ellipsoids": ", ".join(f"{float(k):.0%}: {_percent(v)}" for k, v in figures["calibration"].items()),
        "answered": f"{figures['answered']} of {figures['queries']}",
        "wrong accepted": f"{figures['wrong_accepted']} of {figures['queries']}",
    }


def _percent(share: float) -> str:
    return f"{share:.1%}" if math.isfinite(share) else "-"
