"""The classical matcher: RootSIFT (or ORB) on keyframes whose depth is known.

Needs nothing but a CPU: the fallback, and the baseline every learned matcher is compared with.
Lowe, IJCV 2004; RootSIFT: Arandjelovic and Zisserman, CVPR 2012; ORB: Rublee et al., ICCV 2011.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.base import Features
from mast3r_ros.matching.nearest import mutual_hamming, mutual_nearest
from mast3r_ros.matching.sparse import KeypointMatcher, Paired, with_depth

#: RootSIFT values lie in [0, 1]; times this they fill a byte, which costs no accuracy that shows.
QUANTUM = 512.0
#: OpenCV doubles the image before it looks for SIFT features and takes pixel 2 x + 0.5 for 2 x: every feature lies this
#: far to the right of and below where it is, pixels. Between images of one camera that hardly shows; of another lens or
#: resolution all matches are off by it alike.
DOUBLED = 0.25
#: Each octave of ORB's pyramid is smaller by this.
ORB_STEP = 1.2
#: Features per image: as many as the speed each is chosen for allows.
USUAL_FEATURES = {"sift": 1500, "orb": 1000}
#: Pixels on the long side that images are shrunk to, by default.
LONGEST_SIDE = 1024


def root_sift(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """SIFT descriptors (N, 128) -> RootSIFT (N, 128) of unit length (Arandjelovic and Zisserman, CVPR 2012)."""
    root: NDArray[np.float32] = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    return root


class SiftMatcher(KeypointMatcher):
    """Local features with mutual nearest neighbours and a ratio test.

    Args:
        feature: ``sift`` (RootSIFT) or ``orb`` (several times faster, less repeatable).
        max_features: strongest features kept per image; 0 takes what suits the feature.
        ratio: nearest / second nearest distance a match may have at most.
        longest_side: images are shrunk to this many pixels on the long side before features are looked for.
    """

    name = "sift"

    def __init__(
        self, feature: str = "sift", max_features: int = 0, ratio: float = 0.85, longest_side: int = LONGEST_SIDE
    ) -> None:
        if feature not in ("sift", "orb"):
            raise MatcherError(f"feature '{feature}' is not known to the sift matcher: use sift or orb")
        if not 0.3 <= ratio <= 1.0:
            raise MatcherError(f"ratio {ratio} is outside 0.3 to 1.0")
        super().__init__(max_features or USUAL_FEATURES[feature], longest_side)
        self.feature, self.ratio = feature, ratio

    @property
    def signature(self) -> str:
        """Name of the feature and its number; the ratio does not change features."""
        side = "" if self.longest_side == LONGEST_SIDE else f"-{self.longest_side}px"
        return f"{self.feature}-{self.max_features}-2{side}"

    def _seen(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grey: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return grey

    def _detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Descriptors are bytes."""
        keypoints, descriptors = self._detector().detectAndCompute(image, None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), self._nothing()
        keypoints = keypoints[: self.max_features]
        return self._centres(keypoints), self._as_bytes(descriptors[: self.max_features])

    def _centres(self, keypoints: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
        """Where keypoints (N, 2) really are, pixel centres at integers, which OpenCV's pyramids do not keep to."""
        xy = np.asarray(cv2.KeyPoint_convert(keypoints), np.float32).reshape(-1, 2)
        if self.feature == "sift":
            return xy - np.float32(DOUBLED)
        # A pixel k of a smaller image is s pixels wide and its middle at s k + (s - 1) / 2; OpenCV takes s k.
        side = np.array([ORB_STEP**keypoint.octave for keypoint in keypoints], np.float32)
        return xy + (side[:, None] - np.float32(1)) / np.float32(2)

    def _nothing(self) -> NDArray[np.uint8]:
        return np.zeros((0, 128 if self.feature == "sift" else 32), np.uint8)

    def _detector(self) -> cv2.Feature2D:
        # Made per call: OpenCV's detectors are not safe to share between threads, and making one is free.
        if self.feature == "orb":
            return cv2.ORB_create(self.max_features, scaleFactor=ORB_STEP, nlevels=8, fastThreshold=7)
        return cv2.SIFT_create(self.max_features)

    def _as_bytes(self, descriptors: NDArray[Any]) -> NDArray[np.uint8]:
        if self.feature == "orb":
            return np.asarray(descriptors)
        return np.asarray(np.minimum(root_sift(descriptors) * QUANTUM + 0.5, 255), dtype=np.uint8)

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, 128) RootSIFT of unit length, or (N, 256) ORB bits as +-1 scaled to unit length."""
        descriptors = features["descriptors"]
        if self.feature == "orb":
            return np.float32(1 / 8) * np.unpackbits(descriptors, axis=1) - np.float32(1 / 16)
        return np.float32(1 / QUANTUM) * descriptors

    def _paired(self, query: Features, references: Sequence[Features], with_points: bool) -> list[Paired]:
        """Mutual nearest neighbours; confidence falls with the ratio of nearest to second nearest distance."""
        search = mutual_hamming if self.feature == "orb" else mutual_nearest
        kept = [with_depth(r) if with_points else np.arange(len(r["xy"])) for r in references]
        descriptors = [reference["descriptors"][rows] for reference, rows in zip(references, kept, strict=True)]
        found = search(query["descriptors"], descriptors, self.ratio)
        return [Paired(i, rows[j], 1 - ratio) for rows, (i, j, ratio) in zip(kept, found, strict=True)]

    def _weights(self, confidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """A match at the ratio limit is worth half of one that stands alone."""
        return 1.0 - 0.5 * ((1 - confidence) / self.ratio).astype(np.float64)
