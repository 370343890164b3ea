"""Matches at the full resolution of large images: windows that see the same are matched again (coarse to fine)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.base import Features
from mast3r_ros.matching.coarse_to_fine import Size, WindowPairs, select_window_pairs
from mast3r_ros.matching.network_view import NetworkView
from mast3r_ros.matching.pairs import NetworkMatches
from mast3r_ros.network import preprocessing

#: Matches crops (M, 3, H1, W1) with crops (M, 3, H2, W2): matched pixels and confidence of each pair.
MatchCrops = Callable[[Tensor, Tensor], list[NetworkMatches]]
#: Pairs of windows that are encoded and decoded at once.
WINDOWS_AT_ONCE = 4


def refined(
    found: NetworkMatches,
    reference: Features,
    query: Features,
    views: tuple[NetworkView, NetworkView],
    match_crops: MatchCrops,
) -> NetworkMatches:
    """Coarse matches matched again in windows of the rectified images, which features hold as ``image``.

    Args:
        views: of reference and query; windows have the size of their network images.

    Returns:
        matches at fractions of network pixels; the coarse ones where an image is no larger than its window.
    """
    images = reference["image"], query["image"]
    size1, size2 = (_size(image) for image in images)
    view1, view2 = views
    if not _larger(size1, view1) or not _larger(size2, view2):
        return found
    points1, points2 = view1.to_rectified(found.xy1), view2.to_rectified(found.xy2)
    grid = max(*view1.size, *view2.size)
    windows = select_window_pairs(points1, points2, size1, size2, view1.size, view2.size, size=grid)
    xy1, xy2, conf = _matched_windows(images, windows, match_crops)
    return replace(found, xy1=view1.from_rectified(xy1), xy2=view2.from_rectified(xy2), conf=conf)


def _size(image: NDArray[Any]) -> Size:
    return int(image.shape[0]), int(image.shape[1])


def _larger(size: Size, view: NetworkView) -> bool:
    """Whether an image is larger than its network image, so that windows of it show more."""
    return size != view.size and size[0] >= view.size[0] and size[1] >= view.size[1]


def _matched_windows(
    images: tuple[NDArray[Any], NDArray[Any]], windows: WindowPairs, match_crops: MatchCrops
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Pixels (N, 2) of both images and their confidence, over all pairs of windows, each pair of pixels once."""
    xy1: list[NDArray[Any]] = [np.zeros((0, 2), np.int64)]
    xy2: list[NDArray[Any]] = [np.zeros((0, 2), np.int64)]
    conf: list[NDArray[Any]] = [np.zeros(0, np.float32)]
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        some = windows[np.arange(start, min(start + WINDOWS_AT_ONCE, len(windows)))]
        for a, b, found in zip(some.a, some.b, match_crops(_crops(images[0], some.a), _crops(images[1], some.b))):
            xy1.append(found.xy1 + a[:2])
            xy2.append(found.xy2 + b[:2])
            conf.append(found.conf)
    together = np.concatenate([np.concatenate(xy1), np.concatenate(xy2)], axis=1)
    _, first = np.unique(together, axis=0, return_index=True)
    return together[first, :2], together[first, 2:], np.concatenate(conf)[first]


def _crops(image: NDArray[Any], windows: NDArray[Any]) -> Tensor:
    """(M, 3, h, w) in [-1, 1] of windows (M, 4) of one size."""
    return torch.cat([preprocessing.normalised(image[top:bottom, left:right]) for left, top, right, bottom in windows])


def sampled(depth: NDArray[np.floating], xy: NDArray[Any]) -> NDArray[np.float64]:
    """Depth (N,) at whole or fractional pixels (N, 2), bilinear; NaN where one of its neighbours is not known (> 0)."""
    if np.issubdtype(xy.dtype, np.integer):  # all matches but those of full images: most of what lifting takes
        whole: NDArray[np.float64] = depth[xy[:, 1], xy[:, 0]].astype(np.float64)
        whole[~(whole > 0)] = np.nan
        return whole
    height, width = depth.shape
    x, y = np.clip(np.asarray(xy, np.float64), 0, [width - 1, height - 1]).T
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.ceil(x).astype(np.int64), np.ceil(y).astype(np.int64)
    across, down = x - left, y - top
    corners = depth[np.stack([top, top, bottom, bottom]), np.stack([left, right, left, right])].astype(np.float64)
    corners[~(corners > 0)] = np.nan
    upper = corners[0] * (1 - across) + corners[1] * across
    lower = corners[2] * (1 - across) + corners[3] * across
    return np.asarray(upper * (1 - down) + lower * down)
