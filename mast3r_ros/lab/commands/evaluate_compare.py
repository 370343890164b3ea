"""`mast3r_ros evaluate compare`: two runs side by side, with significance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_json, print_table, warn
from mast3r_ros.cli.options import JsonOption

RunArgument = typer.Argument(help="A report's folder, its summary.json, or what `evaluate --json` printed.")


def compare(
    a: Annotated[Path, RunArgument],
    b: Annotated[Path, RunArgument],
    report: Annotated[Path | None, typer.Option(help="Folder for report.html and comparison.json.")] = None,
    json: JsonOption = False,
) -> None:
    """Hold two runs against each other: which is better, and is that more than chance?

    Reports' folders hold the records of every query, so that the same queries are compared in pairs. From figures
    alone less can be shown. Of runs with other queries, another truth or another map it is said that they are not
    comparable, and why.
    """
    from mast3r_ros.io.documents import write_json
    from mast3r_ros.lab.pages.compare_report import write_comparison
    from mast3r_ros.lab.runs.compare import compare, load_run

    runs = load_run(a), load_run(b)
    comparison = compare(*runs)
    if report is not None:
        write_json(report / "comparison.json", comparison)
        write_comparison(report / "report.html", *runs, comparison)
        note(f"report: {report / 'report.html'}")
    if json:
        print_json(comparison)
        return
    _print(comparison)


def _print(comparison: dict[str, Any]) -> None:
    from mast3r_ros.lab.pages.compare_report import how, words
    from mast3r_ros.lab.pages.page import figure, label

    for reason in comparison["reasons"]:
        warn(f"not comparable: {reason}")
    rows = []
    for row in comparison["figures"]:
        low, high = (figure(bound, "{:+.3g}") for bound in row["interval"])
        values = (figure(row["a"], "{:.4g}"), figure(row["b"], "{:.4g}"), figure(row["difference"], "{:+.3g}"))
        rows.append((label(row["figure"]), *values, f"{low} to {high}", words(row["verdict"])))
    print_table(comparison["a"]["evaluation"] or "", ("figure", "A", "B", "B - A", "95 % interval", "difference"), rows)
    note(how(comparison))
