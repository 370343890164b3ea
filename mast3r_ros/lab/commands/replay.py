"""`mast3r_ros replay`: a recording through the localizer, offline, with a result bag and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.common import (
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    KeyframesOption,
    MatcherOption,
    NetworkSizeOption,
    ParamsOption,
    chosen_settings,
    load_map,
    make_matcher,
    make_relocalizer,
    option,
)
from mast3r_ros.cli.source import IntrinsicsOption, calibration
from mast3r_ros.lab.commands.summary import print_summary, watching


def replay(
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    map: Annotated[Path, typer.Option(help="Folder of the map.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for result.mcap, report.html and more.")],
    matcher: MatcherOption = None,
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    network_size: NetworkSizeOption = None,
    keyframes: KeyframesOption = None,
    params: ParamsOption = None,
    image_topic: Annotated[str | None, typer.Option(help="Colour images.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Calibration.")] = None,
    depth_topic: Annotated[str | None, typer.Option(help="Depth images.")] = None,
    intrinsics: IntrinsicsOption = None,
    depth: Annotated[
        bool | None, typer.Option("--depth/--no-depth", help="Check poses against recorded depth, where there is any.")
    ] = None,
    odom_frame: Annotated[str | None, option("odom_frame_id", "--odom-frame")] = None,
    base_frame: Annotated[str | None, option("base_frame_id", "--base-frame")] = None,
    truth_topic: Annotated[str | None, typer.Option(help="Reference poses in the map frame: measure errors.")] = None,
    truth_frame: Annotated[str | None, typer.Option(help="The same from TF: the fixed frame of the reference.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame only.")] = 1,
    json: JsonOption = False,
) -> None:
    """Localize every frame of a recording, as fast as possible, as the live node would have.

    Writes result.mcap (poses, path, map -> odom), trajectory.tum (camera poses), summary.json, records.jsonl and
    report.html.
    """
    from mast3r_ros.lab.pages.report import write_run
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.replay import ReplaySettings, count_frames, recorded_truth, replay_bag, write_result_bag

    settings = chosen_settings(
        params, keyframes=keyframes, use_depth=depth, odom_frame_id=odom_frame, base_frame_id=base_frame
    )
    reading = ReplaySettings.of_node(
        settings.node,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        depth_topic=depth_topic,
        truth_topic=truth_topic,
        truth_frame=truth_frame,
        every=every,
        camera=calibration(intrinsics, image_topic or ""),
    )
    keyframe_map = load_map(map)
    chosen = make_matcher(matcher, feature, checkpoint, device, dtype, network_size, settings)
    frames = count_frames(bag, reading)
    relocalizer = make_relocalizer(keyframe_map, chosen, settings)
    gallery = Gallery(keyframe_map)
    about = {
        "bag": str(bag),
        "map": str(map),
        "map_keyframes": len(keyframe_map),
        "matcher": chosen.name,
        "features": chosen.signature,
        "keyframes": settings.localizer.keyframes,
        "changed": settings.differences(),
    }
    with watching(gallery, frames) as watch:
        run = replay_bag(bag, relocalizer, reading, watch, about, recorded_truth(bag, reading))
    write_result_bag(output / "result.mcap", run, reading, keyframe_map.frame_id)
    report = write_run(output, run.evaluation, keyframe_map, gallery.pictures())
    print_summary(run.evaluation, report, json)
