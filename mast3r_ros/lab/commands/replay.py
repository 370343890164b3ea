"""`mast3r_ros replay`: a recording through the localizer, offline, with a result bag and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.options import JsonOption, MatcherOptions, grouped
from mast3r_ros.lab.commands.played import PlayedOptions, prepare
from mast3r_ros.lab.commands.summary import print_summary, watching


@grouped
def replay(
    *,
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    map: Annotated[Path, typer.Option(help="Folder of the map.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for result.mcap, report.html and more.")],
    matching: MatcherOptions,
    played: PlayedOptions,
    truth_topic: Annotated[str | None, typer.Option(help="Reference poses in the map frame: measure errors.")] = None,
    truth_frame: Annotated[str | None, typer.Option(help="The same from TF: the fixed frame of the reference.")] = None,
    json: JsonOption = False,
) -> None:
    """Localize every frame of a recording, as fast as possible, as the live node would have.

    Writes result.mcap (poses, path, map -> odom), trajectory.tum (camera poses), summary.json, records.jsonl and
    report.html.
    """
    from mast3r_ros.lab.pages.report import write_run
    from mast3r_ros.lab.runs.replay import recorded_truth, replay_bag, write_result_bag

    playing = prepare(bag, map, played, matching, truth_topic=truth_topic, truth_frame=truth_frame)
    reading, gallery, keyframe_map = playing.reading, playing.gallery, playing.relocalizer.map
    with watching(gallery, playing.frames) as watch:
        truth = recorded_truth(bag, reading)
        run = replay_bag(bag, playing.relocalizer, reading, watch, playing.about, truth)
    write_result_bag(output / "result.mcap", run, reading, keyframe_map.frame_id)
    report = write_run(output, run.evaluation, keyframe_map, gallery.pictures())
    print_summary(run.evaluation, report, json)
