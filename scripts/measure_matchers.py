"""Measures the matchers on real sets and generated worlds, and writes the table that `auto` reads.

    scripts/measure_matchers.py SHARED [--matcher NAME ...] [--data PART_OF_NAME] [--device cuda] [--missing]

SHARED is the folder with photos/ and sevenscenes_mini/. Each row is written as soon as it is there, so a run may be
interrupted; ``--missing`` goes on with what the table lacks. Every row names the command that prints its figures.
Times are the medians of a machine's wall clock: measure on a quiet one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mast3r_ros.matching.measured import Measured, read_table, save_rows
from mast3r_ros.matching.registry import usable_here

MATCHERS = ("sift", "xfeat", "aliked", "mast3r")


@dataclass(frozen=True)
class Data:
    """Something to measure on: the command's arguments and the figure of the summary that says what is good."""

    name: str
    real: bool
    command: str
    limit: str

    def good(self, summary: dict[str, Any]) -> int:
        """Answers within the limit."""
        share = summary["recall"][self.limit] if self.real else summary[f"success_{self.limit}"]
        return round(share * summary["queries"])


def all_data(shared: Path) -> list[Data]:
    """What there is to measure on."""
    return [
        Data("strecha_castle", True, f"evaluate photos {shared}/photos/strecha_castle", "0.25m_10deg"),
        Data("tum_fr1_rpy", True, f"evaluate photos {shared}/photos/tum_fr1_rpy", "0.10m_5deg"),
        Data("sevenscenes_mini", True, f"evaluate sevenscenes {shared}/sevenscenes_mini", "0.10m_5deg"),
        Data("worlds", False, "evaluate worlds --pairs 100 --rooms 20 --seed 1", "5deg_0.25m"),
    ]


def measure(data: Data, matcher: str, device: str, weights: str) -> Measured:
    """Run one command and take its figures."""
    asked = f"{data.command} --matcher {matcher} --json" + ("" if matcher == "sift" else f" --device {device}")
    print(f"mast3r_ros {asked}", file=sys.stderr, flush=True)
    program = [sys.executable, "-m", "mast3r_ros.cli.main"]
    printed = subprocess.run([*program, *asked.split()], check=True, stdout=subprocess.PIPE, text=True).stdout
    summary = json.loads(printed)
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
        command=f"mast3r_ros {asked}",
        weights=weights,
    )


def _machine(device: str, facts: dict[str, Any]) -> str:
    where = f"{facts['processor']}, {facts['cores']} cores, load {facts['load_1min']:.0f}"
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}; {where}"
    return where


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--matcher", action="append", choices=MATCHERS)
    parser.add_argument("--data", default="")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--missing", action="store_true")
    given = parser.parse_args()
    weights = usable_here()
    for data in all_data(given.shared):
        for matcher in given.matcher or [name for name in MATCHERS if name in weights]:
            there = (matcher, data.name, given.device, weights[matcher]) in {
                (row.matcher, row.data, row.device, row.weights) for row in read_table()
            }
            if given.data in data.name and not (given.missing and there):
                save_rows([measure(data, matcher, given.device, weights[matcher])])


if __name__ == "__main__":
    main()
