"""`mast3r_ros evaluate`: how well does localization work on data whose truth is known?

One sub-command for each kind of data. With --json each prints one object with at least queries, answered,
wrong_accepted, median_translation_error_m, median_rotation_error_deg and recall.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli import evaluate_bag, evaluate_mapfree, evaluate_pairs
from mast3r_ros.cli.common import (
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    KeyframesOption,
    MatcherOption,
    NetworkSizeOption,
    load_map,
    make_matcher,
    stages,
)
from mast3r_ros.cli.summary import ReportOption, finish

app = typer.Typer(help="Measure accuracy on data whose truth is known.", no_args_is_help=True)
app.command()(evaluate_mapfree.mapfree)
app.command()(evaluate_pairs.pairs)
app.command()(evaluate_bag.bag)


@app.callback()
def evaluate() -> None:
    """Measure accuracy on data whose truth is known."""


@app.command()
def sevenscenes(
    path: Annotated[Path, typer.Argument(help="Scene: a folder with seq-*, TrainSplit.txt and TestSplit.txt.")],
    matcher: MatcherOption = "auto",
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    network_size: NetworkSizeOption = 0,
    keyframes: KeyframesOption = 5,
    map: Annotated[Path | None, typer.Option(help="Use this map; by default one is made of the train split.")] = None,
    query_depth: Annotated[
        bool, typer.Option(help="Check poses against the queries' own depth; a plain colour camera has none.")
    ] = False,
    tracking: Annotated[
        bool, typer.Option(help="Take the test split as a film: each pose is held against the last one.")
    ] = False,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize the test split of a 7-Scenes scene in a map of its train split."""
    from mast3r_ros.evaluation.sevenscenes import SevenScenesSettings, evaluate_sevenscenes, map_of_train_split

    chosen = make_matcher(matcher, feature, checkpoint, device, dtype, network_size)
    settings = SevenScenesSettings(keyframes, query_depth, tracking)
    with (
        stages() as show,
        nullcontext(load_map(map)) if map else map_of_train_split(path, chosen, show) as keyframe_map,
    ):
        evaluation, pictures = evaluate_sevenscenes(path, keyframe_map, chosen, settings, show)
        finish(evaluation, keyframe_map, pictures, report, json)
