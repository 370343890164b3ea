"""One component placed by DUSt3R's global alignment, in chunks where memory does not hold all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import fit_similarity
from mast3r_ros.multiview.alignment_settings import AlignmentSettings, KnownViews
from mast3r_ros.multiview.dense_view import pixels_of_rays
from mast3r_ros.multiview.global_alignment import align
from mast3r_ros.multiview.matched_pairs import Grids, MatchedPair
from mast3r_ros.multiview.pair_graph import Pair, components
from mast3r_ros.multiview.photos import Photo, with_focal
from mast3r_ros.multiview.placed import PlacedImages, metres_of
from mast3r_ros.multiview.pointmap_pairs import PointmapPairs
from mast3r_ros.multiview.sim3_graph import SimilarityEdge, join_frames
from mast3r_ros.multiview.surfaces import Surfaces

Array = NDArray[np.float64]

#: Pixels of an image that are aligned: of larger ones every second, third, ...
PIXELS = 13_000
#: What a pixel of a pair takes while gradients are found, both orders and views of it together, bytes.
PIXEL_BYTES = 4 * 100
#: Images of a chunk, at least, and the share that it has in common with the next.
FEWEST, OVERLAP = 8, 0.3
#: Points of a shared image that hold two chunks together.
SHARED_POINTS = 300


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Images aligned together: by number, ``world_T_camera`` (4, 4), focal length and depth at every step-th pixel."""

    poses: dict[int, Array]
    focals: dict[int, float]
    depths: dict[int, NDArray[np.floating]]


class GlobalPlacing:
    """See :meth:`place`.

    Args:
        store, surfaces, photos, grids: of all images.
        known: (4, 4) world_T_camera by image number; where two and more of a chunk are known they are kept.
        metric: the matcher's unit is the metre.
        memory: bytes that a chunk's pointmaps may take.
    """

    def __init__(
        self,
        store: PointmapPairs,
        surfaces: Surfaces,
        photos: Sequence[Photo],
        grids: Grids,
        known: Mapping[int, Array],
        metric: bool,
        memory: int,
        settings: AlignmentSettings = AlignmentSettings(),
    ) -> None:
        self._store, self._surfaces, self._photos, self._grids = store, surfaces, photos, grids
        self._known, self._metric, self._memory, self._settings = known, metric, memory, settings

    def place(
        self,
        images: Sequence[int],
        pairs: Mapping[int, MatchedPair],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[PlacedImages]:
        """Images that the pairs connect; in several parts only where chunks have too little in common."""
        listed = [pair.images for pair in pairs.values()]
        groups = chunks(images, listed, self._fitting(images, len(listed)))
        done: list[_Chunk] = []
        for number, group in enumerate(groups):
            inside = [pair for pair in listed if pair[0] in group and pair[1] in group]
            done.append(
                self._aligned(sorted(group), inside, lambda d, n, k=number: progress(k * n + d, len(groups) * n))  # type: ignore[misc]
            )
        return [self._placed(joined, pairs) for joined in self._joined(done)]

    def _step(self, n: int) -> int:
        height, width = self._surfaces.of[n].shape
        return max(1, round(float(np.sqrt(height * width / PIXELS))))

    def _fitting(self, images: Sequence[int], pairs: int) -> int:
        """How many images fit into memory together."""
        height, width = self._surfaces.of[images[0]].shape
        needed = pairs * PIXEL_BYTES * height * width / self._step(images[0]) ** 2
        return max(FEWEST, int(len(images) * min(1.0, self._memory / max(needed, 1))))

    def _aligned(self, images: list[int], pairs: list[Pair], progress: Callable[[int, int], None]) -> _Chunk:
        place = {n: row for row, n in enumerate(images)}
        found = []
        for i, j in pairs:
            for pair in self._store.both_ways(i, j, self._step(i)):
                found.append(type(pair)(place[pair.i], place[pair.j], *pair.maps))
        poses = {place[n]: self._known[n] for n in images if n in self._known}
        focals, centres = {}, {}
        for n, row in place.items():
            step, to_pixels = self._step(n), pixels_of_rays(self._photos[n].camera, self._grids.of(n))
            centres[row] = (to_pixels[2] - step // 2) / step
            if self._photos[n].calibrated:
                focals[row] = float(np.sqrt(to_pixels[0, 0] * to_pixels[1, 1])) / step
        known = KnownViews(poses if len(poses) > 1 else {}, focals, centres)
        views = align(found, self._settings, known, progress=progress)
        numbers = dict(enumerate(images))
        return _Chunk(
            {n: views.world_T_camera[row] for row, n in numbers.items()},
            {n: float(views.focals[row]) * self._step(n) for row, n in numbers.items()},
            {n: np.asarray(views.depths[row]) for row, n in numbers.items()},
        )

    def _joined(self, parts: list[_Chunk]) -> list[_Chunk]:
        """Chunks that share images, brought into one world."""
        edges = []
        for a, first in enumerate(parts):
            for b in range(a + 1, len(parts)):
                edge = self._edge(a, b, first, parts[b])
                edges += [] if edge is None else [edge]
        joined = list[_Chunk]()
        for group in components(len(parts), [(edge.a, edge.b) for edge in edges]):
            place = {n: row for row, n in enumerate(group)}
            frames = join_frames(len(group), [edge.between(place) for edge in edges if edge.a in place])
            whole = _Chunk({}, {}, {})
            for n, row in place.items():
                world_T_part = frames.world_T(row)
                for image, pose in parts[n].poses.items():
                    if image not in whole.poses:
                        whole.poses[image] = world_T_part.pose(pose)
                        whole.focals[image] = parts[n].focals[image]
                        whole.depths[image] = world_T_part.scale * parts[n].depths[image]
            joined.append(whole)
        return joined

    def _edge(self, a: int, b: int, first: _Chunk, second: _Chunk) -> SimilarityEdge | None:
        """From chunk a to chunk b by the points of their common images; None without any."""
        here, there = list[Array](), list[Array]()
        for n in sorted(set(first.poses) & set(second.poses)):
            for part, points in ((first, here), (second, there)):
                points.append(self._points(part, n))
        if not here:
            return None
        x, y = np.concatenate(here), np.concatenate(there)
        weights = np.ones(len(x))
        for _ in range(10):
            b_T_a = fit_similarity(x, y, weights)
            off = np.linalg.norm(b_T_a.points(x) - y, axis=1)
            weights = 1 / (1 + (off / max(float(np.median(off)), 1e-12)) ** 2)
        depth = float(np.median(np.linalg.norm(y - y.mean(axis=0), axis=1)))
        return SimilarityEdge(a, b, b_T_a, depth, float(len(here)))

    def _points(self, part: _Chunk, n: int) -> Array:
        step, depth = self._step(n), part.depths[n]
        grid = self._grids.of(n)[step // 2 :: step, step // 2 :: step]
        rows = np.linspace(0, depth.size - 1, SHARED_POINTS).astype(int)
        points = self._camera(n, part.focals[n]).points(grid.reshape(-1, 2)[rows], depth.reshape(-1)[rows])
        return se3.apply(part.poses[n], np.nan_to_num(points))

    def _camera(self, n: int, focal: float) -> Camera:
        photo = self._photos[n]
        return photo.camera if photo.calibrated else with_focal(photo, focal * self._surfaces.of[n].pixel).camera

    def _placed(self, whole: _Chunk, pairs: Mapping[int, MatchedPair]) -> PlacedImages:
        def dense(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            """The canonical depth, corrected by the aligned one of every step-th pixel."""
            view, step = self._surfaces.canonical(n), self._step(n)
            coarse = np.maximum(view.depth[step // 2 :: step, step // 2 :: step], 1e-9)
            ratio = np.log(np.maximum(whole.depths[n], 1e-9) / coarse).astype(np.float32)
            height, width = view.depth.shape
            factor = np.exp(cv2.resize(ratio, (width, height), interpolation=cv2.INTER_LINEAR))
            return np.where(view.depth > 0, view.depth * factor, 0).astype(np.float32), view.confidence

        depths: dict[tuple[int, int], Array] = {}
        inside = {number: pair for number, pair in pairs.items() if all(n in whole.poses for n in pair.images)}
        for n in whole.poses:
            depth = dense(n)[0].astype(np.float64)
            for number, pair in inside.items():
                if n in pair.images:
                    xy = pair.xy_i if pair.images[0] == n else pair.xy_j
                    depths[number, n] = depth[xy[:, 1], xy[:, 0]]
        told = {n: self._surfaces.canonical(n).depth for n in whole.poses} if self._metric else {}
        found = {n: dense(n)[0] for n in told}
        return PlacedImages(
            {n: self._camera(n, whole.focals[n]) for n in whole.poses},
            whole.poses,
            {k: (depths[k, pair.images[0]], depths[k, pair.images[1]]) for k, pair in inside.items()},
            dense,
            metres_of(told, found) if self._metric else None,
        )


def chunks(images: Sequence[int], pairs: Sequence[Pair], most: int) -> list[set[int]]:
    """Connected groups of at most ``most`` images, each of which has images in common with others.

    Images are put in a row such that pairs are near each other (reverse Cuthill-McKee); chunks are windows of it.
    """
    if len(images) <= most:
        return [set(images)]
    place = {n: row for row, n in enumerate(images)}
    a, b = np.array([(place[i], place[j]) for i, j in pairs]).T
    ones = np.ones(len(a))
    graph = coo_matrix((np.r_[ones, ones], (np.r_[a, b], np.r_[b, a])), shape=(len(images),) * 2).tocsr()
    order = reverse_cuthill_mckee(graph, symmetric_mode=True)
    step = max(1, int(most * (1 - OVERLAP)))
    found = list[set[int]]()
    for start in range(0, max(len(images) - most, 0) + step, step):
        window = {images[row] for row in order[start : start + most]}
        inside = [pair for pair in pairs if pair[0] in window and pair[1] in window]
        numbered = {n: row for row, n in enumerate(sorted(window))}
        for group in components(len(window), [(numbered[i], numbered[j]) for i, j in inside]):
            members = {n for n, row in numbered.items() if row in group}
            if len(members) > 1 and not any(members <= other for other in found):
                found.append(members)
    return found
