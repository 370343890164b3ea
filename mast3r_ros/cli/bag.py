"""`mast3r_ros bag`: recordings from data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import JsonOption, print_facts, print_json, progress

app = typer.Typer(help="Make recordings.", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Make recordings."""


@app.command()
def write(
    source: Annotated[
        Path, typer.Argument(help="7-Scenes, TUM RGB-D, COLMAP, a folder of images with poses, or a bag.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recording to write: a folder, or a file *.mcap.")],
    raw: Annotated[bool, typer.Option("--raw", help="Raw images instead of JPEG.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG images.")] = 95,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Frames per second, instead of the stamps.")] = None,
    layout: Annotated[str | None, typer.Option(help="Kind of source, where it is not recognised.")] = None,
    split: Annotated[str | None, typer.Option(help="7-Scenes: train or test.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older recording.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a data set as a recording with true poses, so that it can be played to the live node."""
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.io.datasets.write_bag import write_bag

    options: dict[str, Any] = {} if split is None else {"split": split}
    frames = open_source(source, layout, **options)
    with progress("writing frames", len(frames) if hasattr(frames, "__len__") else None) as show:
        count = write_bag(
            frames,
            output,
            jpeg_quality=None if raw else quality,
            rate_hz=rate,
            overwrite=overwrite,
            progress=lambda done: show(done, None, ""),
        )
    facts = {"recording": str(output), "frames": count}
    if json:
        print_json(facts)
    else:
        print_facts("Recording", facts)
