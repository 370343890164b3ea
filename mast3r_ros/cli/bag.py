"""`mast3r_ros bag`: recordings looked at, and written from data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.check_text import print_check
from mast3r_ros.cli.common import JsonOption, print_facts, print_json, progress
from mast3r_ros.cli.source import (
    CameraFrameOption,
    DepthOption,
    DepthScaleOption,
    DepthTopicOption,
    ImagesOption,
    ImageTopicOption,
    InfoTopicOption,
    IntrinsicsOption,
    LayoutOption,
    MapFrameOption,
    PoseTopicOption,
    ScaleOption,
    SplitOption,
    source_options,
)

app = typer.Typer(help="Look at recordings, and make them.", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Look at recordings, and make them."""


@app.command()
def write(
    source: Annotated[
        Path, typer.Argument(help="7-Scenes, TUM RGB-D, COLMAP, a folder of images with poses, or a bag.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recording to write: a folder, or a file *.mcap.")],
    raw: Annotated[bool, typer.Option("--raw", help="Raw images instead of JPEG.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG images.")] = 95,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Frames per second, instead of the stamps.")] = None,
    layout: LayoutOption = None,
    split: SplitOption = None,
    intrinsics: IntrinsicsOption = None,
    image_topic: ImageTopicOption = None,
    camera_info_topic: InfoTopicOption = None,
    depth_topic: DepthTopicOption = None,
    pose_topic: PoseTopicOption = None,
    map_frame: MapFrameOption = None,
    camera_frame: CameraFrameOption = None,
    depth: DepthOption = True,
    scale: ScaleOption = None,
    images: ImagesOption = None,
    depth_scale: DepthScaleOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older recording.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a data set as a recording with true poses, so that it can be played to the live node."""
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.io.datasets.write_bag import write_bag

    options = source_options(
        intrinsics,
        depth,
        split=split,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        depth_topic=depth_topic,
        pose_topic=pose_topic,
        map_frame=map_frame,
        camera_frame=camera_frame,
        scale=scale,
        images=images,
        depth_scale=depth_scale,
    )
    frames = open_source(source, layout, **options)
    with progress("writing frames", len(frames) if hasattr(frames, "__len__") else None) as show:
        count = write_bag(
            frames,
            output,
            jpeg_quality=None if raw else quality,
            rate_hz=rate,
            overwrite=overwrite,
            progress=lambda done: show(done, None, ""),
        )
    facts = {"recording": str(output), "frames": count}
    if json:
        print_json(facts)
    else:
        print_facts("Recording", facts)


@app.command()
def check(
    bag: Annotated[Path, typer.Argument(help="Recording: folder, .mcap, .db3 or .bag.")],
    intrinsics: IntrinsicsOption = None,
    image_topic: ImageTopicOption = None,
    camera_info_topic: InfoTopicOption = None,
    depth_topic: DepthTopicOption = None,
    pose_topic: PoseTopicOption = None,
    map_frame: MapFrameOption = None,
    camera_frame: CameraFrameOption = None,
    depth: DepthOption = True,
    json: JsonOption = False,
) -> None:
    """Say what would be used of a recording (topics, calibration, TF, depth, times), and every doubt about it.

    Takes the options of `map build` and says the same as `map build --dry-run`.
    """
    from mast3r_ros.io.datasets.check import check_source

    options = source_options(
        intrinsics,
        depth,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        depth_topic=depth_topic,
        pose_topic=pose_topic,
        map_frame=map_frame,
        camera_frame=camera_frame,
    )
    print_check(check_source(bag, "rosbag", **options), bag, json)
