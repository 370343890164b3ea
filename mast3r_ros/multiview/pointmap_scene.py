"""Cameras and depth of many images from a network's pointmaps and matches: from pairs to components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.matching.base import capabilities
from mast3r_ros.matching.pair_maps import PointmapMatcher
from mast3r_ros.multiview import pair_graph
from mast3r_ros.multiview.cycles import BROKEN_DEG, confirmed, contradicted
from mast3r_ros.multiview.matched_pairs import Grids, MatchedPair, matched_pairs, with_told_focals
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.pair_graph import Pair
from mast3r_ros.multiview.pair_similarity import MatchedSurface, similarity
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.placed import model_of
from mast3r_ros.multiview.pointmap_pairs import PointmapPairs
from mast3r_ros.multiview.sim3_graph import JoinedFrames, SimilarityEdge, join_frames
from mast3r_ros.multiview.stereo import stereo
from mast3r_ros.multiview.surfaces import Surfaces
from mast3r_ros.multiview.work_folder import DescribedImages, WorkFolder

Array = NDArray[np.float64]
Stages = Callable[[str, int, int], None]

#: Matches of a pair that are aligned, and bytes that each of them takes.
MATCHES, MATCH_BYTES = 800, 300
#: Pairs that the others contradict by this much are wrong: share of the depth, logarithm of a scale.
MOST_PLACE, MOST_SCALE = 0.6, 0.7
#: A pair that no triangle confirms must explain this share of its matches.
ALONE_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class PointmapScene:
    """What all pairs of images say together.

    Attributes:
        models: the components, the largest first.
        pairs: numbers of the pairs that were believed.
        rejected: pairs that were believed at first and then contradicted.
    """

    models: list[Model]
    pairs: list[Pair]
    rejected: list[Pair]


@dataclass(frozen=True, eq=False)
class PointmapInput:
    """What is known of all images.

    Attributes:
        described: every image.
        photos: all of them.
        wanted: pairs to be looked at, i < j.
        known: (4, 4) world_T_camera by image number, kept as they are.
        memory: bytes that matches may take.
        stereo: depth of pixels is triangulated from their matches, instead of the pointmaps'.
    """

    work: WorkFolder
    described: DescribedImages
    photos: Sequence[Photo]
    wanted: Sequence[Pair]
    known: Mapping[int, Array] = field(default_factory=dict)
    memory: int = 1 << 30
    stereo: bool = False


def reconstruct_pointmaps(
    given: PointmapInput,
    matcher: PointmapMatcher,
    method: str,
    progress: Stages = lambda stage, done, total: None,
) -> PointmapScene:
    """Every component that hangs together.

    Args:
        method: ``sparse``, by matches and canonical pointmaps, or ``global``, by all pixels of all pointmaps.
    """

    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, done, total)

    store = PointmapPairs(given.work, given.described, given.wanted)
    store.predict(matcher, told("predicting pairs"))
    grids = Grids(given.described, matcher)
    photos = with_told_focals(given.photos, store, grids)
    most = max(16, min(MATCHES, given.memory // (MATCH_BYTES * max(len(store.pairs), 1))))
    left = dict(enumerate(matched_pairs(photos, store, grids, most, told("verifying pairs"))))
    rejected: list[Pair] = []
    while True:
        # What a wrong pair says of an image alone is wrong as well: without it the rest is looked at again.
        surfaces = Surfaces(given.work, given.described, store, left, photos, grids, told("joining pointmaps"))
        components, wrong = _components(len(photos), _similarities(left, surfaces))
        if not wrong:
            break
        rejected += [left.pop(number).images for number in wrong]
    # These import PyTorch, which takes seconds, and without a network nobody gets here.
    from mast3r_ros.multiview.global_placing import GlobalPlacing
    from mast3r_ros.multiview.sparse_placing import place_sparsely

    # Coarse pointmaps (a small network's) are metres where it was trained, and wrong many times over elsewhere.
    able, models = capabilities(matcher), list[Model]()
    metric = able.metric and not able.coarse_points
    by_clouds = GlobalPlacing(store, surfaces, photos, grids, given.known, metric, given.memory)
    for images, frames, numbers in components:
        believed = {number: left[number] for number in numbers}
        if method == "global":
            parts = by_clouds.place(images, believed, told("aligning"))
        else:
            step = told("aligning")
            parts = [place_sparsely(images, frames, believed, surfaces, photos, given.known, metric, progress=step)]
        aligned = [model_of(placed, believed, grids) for placed in parts]
        if given.stereo:
            inside = [pair.images for pair in believed.values()]
            aligned = [replace(model, dense=stereo(model, inside, store, grids)) for model in aligned]
        models += aligned
    models.sort(key=lambda model: -len(model))
    believed = [left[n].images for _, _, numbers in components for n in numbers]
    return PointmapScene(models, believed, sorted(rejected))


def _similarities(pairs: Mapping[int, MatchedPair], surfaces: Surfaces) -> dict[int, SimilarityEdge | None]:
    """By number of the pair; None where the pointmaps contradict the matches."""
    edges: dict[int, SimilarityEdge | None] = {}
    for number, pair in pairs.items():
        i, j = pair.images
        of_i, of_j = surfaces.of.get(i), surfaces.of.get(j)
        edges[number] = None
        if of_i is not None and of_j is not None:
            rays = of_i.sides[number].rays, of_j.sides[number].rays
            seen = MatchedSurface(*rays, of_i.depth(number), of_j.depth(number), of_i.focal, of_j.focal)
            motion = pair.verified.camera_j_T_camera_i
            edges[number] = similarity(i, j, seen, motion, pair.verified.parallax_deg, pair.share)
    return edges


def _contradicted(edges: Mapping[int, SimilarityEdge]) -> set[int]:
    """Numbers of the pairs that cycles contradict, or do not confirm where their matches leave doubts."""
    rotations = {(edge.a, edge.b): edge.b_T_a.R for edge in edges.values()}
    broken, sure = contradicted(rotations), confirmed(rotations)
    broken |= {(edge.a, edge.b) for edge in edges.values() if edge.share < ALONE_SHARE} - sure
    return {number for number, edge in edges.items() if (edge.a, edge.b) in broken}


def _components(
    count: int, edges: Mapping[int, SimilarityEdge | None]
) -> tuple[list[tuple[list[int], JoinedFrames, list[int]]], list[int]]:
    """Images of each component, their frames, and the pairs that agree with them; and pairs that do not."""
    left = {number: edge for number, edge in edges.items() if edge is not None}
    broken = _contradicted(left)
    while True:
        left = {number: edge for number, edge in left.items() if number not in broken}
        joined, broken = _joined(count, left)
        if not broken:
            return joined, sorted(set(edges) - set(left))


def _joined(
    count: int, edges: Mapping[int, SimilarityEdge]
) -> tuple[list[tuple[list[int], JoinedFrames, list[int]]], set[int]]:
    """Components, and the numbers of edges that the rest of theirs contradicts."""
    joined, wrong = [], set[int]()
    for images in pair_graph.components(count, [(edge.a, edge.b) for edge in edges.values()]):
        if len(images) < 2:
            continue
        place = {n: row for row, n in enumerate(images)}
        mine = [number for number, edge in edges.items() if edge.a in place]
        frames = join_frames(len(images), [edges[number].between(place) for number in mine])
        turned = np.degrees(frames.turn) > BROKEN_DEG
        bad = turned | (frames.place > MOST_PLACE) | (frames.scale > MOST_SCALE)
        wrong |= {number for number, off in zip(mine, bad, strict=True) if off}
        joined.append((images, frames, mine))
    return joined, wrong
