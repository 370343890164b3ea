"""Images that were stretched, by a driver that scales 16:9 to 4:3, say, while their calibration was not.

Such a calibration leaves a pose that explains a part of the image and is decimetres off. It is told by solving once
more with the image stretched back: a stretch that lets a pose explain many more of the matches is no accident. A camera
that has passed this a few times is asked again only where a pose explains less than half of the matches.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry.absolute_pose import ransac_pose
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]

#: Height against width of a stretched image: 16:9 as 4:3 and back.
STRETCHES = (3 / 4, 4 / 3)
#: A stretch must explain this many times the matches; with a right calibration it explains fewer.
MORE = 1.3
#: Frames that a camera must pass; then poses that explain more than this share of the matches are not checked.
TRIALS, MOST = 5, 0.5


class StretchCheck:
    """Remembers which cameras have passed."""

    def __init__(self) -> None:
        self._passed: list[tuple[Camera, int]] = []

    def found(
        self, camera: Camera, xy: Array, points: Array, weights: Array, inliers: int, settings: SolverSettings
    ) -> float | None:
        """The stretch of the images (height against width) that explains far more of the matches; None without one.

        Args:
            xy: (N, 2) pixels of the query.
            points: (N, 3) map points, metres.
            weights: (N,) relative trust.
            inliers: matches that the pose explains with the calibration as it is.
        """
        passed = next((count for known, count in self._passed if known.same_as(camera)), 0)
        if passed >= TRIALS and inliers > MOST * len(xy):
            return None
        ideal = camera.rays(xy)
        known = np.isfinite(ideal).all(axis=1)
        settings = replace(settings, iterations=min(settings.iterations, _enough(MORE * inliers / max(len(xy), 1))))
        for stretch in STRETCHES:
            pose = ransac_pose(ideal[known] / (1.0, stretch), points[known], weights[known], camera.focal, settings)
            if pose is not None and int(pose.inlier.sum()) > MORE * inliers:
                return stretch
        self._passed = [(other, n) for other, n in self._passed if not other.same_as(camera)]
        self._passed.append((camera, passed + 1))
        return None


def stretched(stretch: float) -> str:
    """The sentence for a stretch that was found."""
    return (
        f"at {1 / stretch:.2f} times its height the image explains far more matches: images were stretched after "
        "the calibration; give the calibration of the images as they are"
    )


def _enough(share: float) -> int:
    """Rounds of RANSAC that find a pose which explains such a share of the matches, were there one.

    Three times those in which three of its matches are drawn at least once with a probability of 99.99 %.
    """
    drawn = min(max(share, 0.05), 0.99) ** 3
    return max(100, math.ceil(3 * math.log(1e-4) / math.log1p(-drawn)))
