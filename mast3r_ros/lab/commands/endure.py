"""`mast3r_ros endure`: what does it survive?

One sub-command for each campaign. With --json each prints one object with at least trials, found and seconds.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, progress
from mast3r_ros.cli.options import JsonOption, grouped

app = typer.Typer(help="Try by the thousand what breaks it: bad input, kills, load, faults.", no_args_is_help=True)

TrialsOption = Annotated[int, typer.Option("--trials", "-n", min=1, help="Trials in all, those of the report too.")]


@dataclass(frozen=True)
class CampaignOptions:
    """What every campaign takes beside its number of trials."""

    seed: Annotated[int, typer.Option(min=0, help="Trial n depends on the seed and n alone.")] = 0
    first: Annotated[int, typer.Option(min=0, help="Number of the first trial: repeats what a report names.")] = 0
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.md, summary.json and the state, from which the same command goes on."),
    ] = None
    json: JsonOption = False

    def run(self, name: str, trials: int, make: Any = None) -> None:
        """Run a campaign and print its figures; its trials are made by the module of its name, or by ``make``."""
        from mast3r_ros.lab.endure.campaign import run_campaign

        make = make or importlib.import_module(f"mast3r_ros.lab.endure.{name}").make
        with progress(name, trials) as show:
            figures = run_campaign(
                name, make, trials, self.seed, self.report, lambda done, total: show(done, total), self.first
            )
            told(figures, self.report, self.json)


@app.command()
@grouped
def messages(
    *,
    dds: Annotated[
        bool, typer.Option("--dds", help="Over DDS to the real node, not straight into its intake.")
    ] = False,
    trials: TrialsOption = 10_000,
    how: CampaignOptions,
) -> None:
    """Broken images, calibrations, depth, TF, initial poses and parameters through intake and core."""
    if not dds:
        how.run("messages", trials)
        return
    from mast3r_ros.lab.endure.life import make_messages
    from mast3r_ros.lab.live.processes import own_environment

    with own_environment():
        how.run("messages --dds", trials, make_messages)


@app.command()
@grouped
def files(*, trials: TrialsOption = 1000, how: CampaignOptions) -> None:
    """Broken and hostile maps, recordings, checkpoints, calibrations and COLMAP models."""
    how.run("files", trials)


@app.command()
@grouped
def kills(*, trials: TrialsOption = 100, how: CampaignOptions) -> None:
    """Kill -9 and a disk that refuses, at random moments of everything that is written."""
    how.run("kills", trials)


@app.command()
@grouped
def life(*, trials: TrialsOption = 500, how: CampaignOptions) -> None:
    """Transitions, parameters, clock jumps, drivers that come and go, broken messages over DDS; always images."""
    from mast3r_ros.lab.live.processes import own_environment

    with own_environment():
        how.run("life", trials)


@app.command()
@grouped
def drive(
    *,
    trials: TrialsOption = 60,
    hours: Annotated[float | None, typer.Option(min=0.01, help="Instead of trials: a trial is 15 simulated s.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="Simulated seconds in a real one.")] = 8.0,
    how: CampaignOptions,
) -> None:
    """Two relocalizers on a long drive: clocks that jump, recordings that begin anew, publishers that come and go."""
    from mast3r_ros.lab.endure.drive import STRETCH_S, at_speed
    from mast3r_ros.lab.live.processes import own_environment

    with own_environment():
        stretches = trials if hours is None else max(1, round(hours * 3600 / STRETCH_S))
        how.run(f"drive --speed {speed:g}", stretches, at_speed(speed))


@app.command()
@grouped
def faults(
    *,
    bag: Annotated[
        Path | None, typer.Argument(help="Recording with odometry and /ground_truth; by default a generated drive.")
    ] = None,
    map: Annotated[Path | None, typer.Option(help="Map of the recording's place.")] = None,
    matcher: Annotated[str, typer.Option(help="Matcher of the robot.")] = "sift",
    trials: TrialsOption = 100,
    how: CampaignOptions,
) -> None:
    """Twelve faults of a robot, injected into a recording: detected, harmless, or dangerous?"""
    from mast3r_ros.lab.endure.faults import with_recording

    how.run("faults", trials, with_recording(bag, map, matcher))


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
