"""`mast3r_ros evaluate queries`: lists of query images against a map, as in long-term visual localization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.common import load_map, note, stages
from mast3r_ros.cli.options import JsonOption, MatcherOptions, WorkersOption, grouped
from mast3r_ros.lab.commands.options import KeyframesCount
from mast3r_ros.lab.commands.summary import ReportOption, finish

if TYPE_CHECKING:
    from mast3r_ros.lab.runs.record import Record


@grouped
def queries(
    *,
    queries: Annotated[
        Path,
        typer.Argument(
            help="Lines 'name MODEL width height parameters' (Aachen), or names alone (Cambridge) with --cameras.",
            metavar="LIST",
        ),
    ],
    map: Annotated[Path, typer.Option(help="Folder of the map, e.g. built from a COLMAP model.")],
    images: Annotated[Path, typer.Option(help="Folder that the names in LIST start from.")],
    cameras: Annotated[
        Path | None, typer.Option(help="COLMAP model that knows the cameras of queries listed by name alone.")
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help="True poses: lines 'name qw qx qy qz tx ty tz' (world to camera), Cambridge's dataset_test.txt, or a "
            "COLMAP model."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write poses as 'name qw qx qy qz tx ty tz' (visuallocalization.net)."),
    ] = None,
    base_names: Annotated[
        bool,
        typer.Option("--base-names", help="Names without folders in that file, as the benchmark wants for Aachen."),
    ] = False,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Write poses that verification rejected too: a benchmark forgives them.")
    ] = False,
    scale: Annotated[
        float, typer.Option(min=1e-9, help="Metres for each unit of the pose files, where the map was built with one.")
    ] = 1.0,
    matching: MatcherOptions,
    keyframes: KeyframesCount = 20,
    workers: WorkersOption = "1",
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize listed images in a map, write the poses as benchmarks take them, and score them where truth is known.

    Recall is given at (0.25 m, 2 deg), (0.5 m, 5 deg) and (5 m, 10 deg) among others, as Aachen's server does.
    """
    from mast3r_ros.lab.datasets.query_list import QueryList
    from mast3r_ros.lab.runs.splits import QuerySettings, evaluate_split
    from mast3r_ros.workers import workers as several

    asked = QueryList(queries, images, cameras, ground_truth, scale)
    chosen, keyframe_map = matching.make(), load_map(map)
    about = {"data": str(queries), "ground_truth": ground_truth and str(ground_truth)}
    name, settings = f"Queries of {asked.name}", QuerySettings(keyframes)
    with several(workers) as by, stages() as show:
        evaluation, pictures = evaluate_split(
            asked, keyframe_map, chosen, settings, show, name=name, about=about, by=by
        )
    if output is not None:
        _write_poses(output, evaluation.records, rejected, base_names, scale)
    finish(evaluation, keyframe_map, pictures, report, json)


def _write_poses(output: Path, records: Sequence[Record], rejected: bool, base_names: bool, scale: float) -> None:
    from mast3r_ros.lab.datasets.query_list import write_poses

    written = [record for record in records if record.accepted or rejected]
    poses = [(record.name, record.map_T_camera) for record in written if record.map_T_camera is not None]
    write_poses(output, poses, base_names, scale)
    note(f"poses: {output} ({len(poses)} of {len(records)} queries)")
