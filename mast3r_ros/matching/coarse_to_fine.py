"""Matching large images in pieces (MASt3R, Leroy et al., ECCV 2024, section 3.4).

Coarse matches of the shrunken images say which windows of the full images see the same; those pairs of windows are
matched again at full resolution. Windows are integer (left, top, right, bottom), right and bottom exclusive;
sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Windows = NDArray[np.int64]
Size = tuple[int, int]


#: Windows with fewer coarse matches are not worth a look.
MIN_POINTS = 10
#: Share of the best possible weight that the selected pairs of windows must reach together.
COVERED = 0.9
#: Short over long side of a window where no resolution is asked for.
DEFAULT_ASPECT = 3.01 / 4


@dataclass(frozen=True, eq=False)
class WindowPairs:
    """Windows of image a and b that may see the same.

    Attributes:
        a, b: (M, 4) windows; row by row they belong together.
        weights: (M, N) float32, how well each pair of windows covers each coarse match.
    """

    a: Windows
    b: Windows
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, rows: NDArray[Any]) -> WindowPairs:
        return WindowPairs(self.a[rows], self.b[rows], self.weights[rows])


def select_window_pairs(
    points_a: NDArray[Any],
    points_b: NDArray[Any],
    size_a: Size,
    size_b: Size,
    resolution_a: Size,
    resolution_b: Size,
    *,
    overlap: float = 0.5,
    size: int = 512,
) -> WindowPairs:
    """Pairs of windows that cover the coarse matches, most useful first.

    Args:
        points_a, points_b: (N, 2) coarse matches in pixels of the full images.
        size_a, size_b: of the full images, at least the resolutions.
        resolution_a, resolution_b: of the windows (see ``preprocessing.training_resolution``).
        overlap: of neighbouring windows in the grid, as a share of their size.
        size: longer side of a window of the grid.
    """
    candidates = candidate_pairs(
        points_a,
        points_b,
        fit_windows(window_grid(size_a, size, overlap), size_a, resolution_a),
        fit_windows(window_grid(size_b, size, overlap), size_b, resolution_b),
        size_a,
        size_b,
        resolution_a,
        resolution_b,
    )
    return candidates[greedy_cover(candidates.weights)]


def window_grid(image_size: Size, size: int = 512, overlap: float = 0.5) -> Windows:
    """Overlapping windows (M, 4) in the image's own aspect ratio, row by row."""
    height, width = image_size
    window_height, window_width = (side * size // max(height, width) // 16 * 16 for side in (height, width))
    top, left = (
        a.ravel()
        for a in np.meshgrid(
            _starts(height, window_height, overlap), _starts(width, window_width, overlap), indexing="ij"
        )
    )
    return np.stack([left, top, left + window_width, top + window_height], axis=-1)


def _starts(total: int, window: int, overlap: float) -> NDArray[np.int64]:
    """Evenly spread first pixels of windows that overlap by at least the given share."""
    if total < window:
        raise ValueError(f"a window of {window} pixels does not fit into {total}")
    last = total - window
    count = 2 + int((last - 1) // (window * (1 - overlap)))
    return np.linspace(0, last, count).round().astype(np.int64)


def fit_windows(windows: NDArray[Any], image_size: Size, resolution: Size | None) -> Windows:
    """Give windows one size around their centres, and push them into the image.

    Args:
        windows: (M, 4), may have fractions.
        resolution: their new (height, width); None keeps the long side and makes the short one 3/4 of it.

    Raises:
        ValueError: if they do not fit into the image.
    """
    left, top, right, bottom = np.asarray(windows, dtype=np.float64).reshape(-1, 4).T
    height, width = image_size
    if resolution is None:
        across, down = np.minimum(right - left, width), np.minimum(bottom - top, height)
        upright = across < down
        across, down = (
            np.where(upright, DEFAULT_ASPECT * down, across),
            np.where(upright, down, DEFAULT_ASPECT * across),
        )
    else:
        down, across = (np.full(len(left), side, dtype=np.float64) for side in resolution)
    left, right = _resized(left, right, across, exact=resolution is not None)
    top, bottom = _resized(top, bottom, down, exact=resolution is not None)
    left, right = _pushed(left, right, width)
    top, bottom = _pushed(top, bottom, height)
    fitted = np.stack([left, top, right, bottom], axis=-1).astype(np.int64)
    if (fitted < 0).any() or (fitted[:, 2] > width).any() or (fitted[:, 3] > height).any():
        raise ValueError(f"windows of {resolution} do not fit into an image of {image_size} (height, width)")
    return fitted


def _resized(low: Array, high: Array, length: Array, exact: bool) -> tuple[Array, Array]:
    """Intervals of another length around the same centres, on whole pixels."""
    grow = (length - (high - low)) / 2
    low, high = np.floor(low - grow), np.floor(high + grow)
    return (high - length if exact else low), high


def _pushed(low: Array, high: Array, total: int) -> tuple[Array, Array]:
    """Intervals moved into [0, total]."""
    shift = -np.minimum(low, 0)
    low, high = low + shift, high + shift
    shift = np.maximum(high, total) - total
    return low - shift, high - shift


def candidate_pairs(
    points_a: NDArray[Any],
    points_b: NDArray[Any],
    windows_a: Windows,
    windows_b: Windows,
    size_a: Size,
    size_b: Size,
    resolution_a: Size,
    resolution_b: Size,
) -> WindowPairs:
    """Every window of either image with its counterpart around the matched points (M, 2), weighted per match."""
    from_a = _counterparts(points_a, points_b, windows_a, size_b, resolution_b)
    from_b = _counterparts(points_b, points_a, windows_b, size_a, resolution_a)
    return WindowPairs(
        np.concatenate([from_a.a, from_b.b]),
        np.concatenate([from_a.b, from_b.a]),
        np.concatenate([from_a.weights, from_b.weights]),
    )


def _counterparts(
    own: NDArray[Any], other: NDArray[Any], windows: Windows, other_size: Size, resolution: Size
) -> WindowPairs:
    """Windows that hold enough points, with a window of the other image centred on the points' partners."""
    own, other = (np.asarray(points, dtype=np.float32).reshape(-1, 2) for points in (own, other))
    left, top, right, bottom = windows.T[:, :, None]
    x, y = own.T
    inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    used = inside.sum(axis=1) >= MIN_POINTS
    windows, inside = windows[used], inside[used]
    centres = np.array([other[rows].mean(axis=0) for rows in inside], dtype=np.float64).reshape(-1, 2)
    partners = fit_windows(np.concatenate([centres, centres], axis=1), other_size, resolution)
    # A point whose partner lies outside the partner window still counts a little, as in the reference.
    weights = np.where(inside, _closeness(own, windows) * _closeness(other, partners), 0).astype(np.float32)
    return WindowPairs(windows, partners, weights)


def _closeness(points: NDArray[Any], windows: Windows) -> NDArray[np.float64]:
    """(M, N) Gaussian of the distance to the window's centre in units of its size."""
    centre, extent = (windows[:, :2] + windows[:, 2:]) / 2, windows[:, 2:] - windows[:, :2]
    offset = (centre[:, None] - points) / extent[:, None]
    closeness: NDArray[np.float64] = np.exp(-2 * (offset**2).sum(axis=-1))
    return closeness


def greedy_cover(weights: NDArray[np.float32], share: float = COVERED) -> NDArray[np.int64]:
    """Rows that together reach ``share`` of the sum over columns of the largest weight, largest gain first.

    Args:
        weights: (M, N), what each row gives to each column.
    """
    if weights.size == 0:
        return np.zeros(0, dtype=np.int64)
    residual = weights.astype(np.float64)
    target = share * residual.max(axis=0).sum()
    reached, chosen = 0.0, []
    while reached < target:
        best = int(residual.sum(axis=1).argmax())
        gain = residual[best].copy()
        chosen.append(best)
        reached += gain.sum()
        residual = np.maximum(residual - gain, 0)
    return np.array(chosen, dtype=np.int64)
