"""True correspondences between two views with depth, and which of them a training step looks at.

Reciprocal pixels and their sampling are those of MASt3R's recipe (Leroy et al., ECCV 2024, section 4.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.views import View

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def camera_points(view: View) -> NDArray[np.float32]:
    """(H, W, 3) points of a view in its own camera frame; zero where depth is unknown."""
    height, width = view.depth.shape
    x = (np.arange(width) - view.K[0, 2]) / view.K[0, 0]
    y = (np.arange(height) - view.K[1, 2]) / view.K[1, 1]
    z = view.depth
    return np.stack([z * x[None, :], z * y[:, None], z], axis=-1).astype(np.float32)


def landing_pixels(points: NDArray[np.floating], K: Array, size: tuple[int, int]) -> Index:
    """Flat index (N,) of the pixel nearest to where points (N, 3) in a camera's frame are seen; -1 outside of it."""
    height, width = size
    z = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.rint(points[:, 0] / z * K[0, 0] + K[0, 2])
        v = np.rint(points[:, 1] / z * K[1, 1] + K[1, 2])
        inside = (z > 1e-6) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return np.where(inside, np.where(inside, v, 0) * width + np.where(inside, u, 0), -1).astype(np.int64)


def reciprocal_pixels(view1: View, view2: View) -> tuple[Index, Index]:
    """Flat indices (M,) of pixels that land on each other: view 1 to view 2 and back to where they started.

    Occluded pixels come back elsewhere; pixels of unknown depth land nowhere.
    """
    camera2_T_camera1 = se3.inverse(view2.map_T_camera) @ view1.map_T_camera
    size1, size2 = view1.depth.shape, view2.depth.shape
    points1, points2 = camera_points(view1).reshape(-1, 3), camera_points(view2).reshape(-1, 3)
    there = _landing(points1, camera2_T_camera1, view2.K, size2)
    back = _landing(points2, se3.inverse(camera2_T_camera1), view1.K, size1)
    start = np.flatnonzero(there >= 0)
    start = start[back[there[start]] == start]
    return start, there[start]


def _landing(points: NDArray[np.float32], motion: Array, K: Array, size: tuple[int, ...]) -> Index:
    moved = points @ motion[:3, :3].T.astype(np.float32) + motion[:3, 3].astype(np.float32)
    return np.where(points[:, 2] > 0, landing_pixels(moved, K, (size[0], size[1])), -1)


def sample(
    pixels1: Index,
    pixels2: Index,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    count: int,
    rng: np.random.Generator,
    negative_share: float = 0.5,
    clustered_share: float = 0.0,
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Some correspondences, filled up with random false ones.

    Args:
        pixels1, pixels2: (M,) flat indices of :func:`reciprocal_pixels`.
        sizes: (height, width) of both views.
        count: N that are wanted.
        negative_share: part of them that is false at least: pixels that correspond to nothing, independently drawn.
        clustered_share: part of the true ones that is drawn as neighbours of others, so that descriptors also
            learn to tell neighbouring pixels apart.

    Returns:
        x, y of view 1 and of view 2 (N, 2), and which rows are true (N,); these come first.
    """
    wanted = min(int(count * (1 - negative_share)), len(pixels1))
    chosen = _chosen(pixels1, wanted, sizes[0][1], clustered_share, rng)
    negatives = []
    for pixels, size in zip((pixels1, pixels2), sizes):
        free = np.ones(size[0] * size[1], dtype=bool)
        free[pixels] = False
        rest = np.flatnonzero(free)
        missing = count - wanted
        negatives.append(rng.choice(rest, missing, replace=len(rest) < missing) if len(rest) else None)
    if negatives[0] is None or negatives[1] is None:  # every pixel corresponds: more true ones instead
        chosen = rng.choice(len(pixels1), count, replace=len(pixels1) < count)
        return _xy(pixels1[chosen], sizes[0]), _xy(pixels2[chosen], sizes[1]), np.ones(count, dtype=bool)
    first = np.concatenate([pixels1[chosen], negatives[0]])
    second = np.concatenate([pixels2[chosen], negatives[1]])
    return _xy(first, sizes[0]), _xy(second, sizes[1]), np.arange(count) < wanted


def _chosen(pixels: Index, wanted: int, width: int, clustered: float, rng: np.random.Generator) -> Index:
    """Rows of correspondences: a random part, and neighbours of some of it."""
    order = rng.permutation(len(pixels))
    near = int(wanted * clustered)
    if not near:
        return order[:wanted]
    seeds, others = order[: wanted - near], order[wanted - near :]
    centres = pixels[seeds[: max(near // 8, 1)]]
    away = np.abs(pixels[others] // width - (centres // width)[:, None]).astype(np.int32)
    away = np.maximum(away, np.abs(pixels[others] % width - (centres % width)[:, None])).min(axis=0)
    close = others[away <= NEIGHBOURHOOD]
    rest = others[away > NEIGHBOURHOOD]
    return np.concatenate([seeds, close, rest])[:wanted]


#: Pixels to either side within which correspondences count as neighbours.
NEIGHBOURHOOD = 4


def _xy(pixels: Index, size: tuple[int, int]) -> Index:
    return np.stack([pixels % size[1], pixels // size[1]], axis=-1)
