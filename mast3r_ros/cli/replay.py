"""`mast3r_ros replay`: a recording through the localizer, offline, with a result bag and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    load_map,
    make_localizer,
    make_matcher,
    progress,
)
from mast3r_ros.cli.source import IntrinsicsOption, calibration
from mast3r_ros.cli.summary import print_summary

if TYPE_CHECKING:
    from mast3r_ros.frames import Frame
    from mast3r_ros.lab.runs.localization import Record
    from mast3r_ros.localization import PoseEstimate


def replay(
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    map: Annotated[Path, typer.Option(help="Folder of the map.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for result.mcap, report.html and more.")],
    matcher: MatcherOption = "auto",
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    network_size: NetworkSizeOption = 0,
    keyframes: KeyframesOption = 5,
    image_topic: Annotated[str | None, typer.Option(help="Colour images.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Calibration.")] = None,
    depth_topic: Annotated[str | None, typer.Option(help="Depth images.")] = None,
    intrinsics: IntrinsicsOption = None,
    depth: Annotated[bool, typer.Option(help="Check poses against recorded depth, where there is any.")] = True,
    odom_frame: Annotated[str, typer.Option(help="TF frame of odometry.")] = "odom",
    base_frame: Annotated[str, typer.Option(help="TF frame of the robot.")] = "base_link",
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
    from mast3r_ros.localization import Tracker

    settings = ReplaySettings(
        image_topic,
        camera_info_topic,
        depth_topic,
        depth,
        odom_frame,
        base_frame,
        truth_topic,
        truth_frame,
        every,
        camera=calibration(intrinsics, image_topic or ""),
    )
    keyframe_map, chosen = load_map(map), make_matcher(matcher, feature, checkpoint, device, dtype, network_size)
    frames = count_frames(bag, settings)
    tracker = Tracker(make_localizer(keyframe_map, chosen, keyframes))
    gallery = Gallery(keyframe_map)
    about = {
        "bag": str(bag),
        "map": str(map),
        "map_keyframes": len(keyframe_map),
        "matcher": chosen.name,
        "features": chosen.signature,
        "keyframes": keyframes,
    }
    with progress("localizing", frames) as show:
        done = 0

        def watch(record: Record, frame: Frame, estimate: PoseEstimate) -> None:
            nonlocal done
            done += 1
            gallery.offer(record, frame, estimate)
            show(done, None, record.reason or "localized")

        run = replay_bag(bag, tracker, settings, watch, about, recorded_truth(bag, settings))
    write_result_bag(output / "result.mcap", run, settings, keyframe_map.frame_id)
    report = write_run(output, run.evaluation, keyframe_map, gallery.pictures())
    print_summary(run.evaluation, report, json)
