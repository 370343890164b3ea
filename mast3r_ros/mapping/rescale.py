"""A map in another unit: what makes a map metric whose scale was not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mast3r_ros.errors import MapError
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.transformed import write_transformed

#: What ``provenance["scale"]`` says of a map whose unit of length nobody knows.
UNKNOWN_SCALE = "unknown"


def is_metric(keyframe_map: KeyframeMap) -> bool:
    """Whether the map's unit is the metre; a map of photos alone has a unit of its own."""
    return keyframe_map.provenance.get("scale") != UNKNOWN_SCALE


def rescale(source: Path, target: Path, factor: float, origin: str) -> None:
    """Write a map with all lengths multiplied, in one step; source and target may be the same folder.

    Args:
        origin: where the factor comes from, kept in the map for people.

    Raises:
        MapError: for a factor that is not positive and finite, or a map that cannot be read or written.
    """
    if not 0 < factor < np.inf:
        raise MapError(f"a map cannot be scaled by {factor:g}")
    similarity = Similarity(factor, np.eye(3), np.zeros(3))
    write_transformed(source, target, similarity, f"scaled by {factor:.6g}: {origin}", {"scale": origin})


def factor_of_length(keyframe_map: KeyframeMap, first: str, second: str, metres: float) -> float:
    """What makes the distance of two keyframes so many metres.

    Raises:
        MapError: for keyframes that do not exist, or stand at one place.
    """
    one, two = (keyframe_map[id].map_T_camera[:3, 3] for id in (first, second))
    units = float(np.linalg.norm(one - two))
    if units <= 1e-6 * keyframe_map.view_depth_m:
        raise MapError(f"keyframes '{first}' and '{second}' stand at one place: choose two that are far apart")
    return metres / units
