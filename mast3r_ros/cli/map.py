"""`mast3r_ros map`: build, info, measure, scale, repair; the others are in `map_care`, `map_files`, `map_sign`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.check_text import print_check
from mast3r_ros.cli.common import load_map, note, print_facts, print_json, stages, warn
from mast3r_ros.cli.options import JsonOption, MatcherOptions, WorkersOption, grouped
from mast3r_ros.cli.source import SourceOptions
from mast3r_ros.workers import Here, Workers

if TYPE_CHECKING:
    from mast3r_ros.mapping.build import BuildReport
    from mast3r_ros.mapping.selection import SelectionSettings

app = typer.Typer(help="Make, look at, export and mend maps.", no_args_is_help=True)

MapArgument = Annotated[Path, typer.Argument(help="Folder of the map.")]


@dataclass(frozen=True)
class KeyframeOptions:
    """Which frames become keyframes."""

    min_distance: Annotated[
        float,
        typer.Option(
            min=0, help="A view this far from every keyframe is new (m); 0: 8 % of the distance of what it sees."
        ),
    ] = 0.0
    min_angle: Annotated[float, typer.Option(min=0, help="So is one turned this much (degrees).")] = 12.0
    max_keyframes: Annotated[int, typer.Option(min=0, help="Cap of the map; 0 for none.")] = 0
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Every usable frame becomes a keyframe.")] = False

    def settings(self) -> SelectionSettings:
        """As map building takes them."""
        from mast3r_ros.mapping.selection import KEEP_ALL, SelectionSettings

        if self.keep_all:
            return KEEP_ALL
        return SelectionSettings(
            distance_m=self.min_distance, angle_deg=self.min_angle, max_keyframes=self.max_keyframes
        )


@dataclass(frozen=True)
class WithoutDepth:
    """What is done where no depth is known."""

    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Without depth: poses anew by structure from motion, scale by the given poses. By default where these "
            "are in odom, which drifts.",
        ),
    ] = None
    known_length: Annotated[
        tuple[str, str, float] | None,
        typer.Option(
            "--known-length", help="Photos alone: two images and the metres between them.", metavar="A B METRES"
        ),
    ] = None


@app.command()
@grouped
def build(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            help="rosbag 1 or 2, 7-Scenes, TUM RGB-D, COLMAP, a folder of images with poses, or of photos alone."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the map; an older map there is replaced.")
    ] = None,
    matching: MatcherOptions,
    choosing: KeyframeOptions,
    frame_id: Annotated[str, typer.Option(help="Name of the map frame.")] = "map",
    without_depth: WithoutDepth,
    reading: SourceOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be used, and every doubt about it; build nothing.")
    ] = False,
    workers: WorkersOption = "1",
    json: JsonOption = False,
) -> None:
    """Build a map from a recording with known poses, or from photos alone, and get it ready for a matcher.

    Poses of odometry are refined by the images where no depth is known; photos alone have no scale unless
    --known-length or a metric network (--matcher mast3r) tells it.
    """
    from mast3r_ros.cli.map_rgb import map_of_frames, map_of_photos, only_photos
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.multiview.reconstruct import fine_sift
    from mast3r_ros.workers import workers as several

    if dry_run:
        from mast3r_ros.io.datasets.check import check_source

        print_check(check_source(source, **reading.given()), source, json)
        return
    if output is None:
        raise typer.BadParameter("give a folder for the map, or --dry-run", param_hint="--output")
    chosen, length = matching.make(), without_depth.known_length
    facts: dict[str, Any] = {}
    with stages() as show:
        if only_photos(source):
            finder = fine_sift() if matching.matcher in (None, "sift") else chosen
            keyframe_map, report, told = map_of_photos(source, finder, reading.intrinsics, length, show)
            keyframe_map.frame_id = frame_id
        elif length is not None:
            raise typer.BadParameter("is for photos without poses", param_hint="--known-length")
        else:
            frames = open_source(source, **reading.given())
            keyframe_map, report, told, facts = map_of_frames(
                frames, source, frame_id, choosing.settings(), chosen, without_depth.refine, show
            )
    _refuse_empty(keyframe_map, report)
    for doubt in told:
        warn(doubt)
    with several(workers) as by:
        doubts = told + save(keyframe_map, chosen, output, by)
    _print_built(report, keyframe_map, output, doubts, facts, json)


def _refuse_empty(keyframe_map: Any, report: BuildReport) -> None:
    """Raises MapError, with the reasons, where no frame became a keyframe."""
    from mast3r_ros.errors import MapError

    if len(keyframe_map) == 0:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in report.skipped.most_common())
        uncalibrated = report.skipped["no_calibration"]
        way = "give a calibration file with --intrinsics" if uncalibrated else "check the source's poses"
        raise MapError(f"no frame of the source can become a keyframe ({reasons or 'it has none'}): {way}")


def save(keyframe_map: Any, matcher: Any, output: Path, by: Workers = Here()) -> list[str]:
    """Save a map that is ready to be used; returns what is doubtful about it, told as warnings too."""
    from mast3r_ros.localization.map_noise import save_ready

    with stages() as show:
        doubts = save_ready(keyframe_map, matcher, output, show, by)
    for doubt in doubts:
        warn(doubt)
    return doubts


def _print_built(report: Any, keyframe_map: Any, output: Path, doubts: list[str], more: Any, json: bool) -> None:
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
        **more,
        "doubts": doubts,
    }
    if json:
        print_json(facts)
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.skipped.most_common()) or "none"
    print_facts(f"Map {output}", {**facts, "skipped": skipped, "doubts": "; ".join(doubts) or "none"})
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
            "extent": " x ".join(f"{side:.1f}" for side in facts["extent_m"]) + f" {_unit(facts)} (camera positions)",
            "features": caches,
            "retrieval": ", ".join(facts["retrieval"]) or "none",
            "pose noise": _noise(facts["pose_noise"], facts["provenance"]),
            "size on disk": f"{facts['disk_bytes'] / 2**20:.1f} MiB",
            **{name: text for name, text in facts["provenance"].items() if text},
        },
    )


def _unit(facts: dict[str, Any]) -> str:
    return "units of unknown length" if facts["provenance"].get("scale") == "unknown" else "m"


def _noise(noise: dict[str, float] | None, provenance: dict[str, str]) -> str:
    if noise is not None:
        unknown = provenance.get("scale") == "unknown"
        position = f"{noise['position_m']:.3g} units" if unknown else f"{100 * noise['position_m']:.1f} cm"
        text = f"{position}, {math.degrees(noise['rotation_rad']):.2f} deg"
        if not noise.get("found"):
            text += " (assumed: no keyframe was found again from the others, or an earlier version measured it)"
        return f"{text}; {noise['found_elsewhere']:.0%} of the keyframes are found elsewhere than their poses say"
    if "consistency" not in provenance:
        return "never measured: usual values are taken (measure it: mast3r_ros map measure MAP)"
    return "unknown: the map has fewer than four keyframes, or an earlier version found fewer again"


@app.command()
@grouped
def measure(
    *,
    map: MapArgument,
    matching: MatcherOptions,
    json: JsonOption = False,
) -> None:
    """Measure a map on its own keyframes, as build does: pose noise, and whether poses, images and depth agree."""
    keyframe_map = load_map(map)
    chosen = matching.make()
    doubts = save(keyframe_map, chosen, map)
    noise = vars(keyframe_map.pose_noise) if keyframe_map.pose_noise else None
    facts = {"map": str(map), "pose_noise": noise, "doubts": doubts}
    if json:
        print_json(facts)
        return
    consistency = keyframe_map.provenance["consistency"]
    print_facts(f"Map {map}", {"pose noise": _noise(noise, keyframe_map.provenance), "consistency": consistency})


@app.command()
def scale(
    map: MapArgument,
    known_length: Annotated[
        tuple[str, str, float] | None,
        typer.Option("--known-length", help="Two keyframes and the metres between them.", metavar="A B METRES"),
    ] = None,
    factor: Annotated[float | None, typer.Option("--factor", help="Metres for each unit of the map.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Another folder for the result.")] = None,
) -> None:
    """Make a map metric whose scale is unknown, or correct its scale: all lengths are multiplied."""
    from mast3r_ros.mapping.rescale import factor_of_length, rescale

    if (known_length is None) == (factor is None):
        raise typer.BadParameter("give --known-length or --factor", param_hint="--known-length")
    target = output or map
    if known_length is not None:
        first, second, metres = known_length
        by, origin = factor_of_length(load_map(map), *known_length), f"distance of {first} and {second}, {metres:g} m"
    else:
        assert factor is not None
        by, origin = factor, f"multiplied by {factor:g}"
    rescale(map, target, by, origin)
    note(f"all lengths are multiplied by {by:.6g}")
    print(target)


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
