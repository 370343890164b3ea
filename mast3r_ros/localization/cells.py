"""The image cut into cells, to see how far over it something is spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 8, 6
CELLS = COLUMNS * ROWS


def cells_of(xy: NDArray[np.float64], width: int, height: int) -> NDArray[np.int64]:
    """Cell number 0 .. 47 of pixels (N, 2)."""
    column = np.clip(xy[:, 0] * COLUMNS / width, 0, COLUMNS - 1).astype(np.int64)
    row = np.clip(xy[:, 1] * ROWS / height, 0, ROWS - 1).astype(np.int64)
    return row * COLUMNS + column


def grouped(keyframe: NDArray[np.int64], xy: NDArray[np.float64], width: int, height: int) -> NDArray[np.int64]:
    """Number (N,) of the group that each match is of: one keyframe's in one cell, which count as one observation."""
    return keyframe * CELLS + cells_of(xy, width, height)


def recounted(group: NDArray[np.int64], pixel: NDArray[np.float64]) -> float:
    """How many observations there are to each pixel of the query; 1 without any.

    Args:
        group: (N,) or (N, G) what tells the observations that matches count as apart, see :func:`grouped`.
        pixel: (N, P) what tells the pixels apart that they are matches of.
    """
    return len(np.unique(group, axis=0)) / len(np.unique(pixel, axis=0)) if len(pixel) else 1.0


def spread(xy: NDArray[np.float64], width: int, height: int) -> float:
    """Share of the image's cells that hold at least one of the pixels (N, 2)."""
    return len(np.unique(cells_of(xy, width, height))) / CELLS
