"""Pictures of a reconstruction, in its folder: every part from above, and as a recording for the Rerun viewer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.records import id_of_name
from mast3r_ros.pictures.map_recording import Wrong, record_map
from mast3r_ros.pictures.plan_view import draw_plan_view


def draw_scene(scene: Path, facts: Mapping[str, Any]) -> list[str]:
    """Write ``plan.png`` and, where Rerun is installed, ``recording.rrd`` of each part; returns their names.

    Args:
        facts: what ``write_scene`` returned for this folder.

    Raises:
        MapError: where a map cannot be read, or a picture not be written.
    """
    rejected = [(id_of_name(one), id_of_name(other)) for one, other in facts["rejected_pairs"]]
    written = []
    for part in facts["parts"]:
        keyframes, suffix = KeyframeMap.load(scene / part["map"]), part["map"].removeprefix("map")
        written.append(f"plan{suffix}.png")
        draw_plan_view(keyframes, scene / written[-1])
        if find_spec("rerun") is not None:
            written.append(f"recording{suffix}.rrd")
            record_map(keyframes, scene / written[-1], Wrong(rejected=rejected), part["map"])
    return written
