"""Where keyframes see what their neighbours see, before anything is known of its distance: for triangulation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, PixelMatcher
from mast3r_ros.matching.nearest import mutual_nearest
from mast3r_ros.matching.sift import DOUBLED, root_sift

Array = NDArray[np.float64]

#: SIFT features of a keyframe, the strongest.
FEATURES = 2000
#: Lowe's ratio test.
RATIO = 0.8
#: A match may be off its epipolar line by this much, in pixels of the images that were matched.
EPIPOLAR_PX = 2.0
#: Keyframes whose features a network's finder remembers, a few hundred MB; neighbours are mostly close in time.
KEPT = 128


@dataclass(frozen=True, eq=False)
class View:
    """Features of one keyframe.

    Attributes:
        xy: (N, 2) pixels.
        rays: (N, 2) ideal coordinates at z = 1.
        pixel: side of a pixel of the image that was matched, in pixels of the keyframe.
    """

    camera: Camera
    map_T_camera: Array
    xy: Array
    rays: Array
    pixel: float = 1.0


@dataclass(frozen=True, eq=False)
class Observations:
    """Features of one view found again in another.

    Attributes:
        feature: (M,) rows in the view.
        rays: (M, 2) where the other view saw them, ideal coordinates.
    """

    feature: NDArray[np.int64]
    rays: Array
    other: View


class Finder(Protocol):
    """Finds what a keyframe shares with others."""

    def __call__(self, id: str, neighbours: list[str]) -> tuple[View, list[Observations]]:
        """The keyframe's features and where its neighbours saw them, on their epipolar lines."""


class LocalFeatures:
    """RootSIFT features, mutual nearest neighbours that pass the ratio test."""

    def __init__(self, keyframe_map: KeyframeMap, features: int = FEATURES) -> None:
        self._map, self._features = keyframe_map, features
        self._described: dict[str, tuple[View, NDArray[np.float32]]] = {}
        self._matched: dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __call__(self, id: str, neighbours: list[str]) -> tuple[View, list[Observations]]:
        """See :class:`Finder`."""
        return self.view(id), [self.shared(id, other) for other in neighbours]

    def keep(self, ids: Collection[str]) -> None:
        """Forget what is known of all other keyframes."""
        self._described = {id: known for id, known in self._described.items() if id in ids}
        self._matched = {pair: rows for pair, rows in self._matched.items() if pair[0] in ids and pair[1] in ids}

    def view(self, id: str) -> View:
        """Features of a keyframe."""
        return self.describe(id)[0]

    def descriptors(self, id: str) -> NDArray[np.float32]:
        """(N, 128) RootSIFT of these features."""
        return self.describe(id)[1]

    def shared(self, id: str, other: str) -> Observations:
        """Features of one keyframe found again in another, on their epipolar lines."""
        pair = (id, other) if id < other else (other, id)
        if pair not in self._matched:
            self._matched[pair] = mutual(*map(self.descriptors, pair))
        mine, theirs = self._matched[pair] if pair[0] == id else self._matched[pair][::-1]
        partner = self.view(other)
        return on_epipolar_lines(self.view(id), partner, mine, partner.rays[theirs])

    def describe(self, id: str) -> tuple[View, NDArray[np.float32]]:
        """A keyframe's features, and their descriptors (N, 128)."""
        if id not in self._described:
            frame, keyframe = self._map.frame(id), self._map[id]
            grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            points, descriptors = cv2.SIFT_create(nfeatures=self._features).detectAndCompute(grey, None)
            xy = np.array([point.pt for point in points], dtype=np.float64).reshape(-1, 2) - DOUBLED
            descriptors = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
            rays = keyframe.camera.rays(xy)
            seen = np.isfinite(rays).all(axis=1)
            view = View(keyframe.camera, keyframe.map_T_camera, xy[seen], rays[seen])
            self._described[id] = view, root_sift(descriptors[seen])
        return self._described[id]


class MatchedPixels:
    """What a matcher that needs no depth finds: depth is then known where the same matcher will look for it."""

    def __init__(self, keyframe_map: KeyframeMap, matcher: PixelMatcher) -> None:
        self._map, self._matcher = keyframe_map, matcher
        # Kept out of the map's cache: with the depth that is found here they will be out of date.
        self._described: dict[str, Features] = {}

    def __call__(self, id: str, neighbours: list[str]) -> tuple[View, list[Observations]]:
        """See :class:`Finder`."""
        found = self._matcher.match_pixels(self._features(id), [self._features(other) for other in neighbours])
        camera = self._map[id].camera
        everywhere = np.concatenate([np.zeros((0, 2)), *(matches.query_xy for matches in found)])
        xy, feature = np.unique(everywhere, axis=0, return_inverse=True)
        pixel = max([1.0, *(matches.query_pixel for matches in found)])
        view = View(camera, self._map[id].map_T_camera, xy, camera.rays(xy), pixel)
        bounds = np.cumsum([len(matches.query_xy) for matches in found])[:-1]
        observations = []
        for other, matches, rows in zip(neighbours, found, np.split(feature.ravel(), bounds), strict=False):
            keyframe = self._map[other]
            rays = keyframe.camera.rays(matches.reference_xy)
            partner = View(keyframe.camera, keyframe.map_T_camera, matches.reference_xy, rays, pixel)
            observations.append(on_epipolar_lines(view, partner, rows, rays))
        return view, observations

    def _features(self, id: str) -> Features:
        if id not in self._described:
            if len(self._described) >= KEPT:
                self._described.pop(next(iter(self._described)))
            frame = self._map.frame(id)
            self._described[id] = self._matcher.describe(Frame(frame.image, frame.camera, frame.stamp_ns))
        return self._described[id]


def on_epipolar_lines(view: View, other: View, feature: NDArray[np.int64], rays: Array) -> Observations:
    """Those matches that lie on their epipolar lines.

    Args:
        feature: (M,) rows in ``view``.
        rays: (M, 2) where ``other`` saw them.
    """
    if len(feature) == 0:
        return Observations(np.zeros(0, np.int64), np.zeros((0, 2)), other)
    other_T_view = se3.inverse(other.map_T_camera) @ view.map_T_camera
    essential = se3.skew(other_T_view[:3, 3]) @ other_T_view[:3, :3]
    lines = se3.homogeneous(view.rays[feature]) @ essential.T
    off = np.abs((lines * se3.homogeneous(rays)).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1)
    good = off * other.camera.focal < EPIPOLAR_PX * view.pixel  # false where there is no ray
    return Observations(feature[good], rays[good], other)


def mutual(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (M,) and (M,) of RootSIFT descriptors that are each other's nearest and pass the ratio test."""
    ((rows, partners, _),) = mutual_nearest(mine, [theirs], RATIO)
    return rows, partners
