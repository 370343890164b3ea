"""`mast3r_ros map`: import, export, view; added to the commands of `map` and `map_care`."""

from __future__ import annotations

import json as json_text
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.common import load_map, note, print_json, progress, warn
from mast3r_ros.cli.map import MapArgument, save
from mast3r_ros.cli.map_care import app as app
from mast3r_ros.cli.options import JsonOption, MatcherOptions, grouped

if TYPE_CHECKING:
    from mast3r_ros.pictures.map_recording import Wrong


class Kind(str, Enum):
    """What a map can be made of."""

    COLMAP = "colmap"
    HLOC = "hloc"


class ExportFormat(str, Enum):
    """What a map can be written as."""

    PLY = "ply"
    MESH = "mesh"
    COLMAP = "colmap"
    PNG = "png"


@app.command("import")
@grouped
def import_model(
    *,
    kind: Annotated[Kind, typer.Argument(help="colmap: a sparse model; hloc: its folder of outputs, with sfm_*/.")],
    path: Annotated[Path, typer.Argument(help="Folder of the model, or one above it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the map; an older one is replaced.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the images, where it is not beside the model.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Metres for each unit of the model. Without it the scale is unknown.")
    ] = None,
    matching: MatcherOptions,
    json: JsonOption = False,
) -> None:
    """Make a keyframe map of another program's model: every registered image, and the points that it observes.

    hloc's .h5 features are not read: this package's matchers describe the images anew. A map of unknown scale is not
    used for localization until `map scale` or `map align` gives it one.
    """
    from mast3r_ros.mapping.imported import find_hloc_model, import_colmap
    from mast3r_ros.mapping.rescale import is_metric
    from mast3r_ros.mapping.triangulate import triangulate_missing_depth

    chosen = matching.make()
    model = find_hloc_model(path) if kind is Kind.HLOC else path
    with progress("reading images") as show:
        made = import_colmap(model, images, scale, show)
    triangulate_missing_depth(made, chosen)
    doubts = save(made, chosen, output)
    with_depth = sum(keyframe.has_depth for keyframe in made.keyframes)
    if not is_metric(made):
        warn(f"the scale is unknown: give it one (mast3r_ros map scale {output} --known-length A B METRES)")
    if json:
        facts = {"map": str(output), "keyframes": len(made), "with_points": with_depth, "doubts": doubts}
        print_json({**facts, "scale": made.provenance["scale"]})
        return
    note(f"{len(made)} keyframes, {with_depth} with points")
    print(output)


@app.command()
def export(
    map: MapArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File, or folder for colmap.")],
    format: Annotated[
        ExportFormat | None, typer.Option("--format", "-f", help="Cloud, mesh, sparse model, or plan view.")
    ] = None,
    cloud: Annotated[bool, typer.Option("--cloud", help="The same as --format ply.")] = False,
    mesh: Annotated[bool, typer.Option("--mesh", help="The same as --format mesh: .ply, .obj, .glb, .stl.")] = False,
    voxel: Annotated[float, typer.Option(min=0, help="Spacing of clouds and meshes (m); 0 as the scene asks.")] = 0.0,
) -> None:
    """Write a map as a PLY cloud, a triangle mesh, a COLMAP text model, or a picture from above."""
    from mast3r_ros.mapping.export import export_colmap, export_ply
    from mast3r_ros.mapping.mesh import export_mesh
    from mast3r_ros.mapping.rescale import is_metric
    from mast3r_ros.pictures.plan_view import draw_plan_view

    wanted = [ExportFormat.PLY] * cloud + [ExportFormat.MESH] * mesh + ([format] if format is not None else [])
    if len(set(wanted)) != 1:
        raise typer.BadParameter("give one of ply, mesh, colmap, png (or --cloud, --mesh)", param_hint="--format")
    keyframe_map = load_map(map)
    if not is_metric(keyframe_map):
        warn("the map's scale is unknown: what is written is not in metres")
    if wanted[0] is ExportFormat.PLY:
        note(f"{export_ply(keyframe_map, output, voxel)} points")
    elif wanted[0] is ExportFormat.MESH:
        with progress("fusing depth", len(keyframe_map)) as show:
            vertices, triangles = export_mesh(keyframe_map, output, voxel, show)
        note(f"{vertices} vertices, {triangles} triangles")
    elif wanted[0] is ExportFormat.COLMAP:
        export_colmap(keyframe_map, output, voxel)
    else:
        draw_plan_view(keyframe_map, output, title=map.name)
    print(output)


@app.command()
def view(
    map: MapArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a recording (.rrd) instead of opening the viewer.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="What `map check --json` printed: its keyframes are marked.")
    ] = None,
) -> None:
    """Walk through a map in the Rerun viewer: keyframes and their images, surface, coverage, pairs that are wrong.

    Of a map in a folder of `reconstruct`, the pairs of images that were rejected are shown as well.
    """
    from mast3r_ros.pictures.map_recording import record_map

    record_map(load_map(map), output, _wrong(map, check), map.resolve().name)
    if output is not None:
        note(f"look at it: rerun {output}")
        print(output)


def _wrong(map: Path, check: Path | None) -> Wrong:
    """What is known to be wrong with a map."""
    from mast3r_ros.errors import MapError
    from mast3r_ros.mapping.records import id_of_name
    from mast3r_ros.pictures.map_recording import Wrong

    odd, mistaken, rejected = set[str](), list[tuple[str, str]](), list[tuple[str, str]]()
    try:
        if check is not None:
            found = json_text.loads(check.read_text())
            odd = {keyframe["id"] for kind in ("pose_disagrees", "found_elsewhere") for keyframe in found[kind]}
            mistaken = [(keyframe["id"], by) for keyframe in found["found_elsewhere"] for by in keyframe["by"]]
        scene = map.resolve().parent / "reconstruction.json"
        if scene.is_file():
            pairs = json_text.loads(scene.read_text())["rejected_pairs"]
            rejected = [(id_of_name(one), id_of_name(other)) for one, other in pairs]
    except (ValueError, KeyError, TypeError) as error:
        raise MapError(f"{check or scene}: is not what `map check --json` or `reconstruct` writes ({error})") from error
    return Wrong(frozenset(odd), mistaken, rejected)
