"""A smaller map that finds as much: keyframes whose every part other keyframes show as well are left out.

What counts is what the pictures show, not where the cameras stood: by night the same view shows something else, and
both stay. Every keyframe that is left out is then localized in what is kept; those that are not found go back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.geometry import se3
from mast3r_ros.localization.cells import CELLS, cells_of
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.observations import LocalFeatures, mutual
from mast3r_ros.mapping.storage import read_map, write_map
from mast3r_ros.mapping.transformed import carry_features, with_event
from mast3r_ros.matching.base import Matcher

Progress = Callable[[str, int, int], None]

#: SIFT features of each keyframe, and the keyframes whose views overlap it most that may stand in for it.
FEATURES, NEIGHBOURS = 600, 5
#: Views that overlap less (see :mod:`mapping.overlap`) do not stand in for each other.
LEAST_OVERLAP = 0.3
#: A cell of the image that has so many features is shown by others when this many of them are found there again.
FEATURES_IN_CELL, FOUND_IN_CELL = 4, 2


@dataclass
class PruneReport:
    """What is left out.

    Attributes:
        keyframes: that the map had.
        dropped: for each id that is left out, the kept keyframes that show the same; none for those that were named.
        restored: ids that were not found in what was left, and stay.
    """

    keyframes: int
    dropped: dict[str, list[str]] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Keyframes of the new map."""
        return self.keyframes - len(self.dropped)


def find_redundant(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    coverage: float = 0.9,
    progress: Progress = lambda stage, done, total: None,
) -> PruneReport:
    """Keyframes that others stand in for, each confirmed by localizing it in what is kept.

    Args:
        coverage: share of the textured cells (8 x 6) of a keyframe's image that the others must show.
    """
    report = PruneReport(len(keyframe_map))
    dropped = _covered_by_others(keyframe_map, coverage, progress)
    keyframe_map.prepare(matcher)
    localizer = Localizer(keyframe_map, matcher)
    for done, id in enumerate(list(dropped), start=1):
        estimate = localizer.localize(keyframe_map.frame(id, points=False), exclude=dropped)
        progress("looking for what is left out", done, len(dropped) + len(report.restored))
        limit = estimate.alert_limit
        if estimate.localized and estimate.map_T_camera is not None and limit is not None:
            position, rotation = se3.pose_error(estimate.map_T_camera, keyframe_map[id].map_T_camera)
            if position <= limit.position_m and np.radians(rotation) <= limit.rotation_rad:
                continue
        del dropped[id]
        report.restored.append(id)
    report.dropped = dropped
    return report


def drop(keyframe_map: KeyframeMap, ids: Collection[str]) -> PruneReport:
    """The report of leaving out keyframes that a person names.

    Raises:
        MapError: for an id that the map does not have, or when nothing would be left.
    """
    for id in ids:
        keyframe_map[id]
    if len(set(ids)) >= len(keyframe_map):
        raise MapError("no keyframe would be left: nothing was changed")
    return PruneReport(len(keyframe_map), {id: [] for id in ids})


def write_pruned(keyframe_map: KeyframeMap, report: PruneReport, target: Path) -> None:
    """Write the map without what is left out, in one step.

    Raises:
        MapError: if the map cannot be read or the target not be written; nothing is changed then.
    """
    assert keyframe_map.path is not None
    source = keyframe_map.path
    header, entries = read_map(source)
    kept = [entry for entry in entries if entry.keyframe.id not in report.dropped]
    event = f"pruned from {len(entries)} to {len(kept)} keyframes"
    header = replace(header, provenance=with_event(header.provenance, event), pose_noise=None)
    write_map(target.expanduser().resolve(), header, kept, lambda fresh: carry_features(source, kept, fresh))


def _covered_by_others(keyframe_map: KeyframeMap, coverage: float, progress: Progress) -> dict[str, list[str]]:
    """Ids that can go, the most overlapping first, and the keyframes that must therefore stay."""
    local = LocalFeatures(keyframe_map, FEATURES)
    around: dict[str, list[tuple[float, str]]] = {}
    for keyframe in keyframe_map.keyframes:
        overlaps = keyframe_map.overlaps(keyframe.map_T_camera)
        near = [(o, other) for other, o in overlaps.items() if other != keyframe.id and o >= LEAST_OVERLAP]
        around[keyframe.id] = sorted(near, reverse=True)
    order = sorted((id for id in around if around[id]), key=lambda id: -around[id][0][0])
    dropped, needed = dict[str, list[str]](), set[str]()
    for done, id in enumerate(order, start=1):
        progress("comparing keyframes", done, len(order))
        if id in needed:
            continue
        others = [other for _, other in around[id] if other not in dropped][:NEIGHBOURS]
        chosen = _standing_in(local, keyframe_map, id, others, coverage)
        if chosen:
            dropped[id] = chosen
            needed.update(chosen)
    return dropped


def _standing_in(
    local: LocalFeatures, keyframe_map: KeyframeMap, id: str, others: list[str], coverage: float
) -> list[str]:
    """The first of the others that together show enough of a keyframe; none where all of them do not."""
    view, descriptors = local.describe(id)
    cells = cells_of(view.xy, view.camera.width, view.camera.height)
    textured = np.bincount(cells, minlength=CELLS) >= FEATURES_IN_CELL
    if not textured.any():
        return []
    shown: NDArray[np.bool_] = np.zeros(CELLS, bool)
    chosen = list[str]()
    for other in others:
        again = cells[mutual(descriptors, local.descriptors(other))[0]]
        here = textured & (np.bincount(again, minlength=CELLS) >= FOUND_IN_CELL)
        if (here & ~shown).any():
            chosen.append(other)
            shown |= here
        if shown.sum() >= coverage * textured.sum():
            return chosen
    return []
