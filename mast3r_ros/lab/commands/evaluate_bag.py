"""`mast3r_ros evaluate bag`: a recording whose true poses are known, against a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from mast3r_ros.cli.options import JsonOption, MatcherOptions, grouped
from mast3r_ros.lab.commands.played import PlayedOptions, prepare
from mast3r_ros.lab.commands.summary import ReportOption, finish, watching


@dataclass(frozen=True)
class TruthOptions:
    """How true poses are held against those of the images."""

    align: Annotated[
        str,
        typer.Option(
            help="none: metric errors in the map. se3, sim3: the truth is in another frame; fit it first.",
            click_type=click.Choice(["none", "se3", "sim3"]),
        ),
    ] = "none"
    truth_frame: Annotated[
        str | None, typer.Option(help="Frame that the truth is in, by default the map's; it must be the same place.")
    ] = None
    truth_body: Annotated[
        str | None,
        typer.Option(help="Frame that it is the pose of; by default what the messages say, else the camera."),
    ] = None
    max_gap: Annotated[float, typer.Option(min=0, help="True poses further apart are not interpolated, s.")] = 0.2
    max_difference: Annotated[
        float, typer.Option(min=0, help="How near a lone true pose must be, where nothing can be interpolated, s.")
    ] = 0.02
    time_offset: Annotated[float, typer.Option(help="The truth's clock minus the images' clock, s.")] = 0.0

    def fields(self) -> dict[str, Any]:
        """The fields of ReplaySettings that they say."""
        return {
            "truth_frame": self.truth_frame,
            "truth_body": self.truth_body,
            "truth_gap_s": self.max_gap,
            "truth_difference_s": self.max_difference,
            "truth_offset_s": self.time_offset,
        }


@grouped
def bag(
    *,
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    map: Annotated[Path, typer.Option(help="Folder of the map.")],
    ground_truth: Annotated[
        str, typer.Option(help="/tf, a pose topic of the recording, or a TUM trajectory.", metavar="/tf|TOPIC|FILE")
    ],
    comparison: TruthOptions,
    matching: MatcherOptions,
    played: PlayedOptions,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize a recording in a map and measure against its true poses.

    Frames go through the tracker in their order, as in the live node. With --report the folder also gets result.mcap:
    poses, path, truth and TF, to be opened in RViz or Foxglove beside the recording.
    """
    from mast3r_ros.lab.runs.bag import Align, evaluate_bag
    from mast3r_ros.lab.runs.replay import write_result_bag

    playing = prepare(bag, map, played, matching, **comparison.fields())
    reading, gallery, keyframe_map = playing.reading, playing.gallery, playing.relocalizer.map
    about = {**playing.about, "depth_checked": reading.use_depth}
    with watching(gallery, playing.frames) as watch:
        run = evaluate_bag(bag, playing.relocalizer, ground_truth, Align(comparison.align), reading, watch, about)
    if report is not None:
        write_result_bag(report / "result.mcap", run, reading, keyframe_map.frame_id)
    finish(run.evaluation, keyframe_map, gallery.pictures(), report, json)
