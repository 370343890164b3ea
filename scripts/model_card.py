"""Measures the small network that ships with the package, and writes its model card: no figure is typed by hand.

    scripts/model_card.py measure [--real NAME=FOLDER] [--only worlds]   evaluates mast3r and sift alike
    scripts/model_card.py write                                          weights/MODEL_CARD.md from what is known

``measure`` runs the commands that it notes in measured.json. Real data sets are folders that `mast3r_ros evaluate
sevenscenes` reads. Weights are taken from where the package looks for them; measure again after they were replaced:
measurements are bound to the digest of the weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mast3r_ros.errors import CheckpointError, UserError
from mast3r_ros.lab.runs.shipped_measurements import Measurement, QueryCounts, measurements, save_measurements
from mast3r_ros.matching.registry import best_matcher
from mast3r_ros.network import shipped
from mast3r_ros.network.checkpoint import inspect_checkpoint

CONFIG = Path(__file__).resolve().parents[1] / "config" / "train" / "small.yaml"
#: What may differ between runs of one recipe.
MACHINE = ("workers", "renderers", "save_every_s", "compile", "cache", "steps", "seconds", "note")
COMMAND = (
    "OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m mast3r_ros.cli.main train config/train/small.yaml "
    "-o runs/small --threads 1"
)
WORLDS = "evaluate worlds --matcher mast3r --pairs 500 --rooms 50 --seed 1"
SUCCESS = "success_5deg_0.25m"
#: Parts of a summary that the card shows.
SHOWN = (
    SUCCESS,
    f"{SUCCESS}_interval",
    "median_rotation_error_deg",
    "median_translation_error_m",
    "match_precision_3px",
    "by_overlap",
    "by_viewpoint_gap",
    "slices",
    "recall",
    "recall_interval",
    "latency_ms",
    "answered",
    "queries",
    "wrong_accepted",
    "machine",
)


@dataclass(frozen=True)
class Job:
    """Something to measure, by one command of all matchers, or by one of each, which names it as ``{matcher}``."""

    name: str
    real: bool
    command: str

    @property
    def limit(self) -> str:
        """What a good pose is."""
        return "accepted and within 10 cm and 5 deg" if self.real else "within 25 cm and 5 deg"

    def runs(self) -> dict[str, dict[str, Any]]:
        """The summary of each matcher, by its name."""
        if "{matcher}" in self.command:
            return {matcher: run(self.command.format(matcher=matcher)) for matcher in ("mast3r", "sift")}
        summary = run(self.command)
        return dict(summary.get("matchers") or {summary["settings"]["matcher"]: summary})

    def outcome(self, summary: dict[str, Any]) -> QueryCounts:
        """Counts of a summary."""
        share = summary["recall"]["0.10m_5deg"] if self.real else summary[SUCCESS]
        return QueryCounts(summary["queries"], round(share * summary["queries"]), summary["wrong_accepted"])


def jobs(real: Sequence[str]) -> list[Job]:
    """Everything that is measured. Raises UserError."""
    found = [Job("held-out worlds", False, f"{WORLDS} --matcher sift")]
    found.append(Job("held-out worlds, reference without depth", False, f"{WORLDS} --no-depth"))
    for given in real:
        name, equals, folder = given.partition("=")
        if not equals:
            raise UserError(f"--real {given} should be NAME=FOLDER")
        found.append(Job(name, True, f"evaluate sevenscenes {folder} --matcher {{matcher}}"))
    return found


def measure(real: Sequence[str], only: str) -> None:
    """Run the matchers on everything, and replace earlier measurements of the same data."""
    for job in jobs(real):
        if only in job.name:
            runs = job.runs()
            outcomes = {matcher: job.outcome(summary) for matcher, summary in runs.items()}
            measured = Measurement(
                job.name,
                job.real,
                job.limit,
                datetime.date.today().isoformat(),
                f"mast3r_ros {job.command} --json",
                shipped.weights_digest(),
                outcomes["mast3r"],
                outcomes.get("sift", QueryCounts(0, 0, 0)),
                {matcher: {key: run[key] for key in SHOWN if key in run} for matcher, run in runs.items()},
            )
            save_measurements([*(m for m in measurements() if m.name != job.name), measured])


def run(command: str) -> dict[str, Any]:
    """The JSON that a command of the package prints."""
    print(f"mast3r_ros {command} --json", file=sys.stderr, flush=True)
    arguments = [sys.executable, "-m", "mast3r_ros.cli.main", *command.split(), "--json"]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def card() -> str:
    """The model card of the shipped weights. Raises CheckpointError where there are none."""
    path = shipped.shipped_checkpoint()
    if path is None:
        raise CheckpointError(f"there is no {shipped.WEIGHTS / shipped.NAME}.safetensors: train it, and put it there")
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    taken, why = best_matcher()
    parts = [HEAD, *_facts(path), *_recipe(record.get("training", {})), *_cannot(taken == "mast3r", why)]
    parts += [line for m in measurements() for line in _measured(m)]
    return "\n".join(parts) + "\n"


HEAD = """\
# Model card: the small network of mast3r_ros

Written by `scripts/model_card.py write` from the weights' record (`small.json`) and `measured.json`.

A network of the MASt3R family (two views in; metric pointmaps, their confidence, and a descriptor with a confidence of
its own for every pixel out), for `matcher: mast3r` where no checkpoint is given. Trained from a random start by this
package on generated rooms alone: no pretrained weights, no photograph, no data of others. Licence: Apache-2.0, as the
package.
"""


def _facts(path: Path) -> list[str]:
    info = inspect_checkpoint(path)
    height, width = info.config.img_size
    parameters = sum(info.parameters.values())
    by_part = ", ".join(f"{part} {count / 1e6:.1f}" for part, count in info.parameters.items() if count > 1e4)
    stored = f"{info.bytes / 1e6:.1f} MB as {', '.join(info.dtypes)}"
    return [
        f"- {parameters / 1e6:.1f} million parameters (millions: {by_part}), {stored}",
        f"- sees images of {width}x{height} pixels; larger ones are shrunk",
        f"- SHA-256 `{info.sha256}`" + ("" if info.intact else " **(not what was exported)**"),
        "",
    ]


def _recipe(training: dict[str, Any]) -> list[str]:
    """Data, recipe, seeds and command, as the weights' record has them."""
    if not training:
        return ["## How it was made", "", "The record of the weights does not say.", ""]
    rooms, optimiser = training["rooms"], training["optimiser"]
    pairs = min(training["pairs"], training["steps"] * training["batch"])
    return [
        "## How it was made",
        "",
        f"- data: {pairs} pairs of {training['count']} ray-cast rooms ({', '.join(dict.fromkeys(rooms['families']))}), "
        f"{rooms['views']} views each at {rooms['width']}x{rooms['height']}, "
        f"fields of view {rooms['field_of_view_deg'][0]:g} to {rooms['field_of_view_deg'][1]:g} deg, "
        "with the noise of real cameras" * bool(rooms["noise"]),
        f"- recipe: {training['steps']} steps of {training['batch']} pairs, AdamW, learning rate {optimiser['lr']:g}, "
        f"averaged weights; {training['seconds'] / 60:.0f} minutes",
        f"- seed {training['seed']} for weights and data; held-out rooms have numbers that training never uses",
        f"- {_command(training)}",
        *([f"- {training['note']}"] if "note" in training else []),
        "",
    ]


def _command(training: dict[str, Any]) -> str:
    from mast3r_ros.lab.training.config import TrainConfig

    recipe = {key: value for key, value in training.items() if key not in MACHINE}
    known = json.loads(json.dumps(TrainConfig.load(CONFIG).to_json()))
    if {key: value for key, value in known.items() if key not in MACHINE} == recipe:
        return f"command: `{COMMAND}`"
    return (
        "command: `mast3r_ros train CONFIG -o runs/small`, where CONFIG holds the settings in `small.json` under "
        "`training`; config/train/small.yaml has changed since"
    )


def _cannot(better: bool, why: str) -> list[str]:
    chosen = f"`auto` takes it: {why}." if better else f"`auto` does not take it: {why}."
    return [
        "## What it cannot do",
        "",
        "- It has never seen a photograph. On real images it may fail where its figures below say nothing; "
        f"every pose passes the same gates as any other. {chosen}",
        "- Its pointmaps are too coarse to take a pose from: poses come from matches, against keyframes with depth, "
        "with triangulated points, or (one photo) with no more than the length of the motion from a pointmap.",
        "- Small images: fine detail far away is lost on it.",
        "- Outdoors, people, night, fisheye lenses: not trained for, not measured.",
        "",
    ]


def _measured(m: Measurement) -> list[str]:
    """One section: a line for each part, both matchers side by side."""
    names = [name for name in ("mast3r", "sift") if name in m.figures]
    lines = [f"## Measured: {m.name} ({m.date})", "", f"`{m.command}`", "", f"Good: {m.limit}.", ""]
    lines.append("| | queries | " + " | ".join(f"{name}, 95 % | wrong accepted" for name in names) + " |")
    lines.append("|---|---|" + "---|---|" * len(names))
    for title, rows in _rows(m, names):
        cells = " | ".join(f"{_good(rows[name], m.real)} | {rows[name]['wrong_accepted']}" for name in names)
        lines.append(f"| {title} | {rows[names[0]]['queries']} | {cells} |")
    lines.append("")
    for name in names:
        figures = m.figures[name]
        precision = figures.get("match_precision_3px")
        matches = "" if precision is None else f", {precision:.1%} of matches within 3 px"
        lines.append(
            f"{name}: median error {_number(figures['median_rotation_error_deg'], 1, '{:.2f} deg')}, "
            f"{_number(figures['median_translation_error_m'], 100, '{:.1f} cm')}{matches}, "
            f"{_number(figures['latency_ms']['p50'], 1, '{:.0f} ms')} per query.  "
        )
    return [*lines, ""]


def _rows(m: Measurement, names: Sequence[str]) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Title and, by matcher, figures of all queries and of the parts that a summary has."""
    rows = [("all", {name: m.figures[name] for name in names})]
    first = m.figures[names[0]]
    for key, what, unit in (("by_overlap", "overlap", ""), ("by_viewpoint_gap", "viewpoint gap", " deg")):
        for number, row in enumerate(first.get(key, ())):
            title = f"{what} {row['from']:g} to {row['to']:g}{unit}"
            rows.append((title, {name: m.figures[name][key][number] for name in names}))
    for key in first.get("slices", ()):
        rows.append((key.replace("_", " "), {name: m.figures[name]["slices"][key] for name in names}))
    return rows


def _good(row: dict[str, Any], real: bool) -> str:
    share = row["recall"]["0.10m_5deg"] if real else row[SUCCESS]
    low, high = row["recall_interval"]["0.10m_5deg"] if real else row[f"{SUCCESS}_interval"]
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _number(value: float | None, factor: float, form: str) -> str:
    return "unknown" if value is None else form.format(factor * value)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", choices=("measure", "write"))
    parser.add_argument("--real", action="append", default=[], metavar="NAME=FOLDER", help="a 7-Scenes folder")
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    options = parser.parse_args()
    try:
        if options.job == "measure":
            measure(options.real, options.only)
        (shipped.WEIGHTS / "MODEL_CARD.md").write_text(card(), encoding="utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
