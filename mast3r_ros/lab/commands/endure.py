"""`mast3r_ros endure`: what does it survive?

One sub-command for each campaign. With --json each prints one object with at least trials, found and seconds.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, progress
from mast3r_ros.cli.options import JsonOption

app = typer.Typer(help="Try by the thousand what breaks it: bad input, kills, load, faults.", no_args_is_help=True)

SeedOption = Annotated[int, typer.Option(min=0, help="Trial n depends on the seed and n alone.")]
ReportOption = Annotated[
    Path | None,
    typer.Option(help="Folder for report.md, summary.json and the state, from which the same command goes on."),
]
FirstOption = Annotated[int, typer.Option(min=0, help="Number of the first trial: repeats what a report names.")]
TrialsOption = Annotated[int, typer.Option("--trials", "-n", min=1, help="Trials in all, those of the report too.")]


@app.command()
def messages(
    trials: TrialsOption = 10_000,
    seed: SeedOption = 0,
    first: FirstOption = 0,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Broken images, calibrations, depth, TF, initial poses and parameters through intake and core."""
    _campaign("messages", trials, seed, first, report, json)


@app.command()
def files(
    trials: TrialsOption = 1000,
    seed: SeedOption = 0,
    first: FirstOption = 0,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Broken and hostile maps, recordings, checkpoints, calibrations and COLMAP models."""
    _campaign("files", trials, seed, first, report, json)


@app.command()
def kills(
    trials: TrialsOption = 100,
    seed: SeedOption = 0,
    first: FirstOption = 0,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Kill -9 and a disk that refuses, at random moments of everything that is written."""
    _campaign("kills", trials, seed, first, report, json)


@app.command()
def life(
    trials: TrialsOption = 500,
    seed: SeedOption = 0,
    first: FirstOption = 0,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Transitions, parameters, clock jumps, drivers that come and go, broken messages over DDS; always images."""
    from mast3r_ros.lab.live.processes import own_environment

    with own_environment():
        _campaign("life", trials, seed, first, report, json)


@app.command()
def faults(
    bag: Annotated[
        Path | None, typer.Argument(help="Recording with odometry and /ground_truth; by default a generated drive.")
    ] = None,
    map: Annotated[Path | None, typer.Option(help="Map of the recording's place.")] = None,
    matcher: Annotated[str, typer.Option(help="Matcher of the robot.")] = "sift",
    trials: TrialsOption = 100,
    seed: SeedOption = 0,
    first: FirstOption = 0,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Twelve faults of a robot, injected into a recording: detected, harmless, or dangerous?"""
    from mast3r_ros.lab.endure.faults import with_recording

    _run("faults", with_recording(bag, map, matcher), trials, seed, first, report, json)


def _campaign(name: str, trials: int, seed: int, first: int, report: Path | None, json: bool) -> None:
    make = importlib.import_module(f"mast3r_ros.lab.endure.{name}").make
    _run(name, make, trials, seed, first, report, json)


def _run(name: str, make: Any, trials: int, seed: int, first: int, report: Path | None, json: bool) -> None:
    from mast3r_ros.lab.endure.campaign import run_campaign

    with progress(name, trials) as show:
        told(run_campaign(name, make, trials, seed, report, lambda done, total: show(done, total), first), report, json)


def told(figures: dict[str, Any], report: Path | None, json: bool) -> None:
    """Print the figures of a campaign; ends with exit code 1 where something was found."""
    if json:
        print_json(figures)
    else:
        shown = {name: figures[name] for name in ("trials", "found", "seconds")}
        print_facts(
            f"endure {figures['campaign']}", {**shown, **figures["facts"], **figures["outcomes"], **figures["kinds"]}
        )
        if report is not None:
            note(f"report: {report / 'report.md'}")
    if figures["found"]:
        raise typer.Exit(1)
