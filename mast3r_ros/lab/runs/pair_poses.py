"""The pose of one image relative to another, by any matcher, without a map."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.relative_pose import EssentialSettings, RelativePose, solve_relative_pose
from mast3r_ros.localization import Localizer, LocalizerSettings
from mast3r_ros.localization.single_reference import photo_matcher, reference_map
from mast3r_ros.matching.base import Features, Matcher, PixelMatches, predicts_depth
from mast3r_ros.matching.two_images import image_matches

Array = NDArray[np.float64]

#: ``essential``: rotation and direction from matched pixels, as in the published benchmarks.
#: ``metric``: the second image localized against the first alone, as `localize --reference` does, gates and all.
ROUTES = ("essential", "metric")
#: Lists name an image many times, mostly in neighbouring lines: features of this many are kept.
KEPT = 32


@dataclass(frozen=True, eq=False)
class PairPose:
    """What was found between two images.

    Attributes:
        camera1_T_camera2: (4, 4) pose of the second camera in the first; None without one. Metres where ``metric``,
            else the translation has length 1.
        accepted: whether the pose may be used.
        metric: whether the translation's length means anything.
        matches: pixels of both images, the first one being the reference.
        inlier: (N,) bool, the matches that the pose explains.
        reason, detail: why there is no pose, by name and as a sentence.
        timings_ms: milliseconds by stage, ``total`` among them.
    """

    camera1_T_camera2: Array | None
    accepted: bool
    metric: bool
    matches: PixelMatches
    inlier: NDArray[np.bool_]
    reason: str = ""
    detail: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)


class EssentialFinder:
    """Poses from an essential matrix of matched pixels; any matcher will do.

    Args:
        threshold_px: largest distance from the epipolar line, in pixels of the images that were matched (a network
            sees smaller ones).
        min_inliers: a pose explained by fewer matches is none.
    """

    metric = False

    def __init__(self, matcher: Matcher, threshold_px: float = 1.0, min_inliers: int = 15) -> None:
        self.matcher, self.threshold_px, self.min_inliers = matcher, threshold_px, min_inliers
        self._kept: OrderedDict[str, Features] = OrderedDict()

    def find(self, frame1: Frame, frame2: Frame) -> PairPose:
        """Pose between two calibrated frames, told apart by their names."""
        started = time.perf_counter()
        first, second = self._features(frame1), self._features(frame2)
        described = time.perf_counter()
        found = image_matches(self.matcher, first, second)
        matched = time.perf_counter()
        settings = EssentialSettings(self.threshold_px * max(found.query_pixel, 1.0))
        xy1, xy2, motion = _motion(frame1, frame2, found.reference_xy, found.query_xy, settings)
        done = time.perf_counter()
        inlier = np.zeros(len(xy1), dtype=bool) if motion is None else motion.inlier
        matches = PixelMatches(xy2, xy1, found.query_pixel)
        stages = {"describe": described - started, "match": matched - described, "solve": done - matched}
        timings = {name: 1e3 * s for name, s in {**stages, "total": done - started}.items()}
        if motion is None or motion.inlier.sum() < self.min_inliers:
            detail = f"{int(inlier.sum())} of {len(xy1)} matches agree on a motion, {self.min_inliers} are needed"
            return PairPose(None, False, False, matches, inlier, "too_few_inliers", detail, timings)
        return PairPose(se3.inverse(motion.camera2_T_camera1), True, False, matches, inlier, timings_ms=timings)

    def _features(self, frame: Frame) -> Features:
        if frame.name not in self._kept:
            self._kept[frame.name] = self.matcher.describe(frame)
        self._kept.move_to_end(frame.name)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[frame.name]


class MetricFinder:
    """Metric poses of second images in a map that holds nothing but the first.

    Raises:
        MatcherError: for matchers that need a depth sensor.
    """

    metric = True

    def __init__(self, matcher: Matcher) -> None:
        if not predicts_depth(matcher):
            raise MatcherError(
                f"matcher '{matcher.name}' does not know the scale of two photos: use the pose route essential, or a "
                "network"
            )
        self.matcher = matcher
        self.settings = LocalizerSettings()

    def find(self, frame1: Frame, frame2: Frame) -> PairPose:
        """Pose between two calibrated frames."""
        started = time.perf_counter()
        keyframe_map = reference_map(frame1, self.matcher)
        keyframe_map.prepare(self.matcher)
        matcher = photo_matcher(self.matcher, frame1)
        estimate = Localizer(keyframe_map, matcher, self.settings).localize(frame2)
        timings = {**estimate.timings_ms, "total": 1e3 * (time.perf_counter() - started)}
        parts = [(m.matches.reference_xy, m.matches.query_xy, m.inlier) for m in estimate.matched]
        empty = (np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, bool))
        xy1, xy2, inlier = (np.concatenate(column) for column in zip(*(parts or [empty]), strict=True))
        matches = PixelMatches(xy2, xy1)
        reason, detail = estimate.reason.value, estimate.detail
        return PairPose(
            estimate.map_T_camera, estimate.localized, True, matches, inlier.astype(bool), reason, detail, timings
        )


def make_finder(route: str, matcher: Matcher, threshold_px: float = 1.0) -> EssentialFinder | MetricFinder:
    """The finder of a route, one of ROUTES. Raises MatcherError where the matcher cannot go it."""
    if route not in ROUTES:
        raise MatcherError(f"unknown pose route '{route}': use {' or '.join(ROUTES)}")
    return MetricFinder(matcher) if route == "metric" else EssentialFinder(matcher, threshold_px)


def _motion(
    frame1: Frame, frame2: Frame, xy1: Array, xy2: Array, settings: EssentialSettings
) -> tuple[Array, Array, RelativePose | None]:
    """Matches that have rays, and the motion that they agree on."""
    if frame1.camera is None or frame2.camera is None:
        raise MatcherError(f"{frame1.name} and {frame2.name}: an essential matrix needs calibrated images")
    ideal1, ideal2 = frame1.camera.rays(xy1), frame2.camera.rays(xy2)
    seen = np.isfinite(ideal1).all(axis=1) & np.isfinite(ideal2).all(axis=1)
    focals = (frame1.camera.focal, frame2.camera.focal)
    assert all(math.isfinite(focal) for focal in focals)
    return xy1[seen], xy2[seen], solve_relative_pose(ideal1[seen], ideal2[seen], focals, settings)
