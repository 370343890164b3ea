"""`mast3r_ros evaluate bag`: a recording whose true poses are known, against a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
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
from mast3r_ros.lab.commands.summary import ReportOption, finish, watching


def bag(
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    map: Annotated[Path, typer.Option(help="Folder of the map.")],
    ground_truth: Annotated[
        str, typer.Option(help="/tf, a pose topic of the recording, or a TUM trajectory.", metavar="/tf|TOPIC|FILE")
    ],
    align: Annotated[
        str,
        typer.Option(
            help="none: metric errors in the map. se3, sim3: the truth is in another frame; fit it first.",
            click_type=click.Choice(["none", "se3", "sim3"]),
        ),
    ] = "none",
    truth_frame: Annotated[
        str | None, typer.Option(help="Frame that the truth is in, by default the map's; it must be the same place.")
    ] = None,
    truth_body: Annotated[
        str | None,
        typer.Option(help="Frame that it is the pose of; by default what the messages say, else the camera."),
    ] = None,
    max_gap: Annotated[float, typer.Option(min=0, help="True poses further apart are not interpolated, s.")] = 0.2,
    max_difference: Annotated[
        float, typer.Option(min=0, help="How near a lone true pose must be, where nothing can be interpolated, s.")
    ] = 0.02,
    time_offset: Annotated[float, typer.Option(help="The truth's clock minus the images' clock, s.")] = 0.0,
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
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame only.")] = 1,
    report: ReportOption = None,
    json: JsonOption = False,
) -> None:
    """Localize a recording in a map and measure against its true poses.

    Frames go through the tracker in their order, as in the live node. With --report the folder also gets result.mcap:
    poses, path, truth and TF, to be opened in RViz or Foxglove beside the recording.
    """
    from mast3r_ros.lab.runs.bag import Align, evaluate_bag
    from mast3r_ros.lab.runs.gallery import Gallery
    from mast3r_ros.lab.runs.replay import ReplaySettings, count_frames, write_result_bag

    settings = chosen_settings(
        params, keyframes=keyframes, use_depth=depth, odom_frame_id=odom_frame, base_frame_id=base_frame
    )
    reading = ReplaySettings.of_node(
        settings.node,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        depth_topic=depth_topic,
        truth_frame=truth_frame,
        every=every,
        truth_body=truth_body,
        truth_gap_s=max_gap,
        truth_difference_s=max_difference,
        truth_offset_s=time_offset,
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
        "depth_checked": reading.use_depth,
    }
    with watching(gallery, frames) as watch:
        run = evaluate_bag(bag, relocalizer, ground_truth, Align(align), reading, watch, about)
    if report is not None:
        write_result_bag(report / "result.mcap", run, reading, keyframe_map.frame_id)
    finish(run.evaluation, keyframe_map, gallery.pictures(), report, json)
