"""Matches of pairs joined to tracks: the same surface point in all images that see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mast3r_ros.multiview.verification import VerifiedPair

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tracks:
    """Observations, sorted by track.

    Attributes:
        count: number of tracks.
        track, image: (M,) of each observation.
        xy: (M, 2) pixels.
        feature: (M,) number of the pixel among its image's keypoints.
        keypoints: by image (K, 2), every pixel that was matched with any other image.
    """

    count: int
    track: Index
    image: Index
    xy: Array
    feature: Index
    keypoints: list[Array]


@dataclass(frozen=True, eq=False)
class IndexedPairs:
    """Keypoints (K, 2) by image, and for each pair the rows (N, 2) of its matches in those of its images."""

    keypoints: list[Array]
    rows: list[Index]


def indexed(pairs: Sequence[VerifiedPair], images: int) -> IndexedPairs:
    """Pixels that were matched, each once."""
    seen: list[list[Array]] = [[] for _ in range(images)]
    for pair in pairs:
        seen[pair.i].append(pair.xy_i)
        seen[pair.j].append(pair.xy_j)
    keypoints, inverse = [], []
    for pixels in seen:
        unique, rows = np.unique(np.concatenate([np.zeros((0, 2)), *pixels]), axis=0, return_inverse=True)
        keypoints.append(unique)
        inverse.append(np.split(rows.ravel(), np.cumsum([len(p) for p in pixels])[:-1]) if pixels else [])
    turn = [iter(parts) for parts in inverse]
    return IndexedPairs(
        keypoints, [np.stack([next(turn[pair.i]), next(turn[pair.j])], axis=1).astype(np.int64) for pair in pairs]
    )


def join(pairs: Sequence[VerifiedPair], images: int) -> Tracks:
    """Tracks of at least two images.

    An image that shows a track at two pixels cannot be believed for it, and a track of which more than half is like
    that joins several surface points: it is left out.
    """
    points = indexed(pairs, images)
    first = np.concatenate([[0], np.cumsum([len(xy) for xy in points.keypoints])])
    edges = [rows + first[[p.i, p.j]] for p, rows in zip(pairs, points.rows, strict=True)]
    joined = np.concatenate([np.zeros((0, 2), np.int64), *edges])
    total = int(first[-1])
    graph = coo_matrix((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(total, total))
    _, label = connected_components(graph, directed=False)
    image = np.repeat(np.arange(images), np.diff(first))
    _, place, copies = np.unique(label.astype(np.int64) * images + image, return_inverse=True, return_counts=True)
    alone = copies[place.ravel()] == 1
    size, good = np.bincount(label), np.bincount(label, weights=alone)
    kept = alone & (good[label] >= 2) & (2 * good[label] >= size[label])
    order = np.flatnonzero(kept)[np.argsort(label[kept], kind="stable")]
    _, track = np.unique(label[order], return_inverse=True)
    xy = np.concatenate([np.zeros((0, 2)), *points.keypoints])
    return Tracks(
        int(track.max() + 1) if len(track) else 0,
        track.ravel().astype(np.int64),
        image[order],
        xy[order],
        order - first[image[order]],
        points.keypoints,
    )
