"""The canonical pointmap of every image: on disk whole, in memory what matches need of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.multiview.canonical import CanonicalView
from mast3r_ros.multiview.matched_pairs import Grids, MatchedPair
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.pointmap_pairs import PointmapPairs
from mast3r_ros.multiview.work_folder import DescribedImages, WorkFolder

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MatchDepths:
    """One image's side of the matches of one pair.

    Attributes:
        anchor: (K,) of the image's anchors.
        ratio: (K,) depth by the anchor's.
        rays: (K, 2) ideal image coordinates by the photo's camera.
    """

    anchor: NDArray[np.int64]
    ratio: NDArray[np.float32]
    rays: Array


@dataclass(frozen=True, eq=False)
class Surface:
    """Of one image.

    Attributes:
        anchors: (A,) depth, the matcher's unit.
        told: focal length that the pointmap was seen with, pixels of the matcher's image.
        focal: that of the photo's camera, in the same pixels.
        pixel: side of these pixels in pixels of the photo.
        shape: (H, W) of the matcher's image.
        sides: by number of the pair.
    """

    anchors: NDArray[np.float32]
    told: float
    focal: float
    pixel: float
    shape: tuple[int, int]
    sides: dict[int, MatchDepths]

    def depth(self, pair: int) -> Array:
        """(K,) of the pixels of a pair's matches, as the camera's focal length has it."""
        side = self.sides[pair]
        stretch = self.focal / self.told
        # With another focal length the same slope is another depth: what is across the axis stays.
        return np.asarray(self.anchors[side.anchor] * stretch * (1 + (side.ratio - 1) / stretch), np.float64)


class Surfaces:
    """All images' surfaces.

    Args:
        pairs: believed ones by number; an image is what these say of it.
    """

    def __init__(
        self,
        work: WorkFolder,
        described: DescribedImages,
        store: PointmapPairs,
        pairs: Mapping[int, MatchedPair],
        photos: Sequence[Photo],
        grids: Grids,
        progress: Callable[[int, int], None],
    ) -> None:
        self._work, self._described = work, described
        self._keys: dict[int, tuple[str, ...]] = {}
        self.of: dict[int, Surface] = {}
        by_image: dict[int, list[int]] = {}
        for number, pair in pairs.items():
            for n in pair.images:
                by_image.setdefault(n, []).append(number)
        for done, (n, numbers) in enumerate(sorted(by_image.items()), start=1):
            among = [pairs[number].images for number in numbers]
            view = self._canonical(n, store, among)
            if view is not None:
                self.of[n] = _surface(n, view, {number: pairs[number] for number in numbers}, photos[n], grids)
            progress(done, len(by_image))

    def canonical(self, number: int) -> CanonicalView:
        """All of an image's canonical pointmap."""
        found = self._work.find(*self._keys[number])
        if found is None:
            raise KeyError(f"canonical pointmap of image {number}")
        focal, spread, maps = found["facts"].tolist()
        return CanonicalView(found["depth"], found["ratio"], found["confidence"], focal, spread, int(maps))

    def _canonical(self, n: int, store: PointmapPairs, among: list[tuple[int, int]]) -> CanonicalView | None:
        partners = [self._described.digest(i if j == n else j) for i, j in among]
        listed = hashlib.sha256(" ".join(partners).encode()).hexdigest()
        self._keys[n] = ("canonical", self._described.digest(n), listed)
        if self._work.holds(*self._keys[n]):
            return self.canonical(n)
        view = store.canonical(n, among)
        if view is not None:
            facts = np.array([view.focal, view.spread, view.maps])
            arrays = {"depth": view.depth, "ratio": view.ratio, "confidence": view.confidence, "facts": facts}
            self._work.keep(arrays, *self._keys[n])
        return view


def _surface(n: int, view: CanonicalView, pairs: dict[int, MatchedPair], photo: Photo, grids: Grids) -> Surface:
    sides = {}
    for number, pair in pairs.items():
        first = pair.verified.i == n
        xy, raw = (pair.xy_i, pair.verified.xy_i) if first else (pair.xy_j, pair.verified.xy_j)
        sides[number] = MatchDepths(view.anchor_of(xy), np.array(view.ratio_of(xy)), photo.camera.rays(raw))
    pixel = grids.pixel(n)
    shape = view.depth.shape[0], view.depth.shape[1]
    return Surface(view.anchors.copy(), view.focal, photo.camera.focal / pixel, pixel, shape, sides)
