"""Two runs side by side as one HTML page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from mast3r_ros.lab.pages import plots
from mast3r_ros.lab.pages.page import Mark, figure, header, label, section, table, tiles_of, write_page
from mast3r_ros.lab.runs.compare import ComparedRun, common_records
from mast3r_ros.lab.runs.paired import disagreements

#: Queries that are listed by name, of each kind.
MOST_LISTED = 20


def write_comparison(path: Path, a: ComparedRun, b: ComparedRun, comparison: dict[str, Any]) -> None:
    """Write the page.

    Args:
        comparison: of :func:`compare`.
    """
    title = f"{comparison['a']['evaluation']}: A against B"
    names = f"A: {comparison['a']['path']}, B: {comparison['b']['path']}"
    parts = [
        header(title, names),
        _verdicts(comparison),
        section("Figures", figures_table(comparison), how(comparison)),
    ]
    records = common_records(a, b)
    if any(record.judged for record in records[0]):
        text = "Share of the common queries that have a truth, on logarithmic axes."
        parts.append(section("How many are how good", plots.error_curve(*records, labels=("A", "B")), text))
        parts.append(section("Where they disagree", _disagreements(records), "Right: within 25 cm and 10°."))
    parts.append(section("What else differs", _circumstances(comparison["differing"])))
    write_page(path, title, parts)


def how(comparison: dict[str, Any]) -> str:
    """How the intervals were made, in a sentence."""
    if not comparison["paired"]:
        return "Differences B - A with 95 % intervals from those of the two runs, as if these were independent."
    count = comparison["common_queries"]
    expected = 0.05 * len(comparison["figures"])
    return (
        f"Over {count} common queries. Differences B - A with 95 % intervals of a bootstrap over pairs of queries in "
        f"blocks; shares must pass McNemar's test too. About {expected:.1g} of these would stand out by chance alone."
    )


def figures_table(comparison: dict[str, Any]) -> str:
    """A line for each figure; the better value is marked where a difference is shown."""
    rows = []
    for row in comparison["figures"]:
        low, high = (figure(bound, "{:+.3g}") for bound in row["interval"])
        kind = {"a": ("better", "worse"), "b": ("worse", "better")}.get(row["verdict"], ("", ""))
        counts = "" if row["only_a"] is None else f"{row['only_a']} / {row['only_b']}"
        rows.append(
            (
                label(row["figure"]),
                Mark(figure(row["a"], "{:.4g}"), kind[0]),
                Mark(figure(row["b"], "{:.4g}"), kind[1]),
                figure(row["difference"], "{:+.3g}"),
                "" if low == high == "-" else f"{low} to {high}",
                counts,
                "" if row["p_mcnemar"] is None else f"{row['p_mcnemar']:.2g}",
                words(row["verdict"]),
            )
        )
    heads = ("", "A", "B", "B - A", "95 % interval", "only A / only B", "McNemar p", "difference")
    return table(heads, rows)


def words(verdict: str) -> str:
    """A verdict for people."""
    return {"a": "A is better", "b": "B is better", "differs": "they differ"}.get(verdict, "none shown")


def _verdicts(comparison: dict[str, Any]) -> str:
    verdicts = [row["verdict"] for row in comparison["figures"]]
    tiles = tiles_of(
        [
            ("yes" if comparison["comparable"] else "no", "comparable", "good" if comparison["comparable"] else "bad"),
            (str(verdicts.count("a")), "figures where A is better", ""),
            (str(verdicts.count("b")), "figures where B is better", ""),
            (str(verdicts.count("")), "figures without a difference shown", ""),
        ]
    )
    reasons = "".join(f"<p>Not comparable: {html.escape(reason)}.</p>" for reason in comparison["reasons"])
    return tiles + (f"<section>{reasons}</section>" if reasons else "")


def _disagreements(records: tuple[Any, Any]) -> str:
    rows = []
    for name, found in disagreements(*records).items():
        more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
        rows.append((name, str(len(found)), ", ".join(found[:MOST_LISTED]) + more))
    return table(("", "queries", "which"), rows)


def _circumstances(differing: dict[str, dict[str, list[Any]]]) -> str:
    rows = [
        (f"{group}: {label(name)}", str(mine), str(other))
        for group, entries in differing.items()
        for name, (mine, other) in entries.items()
    ]
    return table(("", "A", "B"), rows) if rows else "<p>Nothing: same settings, versions and machine.</p>"
