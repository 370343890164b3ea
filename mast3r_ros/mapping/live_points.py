"""Points for the keyframes of a map that is being made without depth: from those just before and after each."""

from __future__ import annotations

from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.observations import LocalFeatures
from mast3r_ros.mapping.triangulate import triangulated_points

#: Keyframes on either side that one is triangulated with, and how many of those after it must be there.
AROUND, AFTER = 4, 2
FEATURES = 1000


class LivePoints:
    """Triangulates each keyframe once, with those around it only: poses of a few in a row hardly drift."""

    def __init__(self, keyframe_map: KeyframeMap) -> None:
        self._map, self._local = keyframe_map, LocalFeatures(keyframe_map, FEATURES)
        self._done: set[str] = set()

    def update(self) -> None:
        """Give points to the keyframes that are due."""
        ids = [keyframe.id for keyframe in self._map.keyframes]
        for place, id in enumerate(ids[: max(0, len(ids) - AFTER)]):
            if id in self._done:
                continue
            self._done.add(id)
            if not self._map[id].has_depth:
                around = [other for other in ids[max(0, place - AROUND) : place + AROUND + 1] if other != id]
                xy, depth = triangulated_points(*self._local(id, around))
                if len(depth):
                    self._map.set_points(id, xy, depth)
        self._local.keep(ids[-2 * AROUND - AFTER :])
