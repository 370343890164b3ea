"""Matches of one query with several keyframes in one list, points in the map frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.spread import best_of_each
from mast3r_ros.localization.cells import cells_of
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, Matcher, Matches

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Matches with all retrieved keyframes.

    Attributes:
        ids, matches: the K keyframes, and what was matched with each.
        xy, points, weights: (N, 2) pixels of the query, (N, 3) metres in the map frame, (N,) relative trust.
        keyframe: (N,) index of the keyframe that each match is with.
    """

    ids: tuple[str, ...]
    matches: tuple[Matches, ...]
    xy: Array
    points: Array
    weights: Array
    keyframe: NDArray[np.int64]

    @classmethod
    def of(cls, keyframe_map: KeyframeMap, matched: dict[str, Matches]) -> Correspondences:
        """Matches by the id of their keyframe, in one list."""
        parts = tuple(matched.values())
        return cls(
            ids=tuple(matched),
            matches=parts,
            xy=np.concatenate([m.query_xy for m in parts]),
            points=np.concatenate([se3.apply(keyframe_map[id].map_T_camera, m.points) for id, m in matched.items()]),
            weights=np.concatenate([m.weights for m in parts]),
            keyframe=np.repeat(np.arange(len(parts)), [len(m) for m in parts]),
        )

    def rows(self, kept: NDArray[np.bool_]) -> Correspondences:
        """The same with only some of the matches, ``kept`` (N,)."""
        bounds = np.cumsum([len(m) for m in self.matches])[:-1]
        parts = tuple(m[k] for m, k in zip(self.matches, np.split(kept, bounds), strict=True))
        return Correspondences(
            self.ids, parts, self.xy[kept], self.points[kept], self.weights[kept], self.keyframe[kept]
        )

    def seen_by(self, camera: Camera) -> tuple[Array, Correspondences]:
        """Ideal image coordinates (N, 2) of the matches that have a ray, and these matches.

        What a lens draws together is found less exactly, and trusted as much less.
        """
        ideal = camera.rays(self.xy)
        has_ray = np.asarray(np.isfinite(ideal).all(axis=1))
        ideal, found = (ideal, self) if has_ray.all() else (ideal[has_ray], self.rows(has_ray))
        if camera.is_distorted:
            found = replace(found, weights=found.weights / camera.enlargement(ideal) ** 2)
        return ideal, found

    def how_few(self) -> str:
        """How many matches there are, and what the matcher has to say about the absence of others."""
        notes = dict.fromkeys(m.note for m in self.matches if m.note)
        return ": ".join([f"{len(self.xy)} matches with {len(self.ids)} keyframes", *notes])


def most_trusted(matches: Matches, count: int, width: int, height: int) -> Matches:
    """At most ``count`` of the matches, in their order: the most trusted of every cell of the query image.

    All cells give equally many where they have them: what lies together shares the error of one piece of a surface.

    Args:
        width, height: of the query image, pixels.
    """
    if len(matches) <= count:
        return matches
    kept = best_of_each(cells_of(matches.query_xy, width, height), matches.weights, count)
    return matches[np.sort(kept)]


class QueryMatches:
    """What one query was matched with so far: each keyframe is matched once, however many attempts use it.

    Args:
        most: matches that are kept of each keyframe.
        image_size: width and height of the query image, pixels.
    """

    def __init__(
        self, keyframe_map: KeyframeMap, matcher: Matcher, query: Features, most: int, image_size: tuple[int, int]
    ) -> None:
        self._map, self._matcher, self._query = keyframe_map, matcher, query
        self._most, self._image_size = most, image_size
        self._known: dict[str, Matches] = {}

    def with_keyframes(self, ids: Sequence[str]) -> Correspondences:
        """Matches with these keyframes; those that are not matched yet are matched together."""
        fresh = [id for id in ids if id not in self._known]
        if fresh:
            found = self._matcher.match(self._query, [self._map.features(self._matcher, id) for id in fresh])
            kept = [most_trusted(matches, self._most, *self._image_size) for matches in found]
            self._known.update(zip(fresh, kept, strict=True))
        return Correspondences.of(self._map, {id: self._known[id] for id in ids})
