"""What a network says of two images, and what all pairs together say of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: How a confidence, at least 1, becomes a weight.
TRANSFORMS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "log": np.log,
    "sqrt": np.sqrt,
    "minus_one": lambda confidence: confidence - 1,
    "none": lambda confidence: confidence,
}


@dataclass(frozen=True, eq=False)
class PointmapPair:
    """Pointmaps of two images, both in the frame of the first one's camera, at a scale of their own.

    Attributes:
        i, j: numbers of the images.
        points_i: (H, W, 3) of image i.
        points_j: (H', W', 3) of image j.
        confidence_i, confidence_j: (H, W), (H', W') at least 1.
    """

    i: int
    j: int
    points_i: NDArray[np.floating]
    points_j: NDArray[np.floating]
    confidence_i: NDArray[np.floating]
    confidence_j: NDArray[np.floating]

    @property
    def maps(self) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
        """Points of both, then confidences of both."""
        return self.points_i, self.points_j, self.confidence_i, self.confidence_j

    @property
    def score(self) -> float:
        """How much the pair is believed: product of the mean confidences."""
        return float(np.mean(self.confidence_i) * np.mean(self.confidence_j))


def image_shapes(pairs: Sequence[PointmapPair]) -> list[tuple[int, int]]:
    """(H, W) of every image.

    Raises:
        ValueError: for image numbers with gaps, or an image of two sizes.
    """
    shapes: dict[int, tuple[int, int]] = {}
    for pair in pairs:
        for number, confidence in ((pair.i, pair.confidence_i), (pair.j, pair.confidence_j)):
            shape = (confidence.shape[0], confidence.shape[1])
            if shapes.setdefault(number, shape) != shape:
                raise ValueError(f"image {number} has pointmaps of {shapes[number]} and of {shape} pixels")
    if sorted(shapes) != list(range(len(shapes))):
        raise ValueError(f"images must be numbered 0 to {len(shapes) - 1} without gaps, got {sorted(shapes)}")
    return [shapes[number] for number in range(len(shapes))]


def image_confidences(pairs: Sequence[PointmapPair]) -> list[Array]:
    """Per image and pixel the largest confidence of all pairs."""
    found: list[Array] = [np.zeros(shape) for shape in image_shapes(pairs)]
    for pair in pairs:
        found[pair.i] = np.maximum(found[pair.i], pair.confidence_i)
        found[pair.j] = np.maximum(found[pair.j], pair.confidence_j)
    return found
