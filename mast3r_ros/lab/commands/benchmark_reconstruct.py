"""`mast3r_ros benchmark reconstruct`: how time and memory grow with the number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_json, print_table
from mast3r_ros.cli.options import JsonOption


def time_reconstruct(
    images: Annotated[
        list[int] | None, typer.Option("--images", "-n", min=3, help="Number of images; give it again for several.")
    ] = None,
    width: Annotated[int, typer.Option(min=32, help="Of the images, pixels.")] = 96,
    neighbours: Annotated[int, typer.Option(min=2, help="Images that each is matched with.")] = 6,
    noise: Annotated[float, typer.Option(min=0, help="Of the pointmaps, a share of the distance.")] = 0.01,
    wrong: Annotated[float, typer.Option(min=0, max=0.5, help="Share of pairs that say something else.")] = 0.1,
    mapper: Annotated[str, typer.Option(help="sparse or global.")] = "sparse",
    memory: Annotated[int, typer.Option(min=16, help="MiB that features and matches may take.")] = 1024,
    dense: Annotated[bool, typer.Option("--dense", help="Multi-view stereo as well, held against the hall.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file.")] = None,
    json: JsonOption = False,
) -> None:
    """Reconstruct halls by an oracle's pointmaps, which cost nothing: time, peak memory and error by images.

    What a network takes for its pairs comes on top, and grows linearly with them.
    """
    from mast3r_ros.errors import UserError
    from mast3r_ros.io.documents import to_json
    from mast3r_ros.lab.speed.reconstruct_benchmark import ReconstructBenchmark, benchmark_reconstruct

    if mapper not in ("sparse", "global"):
        raise UserError(f"--mapper {mapper}: sparse or global")
    settings = ReconstructBenchmark(width, neighbours, noise, wrong, mapper, memory << 20, dense)
    rows: list[dict[str, Any]] = []
    for row in benchmark_reconstruct(images or [10, 20, 50, 100], settings):
        rows.append(row)
        if output is not None:
            output.write_text(to_json(rows) + "\n")
        note(f"{row['images']} images: {row['cpu_seconds']:.0f} s of CPU, {row['peak_memory_mib']:.0f} MiB")
    if json:
        print_json(rows)
        return
    columns = ("images", "registered", "CPU s", "peak MiB", "median, worst m", "median deg", "of m")
    print_table(
        "Reconstruction of a hall by an oracle's pointmaps",
        columns,
        [
            (
                str(row["images"]),
                f"{row['registered']} in {row['components']}",
                f"{row['cpu_seconds']:.1f}",
                f"{row['peak_memory_mib']:.0f}",
                f"{row['median_m']:.3f}, {row['worst_m']:.3f}",
                f"{row['median_deg']:.2f}",
                f"{row['hall_m']:.0f}",
            )
            for row in rows
        ],
    )
