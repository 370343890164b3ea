"""Points of a keyframe without depth from its matches with the query itself: triangulated, at the pointmap's scale.

The matches decide rotation and direction of the motion (an essential matrix), which triangulates them up to one
length. Only that length is taken from the network's pointmap, as a median over all matches: it averages out what is
wrong with single points, while a pose solved against predicted points inherits it. Leroy et al., ECCV 2024, section
4.4 (relative poses in metres from matches and a predicted depth map); Arnold et al., "Map-free", ECCV 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.frames import Camera
from mast3r_ros.geometry.relative_pose import EssentialSettings, solve_relative_pose
from mast3r_ros.geometry.scale import MetricScale, metric_scale_from_depth
from mast3r_ros.matching.base import (
    Capabilities,
    Features,
    Matcher,
    Matches,
    PixelMatches,
    matches_pixels,
    predicts_depth,
)
from mast3r_ros.matching.packed_camera import unpacked_camera
from mast3r_ros.matching.reference_surface import OWN_SCALE
from mast3r_ros.matching.wrapped import WrappedMatcher

Array = NDArray[np.float64]

#: Distance from its epipolar line up to which a match fits, in pixels of the images that were matched.
EPIPOLAR_PX = 1.0
#: A motion that fewer of the matches fit is often none: of 38 pairs of unseen rooms below 0.35, 26 were off by more
#: than 10 degrees, of 79 above 0.5 three.
LEAST_SHARE = 0.4
#: Relative standard deviation of the length of the motion, from the median error of the same pairs.
LENGTH_SIGMA = 0.3
NO_CAMERA = "two views without calibration cannot be triangulated"
NO_MOTION = "the matches agree on no motion between the two views"
NO_AGREEMENT = "the network's pointmap is too far from the triangulated points to give them a scale"


class TwoViewMatcher(WrappedMatcher):
    """A network whose matches with keyframes are triangulated, one keyframe at a time.

    For references whose depth nobody knows and that have no neighbours to be triangulated with, as one photo has
    none.

    Args:
        network: matches pixels and predicts depth; its features hold the ``camera`` (:func:`packed_camera`).
    """

    def __init__(self, network: Matcher) -> None:
        super().__init__(network)
        assert matches_pixels(network)
        self._match_pixels = network.match_pixels
        assert predicts_depth(network)
        self._predict_depth = network.predict_depth

    @property
    def capabilities(self) -> Capabilities:
        """Of the network, but for what concerns keyframes whose depth is known."""
        return replace(super().capabilities, landmarks=False, coarse_points=False, keyframes_on_track=0)

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Matches that fit one motion between the two views, and their points.

        ``Matches.scale`` says how predicted and triangulated depth compare.
        """
        found = self._match_pixels(query, references)
        return [self._lifted(query, reference, pixels) for reference, pixels in zip(references, found, strict=True)]

    def _lifted(self, query: Features, reference: Features, found: PixelMatches) -> Matches:
        camera1, camera2 = (unpacked_camera(features.get("camera")) for features in (reference, query))
        if camera1 is None or camera2 is None:
            return Matches.empty(NO_CAMERA)
        xy1, xy2, points = triangulated(found, camera1, camera2)
        if not len(points):
            return Matches.empty(NO_MOTION)
        scale = self._scale(reference, query, xy1, points[:, 2])
        if scale is None:
            return Matches.empty(NO_AGREEMENT)
        return Matches(xy2, xy1, points * scale.factor, np.ones(len(xy1)), scale, LENGTH_SIGMA, OWN_SCALE)

    def _scale(self, reference: Features, query: Features, xy: Array, depth: Array) -> MetricScale | None:
        """What triangulated depths (N,) at pixels (N, 2) of the reference must be multiplied with."""
        predicted = self._predict_depth(reference, query)
        _, nearest = cKDTree(predicted.xy).query(xy)
        return metric_scale_from_depth(depth, predicted.depth[nearest], predicted.confidence[nearest])


def triangulated(found: PixelMatches, camera1: Camera, camera2: Camera) -> tuple[Array, Array, Array]:
    """Those matches that fit one motion, with their points in camera 1's frame; the cameras are 1 apart.

    Returns:
        (N, 2) pixels of the reference, (N, 2) of the query, (N, 3) points in front of both; nothing without a motion.
    """
    nothing = np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 3))
    ideal1, ideal2 = camera1.rays(found.reference_xy), camera2.rays(found.query_xy)
    seen = np.isfinite(ideal1).all(axis=1) & np.isfinite(ideal2).all(axis=1)
    xy1, xy2, ideal1, ideal2 = found.reference_xy[seen], found.query_xy[seen], ideal1[seen], ideal2[seen]
    settings = EssentialSettings(EPIPOLAR_PX * max(found.query_pixel, 1.0))
    motion = solve_relative_pose(ideal1, ideal2, (camera1.focal, camera2.focal), settings)
    if motion is None or motion.inlier.mean() < LEAST_SHARE:
        return nothing
    xy1, xy2, ideal1, ideal2 = (values[motion.inlier] for values in (xy1, xy2, ideal1, ideal2))
    camera2_T_camera1 = motion.camera2_T_camera1
    homogeneous = cv2.triangulatePoints(np.eye(3, 4), camera2_T_camera1[:3], ideal1.T, ideal2.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (homogeneous[:3] / homogeneous[3]).T
    depth2 = points @ camera2_T_camera1[2, :3] + camera2_T_camera1[2, 3]
    front = np.isfinite(points).all(axis=1) & (points[:, 2] > 0) & (depth2 > 0)
    return xy1[front], xy2[front], points[front].astype(np.float64)
