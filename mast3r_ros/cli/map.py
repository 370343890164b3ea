"""`mast3r_ros map`: build, info, export, repair."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import (
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    MatcherOption,
    NetworkSizeOption,
    load_map,
    make_matcher,
    note,
    print_facts,
    print_json,
    progress,
    stages,
    warn,
)

app = typer.Typer(help="Make, look at, export and mend maps.", no_args_is_help=True)

MapArgument = Annotated[Path, typer.Argument(help="Folder of the map.")]


class ExportFormat(str, Enum):
    """What a map can be written as."""

    PLY = "ply"
    COLMAP = "colmap"
    PNG = "png"


@app.command()
def build(
    source: Annotated[
        Path, typer.Argument(help="rosbag 1 or 2, 7-Scenes, TUM RGB-D, COLMAP, or a folder of images with poses.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the map; an older map there is replaced.")],
    matcher: MatcherOption = "auto",
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    network_size: NetworkSizeOption = 0,
    min_distance: Annotated[
        float,
        typer.Option(
            min=0, help="A view this far from every keyframe is new (m); 0: 8 % of the distance of what it sees."
        ),
    ] = 0.0,
    min_angle: Annotated[float, typer.Option(min=0, help="So is one turned this much (degrees).")] = 12.0,
    max_keyframes: Annotated[int, typer.Option(min=0, help="Cap of the map; 0 for none.")] = 0,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Every usable frame becomes a keyframe.")] = False,
    frame_id: Annotated[str, typer.Option(help="Name of the map frame.")] = "map",
    layout: Annotated[str | None, typer.Option(help="Kind of source, where it is not recognised.")] = None,
    split: Annotated[str | None, typer.Option(help="7-Scenes: train or test.")] = None,
    intrinsics: Annotated[
        Path | None, typer.Option(help="Calibration of the images (ROS camera_info YAML), where the source has none.")
    ] = None,
    image_topic: Annotated[str | None, typer.Option(help="Bag: colour images.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Bag: calibration.")] = None,
    depth_topic: Annotated[str | None, typer.Option(help="Bag: depth images.")] = None,
    pose_topic: Annotated[str | None, typer.Option(help="Bag: poses from this topic instead of TF.")] = None,
    map_frame: Annotated[str | None, typer.Option(help="Bag: the fixed frame.")] = None,
    camera_frame: Annotated[str | None, typer.Option(help="Bag: the camera's optical frame.")] = None,
    scale: Annotated[float | None, typer.Option(help="COLMAP: metres for each unit of the model.")] = None,
    depth_scale: Annotated[float | None, typer.Option(help="Units of depth images per metre.")] = None,
    json: JsonOption = False,
) -> None:
    """Build a map from a recording with known poses, and get it ready for a matcher."""
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.mapping.build import build_map
    from mast3r_ros.mapping.selection import KEEP_ALL, SelectionSettings

    chosen = make_matcher(matcher, feature, checkpoint, device, dtype, network_size)
    options: dict[str, Any] = {
        "split": split,
        "image_topic": image_topic,
        "camera_info_topic": camera_info_topic,
        "depth_topic": depth_topic,
        "pose_topic": pose_topic,
        "map_frame": map_frame,
        "camera_frame": camera_frame,
        "scale": scale,
        "depth_scale": depth_scale,
    }
    if intrinsics is not None:
        from mast3r_ros.io.datasets.camera_file import read_camera

        options["camera"] = read_camera(intrinsics)
    frames = open_source(source, layout, **{name: value for name, value in options.items() if value is not None})
    selection = (
        KEEP_ALL
        if keep_all
        else SelectionSettings(distance_m=min_distance, angle_deg=min_angle, max_keyframes=max_keyframes)
    )
    with progress("reading frames", len(frames) if hasattr(frames, "__len__") else None) as show:
        keyframe_map, report = build_map(
            frames,
            frame_id=frame_id,
            selection=selection,
            matcher=chosen,
            describe=False,  # after the first save, with a progress bar
            source_name=str(source),
            progress=lambda seen, kept: show(seen, None, f"{kept} keyframes"),
        )
    _save(keyframe_map, chosen, output)
    _print_built(report, keyframe_map, output, json)


def _save(keyframe_map: Any, matcher: Any, output: Path) -> None:
    """Save a map that is ready to be used."""
    from mast3r_ros.errors import MapError
    from mast3r_ros.localization.map_noise import save_ready

    if len(keyframe_map) == 0:
        raise MapError(
            "no frame of the source can become a keyframe (each needs a calibration and a pose): "
            "give --intrinsics, or check the source's poses"
        )
    with stages() as show:
        save_ready(keyframe_map, matcher, output, show)


def _print_built(report: Any, keyframe_map: Any, output: Path, json: bool) -> None:
    if report.without_points:
        warn(
            f"{len(report.without_points)} of {report.kept} keyframes know no surface (no depth, and nothing could be "
            "triangulated): only matchers that bring their own geometry can use them"
        )
    facts = {
        "map": str(output),
        "frames": report.frames,
        "keyframes": report.kept,
        "skipped": dict(report.skipped),
        "triangulated": len(report.triangulated),
        "without_points": len(report.without_points),
    }
    if json:
        print_json(facts)
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.skipped.most_common()) or "none"
    print_facts(f"Map {output}", {**facts, "skipped": skipped})
    note(f"look at it: mast3r_ros map info {output}   use it: mast3r_ros localize {output} IMAGE")


@app.command()
def info(map: MapArgument, json: JsonOption = False) -> None:
    """Say what is in a map."""
    from mast3r_ros.mapping.description import describe_map

    facts = describe_map(load_map(map))
    if json:
        print_json(facts)
        return
    cameras = "\n".join(
        f"{c['width']}x{c['height']}, fx {c['fx']:.1f}, {c['distortion_model']}: {c['keyframes']} keyframes"
        for c in facts["cameras"]
    )
    caches = "\n".join(f"{name}: {count} keyframes" for name, count in facts["features"].items()) or "none"
    print_facts(
        f"Map {facts['path']}",
        {
            "keyframes": f"{facts['keyframes']}, {facts['with_depth']} with depth",
            "frame": facts["frame_id"],
            "cameras": cameras,
            "extent": " x ".join(f"{side:.1f}" for side in facts["extent_m"]) + " m (camera positions)",
            "features": caches,
            "retrieval": ", ".join(facts["retrieval"]) or "none",
            "pose noise": _noise(facts["pose_noise"]),
            "size on disk": f"{facts['disk_bytes'] / 2**20:.1f} MiB",
            **{name: text for name, text in facts["provenance"].items() if text},
        },
    )


def _noise(noise: dict[str, float] | None) -> str:
    if noise is None:
        return "not measured (fewer than ten keyframes were found again from the others)"
    return f"{100 * noise['position_m']:.1f} cm, {math.degrees(noise['rotation_rad']):.2f} deg"


@app.command()
def export(
    map: MapArgument,
    format: Annotated[ExportFormat, typer.Option("--format", "-f", help="Cloud, sparse model, or plan view.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File, or folder for colmap.")],
    voxel: Annotated[float, typer.Option(min=0, help="Spacing of clouds (m); 0 as the scene asks.")] = 0.0,
) -> None:
    """Write a map as a PLY cloud, a COLMAP text model, or a picture from above."""
    from mast3r_ros.mapping.export import export_colmap, export_ply
    from mast3r_ros.pictures.plan_view import draw_plan_view

    keyframe_map = load_map(map)
    if format is ExportFormat.PLY:
        note(f"{export_ply(keyframe_map, output, voxel)} points")
    elif format is ExportFormat.COLMAP:
        export_colmap(keyframe_map, output, voxel)
    else:
        draw_plan_view(keyframe_map, output, title=map.name)
    print(output)


@app.command()
def repair(map: MapArgument, json: JsonOption = False) -> None:
    """Accept a map as it is now: take over what was edited by hand, drop what is lost, and say so."""
    from mast3r_ros.mapping.repair import repair as repair_map

    report = repair_map(map)
    if json:
        print_json({"map": str(map), **vars(report)})
        return
    facts = {"kept": report.kept, "updated": ", ".join(report.updated), "lost depth": ", ".join(report.without_depth)}
    print_facts(f"Map {map}", {**{k: v for k, v in facts.items() if v != ""}, **report.dropped})
