"""Matches of two images as a picture: dots for all of them, lines for the surest of every region."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.matching.base import PixelMatches

RGB = NDArray[np.uint8]

HEIGHT, GAP, MARGIN, BANNER = 640, 14, 14, 64
#: Cells across the first image; of the matches in each the surest gets a line.
CELLS = 16
INK, MUTED, PAPER = (236, 239, 244), (140, 148, 160), (21, 24, 30)
OUTLIER = (120, 62, 62)
FONT = cv2.FONT_HERSHEY_DUPLEX
#: Colours of the least and the surest match on the map; below lies the part that is lost on dark ground.
RAMP = (70, 255)


def draw_match_picture(image1: RGB, image2: RGB, matches: PixelMatches, title: str) -> RGB:
    """Both images side by side, the matches between them coloured by confidence, outliers dim, words above.

    Args:
        image1, image2: (H, W, 3) RGB, of any sizes; the first one is the reference of the matches.

    Returns:
        (BANNER + HEIGHT + 2 * MARGIN, W', 3) RGB.
    """
    left, scale1 = _scaled(image1)
    right, scale2 = _scaled(image2)
    canvas = np.full((HEIGHT + 2 * MARGIN, left.shape[1] + right.shape[1] + GAP + 2 * MARGIN, 3), PAPER, np.uint8)
    start = np.array([MARGIN, MARGIN]), np.array([MARGIN + left.shape[1] + GAP, MARGIN])
    for image, (x, y) in zip((left, right), start):
        # Darker than they are, so that thin lines stand out.
        canvas[y : y + HEIGHT, x : x + image.shape[1]] = (image * 0.72).astype(np.uint8)
    ends = np.stack(
        [(matches.reference_xy + 0.5) * scale1 + start[0], (matches.query_xy + 0.5) * scale2 + start[1]], axis=1
    )
    _draw(canvas, ends, matches, left.shape[1])
    return np.vstack([_banner(canvas.shape[1], matches, title), canvas])


def _draw(canvas: RGB, ends: NDArray[np.float64], matches: PixelMatches, width: int) -> None:
    """Outliers first, then lines from the least sure to the surest, then dots on top."""
    confidence = np.ones(len(matches), np.float32) if matches.confidence is None else matches.confidence
    explained = _explained(matches)
    colours = _colours(confidence)
    outliers, inliers = np.flatnonzero(~explained), np.flatnonzero(explained)
    inliers = inliers[np.argsort(confidence[inliers], kind="stable")]
    for row in outliers:
        for end in ends[row]:
            cv2.circle(canvas, _fixed(end), 1 << 4, OUTLIER, -1, cv2.LINE_AA, 4)
    layer = canvas.copy()
    for row in _surest_of_cells(ends[inliers, 0], width / CELLS, inliers):
        cv2.line(layer, _fixed(ends[row, 0]), _fixed(ends[row, 1]), colours[row], 1, cv2.LINE_AA, 4)
    cv2.addWeighted(layer, 0.7, canvas, 0.3, 0, dst=canvas)
    for row in inliers:
        for end in ends[row]:
            cv2.circle(canvas, _fixed(end), 2 << 4, colours[row], -1, cv2.LINE_AA, 4)


def _explained(matches: PixelMatches) -> NDArray[np.bool_]:
    """(N,) the matches that one motion explains: none where nobody has asked."""
    return np.zeros(len(matches), dtype=bool) if matches.inlier is None else matches.inlier


def _surest_of_cells(xy: NDArray[np.float64], cell: float, rows: NDArray[np.int64]) -> list[int]:
    """The last of the rows (ascending in confidence) in every cell, in their order."""
    last: dict[tuple[int, int], int] = {}
    for place, (x, y) in enumerate((xy // cell).astype(int).tolist()):
        last[x, y] = place
    return [int(rows[place]) for place in sorted(last.values())]


def _colours(confidence: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """A colour for each match by its rank, because confidences are spread very unevenly."""
    rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    level = np.rint(RAMP[0] + (RAMP[1] - RAMP[0]) * rank / max(len(rank) - 1, 1)).astype(np.uint8)
    bgr = cv2.applyColorMap(level[:, None], cv2.COLORMAP_VIRIDIS)[:, 0] if len(level) else np.zeros((0, 3), np.uint8)
    return [(r, g, b) for b, g, r in bgr.tolist()]


def _banner(width: int, matches: PixelMatches, title: str) -> RGB:
    """What was matched, how much of it agrees, and what the colours mean."""
    banner = np.full((BANNER, width, 3), PAPER, np.uint8)
    cv2.putText(banner, title, (MARGIN, 28), FONT, 0.6, INK, 1, cv2.LINE_AA)
    words = f"{len(matches)} matches, {int(_explained(matches).sum())} agree on one epipolar geometry"
    cv2.putText(banner, words, (MARGIN, 52), FONT, 0.5, MUTED, 1, cv2.LINE_AA)
    ramp = np.linspace(*RAMP, 120).astype(np.uint8)[None].repeat(8, axis=0)
    x = width - MARGIN - 120 - 36
    if x > MARGIN + 10 * len(words):
        banner[40:48, x : x + 120] = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[..., ::-1]
        cv2.putText(banner, "confidence", (x, 30), FONT, 0.42, MUTED, 1, cv2.LINE_AA)
        cv2.putText(banner, "high", (x + 126, 49), FONT, 0.38, MUTED, 1, cv2.LINE_AA)
        cv2.putText(banner, "low", (x - 30, 49), FONT, 0.38, MUTED, 1, cv2.LINE_AA)
    return banner


def _scaled(image: RGB) -> tuple[RGB, float]:
    """The image at the picture's height, and the scale that took it there."""
    scale = HEIGHT / image.shape[0]
    width = max(round(image.shape[1] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, HEIGHT), interpolation=method), dtype=np.uint8), scale


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    """Pixel with the four fractional bits that OpenCV draws with."""
    x, y = np.rint(point * 16).astype(int).tolist()
    return x, y
