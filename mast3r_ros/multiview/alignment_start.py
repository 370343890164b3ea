"""Where the alignment of pointmaps starts from: a spanning tree of the most believed pairs, or known poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from mast3r_ros.geometry import se3
from mast3r_ros.geometry.pointmap import estimate_focal, pose_and_focal_from_pointmap, pose_from_pointmap
from mast3r_ros.geometry.similarity import Similarity, fit_similarity
from mast3r_ros.multiview.alignment_settings import AlignmentSettings, KnownViews
from mast3r_ros.multiview.pointmap_pair import PointmapPair, image_confidences, image_shapes

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AlignmentStart:
    """First values of all that is optimised.

    Attributes:
        tree: pairs (i, j) of the spanning tree in the order of visiting; empty without one.
        world_T_camera: (N, 4, 4).
        focals: (N,) pixels.
        depths: N images (H, W).
        pairs: similarity from each pair's frame to the world.
    """

    tree: list[tuple[int, int]]
    world_T_camera: Array
    focals: Array
    depths: list[Array]
    pairs: list[Similarity]


def start_from_tree(
    pairs: Sequence[PointmapPair], settings: AlignmentSettings = AlignmentSettings(), known: KnownViews = KnownViews()
) -> AlignmentStart:
    """Chain pointmaps along the spanning tree of the most believed pairs.

    Raises:
        ValueError: where pairs do not hang together, or exactly one pose is known (give none: the result can be moved).
    """
    if len(known.poses) == 1:
        raise ValueError("one known pose fixes no scale: give at least two, or none and move the result")
    tree = _Tree(pairs, settings, {} if settings.as_published else dict(known.focals))
    tree.grow()
    poses, focals = tree.cameras()
    focals[list(known.focals)] = list(known.focals.values())
    points = tree.points
    if known.poses:
        numbers = sorted(known.poses)
        moved = similarity_of_poses(poses[numbers], np.array([known.poses[n] for n in numbers]))
        poses = np.array([moved.pose(pose) for pose in poses])
        points = [moved.points(cloud) for cloud in points]
    of_pairs = [fit_similarity(pair.points_i, points[pair.i], pair.confidence_i) for pair in pairs]
    # Pairs are bound to a mean scale, so that the whole does not shrink to a point.
    factor = 1.0 if known.fixes_scale else scale_factor([of_pair.scale for of_pair in of_pairs])
    poses[:, :3, 3] *= factor
    depths = [se3.apply(se3.inverse(pose), cloud * factor)[..., 2] for pose, cloud in zip(poses, points, strict=True)]
    of_pairs = [of_pair.scaled(factor) for of_pair in of_pairs]
    for number, pose in known.poses.items():
        poses[number] = pose
    return AlignmentStart(tree.order, poses, focals, depths, of_pairs)


def start_from_poses(pairs: Sequence[PointmapPair], settings: AlignmentSettings, known: KnownViews) -> AlignmentStart:
    """Put every pair where its two known cameras are.

    Raises:
        ValueError: if the pose or the focal length of an image is not known.
    """
    shapes = image_shapes(pairs)
    if set(known.poses) != set(range(len(shapes))) or set(known.focals) != set(range(len(shapes))):
        raise ValueError("a start from known poses needs the pose and the focal length of every image")
    of_pairs: list[Similarity] = []
    best: dict[int, tuple[float, Array]] = {}
    for pair in pairs:
        least = min(settings.least_confidence, float(pair.confidence_j.min()) - 0.1)
        focal = known.focals[pair.i if settings.as_published else pair.j]
        found = pose_from_pointmap(pair.points_j, focal, valid=pair.confidence_j > least, threshold_px=5.0, rounds=10)
        seen = np.stack([np.eye(4), np.eye(4) if found is None else found.world_T_camera])
        of_pairs.append(similarity_of_poses(seen, np.array([known.poses[pair.i], known.poses[pair.j]])))
        belief = float(np.mean(pair.confidence_i))
        if belief > best.get(pair.i, (0.0,))[0]:
            best[pair.i] = belief, np.asarray(pair.points_i[..., 2] * of_pairs[-1].scale, dtype=np.float64)
    numbers = range(len(shapes))
    depths = [best[n][1] if n in best else np.ones(shapes[n]) for n in numbers]
    poses = np.array([known.poses[n] for n in numbers])
    return AlignmentStart([], poses, np.array([known.focals[n] for n in numbers]), depths, of_pairs)


def scale_factor(scales: Sequence[float]) -> float:
    """What makes the geometric mean of the pairs' scales one half."""
    return float(0.5 / np.exp(np.mean(np.log(scales))))


def similarity_of_poses(source: Array, target: Array) -> Similarity:
    """Similarity between cameras (N, 4, 4) of two worlds, from their centres and a point just in front of each."""
    ahead = 0.01 * _median_distance(target)
    factor = _median_distance(source)
    near = 0.01 * factor if factor > 0 else ahead
    return fit_similarity(_with_points_ahead(source, near), _with_points_ahead(target, ahead))


def _with_points_ahead(poses: Array, ahead: float) -> Array:
    return np.concatenate([poses[:, :3, 3], poses[:, :3, 3] + ahead * poses[:, :3, 2]])


def _median_distance(poses: Array) -> float:
    i, j = np.triu_indices(len(poses), 1)
    return float(np.median(np.linalg.norm(poses[i, :3, 3] - poses[j, :3, 3], axis=1)))


class _Tree:
    """Images placed one after the other, each by a pair with one that is placed already."""

    def __init__(self, pairs: Sequence[PointmapPair], settings: AlignmentSettings, focals: dict[int, float]) -> None:
        self._pairs = {(pair.i, pair.j): pair for pair in pairs}
        self._settings, self._focals = settings, focals
        self._confidences = image_confidences(pairs)
        self._placed: dict[int, Array] = {}
        self._poses: dict[int, Array] = {}
        self.order: list[tuple[int, int]] = []

    @property
    def points(self) -> list[Array]:
        """Points (H, W, 3) of every image."""
        return [self._placed[number] for number in range(len(self._confidences))]

    def grow(self) -> None:
        """Place all images."""
        waiting = self._spanning_tree()
        pair = self._pairs[waiting.pop()]
        self._placed = {pair.i: np.asarray(pair.points_i, float), pair.j: np.asarray(pair.points_j, float)}
        self._poses[pair.i] = np.eye(4)
        self._focals.setdefault(pair.i, estimate_focal(pair.points_i))
        self.order.append((pair.i, pair.j))
        while waiting:
            i, j = waiting.pop()
            if i not in self._placed and j not in self._placed:
                waiting.insert(0, (i, j))
                continue
            before, pair = pair, self._pairs[i, j]
            if i not in self._focals:
                source = before if self._settings.as_published else pair
                self._focals[i] = estimate_focal(source.points_i)
            self._place(pair)
            self.order.append((i, j))

    def _place(self, pair: PointmapPair) -> None:
        if pair.i in self._placed:
            of_pair = fit_similarity(pair.points_i, self._placed[pair.i], pair.confidence_i)
            self._placed[pair.j] = of_pair.points(pair.points_j)
        else:
            of_pair = fit_similarity(pair.points_j, self._placed[pair.j], pair.confidence_j)
            self._placed[pair.i] = of_pair.points(pair.points_i)
        self._poses.setdefault(pair.i, se3.make(of_pair.R, of_pair.t))

    def _spanning_tree(self) -> list[tuple[int, int]]:
        """Pairs of the tree, the most believed last."""
        count = len(self._confidences)
        i, j = np.array(list(self._pairs)).T
        scores = -np.array([pair.score for pair in self._pairs.values()])
        tree = minimum_spanning_tree(coo_matrix((scores, (i, j)), shape=(count, count)).tocsr()).tocoo()
        if tree.nnz < count - 1:
            raise ValueError(f"the pairs connect {tree.nnz + 1} of {count} images only")
        kept = sorted(zip((-tree.data).tolist(), tree.row.tolist(), tree.col.tolist(), strict=True))
        return [(i, j) for _, i, j in kept]

    def cameras(self) -> tuple[Array, Array]:
        """Poses (N, 4, 4) and focal lengths (N,) of all images; PnP finds those that the tree left open."""
        by_score = sorted(self._pairs.values(), key=lambda pair: -pair.score)
        for pair in by_score:
            if pair.i not in self._focals:
                self._focals[pair.i] = estimate_focal(pair.points_i)
        for number, confidence in enumerate(self._confidences):
            if number in self._poses:
                continue
            valid, points = confidence > self._settings.least_confidence, self._placed[number]
            if number in self._focals:
                found = pose_from_pointmap(points, self._focals[number], valid=valid, threshold_px=5.0, rounds=10)
            else:
                found = pose_and_focal_from_pointmap(points, valid=valid)
            if found is not None:
                self._poses[number], self._focals[number] = found.world_T_camera, found.focal_px
        numbers = range(len(self._confidences))
        longer = [max(confidence.shape) for confidence in self._confidences]
        focals = np.array([self._focals.get(number, float(longer[number])) for number in numbers])
        return np.array([self._poses.get(number, np.eye(4)) for number in numbers]), focals
