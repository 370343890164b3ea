"""Metrics of a training: rows of a CSV file that survive a kill, and a picture of them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

#: Columns in their order; a row may leave some empty.
COLUMNS = (
    *("step", "pairs", "loss", "matching", "confidence", "points", "attention", "gradient", "lr", "temperature"),
    *("seconds", "pairs_per_s", "waiting"),
    *("val_precision_3px", "val_precision_hard", "val_coverage", "val_success", "val_points_error"),
)


class MetricsFile:
    """A CSV file of metrics. Rows are complete lines; those after the state that training resumes from are dropped.

    Args:
        keep_below: rows of steps up to this one are kept.
    """

    def __init__(self, path: Path, keep_below: int) -> None:
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["step"] <= keep_below] if path.exists() else []
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._cells(row) for row in self.rows)
        os.replace(partial, path)

    def add(self, row: dict[str, float]) -> None:
        """Append a row."""
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(self._cells(row))

    def line(self) -> str:
        """The newest figures for a person."""
        row = self.rows[-1]
        shown = [f"loss {row['loss']:.3f}", f"{row['pairs_per_s']:.1f} pairs/s"]
        validated = [row for row in self.rows if "val_precision_3px" in row]
        if validated:
            shown.append(f"precision {validated[-1]['val_precision_3px']:.2f}")
        return ", ".join(shown)

    def draw(self, path: Path) -> None:
        """Losses and held-out figures over the pairs seen."""
        if self.rows:
            draw(self.rows, path)

    @staticmethod
    def _cells(row: dict[str, float]) -> dict[str, str]:
        return {name: f"{row[name]:.7g}" for name in COLUMNS if name in row}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file; empty cells are left out, and so is a last line that a kill cut short."""
    rows = []
    with path.open(newline="") as file:
        for cells in csv.DictReader(file):
            if None in cells or None in cells.values() or cells.get("step") is None:
                continue
            rows.append({name: float(value) for name, value in cells.items() if value})
    return rows


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """A picture of metrics."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("matching", "points", "attention"):
        points = [(row["pairs"], row[name]) for row in rows if name in row]
        if points:
            left.plot(*zip(*points), label=name)
    left.set(xlabel="pairs", ylabel="loss", title="training")
    for name in COLUMNS[-5:]:
        points = [(row["pairs"], row[name]) for row in rows if name in row]
        if points:
            right.plot(*zip(*points), marker=".", label=name.removeprefix("val_").replace("_", " "))
    right.set(xlabel="pairs", ylim=(0, 1), title="held-out rooms")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    partial = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(partial, dpi=110)
    os.replace(partial, path)
