"""Which keyframes see the same surface from another place, before any distance is known.

Poses alone cannot tell: two views ten metres apart share everything in a courtyard and nothing in a corridor. Pictures
can: views that look alike are matched, and what counts is how many of their matches lie on their epipolar lines and
are seen at an angle that a distance can be told from. Nothing of this depends on the size of the scene.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.observations import Array, LocalFeatures
from mast3r_ros.mapping.overlap import AXES_DEG
from mast3r_ros.mapping.retrieval import RetrievalIndex

#: Rays that meet at less than this say nothing about depth, degrees.
PARALLAX_DEG = 1.5
#: Views that look alike and are matched, for each keyframe; the most alike are not all taken where they stand closer to
#: each other than this share of their distance: twenty pictures of one second show less than a few of twenty seconds.
CANDIDATES, THINNED = 16, 0.3
#: Views that share fewer matches with parallax share them by chance.
LEAST_SHARED = 10


class SharedViews:
    """Finds neighbours to triangulate with."""

    def __init__(self, keyframe_map: KeyframeMap, local: LocalFeatures) -> None:
        self._map, self._local = keyframe_map, local
        self._index = RetrievalIndex()
        self._index.update({keyframe.id: keyframe.id for keyframe in keyframe_map.keyframes}, local.descriptors)

    def neighbours(self, id: str, count: int, fill: bool = False) -> list[str]:
        """At most ``count`` keyframes that see what a keyframe sees from elsewhere, those that share most first.

        Args:
            fill: where SIFT finds fewer, add those that look most alike.
        """
        candidates = self._candidates(id)
        shared = {other: self._shared(id, other) for other in candidates}
        best = sorted(candidates, key=lambda other: -shared[other])
        sure = [other for other in best if shared[other] >= LEAST_SHARED]
        return list(dict.fromkeys([*sure, *candidates] if fill else sure))[:count]

    def _candidates(self, id: str) -> list[str]:
        """Keyframes that look alike and stand elsewhere, without the many that stand nearly together."""
        pose = self._map[id].map_T_camera
        chosen: list[tuple[str, Array]] = []
        for other in self._alike(id):
            theirs = self._map[other].map_T_camera
            moved = theirs[:3, 3] - pose[:3, 3]
            distance = float(np.linalg.norm(moved))
            if distance == 0 or pose[:3, 2] @ theirs[:3, 2] < np.cos(np.radians(AXES_DEG)):
                continue
            if all(np.linalg.norm(moved - earlier) >= THINNED * distance for _, earlier in chosen):
                chosen.append((other, moved))
            if len(chosen) == CANDIDATES:
                break
        return [other for other, _ in chosen]

    def _alike(self, id: str) -> list[str]:
        """All other keyframes, the most similar first; those in whose pictures there is nothing to compare last."""
        similar = self._index.similarities(self._local.descriptors(id))
        others = [keyframe.id for keyframe in self._map.keyframes if keyframe.id != id]
        return sorted(others, key=lambda other: -similar.get(other, -1.0))

    def _shared(self, id: str, other: str) -> int:
        """Matches on their epipolar lines whose rays meet at an angle."""
        seen, view = self._local.shared(id, other), self._local.view(id)
        mine = _directions(view.rays[seen.feature], view.map_T_camera)
        theirs = _directions(seen.rays, seen.other.map_T_camera)
        return int(((mine * theirs).sum(axis=1) < np.cos(np.radians(PARALLAX_DEG))).sum())


def _directions(rays: Array, map_T_camera: Array) -> NDArray[np.float64]:
    """Unit vectors (N, 3) in the map of rays (N, 2) at z = 1."""
    turned = se3.homogeneous(rays) @ map_T_camera[:3, :3].T
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True))
