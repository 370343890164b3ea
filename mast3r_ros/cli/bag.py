"""`mast3r_ros bag`: recordings looked at, and written from data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.check_text import print_check
from mast3r_ros.cli.common import print_facts, print_json, progress
from mast3r_ros.cli.options import JsonOption, grouped
from mast3r_ros.cli.source import BagOptions, SourceOptions

app = typer.Typer(help="Look at recordings, and make them.", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Look at recordings, and make them."""


@app.command()
@grouped
def write(
    *,
    source: Annotated[
        Path, typer.Argument(help="7-Scenes, TUM RGB-D, COLMAP, a folder of images with poses, or a bag.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recording to write: a folder, or a file *.mcap.")],
    raw: Annotated[bool, typer.Option("--raw", help="Raw images instead of JPEG.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG images.")] = 95,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Frames per second, instead of the stamps.")] = None,
    reading: SourceOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older recording.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a data set as a recording with true poses, so that it can be played to the live node."""
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.io.datasets.write_bag import write_bag

    frames = open_source(source, **reading.given())
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


@app.command()
@grouped
def check(
    *,
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    reading: BagOptions,
    json: JsonOption = False,
) -> None:
    """Say what would be used of a recording (topics, calibration, TF, depth, times), and every doubt about it.

    Takes the options of `map build` and says the same as `map build --dry-run`.
    """
    from mast3r_ros.io.datasets.check import check_source

    print_check(check_source(bag, "rosbag", **reading.given()), bag, json)
