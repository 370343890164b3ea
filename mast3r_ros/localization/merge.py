"""Two maps of one place as one, and what the second session adds to the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.errors import MapError
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.localization.placement import Placement
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.records import valid_id
from mast3r_ros.mapping.rescale import UNKNOWN_SCALE, is_metric
from mast3r_ros.mapping.storage import read_map, write_map
from mast3r_ros.mapping.transformed import carry_features, transformed, with_event

#: A keyframe looks where the other map has looked when a keyframe of that overlaps it by this.
SAME_VIEW = 0.5
#: A point this far from the other map's surface is new (scene depths); never less than so many of its points' spacings.
NEW_SURFACE, SPACINGS = 0.05, 3.0
#: Points of each map that are compared.
POINTS = 200_000


@dataclass(frozen=True)
class Unit:
    """The frame of a merged map: the first map's, in metres where one of the two is metric.

    Attributes:
        of_first: what lengths of the first map are multiplied with.
        scale: what the merged map says of its scale; "" for metres from the beginning.
    """

    of_first: float
    scale: str


def common_unit(a: KeyframeMap, b: KeyframeMap, placement: Placement) -> Unit:
    """In which unit two maps are merged."""
    if is_metric(a):
        return Unit(1.0, a.provenance.get("scale", ""))
    if is_metric(b):
        low, high = (value / placement.a_T_b.scale - 1 for value in placement.scale_interval)
        return Unit(1 / placement.a_T_b.scale, f"that of {b.path}, {100 * low:+.1f} to {100 * high:+.1f} %")
    return Unit(1.0, UNKNOWN_SCALE)


def write_merged(a: KeyframeMap, b: KeyframeMap, placement: Placement, target: Path, prefix: str = "b_") -> int:
    """Write both maps as one in the frame of ``a``, in one step; returns how many keyframes were renamed.

    Args:
        prefix: goes before ids of ``b`` that ``a`` has, too.

    Raises:
        MapError: if a map cannot be read, the target cannot be written, or the prefix makes no new ids.
    """
    assert a.path is not None and b.path is not None
    first, second, unit = a.path, b.path, common_unit(a, b, placement)
    header, own = read_map(first)
    other_header, others = read_map(second)
    entries = [transformed(entry, Similarity(unit.of_first, np.eye(3), np.zeros(3))) for entry in own]
    a_T_b = placement.a_T_b.scaled(unit.of_first)
    if unit.of_first != 1:  # the second map gives the metres, and keeps them to the last digit
        a_T_b = replace(a_T_b, scale=1.0)
    names = _names({entry.keyframe.id for entry in own}, [entry.keyframe.id for entry in others], prefix)
    moved = []
    for entry in others:
        entry = transformed(entry, a_T_b)
        moved.append(replace(entry, keyframe=replace(entry.keyframe, id=names[entry.keyframe.id])))
    event = (
        f"merged with {second} ({len(others)} keyframes; {len(placement.agreeing)} of {len(placement.tried)} that were "
        f"looked for agree; their history: {other_header.provenance.get('history', 'none')!r})"
    )
    provenance = with_event(header.provenance, event)
    provenance.update({"source": " + ".join(_sources(header.provenance) + _sources(other_header.provenance))})
    if unit.scale:
        provenance["scale"] = unit.scale

    def caches(fresh: Path) -> None:
        carry_features(first, entries if unit.of_first == 1 else [], fresh)
        same = [entry for entry, before in zip(moved, others, strict=True) if entry.keyframe.id == before.keyframe.id]
        carry_features(second, same if a_T_b.scale == 1 else [], fresh)

    # What was measured of one of the two does not hold for both.
    merged = replace(header, provenance=provenance, pose_noise=None)
    write_map(target.expanduser().resolve(), merged, entries + moved, caches)
    return sum(name != id for id, name in names.items())


def _names(mine: set[str], others: list[str], prefix: str) -> dict[str, str]:
    """Ids of a second map's keyframes in the merged one: their own, or with the prefix where the first has them."""
    names = {id: f"{prefix}{id}" if id in mine else id for id in others}
    for id, name in names.items():
        if name in mine or not valid_id(name) or (name != id and name in names):
            raise MapError(f"keyframe '{id}' is in both maps, and '{name}' is no free id: choose another --prefix")
    return names


def _sources(provenance: dict[str, str]) -> list[str]:
    return [provenance["source"]] if provenance.get("source") else []


def session_report(
    a: KeyframeMap, b: KeyframeMap, placement: Placement, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """What the second session shows that the first does not, of the keyframes that were looked for.

    Returns:
        ``seen_before``: found in the first map where they should be; ``looks_different``: the first map has looked
        there and they are not found, so that light or things are others; ``new_views``: where it has not looked;
        ``found_elsewhere``: found where they are not. Lists of ids of ``b``. ``new_surface``: share of the second
        map's surface that the first does not have; None where one of them knows none.
    """
    agreeing, report = set(placement.agreeing), dict[str, Any]()
    kinds: dict[str, list[str]] = {
        name: [] for name in ("seen_before", "looks_different", "new_views", "found_elsewhere")
    }
    for id in placement.tried:
        if id in agreeing:
            kinds["seen_before"].append(id)
        elif id in placement.found:
            kinds["found_elsewhere"].append(id)
        else:
            pose = placement.a_T_b.pose(b[id].map_T_camera)
            looked = max(a.overlaps(pose).values()) >= SAME_VIEW
            kinds["looks_different" if looked else "new_views"].append(id)
    report.update(kinds)
    report["new_surface"] = _new_surface(a, b, placement.a_T_b)
    return report


def _new_surface(a: KeyframeMap, b: KeyframeMap, a_T_b: Similarity) -> float | None:
    known, _ = map_cloud(a, max_points=POINTS)
    seen, _ = map_cloud(b, max_points=POINTS)
    if len(known) < 2 or len(seen) == 0:
        return None
    tree = cKDTree(known)
    spacing = float(np.median(tree.query(known[:: max(1, len(known) // 5000)], k=2)[0][:, 1]))
    distance: NDArray[np.float64] = tree.query(a_T_b.points(seen))[0]
    return float(np.mean(distance > max(NEW_SURFACE * a.view_depth_m, SPACINGS * spacing)))
