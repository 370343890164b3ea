"""Monocular depth: a network that is shown an image together with itself (DUSt3R, section 4.3 of its paper)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry.pointmap import estimate_focal
from mast3r_ros.matching.learned import NetworkMatcher


@dataclass(frozen=True, eq=False)
class MonoDepth:
    """Depth of one image, at the size the network saw it.

    Attributes:
        image: (H, W, 3) uint8, the pixels' colours.
        points: (H, W, 3) in the camera's frame; metres for a metric network.
        confidence: (H, W).
        focal: pixels of this image.
        xy: (H, W, 2) where the pixels lie in the image that was given.
    """

    image: NDArray[np.uint8]
    points: NDArray[np.float32]
    confidence: NDArray[np.float32]
    focal: float
    xy: NDArray[np.float64]

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) along the optical axis."""
        return self.points[..., 2]

    def percentiles(self) -> tuple[float, float, float]:
        """Depth that 5, 50 and 95 % of the pixels are nearer than."""
        near, middle, far = np.percentile(self.depth, [5, 50, 95])
        return float(near), float(middle), float(far)

    def save(self, path: Path) -> None:
        """By the suffix: all arrays (.npz), a coloured cloud (.ply), or a picture (.png), near red and far blue.

        Raises:
            MatcherError: where it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ply":
            from mast3r_ros.mapping.export import write_ply

            write_ply(path, self.points.reshape(-1, 3), self.image.reshape(-1, 3))
        elif path.suffix == ".png":
            if not cv2.imwrite(str(path), self._picture()):
                raise MatcherError(f"{path} cannot be written as a picture")
        else:
            arrays: dict[str, NDArray[Any]] = {"depth": self.depth, "points": self.points, "image": self.image}
            arrays |= {"confidence": self.confidence, "xy": self.xy.astype(np.float32), "focal": np.array(self.focal)}
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def _picture(self) -> NDArray[np.uint8]:
        """(H, 2 W, 3) BGR: the image and its inverse depth."""
        inverse = 1 / np.maximum(self.depth, 1e-6)
        low, high = np.percentile(inverse, [2, 98])
        level = (255 * (inverse - low) / max(high - low, 1e-9)).clip(0, 255).astype(np.uint8)
        return np.concatenate([self.image[..., ::-1], cv2.applyColorMap(level, cv2.COLORMAP_TURBO)], axis=1)


def predict_mono(matcher: NetworkMatcher, image: NDArray[np.uint8]) -> MonoDepth:
    """Depth of an image (H, W, 3) without calibration.

    Raises:
        CodecError: for images too long and thin for a network.
    """
    features = matcher.describe(Frame(image, None))
    pair = matcher.predict_pairs(features, [features])[0]
    points = np.asarray(pair.ii.points, np.float32)
    xy = matcher.pixel_grid(features)
    seen = cv2.remap(image, xy[..., 0].astype(np.float32), xy[..., 1].astype(np.float32), cv2.INTER_LINEAR)
    return MonoDepth(np.asarray(seen, np.uint8), points, np.asarray(pair.ii.confidence), estimate_focal(points), xy)
