"""The classical matcher: RootSIFT (or ORB) on keyframes whose depth is known.

Needs nothing but a CPU: the fallback, and the baseline every learned matcher is compared with.
Lowe, IJCV 2004; RootSIFT: Arandjelovic and Zisserman, CVPR 2012; ORB: Rublee et al., ICCV 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Capabilities, Features, Matches, PixelMatches
from mast3r_ros.matching.nearest import Pairs, mutual_hamming, mutual_nearest
from mast3r_ros.matching.registry import register
from mast3r_ros.surface import surface_points

#: RootSIFT values lie in [0, 1]; times this they fill a byte, which costs no accuracy that shows.
QUANTUM = 512.0
#: Features per image: as many as the speed each is chosen for allows.
USUAL_FEATURES = {"sift": 1500, "orb": 1000}
#: What stands out less from its surroundings is no feature. Half of OpenCV's own, as in COLMAP (Schoenberger and Frahm,
#: CVPR 2016): soft and pale pictures, which OpenCV's leaves with a few hundred features, have three times as many then.
CONTRAST = 0.02
#: Of what is computed: features that maps keep of another version are computed anew.
VERSION = {"sift": 2, "orb": 1}
#: Images are shrunk to this many pixels on the long side before features are looked for.
LONGEST_SIDE = 1024


@register("sift")
class SiftMatcher:
    """Local features with mutual nearest neighbours and a ratio test.

    Args:
        feature: ``sift`` (RootSIFT) or ``orb`` (several times faster, less repeatable).
        max_features: strongest features kept per image; 0 takes what suits the feature.
        ratio: nearest / second nearest distance a match may have at most.
    """

    name = "sift"
    capabilities = Capabilities(landmarks=True, pixel_matches=True)

    def __init__(self, feature: str = "sift", max_features: int = 0, ratio: float = 0.85) -> None:
        if feature not in ("sift", "orb"):
            raise MatcherError(f"feature '{feature}' is not known to the sift matcher: use sift or orb")
        if max_features != 0 and not 50 <= max_features <= 20000:
            raise MatcherError(f"max_features {max_features} is outside 50 to 20000 (0 takes what suits the feature)")
        if not 0.3 <= ratio <= 1.0:
            raise MatcherError(f"ratio {ratio} is outside 0.3 to 1.0")
        self.feature, self.max_features, self.ratio = feature, max_features or USUAL_FEATURES[feature], ratio

    @property
    def signature(self) -> str:
        """Name of the feature and its number; the ratio does not change features."""
        return f"{self.feature}-{self.max_features}-{VERSION[self.feature]}"

    def describe(self, frame: Frame) -> Features:
        """Keypoints, descriptors and their surface points.

        Returns:
            ``xy`` (N, 2) float32 pixels; ``descriptors`` (N, 128) or (N, 32) uint8;
            ``points`` (N, 3) float32 metres in the camera frame, NaN where depth is unknown or an edge;
            ``pixel`` (1,) side of a pixel of the image that was searched, in pixels of the frame.
        """
        xy, descriptors = self._detect(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY))
        pixel = np.array([_shrunk_by(frame.image)], np.float32)
        return {"xy": xy, "descriptors": descriptors, "points": surface_points(frame, xy), "pixel": pixel}

    def _detect(self, grey: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Keypoints (N, 2) in pixels of the given image and their descriptors as bytes."""
        scale = _shrunk_by(grey)
        if scale > 1:
            size = (round(grey.shape[1] / scale), round(grey.shape[0] / scale))
            grey = cv2.resize(grey, (max(1, size[0]), max(1, size[1])), interpolation=cv2.INTER_AREA)
        width = 128 if self.feature == "sift" else 32
        if min(grey.shape) < 16:
            return np.zeros((0, 2), np.float32), np.zeros((0, width), np.uint8)
        keypoints, descriptors = self._detector().detectAndCompute(grey, None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, width), np.uint8)
        xy = cv2.KeyPoint_convert(keypoints)[: self.max_features]
        descriptors = descriptors[: self.max_features]
        return ((xy + 0.5) * scale - 0.5).astype(np.float32), self._as_bytes(descriptors)

    def _detector(self) -> cv2.Feature2D:
        # Made per call: OpenCV's detectors are not safe to share between threads, and making one is free.
        if self.feature == "orb":
            return cv2.ORB_create(self.max_features, scaleFactor=1.2, nlevels=8, fastThreshold=7)
        return cv2.SIFT_create(self.max_features, contrastThreshold=CONTRAST)

    def _as_bytes(self, descriptors: NDArray) -> NDArray[np.uint8]:
        if self.feature == "orb":
            return descriptors
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
        return np.minimum(root * QUANTUM + 0.5, 255).astype(np.uint8)

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, 128) RootSIFT of unit length, or (N, 256) ORB bits as +-1 scaled to unit length."""
        descriptors = features["descriptors"]
        if self.feature == "orb":
            return np.float32(1 / 8) * np.unpackbits(descriptors, axis=1) - np.float32(1 / 16)
        return np.float32(1 / QUANTUM) * descriptors

    def landmarks(self, features: Features) -> NDArray[np.float32]:
        """Points of the features whose depth is known."""
        return features["points"][np.isfinite(features["points"][:, 2])]

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Mutual nearest neighbours among the reference features whose surface point is known."""
        known = [np.flatnonzero(np.isfinite(reference["points"][:, 2])) for reference in references]
        descriptors = [r["descriptors"][rows] for r, rows in zip(references, known, strict=True)]
        matched = []
        for reference, rows, (i, j, ratio) in zip(references, known, self._nearest(query, descriptors), strict=True):
            matched.append(
                Matches(
                    query["xy"][i].astype(np.float64),
                    reference["xy"][rows[j]].astype(np.float64),
                    reference["points"][rows[j]].astype(np.float64),
                    # A match at the ratio limit is worth half of one that stands alone.
                    1.0 - 0.5 * (ratio / self.ratio).astype(np.float64),
                )
            )
        return matched

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """Mutual nearest neighbours among all features, whether their surface points are known or not."""
        # Features that a map kept of an earlier version do not know their pixel.
        pixel = float(query["pixel"][0]) if "pixel" in query else 1.0
        matched = []
        found = self._nearest(query, [reference["descriptors"] for reference in references])
        for reference, (i, j, ratio) in zip(references, found, strict=True):
            xy, reference_xy = query["xy"][i].astype(np.float64), reference["xy"][j].astype(np.float64)
            matched.append(PixelMatches(xy, reference_xy, pixel, (1 - ratio).astype(np.float32)))
        return matched

    def _nearest(self, query: Features, references: list[NDArray[np.uint8]]) -> list[Pairs]:
        """Rows of the query and of descriptors (M, D), and the ratio of nearest to second nearest distance."""
        search = mutual_hamming if self.feature == "orb" else mutual_nearest
        return search(query["descriptors"], references, self.ratio)


def _shrunk_by(image: NDArray[np.uint8]) -> float:
    """How much larger an image is than the one that features are looked for in, at least 1."""
    return max(1.0, max(image.shape[:2]) / LONGEST_SIDE)
