"""Depth of every pixel of a placed image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class DenseView:
    """An image's depth as a network knows it, after alignment.

    Attributes:
        depth: (H, W) along the optical axis, the model's unit; 0 where unknown.
        confidence: (H, W) at least 0.
        xy: (H, W, 2) where the pixels lie in the photo; NaN where nowhere.
    """

    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    xy: NDArray[np.float64]

    def scaled(self, s: float) -> DenseView:
        """In another unit."""
        return replace(self, depth=(self.depth * s).astype(np.float32))
