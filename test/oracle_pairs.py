"""Exact pointmaps of a box seen from many places, with the noise one chooses: what a perfect network would say."""

from __future__ import annotations

import numpy as np
import photo_worlds

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.multiview import pair_graph
from mast3r_ros.multiview.pointmap_pair import PointmapPair

CAMERA = Camera.pinhole(32, 24, 26, 26, 16, 12)
HALF = photo_worlds.HALF


def places(count: int, seed: int = 0) -> list[np.ndarray]:
    """Poses all over the box, looking at its walls, in no order."""
    rng = np.random.default_rng(seed)
    return [
        photo_worlds.look(rng.uniform(-0.4, 0.4, 3) * HALF, np.array([np.cos(a), np.sin(a), 0]) * 2 + [0, 0, z])
        for a, z in zip(rng.permutation(np.linspace(0, 2 * np.pi, count)), rng.uniform(-0.6, 0.6, count), strict=True)
    ]


def surface(map_T_camera: np.ndarray) -> np.ndarray:
    """(H, W, 3) points of the walls in the map."""
    rays = np.concatenate([CAMERA.pixel_rays, np.ones((CAMERA.height, CAMERA.width, 1))], axis=-1)
    directions, origin = rays @ map_T_camera[:3, :3].T, map_T_camera[:3, 3]
    with np.errstate(divide="ignore"):
        distance = np.where(directions > 0, HALF - origin, -HALF - origin) / directions
    return origin + directions * distance.min(axis=-1)[..., None]


def overlaps(poses: list[np.ndarray]) -> np.ndarray:
    """(N, N) share of what each image sees that the other sees as well."""
    shared = np.zeros((len(poses), len(poses)))
    for i, one in enumerate(poses):
        points = surface(one).reshape(-1, 3)
        for j, other in enumerate(poses):
            shared[i, j] = CAMERA.seen(se3.apply(se3.inverse(other), points))[1].mean()
    return np.minimum(shared, shared.T)


def oracle(poses: list[np.ndarray], neighbours: int, noise: float, wrong: float = 0.0) -> list[PointmapPair]:
    """Pairs of a k-nearest graph, both ways round, each at a scale of its own.

    Args:
        noise: relative standard deviation of every distance.
        wrong: share of the pairs whose second pointmap is of another place, believed as much as any.
    """
    rng = np.random.default_rng(1)
    alike = np.where(overlaps(poses) > 0.15, overlaps(poses), -np.inf)
    listed = pair_graph.both_ways(pair_graph.nearest(alike, neighbours))
    bad = set(rng.permutation(len(listed))[: round(wrong * len(listed))].tolist())
    pairs = []
    for number, (i, j) in enumerate(listed):
        camera_T_map, unit = se3.inverse(poses[i]), rng.uniform(0.5, 2)
        lie = se3.exp([*rng.uniform(-2, 2, 3), *rng.uniform(-2, 2, 3)]) if number in bad else np.eye(4)
        clouds = [se3.apply(camera_T_map, surface(poses[i])), se3.apply(camera_T_map @ lie, surface(poses[j]))]
        clouds = [unit * cloud * (1 + noise * rng.standard_normal((*cloud.shape[:2], 1))) for cloud in clouds]
        confidence = [5 + 5 * rng.random(cloud.shape[:2]) for cloud in clouds]
        pairs.append(PointmapPair(i, j, *clouds, *confidence))
    return pairs
