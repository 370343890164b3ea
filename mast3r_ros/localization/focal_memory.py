"""What focal length a camera without calibration has, as far as accepted frames agree on it."""

from __future__ import annotations

from collections import deque

import numpy as np

from mast3r_ros.frames import Frame

#: Estimates that are remembered, and fewest that are believed.
REMEMBERED, FEWEST = 25, 5
#: Estimates that are spread by more than this share of their median are of more than one lens, or of an unclear one.
SPREAD = 0.05

#: What tells cameras without calibration apart: name, width and height.
CameraKey = tuple[str, int, int]


def camera_key(frame: Frame) -> CameraKey:
    """Of the camera that took a frame."""
    return frame.camera_name, frame.width, frame.height


class FocalMemory:
    """Focal lengths by camera. A zoomed, exchanged or second camera of the same size is noticed and forgotten."""

    def __init__(self) -> None:
        self._seen: dict[CameraKey, deque[float]] = {}

    def known(self, camera: CameraKey) -> float | None:
        """Focal length in pixels of a camera (name, width, height), once enough estimates agree."""
        seen = self._seen.get(camera, ())
        if len(seen) < FEWEST:
            return None
        low, middle, high = np.percentile(np.array(seen), (25, 50, 75))
        return float(middle) if high - low <= SPREAD * middle else None

    def remember(self, camera: CameraKey, focal_px: float) -> None:
        """Add an estimate of its own: of a frame that was accepted without being told the focal length."""
        known = self.known(camera)
        if known is not None and abs(focal_px - known) > 3 * SPREAD * known:
            self._seen.pop(camera)  # it has another lens now
        self._seen.setdefault(camera, deque(maxlen=REMEMBERED)).append(focal_px)
