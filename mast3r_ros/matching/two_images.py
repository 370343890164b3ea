"""Pixel matches of two images, by any matcher, and how many of them one motion explains."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Features, Matcher, PixelMatches, matches_pixels
from mast3r_ros.matching.prediction import PairPrediction
from mast3r_ros.network.preprocessing import NetworkImage

Array = NDArray[np.float64]

#: Distance from the epipolar line up to which a match fits, as a share of the image diagonal (2 px at 640 x 480).
EPIPOLAR = 2.5e-3


def pixel_matches(matcher: Matcher, image1: NDArray[np.uint8], image2: NDArray[np.uint8]) -> PixelMatches:
    """Matches of two images (H, W, 3) by any matcher, the first as reference, and which of them one motion explains."""
    first, second = (matcher.describe(Frame(image, None)) for image in (image1, image2))
    found = image_matches(matcher, first, second)
    return _with_inliers(found, (image1.shape[0], image1.shape[1]))


def network_matches(prediction: PairPrediction, image1: NetworkImage, image2: NetworkImage) -> PixelMatches:
    """A prediction's matches in pixels of the original images, and which of them one motion explains."""
    xy1, xy2 = image1.to_original(prediction.matches_xy_1), image2.to_original(prediction.matches_xy_2)
    conf = prediction.match_confidence
    return _with_inliers(
        PixelMatches(xy2, xy1, confidence=(conf / (1 + conf)).astype(np.float32)), image1.original_size
    )


def image_matches(matcher: Matcher, first: Features, second: Features) -> PixelMatches:
    """Matches of two described images by any matcher, without a map: the first image is the reference.

    A matcher that matches nothing but known surfaces finds something only where the first image has depth.
    """
    if matches_pixels(matcher):
        return matcher.match_pixels(second, [first])[0]
    found = matcher.match(second, [first])[0]
    return PixelMatches(found.query_xy, found.reference_xy, confidence=found.weights.astype(np.float32))


def _with_inliers(found: PixelMatches, size: tuple[int, int]) -> PixelMatches:
    return replace(found, inlier=epipolar_inliers(found.reference_xy, found.query_xy, size))


def epipolar_inliers(xy1: Array, xy2: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) which matches one fundamental matrix explains; none where there are too few to tell.

    Args:
        size: (height, width) of the first image, for the scale of the threshold.
    """
    if len(xy1) < 16:
        return np.zeros(len(xy1), dtype=bool)
    threshold = EPIPOLAR * math.hypot(*size)
    cv2.setRNGSeed(0)
    matrix, mask = cv2.findFundamentalMat(xy1, xy2, cv2.USAC_MAGSAC, threshold, 0.999, 5000)
    if matrix is None or mask is None:
        return np.zeros(len(xy1), dtype=bool)
    return np.asarray(mask[:, 0] != 0)
