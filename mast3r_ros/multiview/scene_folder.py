"""A reconstruction as a folder: COLMAP models, clouds, keyframe maps, and what is to be said of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mast3r_ros.errors import MapError
from mast3r_ros.io.documents import to_json
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.reconstruct import Reconstruction, normalised
from mast3r_ros.multiview.scale import Scale, provenance
from mast3r_ros.multiview.write_dense import dense_cloud, write_dense_cloud, write_depths
from mast3r_ros.multiview.write_scene import keyframe_map, point_colours, write_cloud, write_colmap

#: Tells a folder that was written here from one that a person would miss.
FACTS = "reconstruction.json"

#: What is written here; a folder with anything else is not replaced.
OWN = re.compile(
    r"(reconstruction\.json|sparse|images|(map|depth)(_\d+)?|cloud(_\d+)?\.ply|plan(_\d+)?\.png|recording(_\d+)?\.rrd)"
)

Stages = Callable[[str, int, int], None]
#: The scale of a component, where something tells it.
ScaleOf = Callable[[Model], Scale | None]


def check_place(scene: Path, source: Path) -> None:
    """Make sure that nothing is lost when a reconstruction takes its place.

    Raises:
        MapError: where something else is there already, or the source itself.
    """
    if source.exists() and (source.resolve() == scene or scene in source.resolve().parents):
        raise MapError(f"{source} lies in {scene}, which is replaced by the scene: choose another place for it")
    if not scene.exists():
        return
    items = sorted(item.name for item in scene.iterdir()) if scene.is_dir() else [scene.name]
    foreign = [name for name in items if not OWN.fullmatch(name)]
    if foreign or (items and FACTS not in items):
        raise MapError(
            f"{scene}: exists and is no reconstruction, or more than one ({', '.join(foreign[:3] or items[:3])}): "
            "choose another place, or remove it first"
        )


def write_scene(
    scene: Path,
    result: Reconstruction,
    scale_of: ScaleOf,
    source: str,
    save: Callable[[KeyframeMap, Path], list[str]],
    progress: Stages = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Write every component; what is known of all of it by name.

    Layout: ``sparse/0``, ``cloud.ply`` and ``map`` of the largest component, ``sparse/1``, ``cloud_1.ply`` and
    ``map_1`` of the next; ``depth`` and ``depth_1`` where a network knows it; ``reconstruction.json``.

    Args:
        scale_of: the scale of a component.
        save: saves a map and gets it ready; returns what is doubtful about it.
    """
    components, doubts = [], list[str]()
    for number, found in enumerate(result.models):
        suffix = f"_{number}" if number else ""
        scale = scale_of(found)
        model = normalised(found) if scale is None else scale.applied(found)
        colours = point_colours(model, result.photos)
        write_colmap(scene / "sparse" / str(number), model, result.photos, colours)
        if model.dense is None:
            points = write_cloud(scene / f"cloud{suffix}.ply", model, colours)
        else:
            progress("joining depth", number, len(result.models))
            write_depths(scene / f"depth{suffix}", model, result.photos)
            points = write_dense_cloud(scene / f"cloud{suffix}.ply", dense_cloud(model, result.photos))
        facts = provenance(scale)
        made = keyframe_map(
            model, result.photos, facts, source, progress=lambda done, total: progress("writing the map", done, total)
        )
        doubts += save(made, scene / f"map{suffix}")
        components.append(
            {
                "map": f"map{suffix}",
                "model": f"sparse/{number}",
                "registered": len(model),
                "points": points,
                "scale": None if scale is None else 1.0,
                "scale_interval": None if scale is None else list(scale.relative_interval),
                "scale_origin": facts["scale"],
                "images": [result.photos[n].name for n in model.images],
            }
        )
    return summary(result, components, doubts)


def summary(result: Reconstruction, components: Sequence[dict[str, Any]], doubts: Sequence[str]) -> dict[str, Any]:
    """What is printed and kept of a reconstruction."""
    first = components[0]
    return {
        "images": len(result.photos) + sum(name not in {p.name for p in result.photos} for name in result.unregistered),
        "registered": sum(component["registered"] for component in components),
        "components": len(components),
        "scale": first["scale"],
        "scale_interval": first["scale_interval"],
        "scale_origin": first["scale_origin"],
        "points": sum(component["points"] for component in components),
        "parts": list(components),
        "unregistered": result.unregistered,
        "rejected_pairs": [list(pair) for pair in result.rejected],
        "doubts": list(doubts),
    }


def write_facts(scene: Path, facts: dict[str, Any]) -> None:
    """Keep the summary beside what it speaks of."""
    (scene / FACTS).write_text(to_json(facts) + "\n", encoding="utf-8")
