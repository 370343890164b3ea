"""`mast3r_ros train`: a network from rendered rooms, or a checkpoint fine-tuned on one's own recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json, progress
from mast3r_ros.cli.options import JsonOption

if TYPE_CHECKING:
    from mast3r_ros.lab.training.config import TrainConfig
    from mast3r_ros.lab.training.data import TrainingData


def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, such as config/train/small.yaml; not needed with --init.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; one with a training in it goes on.")] = Path(
        "training"
    ),
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this checkpoint.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="RGB-D recording with poses: bag, 7-Scenes, TUM; may be repeated.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="How many pairs to train on.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after so long, export what is learned, and go on another time.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of this process; 0: as many as there are.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, how fast and how long.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a network, or go on where a training was interrupted.

    In several processes: torchrun --nproc-per-node 2 -m mast3r_ros.cli.main train ...
    """
    import torch

    from mast3r_ros.lab.training import processes
    from mast3r_ros.lab.training.data import TrainingData
    from mast3r_ros.lab.training.loop import train as run

    if threads:
        torch.set_num_threads(threads)
    settings = _settings(config, init, pairs)
    source = TrainingData.recorded(settings, data) if data else TrainingData.rendered(settings)
    if dry_run:
        facts = _measured(settings, source, init, output)
        print_json(facts) if json else print_facts("What would be trained", facts)
        return
    with progress("training", settings.steps) as show:

        def watch(step: int, steps: int, line: str) -> None:
            show(step, steps, line)
            if not json and step % 400 == 0:
                note(f"step {step} of {steps}: {line}")

        written = run(settings, output, source, init, watch, minutes=minutes)
    rank, _ = processes.join()
    processes.leave()
    if rank:
        return
    facts = {"checkpoint": str(written), "metrics": str(output / "metrics.csv"), "picture": str(output / "metrics.png")}
    print_json(facts) if json else print_facts("Trained", facts)


def _settings(config: Path | None, init: Path | None, pairs: int | None) -> TrainConfig:
    """The config by its file, or one for fine-tuning the checkpoint's own network."""
    from mast3r_ros.errors import UserError
    from mast3r_ros.lab.training.config import TrainConfig, fine_tuning

    if config is not None:
        settings = TrainConfig.load(config)
    elif init is not None:
        settings = fine_tuning(init)
    else:
        raise UserError("name a config, such as config/train/small.yaml, or a checkpoint to start from (--init)")
    return settings if pairs is None else replace(settings, pairs=pairs)


def _measured(settings: TrainConfig, data: TrainingData, init: Path | None, output: Path) -> dict[str, Any]:
    """What a run would do, from a few steps on real batches; nothing is kept."""
    from mast3r_ros.lab.training.rehearsal import rehearse

    note("a few steps on real data ...")
    figures = rehearse(settings, data, init)
    left = settings.pairs - _done(output) * settings.batch
    return figures | {
        "pairs_left": max(left, 0),
        "hours_left": round(max(left, 0) / figures["pairs_per_s"] / 3600, 2),
        "output": str(output),
    }


def _done(output: Path) -> int:
    from mast3r_ros.lab.training.state import saved_step

    return saved_step(output / "state.safetensors")
