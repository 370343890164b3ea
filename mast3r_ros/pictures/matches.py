"""A picture of why a pose was accepted or rejected: the query beside its best keyframe, matches between them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mast3r_ros.localization.estimate import KeyframeMatches, PoseEstimate
from mast3r_ros.mapping.keyframe_map import KeyframeMap

RGB = NDArray[np.uint8]

HEIGHT = 480
GAP = 8
BANNER = 40
MOST_LINES = 150
INK, PAPER = (235, 238, 242), (24, 27, 33)
ACCEPTED, REJECTED = (64, 190, 110), (225, 80, 70)
OUTLIER = (150, 60, 60)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_matches(image: RGB, estimate: PoseEstimate, keyframe_map: KeyframeMap) -> RGB:
    """Query (left) and the keyframe with the most inliers (right); inliers in colour, outliers dim.

    Args:
        image: (H, W, 3) the query as the camera gave it.

    Returns:
        (520, W', 3) RGB; without any matches the query alone, with the reason above it.
    """
    query, query_scale = _scaled(image)
    best = _best(estimate)
    if best is None or best.keyframe_id not in keyframe_map:
        return _under_banner(query, estimate, None)
    reference, reference_scale = _scaled(keyframe_map.frame(best.keyframe_id).image)
    gap = np.full((HEIGHT, GAP, 3), PAPER, np.uint8)
    canvas = np.ascontiguousarray(np.hstack([query, gap, reference]))
    offset = np.array([query.shape[1] + GAP, 0])
    ends = np.stack([best.matches.query_xy * query_scale, best.matches.reference_xy * reference_scale + offset], axis=1)
    _draw_lines(canvas, ends[~best.inlier], outliers=True)
    _draw_lines(canvas, ends[best.inlier], outliers=False)
    return _under_banner(canvas, estimate, best)


def _best(estimate: PoseEstimate) -> KeyframeMatches | None:
    """Matches with the keyframe of most inliers; of most matches where nothing was solved."""
    return max(estimate.matched, key=lambda m: (int(m.inlier.sum()), len(m.matches)), default=None)


def _scaled(image: RGB) -> tuple[RGB, float]:
    """The image at the picture's height, and the scale that took it there."""
    scale = HEIGHT / image.shape[0]
    width = max(round(image.shape[1] * scale), 1)
    filters = getattr(Image, "Resampling", Image)  # it came with Pillow 9.1; OpenCV 4.5.4 takes no image of one pixel
    method = filters.BOX if scale < 1 else filters.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, HEIGHT), method)), scale


def _draw_lines(canvas: RGB, ends: NDArray[np.float64], outliers: bool) -> None:
    """Lines from query to keyframe; at most MOST_LINES, evenly over the image, coloured by the query's column."""
    ends = ends[np.argsort(ends[:, 0, 0], kind="stable")]
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(len(ends), MOST_LINES)).astype(int))] if len(ends) else ends
    layer = canvas.copy()
    for i, (a, b) in enumerate(np.rint(ends).astype(int).tolist()):
        colour = OUTLIER if outliers else _rainbow(i / max(len(ends) - 1, 1))
        cv2.line(layer, a, b, colour, 1, cv2.LINE_AA)
        for end in () if outliers else (a, b):
            cv2.circle(layer, end, 3, colour, -1, cv2.LINE_AA)
    opacity = 0.35 if outliers else 0.85
    cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def _rainbow(share: float) -> tuple[int, int, int]:
    """Colours from teal to orange over 0 .. 1."""
    hue = np.array([[[int(100 - 85 * share), 210, 255]]], np.uint8)
    r, g, b = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return r, g, b


def _under_banner(canvas: RGB, estimate: PoseEstimate, best: KeyframeMatches | None) -> RGB:
    """The picture with the verdict in words above it."""
    banner = np.full((BANNER, canvas.shape[1], 3), PAPER, np.uint8)
    colour = ACCEPTED if estimate.localized else REJECTED
    cv2.rectangle(banner, (0, 0), (9, BANNER), colour, -1)
    cv2.putText(banner, _verdict(estimate, best), (20, 26), FONT, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([banner, canvas])


def _verdict(estimate: PoseEstimate, best: KeyframeMatches | None) -> str:
    evidence = estimate.evidence
    if not estimate.localized:
        return f"{estimate.reason.value}: {estimate.detail}" if estimate.detail else estimate.reason.value
    words = f"localized: {evidence.inliers} inliers, {100 * evidence.position_sigma_m:.1f} cm"
    if best is not None:
        words += f"; keyframe {best.keyframe_id}: {int(best.inlier.sum())} of {len(best.matches)} matches"
    return words
