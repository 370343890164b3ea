"""Which of many images look alike, and which of these show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.mapping.retrieval import RetrievalIndex
from mast3r_ros.matching.base import Matcher, PixelMatcher
from mast3r_ros.multiview import pair_graph
from mast3r_ros.multiview.pair_graph import Pair
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.verification import VerifiedPair, verify
from mast3r_ros.multiview.work_folder import DescribedImages

#: Images matched in one call.
BATCH = 4
#: Up to this many images every one is matched with every other.
FEW = 20

Progress = Callable[[int, int], None]


def similarities(described: DescribedImages, count: int, matcher: Matcher) -> NDArray[np.float64]:
    """(N, N) how much images look alike; negative infinity where an image shows nothing."""
    index = RetrievalIndex()
    index.update({str(n): "" for n in range(count)}, lambda id: matcher.local_descriptors(described[int(id)]))
    alike = np.full((count, count), -np.inf)
    for n in range(count):
        for id, score in index.similarities(matcher.local_descriptors(described[n])).items():
            alike[n, int(id)] = score
    return alike


def pairs_to_match(described: DescribedImages, count: int, matcher: Matcher, neighbours: int) -> list[Pair]:
    """All pairs of few images; of many, each with those that look most like it."""
    if count <= FEW:
        return sorted((j, i) for i, j in pair_graph.complete(count))
    return pair_graph.nearest(similarities(described, count, matcher), neighbours)


def verified_pairs(
    described: DescribedImages,
    photos: Sequence[Photo],
    pairs: Sequence[Pair],
    matcher: PixelMatcher,
    progress: Progress | None = None,
) -> tuple[list[VerifiedPair], NDArray[np.float64]]:
    """Pairs of images that one motion of the camera explains.

    Returns:
        the pairs, and for each image (N,) the side of a pixel that was matched, in pixels of the photo.
    """
    found: list[VerifiedPair] = []
    pixel = np.ones(len(photos))
    by_first: dict[int, list[int]] = {}
    for i, j in pairs:
        by_first.setdefault(i, []).append(j)
    done = 0
    for i, others in sorted(by_first.items()):
        for start in range(0, len(others), BATCH):
            batch = others[start : start + BATCH]
            matched = matcher.match_pixels(described[i], [described[j] for j in batch])
            for j, matches in zip(batch, matched, strict=True):
                pixel[i] = max(pixel[i], matches.query_pixel)
                both = (photos[i], photos[j])
                pair = verify(i, j, both, matches.query_xy, matches.reference_xy, matches.query_pixel)
                found += [] if pair is None else [pair]
            done += len(batch)
            if progress is not None:
                progress(done, len(pairs))
    return found, pixel
