"""What does 3-D supervision buy for matching? The same data and budget, four ways of learning, three seeds each.

    scripts/ablations.py -o .cache/runs/ablations        # trains what is missing, measures, rewrites docs/ablations.md

Interrupt it at any time: trainings go on where they were. Variants are trained two at a time, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mast3r_ros.lab import metrics
from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.metrics import read_metrics
from mast3r_ros.lab.training.rooms import VALIDATION_SEEDS, RenderedRooms, RoomsConfig
from mast3r_ros.lab.training.validation import HeldOutPair, held_out_pairs, judge
from mast3r_ros.network.checkpoint import load_model

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ablations.md"
BEGIN, END = "<!-- results: written by scripts/ablations.py -->", "<!-- end of results -->"
SEEDS = (0, 1, 2)
#: Held-out pairs, and rooms that they come from in turn.
PAIRS, ROOMS = 300, 20
Array = np.ndarray[Any, Any]
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Variant:
    """One way of learning.

    Attributes:
        title: for the table.
        settings: what differs from the config file.
        backbone: variant whose weights of the same seed are the start.
        by_points: whether pixels match by their predicted points.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = ""
    by_points: bool = False


#: The loss on attention teaches matching as well: where matching is not to be learned, or cannot be, it is left out.
VARIANTS = {
    "points": Variant(
        "pointmap loss alone, matches of 3-D neighbours", {"loss": {"matching": 0.0, "attention": 0.0}}, by_points=True
    ),
    "both": Variant("pointmap + matching loss"),
    "matching": Variant("matching loss alone", {"loss": {"points": 0.0}}),
    "frozen": Variant(
        "descriptor head on the frozen backbone of the pointmap loss",
        {"loss": {"points": 0.0, "attention": 0.0}, "train_only": ["downstream_head"]},
        backbone="points",
    ),
}
SHOWN = ("both", "matching", "points", "frozen")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "train" / "ablation.yaml")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / ".cache" / "runs" / "ablations")
    parser.add_argument("--at-once", type=int, default=2, help="trainings side by side")
    options = parser.parse_args()
    base, config = yaml.safe_load(options.config.read_text()), TrainConfig.load(options.config)
    render(config, options.at_once)
    for names in (("points", "both", "matching"), ("frozen",)):
        jobs = [(name, seed) for seed in SEEDS for name in names]
        with ThreadPoolExecutor(options.at_once) as pool:
            for done in [pool.submit(train, options.output, base, name, seed) for name, seed in jobs]:
                done.result()
    found = {name: [measured(options.output, name, seed) for seed in SEEDS] for name in VARIANTS}
    write_page(config, found, options.output)


def render(config: TrainConfig, at_once: int) -> None:
    """All rooms beforehand: trainings side by side ask for the same ones and would each render them."""
    folder = Path(config.cache)
    training, held_out = RenderedRooms(config.rooms, folder), RenderedRooms(config.rooms, folder, VALIDATION_SEEDS)
    print(f"rendering what is missing of {config.count} rooms and {ROOMS} held-out ones", flush=True)
    with ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        list(pool.map(training.ensure, range(config.count)))
        list(pool.map(held_out.ensure, range(ROOMS)))


def train(output: Path, base: dict[str, Any], name: str, seed: int) -> None:
    """One training in a process of its own, unless it is done."""
    folder, variant = output / f"{name}-{seed}", VARIANTS[name]
    if (folder / "model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump({**base, **variant.settings, "seed": seed}))
    command = [sys.executable, "-m", "mast3r_ros.cli.main", "train", str(config), "-o", str(folder), "--threads", "1"]
    if variant.backbone:
        command += ["--init", str(output / f"{variant.backbone}-{seed}" / "model.safetensors")]
    print(" ".join(command[3:]), flush=True)
    with (folder / "log.txt").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def measured(output: Path, name: str, seed: int) -> Rows:
    """One row for every held-out pair, in the same order for all."""
    folder = output / f"{name}-{seed}"
    kept = folder / "judged.json"
    if not kept.exists():
        print(f"measuring {folder}", flush=True)
        config = TrainConfig.load(folder / "train.yaml")
        network = load_model(folder / "model.safetensors")
        pairs = judged_on(config.rooms, config.cache)
        kept.write_text(json.dumps(judge(network, pairs, None, VARIANTS[name].by_points)))
    rows: Rows = json.loads(kept.read_text())
    return rows


@cache
def judged_on(rooms: RoomsConfig, folder: str) -> list[HeldOutPair]:
    """The pairs that all variants are judged on; loaded once."""
    return held_out_pairs(RenderedRooms(rooms, Path(folder), VALIDATION_SEEDS), ROOMS, PAIRS, seed=1)


def figures(precision: Array, hard: Array, metres: Array, degrees: Array, success: Array) -> dict[str, float]:
    """The columns of the table, from rows of pairs."""
    return {
        "precision": float(precision.mean()),
        "precision_hard": float(precision[hard].mean()) if hard.any() else float("nan"),
        "success": float(success.mean()),
        "metres": float(np.median(metres)),
        "degrees": float(np.median(degrees)),
    }


def columns(rows: Rows) -> tuple[Array, Array, Array, Array, Array]:
    """What :func:`figures` takes."""
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return table["precision_3px"], table["overlap"] < 0.3, table["metres"], table["degrees"], table["success"]


def write_page(config: TrainConfig, found: Mapping[str, Sequence[Rows]], output: Path) -> None:
    """Replace the results in the page."""
    rooms = np.tile(np.arange(PAIRS) % ROOMS, len(SEEDS))
    lines = [
        BEGIN,
        "",
        f"{config.pairs} pairs of {config.count} rooms at {config.rooms.width} x {config.rooms.height}, "
        f"seeds {', '.join(map(str, SEEDS))}; {PAIRS} held-out pairs of {ROOMS} rooms. Mean over pairs and seeds "
        "(95 % interval, bootstrap over rooms; lowest and highest seed).",
        "",
        "| learned with | matches within 3 px | at overlap < 0.3 | within 5 deg, 0.25 m | median error |",
        "|---|---|---|---|---|",
    ]
    for name in SHOWN:
        together = columns([row for rows in found[name] for row in rows])
        mean, interval = figures(*together), metrics.intervals(figures, *together, groups=rooms)
        seeds = [figures(*columns(rows)) for rows in found[name]]
        cells = [_share(key, mean, interval, seeds) for key in ("precision", "precision_hard", "success")]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} | {_pose(mean, interval)} |")
    lines += ["", *_differences(found, rooms), "", f"Pairs per second of one core: {_speed(output)}.", "", END]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(BEGIN)] + "\n".join(lines) + text[text.index(END) + len(END) :], encoding="utf-8")
    print("\n".join(lines))


def _share(
    key: str, mean: Mapping[str, float], interval: Mapping[str, Any], seeds: Sequence[Mapping[str, float]]
) -> str:
    low, high = interval[key]
    of_seeds = [seed[key] for seed in seeds]
    return f"{mean[key]:.1%} ({low:.1%} to {high:.1%}; {min(of_seeds):.1%} to {max(of_seeds):.1%})"


def _pose(mean: Mapping[str, float], interval: Mapping[str, Any]) -> str:
    if not np.isfinite(mean["metres"]):
        return "no pose for most"
    degrees, metres = interval["degrees"], interval["metres"]
    return (
        f"{mean['degrees']:.1f} deg ({degrees[0]:.1f} to {degrees[1]:.1f}), "
        f"{mean['metres']:.2f} m ({metres[0]:.2f} to {metres[1]:.2f})"
    )


def _differences(found: Mapping[str, Sequence[Rows]], rooms: Array) -> list[str]:
    """How much each variant matches better than pointmap + matching loss, on the same pairs."""

    def difference(one: Array, other: Array) -> dict[str, float]:
        return {"precision": float((one - other).mean())}

    lines = ["Against pointmap + matching loss, on the same pairs and seeds (match precision, percentage points):", ""]
    base = np.concatenate([columns(rows)[0] for rows in found["both"]])
    for name in SHOWN[1:]:
        own = np.concatenate([columns(rows)[0] for rows in found[name]])
        low, high = metrics.intervals(difference, own, base, groups=rooms)["precision"]
        lines.append(
            f"- {VARIANTS[name].title}: {100 * (own - base).mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        )
    return lines


def _speed(output: Path) -> str:
    """Medians, so that what else the machine did for a while does not count."""
    rates = {
        name: np.median([r["pairs_per_s"] for s in SEEDS for r in read_metrics(output / f"{name}-{s}" / "metrics.csv")])
        for name in SHOWN
    }
    return ", ".join(f"{VARIANTS[name].title} {rate:.0f}" for name, rate in rates.items())


if __name__ == "__main__":
    main()
