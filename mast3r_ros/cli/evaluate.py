"""`mast3r_ros evaluate`: how well does localization work on data whose truth is known?

One sub-command for each kind of data. With --json each prints one object with at least queries, answered,
wrong_accepted, median_translation_error_m, median_rotation_error_deg and recall.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli import evaluate_mapfree, evaluate_pairs
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
    note,
    print_facts,
    print_json,
    stages,
)

if TYPE_CHECKING:
    from mast3r_ros.evaluation.gallery import Picture
    from mast3r_ros.evaluation.localization import Evaluation
    from mast3r_ros.mapping.keyframe_map import KeyframeMap

app = typer.Typer(help="Measure accuracy on data whose truth is known.", no_args_is_help=True)
app.command()(evaluate_mapfree.mapfree)
app.command()(evaluate_pairs.pairs)

ReportOption = Annotated[
    Path | None, typer.Option(help="Folder for report.html, summary.json, records.jsonl and trajectories.")
]


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


def finish(
    evaluation: Evaluation, keyframe_map: KeyframeMap, pictures: list[Picture], report: Path | None, json: bool
) -> None:
    """Write the report where one is wanted, and print the figures."""
    written = None
    if report is not None:
        from mast3r_ros.evaluation.report import write_run

        written = write_run(report, evaluation, keyframe_map, pictures)
    print_summary(evaluation, written, json)


def print_summary(evaluation: Evaluation, report: Path | None, json: bool) -> None:
    """The figures of a run, for people or as JSON."""
    summary = evaluation.summary()
    if report is not None:
        note(f"report: {report}")
    if json:
        print_json(summary)
        return
    facts = {
        "frames": summary["queries"],
        "localized": summary["answered"],
        "rejected": ", ".join(f"{count} {reason}" for reason, count in summary["rejected"].items()) or "none",
    }
    if any(record.truth is not None for record in evaluation.records):
        metres, degrees = summary["median_translation_error_m"], summary["median_rotation_error_deg"]
        facts |= {
            "wrong accepted": f"{summary['wrong_accepted']}  (off by more than 25 cm or 10 deg)",
            "median error": f"{100 * metres:.1f} cm, {degrees:.2f} deg",
            **{f"within {name.replace('_', ', ')}": f"{share:.1%}" for name, share in summary["recall"].items()},
        }
    facts["latency"] = f"{summary['latency_ms']['p50']:.0f} ms median, {summary['latency_ms']['p95']:.0f} ms p95"
    print_facts(evaluation.name, facts)
