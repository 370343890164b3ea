"""What all matchers of keypoints share, whether SIFT finds them or a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Capabilities, Features, Matches, PixelMatches
from mast3r_ros.surface import surface_points

#: Images smaller than this on their shorter side, as they are searched, have no keypoints.
SMALLEST_SIDE = 16


class Paired(NamedTuple):
    """Rows (N,) of the query's and of a reference's keypoints that belong together, and confidence (N,) in [0, 1]."""

    query: NDArray[np.int64]
    reference: NDArray[np.int64]
    confidence: NDArray[np.float32]


class KeypointMatcher(ABC):
    """Matches keypoints of a query with those of keyframes.

    Args:
        max_features: strongest keypoints kept per image.
        longest_side: images are shrunk to so many pixels on the longer side before they are searched.
    """

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """Every keyframe costs little, so all of them are matched at any time."""
        return Capabilities(landmarks=True, pixel_matches=True)

    def __init__(self, max_features: int, longest_side: int) -> None:
        if not 50 <= max_features <= 20000:
            raise MatcherError(f"max_features {max_features} is outside 50 to 20000 (0 takes what suits the feature)")
        self.max_features, self.longest_side = max_features, longest_side

    def _seen(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What of an RGB image is searched, before it is shrunk."""
        return image

    @abstractmethod
    def _detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Keypoints (N, 2) in pixels of the given image, the strongest first, and their descriptors (N, D)."""

    @abstractmethod
    def _nothing(self) -> NDArray[Any]:
        """Descriptors (0, D) of an image without keypoints."""

    @abstractmethod
    def _paired(self, query: Features, references: Sequence[Features], with_points: bool) -> list[Paired]:
        """Keypoints of the query and of each reference that belong together.

        Args:
            with_points: only pairs whose reference has a surface point are of use.
        """

    def _weights(self, confidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """Relative trust (N,) in (0, 1]: of two matches none is worth more than twice the other."""
        return 0.5 + 0.5 * confidence.astype(np.float64)

    def describe(self, frame: Frame) -> Features:
        """Keypoints, descriptors and their surface points.

        Returns:
            ``xy`` (N, 2) float32 pixels; ``descriptors`` (N, D);
            ``points`` (N, 3) float32 metres in the camera frame, NaN where depth is unknown or an edge;
            ``pixel`` (1,) side of a pixel of the image that was searched, in pixels of the frame;
            ``size`` (2,) width and height of the frame.
        """
        height, width = frame.image.shape[:2]
        pixel = max(1.0, max(height, width) / self.longest_side)
        searched, image = (max(1, round(width / pixel)), max(1, round(height / pixel))), self._seen(frame.image)
        if searched != (width, height):
            image = cv2.resize(image, searched, interpolation=cv2.INTER_AREA)
        xy, descriptors = np.zeros((0, 2), np.float32), self._nothing()
        if min(searched) >= SMALLEST_SIDE:
            xy, descriptors = self._detect(image)
            # Sides are rounded one by one.
            xy = ((xy + 0.5) * np.array([width / searched[0], height / searched[1]]) - 0.5).astype(np.float32)
        return {
            "xy": xy,
            "descriptors": descriptors,
            "points": surface_points(frame, xy),
            "pixel": np.array([pixel], np.float32),
            "size": np.array([width, height], np.float32),
        }

    def landmarks(self, features: Features) -> NDArray[np.float32]:
        """Points (N, 3) of the keypoints whose depth is known, camera frame, metres."""
        return features["points"][with_depth(features)]

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Pairs of keypoints whose surface point in the reference is known."""
        matched = []
        for reference, found in zip(references, self._paired(query, references, with_points=True), strict=True):
            known = np.isfinite(reference["points"][found.reference, 2])
            rows, columns, confidence = (array[known] for array in found)
            matched.append(
                Matches(
                    query["xy"][rows].astype(np.float64),
                    reference["xy"][columns].astype(np.float64),
                    reference["points"][columns].astype(np.float64),
                    self._weights(confidence),
                )
            )
        return matched

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """Pairs of keypoints, whether their surface points are known or not."""
        # Features that a map kept of an earlier version do not know their pixel.
        pixel = float(query["pixel"][0]) if "pixel" in query else 1.0
        matched = []
        for reference, found in zip(references, self._paired(query, references, with_points=False), strict=True):
            xy, reference_xy = query["xy"][found.query], reference["xy"][found.reference]
            matched.append(
                PixelMatches(xy.astype(np.float64), reference_xy.astype(np.float64), pixel, found.confidence)
            )
        return matched


def with_depth(features: Features) -> NDArray[np.int64]:
    """Rows (N,) of the keypoints whose surface point is known."""
    return np.flatnonzero(np.isfinite(features["points"][:, 2]))
