"""Pixel matches of two images, by any matcher, and how many of them one motion explains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Features, Matcher, PixelMatcher, PixelMatches
from mast3r_ros.matching.nearest import mutual_hamming, mutual_nearest
from mast3r_ros.matching.prediction import PairPrediction
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.network.preprocessing import NetworkImage

Array = NDArray[np.float64]

#: Distance from the epipolar line up to which a match fits, as a share of the image diagonal (2 px at 640 x 480).
EPIPOLAR = 2.5e-3


@dataclass(frozen=True, eq=False)
class TwoImageMatches:
    """Matched pixels (N, 2) of two images as they were given, which fit one epipolar geometry, and their confidence.

    Attributes:
        confidence: (N,) in [0, 1], comparable among matches of one matcher only.
        inlier: (N,) bool.
    """

    xy1: Array
    xy2: Array
    confidence: NDArray[np.float32]
    inlier: NDArray[np.bool_]


def sift_matches(matcher: SiftMatcher, image1: NDArray[np.uint8], image2: NDArray[np.uint8]) -> TwoImageMatches:
    """Local features of two images (H, W, 3) that are each other's nearest and pass the ratio test."""
    xy1, xy2, ratio = _nearest(matcher, *(matcher.describe(Frame(image, None)) for image in (image1, image2)))
    return TwoImageMatches(
        xy1, xy2, (1 - ratio).astype(np.float32), epipolar_inliers(xy1, xy2, (image1.shape[0], image1.shape[1]))
    )


def network_matches(prediction: PairPrediction, image1: NetworkImage, image2: NetworkImage) -> TwoImageMatches:
    """A prediction's matches in pixels of the original images."""
    xy1, xy2 = image1.to_original(prediction.matches_xy_1), image2.to_original(prediction.matches_xy_2)
    conf = prediction.match_confidence
    inlier = epipolar_inliers(xy1, xy2, image1.original_size)
    return TwoImageMatches(xy1, xy2, (conf / (1 + conf)).astype(np.float32), inlier)


def image_matches(matcher: Matcher, first: Features, second: Features) -> PixelMatches:
    """Matches of two described images by any matcher, without a map: the first image is the reference.

    A matcher that matches nothing but known surfaces finds something only where the first image has depth.
    """
    if isinstance(matcher, PixelMatcher):
        return matcher.match_pixels(second, [first])[0]
    if isinstance(matcher, SiftMatcher):
        xy1, xy2, _ = _nearest(matcher, first, second)
        return PixelMatches(xy2, xy1)
    found = matcher.match(second, [first])[0]
    return PixelMatches(found.query_xy, found.reference_xy)


def _nearest(matcher: SiftMatcher, first: Features, second: Features) -> tuple[Array, Array, NDArray[np.float32]]:
    """Pixels (N, 2) of both images and the ratio (N,) of nearest to second nearest distance."""
    search = mutual_hamming if matcher.feature == "orb" else mutual_nearest
    ((rows1, rows2, ratio),) = search(first["descriptors"], [second["descriptors"]], matcher.ratio)
    return first["xy"][rows1].astype(np.float64), second["xy"][rows2].astype(np.float64), ratio


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
