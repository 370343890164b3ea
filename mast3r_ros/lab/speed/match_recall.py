"""What the fast reciprocal search finds of what an exhaustive one finds, repetitive texture included."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.lab.runs.environment import machine
from mast3r_ros.matching.neighbours import nearest
from mast3r_ros.matching.reciprocal import fast_reciprocal_matches, to_xy

#: Shift between the two views, pixels; and how many times a repetitive texture repeats.
SHIFT = (7, 4)
REPEATS = 4
CHANNELS = 24
#: A match is correct within this many pixels.
CORRECT_PX = 1.5


def measure_recall(size: int = 128, subsample: int = 8, seed: int = 0) -> dict[str, Any]:
    """Both searches on descriptor maps whose true correspondence is a shift.

    Returns:
        for each texture: matches of the exhaustive and the fast search; ``reciprocal``, the share of the fast ones
        that the exhaustive search has too; ``regions_found``, of the squares of ``subsample`` pixels in which the
        exhaustive search has a correct match, the share in which the fast one has a correct match or leads to one
        (within a square's width); ``correct``, the share of correct matches of either; and the ratio of their times.
    """
    textures = [_measured(name, *pair, subsample) for name, pair in descriptor_pairs(size, seed).items()]
    return {"benchmark": "match", "size": size, "subsample": subsample, "textures": textures, "machine": machine()}


def reciprocal_matches(desc1: Tensor, desc2: Tensor, metric: str = "dot") -> tuple[Tensor, Tensor]:
    """All reciprocal matches between two maps (H, W, D), by exhaustive search in both directions.

    Returns:
        xy1, xy2: (N, 2) int64 pixels as x, y, sorted by pixel of image 1 (row-major).
    """
    flat1, flat2 = desc1.flatten(0, 1)[None], desc2.flatten(0, 1)[None]
    forth, back = nearest(flat1, flat2, metric)[0], nearest(flat2, flat1, metric)[0]
    index1 = torch.arange(len(forth), device=forth.device)
    index1 = index1[back[forth] == index1]
    return to_xy(index1, desc1.shape[1]), to_xy(forth[index1], desc2.shape[1])


def descriptor_pairs(size: int, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of maps (size, size, D): the second is the first shifted by SHIFT, with noise of its own."""
    generator = torch.Generator().manual_seed(seed)

    def field(cells: int, side: int) -> Tensor:
        coarse = torch.randn(1, CHANNELS, cells, cells, generator=generator)
        return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)[0]

    side = size + max(SHIFT)
    smooth = field(side // 6, side)
    tile = field(max(4, side // (6 * REPEATS)), -(-side // REPEATS))
    repeated = tile.repeat(1, REPEATS, REPEATS)[:, :side, :side]
    weak = 0.3 * field(side // 12, side)  # what tells one repetition from the next
    maps = {
        "smooth": (smooth, 0.1),
        "noisy": (smooth, 0.5),
        "repetitive": (repeated + weak, 0.1),
        "exactly repetitive": (repeated, 0.1),
    }
    dx, dy = SHIFT
    pairs = {}
    for name, (whole, noise) in maps.items():
        first, second = whole[:, :size, :size], whole[:, dy : dy + size, dx : dx + size]
        noisy = [view + noise * torch.randn(view.shape, generator=generator) for view in (first, second)]
        pairs[name] = (F.normalize(noisy[0], dim=0).movedim(0, -1), F.normalize(noisy[1], dim=0).movedim(0, -1))
    return pairs


def _measured(name: str, desc1: Tensor, desc2: Tensor, subsample: int) -> dict[str, Any]:
    started = time.perf_counter()
    everything = [xy.numpy() for xy in reciprocal_matches(desc1, desc2)]
    middle = time.perf_counter()
    fast = [xy.numpy() for xy in fast_reciprocal_matches(desc1, desc2, subsample=subsample)]
    ended = time.perf_counter()
    known = {tuple(row) for row in np.hstack(everything).tolist()}
    right_all, right_fast = _correct(*everything), _correct(*fast)
    regions, found = (
        _regions(xy[right], subsample) for xy, right in ((everything[0], right_all), (fast[0], right_fast))
    )
    near = {(x + i, y + j) for x, y in found for i in (-1, 0, 1) for j in (-1, 0, 1)}
    return {
        "texture": name,
        "exhaustive": len(everything[0]),
        "fast": len(fast[0]),
        "reciprocal": float(np.mean([tuple(row) in known for row in np.hstack(fast).tolist()]))
        if len(fast[0])
        else 1.0,
        "regions_found": len(regions & near) / max(len(regions), 1),
        "correct": float(right_fast.mean()) if len(right_fast) else 0.0,
        "correct_exhaustive": float(right_all.mean()) if len(right_all) else 0.0,
        "speed_up": (middle - started) / max(ended - middle, 1e-9),
    }


def _correct(xy1: NDArray[np.int64], xy2: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.linalg.norm(xy1 - np.array(SHIFT) - xy2, axis=1) <= CORRECT_PX


def _regions(xy: NDArray[np.int64], cell: int) -> set[tuple[int, int]]:
    """Squares that hold pixels."""
    return {(x, y) for x, y in (xy // cell).tolist()}
