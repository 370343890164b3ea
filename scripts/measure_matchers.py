"""Measures the matchers side by side on real sets and generated worlds: the table that `auto` reads, and the docs' one.

    scripts/measure_matchers.py SHARED [--matcher NAME ...] [--data PART_OF_NAME] [--device cuda] [--missing] [--runs D]
    scripts/measure_matchers.py             nothing is measured: the page's table is written again

SHARED is the folder with photos/ and sevenscenes_mini/. Each row is written as soon as it is there, so a run may be
interrupted; ``--missing`` goes on with what the table lacks. Every row names the command that prints its figures.
``--runs`` keeps the report of each, for `mast3r_ros evaluate compare`. On a CPU the processor's time counts, with one
thread, which other work on the machine makes only a little longer; wall clocks of a GPU need a quiet machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mast3r_ros.lab.metrics import share_interval
from mast3r_ros.matching.measured import Measured, read_table, save_rows
from mast3r_ros.matching.registry import usable_here

MATCHERS = ("xfeat", "mast3r", "sift", "aliked")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "matchers.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


@dataclass(frozen=True)
class Data:
    """Something to measure on: the command's arguments and the figure of the summary that says what is good."""

    name: str
    real: bool
    command: str
    limit: str
    task: str = "localization"

    @property
    def together(self) -> bool:
        """Whether one command measures several matchers: what is made for it, rooms, is then made once."""
        return not self.real

    def good(self, summary: dict[str, Any]) -> int:
        """Answers within the limit."""
        return round(summary["recall"][self.limit] * summary["queries"])


def all_data(shared: Path) -> list[Data]:
    """What there is to measure on."""
    kitchen = f"{shared}/sevenscenes_mini"
    return [
        Data("tum_fr1_rpy", True, f"evaluate photos {shared}/photos/tum_fr1_rpy", "0.10m_5deg"),
        Data("strecha_castle", True, f"evaluate photos {shared}/photos/strecha_castle", "0.25m_10deg"),
        Data("sevenscenes_mini", True, f"evaluate sevenscenes {kitchen}", "0.10m_5deg"),
        Data("worlds", False, "evaluate worlds --pairs 100 --rooms 20 --seed 1", "0.25m_10deg"),
        Data("kitchen_pairs", True, f"evaluate pairs {kitchen} --pairs 60 --frames 60", "10deg", "relative pose"),
    ]


def measure(data: Data, matchers: Sequence[str], device: str, weights: dict[str, str], runs: Path | None) -> None:
    """Run one command and save its figures."""
    asked = f"{data.command} {' '.join(f'--matcher {name}' for name in matchers)} --json"
    asked += "" if [*matchers] == ["sift"] else f" --device {device}"
    print(f"mast3r_ros {asked}", file=sys.stderr, flush=True)
    kept = [] if runs is None else ["--report", str(runs / data.name / f"{'-'.join(matchers)}-{device}")]
    program = [sys.executable, "-m", "mast3r_ros.cli.main", *asked.split(), *kept]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True, env=one_thread).stdout
    summary = json.loads(printed)
    of_each = summary.get("matchers") or {matchers[0]: summary}
    save_rows([_row(data, name, device, weights[name], f"mast3r_ros {asked}", of_each[name]) for name in matchers])


def _row(data: Data, matcher: str, device: str, weights: str, command: str, summary: dict[str, Any]) -> Measured:
    """What a command says of one matcher."""
    degrees = "median_rotation_error_deg" if data.task == "localization" else "median_direction_error_deg"
    return Measured(
        matcher,
        data.name,
        device,
        data.real,
        queries=summary["queries"],
        answered=summary["answered"],
        good=data.good(summary),
        wrong=summary["wrong_accepted"],
        limit=data.limit.replace("_", " and "),
        latency_ms=round(summary["latency_ms"]["p50"], 1),
        machine=_machine(device, summary["machine"]),
        date=datetime.date.today().isoformat(),
        command=command,
        weights=weights,
        processor_ms=round(summary["processor_ms"]["p50"], 1),
        median_error_m=round(summary["median_translation_error_m"] or 0.0, 4),
        median_error_deg=round(summary[degrees] or 0.0, 3),
        task=data.task,
    )


def _machine(device: str, facts: dict[str, Any]) -> str:
    where = f"{facts['processor']}, {facts['cores']} cores, load {facts['load_1min']:.0f}"
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}; {where}"
    return where


def markdown() -> Iterator[str]:
    """The rows that were measured, all matchers of a data set side by side."""
    yield "| data | matcher | device | answered | good (95 %) | wrong (95 %) | median error | ms an image |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in sorted(read_table(), key=lambda row: (row.data, row.device, MATCHERS.index(row.matcher))):
        length = "" if row.task == "relative pose" else f"{100 * row.median_error_m:.1f} cm, "
        error = f"{length}{row.median_error_deg:.2f}°" if row.answered else "none"
        yield (
            f"| {row.data} ({row.limit}) | `{row.matcher}` | {row.device} | {row.answered} of {row.queries} "
            f"| {_share(row.good, row.queries)} | {row.wrong}: {_share(row.wrong, row.queries)} "
            f"| {error} | {row.time_ms:.0f} |"
        )


def _share(count: int, of: int) -> str:
    low, high = share_interval(count, of)
    return f"{count / of:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def write_page() -> None:
    """The same table in docs/matchers.md."""
    table = "\n".join(markdown())
    text = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", PAGE.read_text(), flags=re.DOTALL)
    PAGE.write_text(text)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, nargs="?")
    parser.add_argument("--matcher", action="append", choices=MATCHERS)
    parser.add_argument("--data", default="")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    weights = usable_here()
    wanted = given.matcher or [name for name in MATCHERS if name in weights]
    chosen = [data for data in all_data(given.shared) if given.data in data.name] if given.shared else []
    parts = [(data, tuple(wanted) if data.together else (name,)) for name in wanted for data in chosen]
    for data, names in dict.fromkeys(parts):
        there = {
            (row.matcher, row.weights) for row in read_table() if (row.data, row.device) == (data.name, given.device)
        }
        missing = [name for name in names if not given.missing or (name, weights[name]) not in there]
        if missing:
            measure(data, missing, given.device, weights, given.runs)
    write_page()


if __name__ == "__main__":
    main()
