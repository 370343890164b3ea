"""The plain way to localize, to compare with: one keyframe at a time, brute force, RANSAC, no verification.

What a person writes first with OpenCV: BFMatcher on float32 descriptors, the ratio test, solvePnPRansac.
It works on the same features of the same keyframes, so only matching and solving differ.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features
from mast3r_ros.matching.sift import SiftMatcher

#: Settings of the usual recipe: Lowe's ratio, 8 px, 1000 rounds.
RATIO, THRESHOLD_PX, ROUNDS = 0.8, 8.0, 1000


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """Pose (4, 4) map_T_camera or None, and milliseconds by stage."""

    map_T_camera: NDArray[np.float64] | None
    timings_ms: dict[str, float]


class Baseline:
    """Localizes with OpenCV alone. Depth-less keyframe features are left out as in the sift matcher.

    Args:
        matcher: whose features are used.
        keyframes: matched with every query.
    """

    def __init__(self, keyframe_map: KeyframeMap, matcher: SiftMatcher, keyframes: int = 5) -> None:
        self.map, self.matcher, self.keyframes = keyframe_map, matcher, keyframes

    def localize(self, frame: Frame) -> BaselineResult:
        """Find the pose of a frame whose camera is known."""
        clock = [time.perf_counter()]
        features = self.matcher.describe(frame)
        clock.append(time.perf_counter())
        ids = self.map.retrieve(self.matcher, features, self.keyframes)
        clock.append(time.perf_counter())
        found = [self._match(features, id) for id in ids]
        xy = np.concatenate([np.zeros((0, 2), np.float32), *(xy for xy, _ in found)])
        points = np.concatenate([np.zeros((0, 3)), *(points for _, points in found)])
        clock.append(time.perf_counter())
        pose = self._solve(frame, xy, points)
        clock.append(time.perf_counter())
        stages = dict(zip(("describe", "retrieve", "match", "solve"), 1e3 * np.diff(clock), strict=True))
        return BaselineResult(pose, {**stages, "total": 1e3 * (clock[-1] - clock[0])})

    def _match(self, query: Features, id: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Pixels (N, 2) and map points (N, 3) matched with one keyframe."""
        reference = self.map.features(self.matcher, id)
        known = np.flatnonzero(np.isfinite(reference["points"][:, 2]))
        mine, theirs = query["descriptors"], reference["descriptors"][known]
        binary = self.matcher.feature == "orb"
        if not binary:
            mine, theirs = mine.astype(np.float32), theirs.astype(np.float32)
        brute = cv2.BFMatcher(cv2.NORM_HAMMING if binary else cv2.NORM_L2)
        pairs = brute.knnMatch(mine, theirs, k=2) if len(mine) and len(theirs) > 1 else ()
        good = [a for a, b in pairs if a.distance < RATIO * b.distance]
        rows = known[[match.trainIdx for match in good]]
        points = se3.apply(self.map[id].map_T_camera, reference["points"][rows])
        return query["xy"][[match.queryIdx for match in good]].reshape(-1, 2), points.reshape(-1, 3)

    @staticmethod
    def _solve(frame: Frame, xy: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float64] | None:
        if len(xy) < 6 or frame.camera is None:
            return None
        ideal = frame.camera.rays(xy)
        # Image coordinates in pixels of an undistorted camera, as OpenCV's solver wants them.
        ok, rotation, translation, inliers = cv2.solvePnPRansac(
            points,
            ideal * frame.camera.focal,
            np.diag([frame.camera.focal, frame.camera.focal, 1.0]),
            None,
            iterationsCount=ROUNDS,
            reprojectionError=THRESHOLD_PX,
        )
        if not ok or inliers is None:
            return None
        return se3.inverse(se3.make(cv2.Rodrigues(rotation)[0], translation.ravel()))
