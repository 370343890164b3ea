"""Cameras that are held otherwise than the map's were, for matchers that know upright images only.

Networks learned pictures that people took: from 45 degrees of roll on they find next to nothing, however much both
images share. A query that found nothing is looked at once more, turned by the quarter turns with which it looks most
like the map. What is left, 45 degrees at most, they bear. Keypoints that turn with the image (SIFT, ORB) need no such
look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mast3r_ros.frames import Frame, turned_back, turned_T_camera
from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import KeyframeMatches, PoseEstimate, Reason
from mast3r_ros.localization.focal_memory import CameraKey, camera_key
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.matching.base import Matcher, upright_only

#: Rejections of images that matched nothing, or not what they show.
UNMATCHED = (
    Reason.NOTHING_RETRIEVED,
    Reason.TOO_FEW_MATCHES,
    Reason.NO_POSE,
    Reason.TOO_FEW_INLIERS,
    Reason.INLIERS_ON_ONE_PATCH,
    Reason.EXPECTED_NOT_SEEN,
)

#: One attempt at a frame, with what is believed of its pose.
Attempt = Callable[[Frame, PosePrior | None], PoseEstimate]
#: How much a frame looks like the keyframe that it looks most like.
Similarity = Callable[[Frame], float]


class TurnedLooks:
    """How each camera was held when it was last localized: it is looked at like that first."""

    def __init__(self) -> None:
        self._held: dict[CameraKey, int] = {}

    def localize(
        self, matcher: Matcher, frame: Frame, prior: PosePrior | None, attempt: Attempt, similarity: Similarity
    ) -> PoseEstimate:
        """The estimate of an attempt at the frame, or at the frame turned, as the frame was given."""
        if not upright_only(matcher) or (frame.camera is not None and not frame.camera.can_turn):
            return attempt(frame, prior)
        camera = camera_key(frame)
        held = self._held.get(camera, 0)
        first = attempted(attempt, frame, prior, held)
        if first.reason not in UNMATCHED:
            return first
        likeness = [similarity(frame.turned(quarters)) for quarters in range(4)]
        likely = int(np.argmax(likeness))
        if likely == held:
            return first
        second = attempted(attempt, frame, prior, likely)
        if second.localized:
            self._held[camera] = likely
        return second if second.localized or second.evidence.inliers > first.evidence.inliers else first


def attempted(attempt: Attempt, frame: Frame, prior: PosePrior | None, quarters: int) -> PoseEstimate:
    """An attempt at a frame turned by quarter turns, counter-clockwise; pose and matches are the frame's own."""
    if quarters == 0:
        return attempt(frame, prior)
    turn = turned_T_camera(quarters)
    if prior is not None:
        prior = replace(prior, map_T_camera=prior.map_T_camera @ se3.inverse(turn))
    estimate = attempt(frame.turned(quarters), prior)
    if estimate.map_T_camera is not None:
        estimate = replace(estimate, map_T_camera=estimate.map_T_camera @ turn)
    return replace(estimate, matched=tuple(_as_given(m, quarters, frame) for m in estimate.matched))


def _as_given(matched: KeyframeMatches, quarters: int, frame: Frame) -> KeyframeMatches:
    xy = turned_back(matched.matches.query_xy, quarters, frame.width, frame.height)
    return replace(matched, matches=replace(matched.matches, query_xy=xy))
