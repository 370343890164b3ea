"""`mast3r_ros evaluate photos`: photographs with poses, some of them the map and the others queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.common import stages
from mast3r_ros.cli.options import JsonOption, MatcherOptions, WorkersOption, grouped
from mast3r_ros.lab.commands.evaluate_scenes import QueryDepthOption
from mast3r_ros.lab.commands.options import DEFAULT_KEYFRAMES, KeyframesCount
from mast3r_ros.lab.commands.summary import ReportOption, finish


@grouped
def photos(
    *,
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder with images/, poses.txt, intrinsics.txt, split.txt ('map|query name ...') and perhaps depth/.",
            metavar="SET",
        ),
    ],
    matching: MatcherOptions,
    keyframes: KeyframesCount = DEFAULT_KEYFRAMES,
    depth: Annotated[
        bool, typer.Option(help="Use the depth of the map's images where the set has any; else it is triangulated.")
    ] = True,
    query_depth: QueryDepthOption = False,
    negatives: Annotated[
        Path | None,
        typer.Option(help="Set of another place: every image of it is asked as well, and any answer is false."),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(
            min=1e-6, help="Multiply all lengths of the sets: what comes out must not depend on it but by this factor."
        ),
    ] = 1.0,
    workers: WorkersOption = "1",
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize photographs of a place in a map made of others, each on its own.

    With --scale, recall and wrong answers are counted at the set's own metres (10 cm become 1 m at 10); errors are
    those of the scaled map.
    """
    from mast3r_ros.lab.runs.photos import evaluate_photos, map_of_photos
    from mast3r_ros.lab.runs.splits import QuerySettings
    from mast3r_ros.workers import workers as several

    chosen = matching.make()
    settings = QuerySettings(keyframes, query_depth and depth)
    with (
        several(workers) as by,
        stages() as show,
        map_of_photos(path, chosen, show, depth, scale, by) as keyframe_map,
    ):
        evaluation, pictures = evaluate_photos(
            path,
            keyframe_map,
            chosen,
            settings,
            show,
            negatives=negatives,
            scale=scale,
            about={"depth": depth},
            by=by,
        )
        finish(evaluation, keyframe_map, pictures, report, json)
