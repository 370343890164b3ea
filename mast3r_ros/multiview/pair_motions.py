"""The motion that a pair's pointmaps tell of its two cameras, and pairs that others contradict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.pointmap import estimate_focal, pose_from_pointmap
from mast3r_ros.multiview.cycles import BROKEN_DEG, contradicted
from mast3r_ros.multiview.pair_graph import Pair, components
from mast3r_ros.multiview.pointmap_pair import PointmapPair, image_shapes

Array = NDArray[np.float64]


def focal_lengths(pairs: Sequence[PointmapPair]) -> Array:
    """(N,) focal length of each image, the median of what its pointmaps tell; NaN of images that are never first."""
    told: list[list[float]] = [[] for _ in image_shapes(pairs)]
    for pair in pairs:
        told[pair.i].append(estimate_focal(pair.points_i))
    return np.array([np.median(values) if values else np.nan for values in told])


def pair_motions(pairs: Sequence[PointmapPair], focals: Array) -> list[Array | None]:
    """``camera_i_T_camera_j`` (4, 4) of every pair, at the pair's own scale; None where no pose explains its points."""
    found: list[Array | None] = []
    for pair in pairs:
        focal = focals[pair.j] if np.isfinite(focals[pair.j]) else focals[pair.i]
        pose = pose_from_pointmap(pair.points_j, float(focal), threshold_px=5.0, rounds=100)
        found.append(None if pose is None else pose.world_T_camera)
    return found


def believed(pairs: Sequence[PointmapPair]) -> tuple[list[PointmapPair], list[Pair]]:
    """Pairs whose rotations agree with those around them, and those that were rejected.

    Of two pairs of the same images in opposite order, the one that is believed more is held against the cycles, and the
    other one against it.
    """
    motions = pair_motions(pairs, focal_lengths(pairs))
    first: dict[Pair, tuple[float, int]] = {}
    for number, (pair, motion) in enumerate(zip(pairs, motions, strict=True)):
        key = (min(pair.i, pair.j), max(pair.i, pair.j))
        if motion is not None and pair.score > first.get(key, (0.0, 0))[0]:
            first[key] = pair.score, number
    rotations = {key: _turn(pairs[number], motions[number]) for key, (_, number) in first.items()}
    broken = contradicted(rotations)
    kept, rejected = [], []
    for pair, motion in zip(pairs, motions, strict=True):
        key = (min(pair.i, pair.j), max(pair.i, pair.j))
        agrees = motion is not None and key not in broken
        if agrees:
            between = se3.make(_turn(pair, motion) @ rotations[key].T, np.zeros(3))
            agrees = np.degrees(se3.angle(between)) < BROKEN_DEG
        kept += [pair] if agrees else []
        rejected += [] if agrees else [(pair.i, pair.j)]
    return kept, rejected


def connected(pairs: Sequence[PointmapPair]) -> list[list[int]]:
    """Images that hang together by pairs, the largest group first."""
    count = 1 + max((max(pair.i, pair.j) for pair in pairs), default=-1)
    return components(count, [(pair.i, pair.j) for pair in pairs])


def _turn(pair: PointmapPair, motion: Array | None) -> Array:
    """(3, 3) from the camera of the smaller number to that of the larger."""
    assert motion is not None
    return motion[:3, :3] if pair.i > pair.j else motion[:3, :3].T
