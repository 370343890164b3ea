"""AKAZE features (Alcantarilla, Nuevo and Bartoli, BMVC 2013) on keyframes whose depth is known.

An example of a matcher in a package of its own:

    pip install ./docs/examples/akaze_matcher
    mast3r_ros matcher check akaze
    mast3r_ros localize map photo.jpg --matcher akaze
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.matching import Capabilities, Features, Matches
from mast3r_ros.matching.nearest import mutual_hamming
from mast3r_ros.surface import surface_points

#: Bytes of a descriptor.
WIDTH = 61


class AkazeMatcher:
    """Binary features that are each other's nearest.

    Args:
        threshold: response that a feature needs; less finds more of them.
        ratio: nearest / second nearest distance that a match may have at most.
    """

    name = "akaze"
    #: What it can do beyond the contract: it says where a keyframe's landmarks are.
    capabilities = Capabilities(landmarks=True)

    def __init__(self, threshold: float = 0.001, ratio: float = 0.85) -> None:
        if not 0 < threshold < 1:
            raise MatcherError(f"threshold {threshold} is outside 0 to 1")
        self.threshold, self.ratio = threshold, ratio

    @property
    def signature(self) -> str:
        """Everything that the features depend on; the ratio changes matches, not features."""
        return f"akaze-{self.threshold:g}-1"

    def describe(self, frame: Frame) -> Features:
        """``xy`` (N, 2) pixels, ``descriptors`` (N, 61) bytes, ``points`` (N, 3) metres or NaN."""
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        keypoints, descriptors = (), None
        if min(grey.shape) >= 32:  # it refuses smaller images
            keypoints, descriptors = cv2.AKAZE_create(threshold=self.threshold).detectAndCompute(grey, None)
        if descriptors is None:
            keypoints, descriptors = (), np.zeros((0, WIDTH), np.uint8)
        xy = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
        return {"xy": xy, "descriptors": descriptors, "points": surface_points(frame, xy)}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, 488) bits as +-1, of unit length."""
        bits = np.unpackbits(features["descriptors"], axis=1).astype(np.float32)
        return (2 * bits - 1) / np.float32(np.sqrt(8 * WIDTH))

    def landmarks(self, features: Features) -> NDArray[np.float32]:
        """Points (N, 3) of the features whose depth is known."""
        return features["points"][np.isfinite(features["points"][:, 2])]

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Mutual nearest neighbours among the reference features whose point is known."""
        matched = []
        for reference in references:
            known = np.flatnonzero(np.isfinite(reference["points"][:, 2]))
            ((mine, theirs, ratio),) = mutual_hamming(
                query["descriptors"], [reference["descriptors"][known]], self.ratio
            )
            rows = known[theirs]
            matched.append(
                Matches(
                    query["xy"][mine].astype(np.float64),
                    reference["xy"][rows].astype(np.float64),
                    reference["points"][rows].astype(np.float64),
                    1.0 - 0.5 * (ratio / self.ratio).astype(np.float64),
                )
            )
        return matched
