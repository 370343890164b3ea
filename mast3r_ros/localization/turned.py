"""Cameras that are held otherwise than the map's were, for matchers that know upright images only.

Networks learned pictures that people took: from 45 degrees of roll on they find next to nothing, however much both
images share. A query that found nothing is looked at once more, turned by the quarter turns with which it looks most
like the map; on track, the track tells. What is left, 45 degrees at most, they bear. Keypoints that turn with the image
(SIFT, ORB) need no such look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, turned_back, turned_T_camera
from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import KeyframeMatches, PoseEstimate, Reason
from mast3r_ros.localization.focal_memory import CameraKey, camera_key
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.query import Query
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


class Looks(NamedTuple):
    """What a localizer does with one frame, step by step.

    Attributes:
        query: describes a frame, with what is believed of its pose.
        first: looks at it with a few keyframes.
        further: looks once more, with many, at what the first look has rejected.
        similarity: how much a query looks like the keyframe that it looks most like.
        neighbour: of a camera on track, the pose (4, 4) of the keyframe that sees what it sees; None where the track
            does not tell.
    """

    query: Callable[[Frame, PosePrior | None], Query]
    first: Callable[[Query], PoseEstimate]
    further: Callable[[Query, PoseEstimate], PoseEstimate]
    similarity: Callable[[Query], float]
    neighbour: Callable[[PosePrior], NDArray[np.float64] | None]


class TurnedLooks:
    """How each camera was held when it was last localized: it is looked at like that first."""

    def __init__(self) -> None:
        self._held: dict[CameraKey, int] = {}

    def localize(self, matcher: Matcher, frame: Frame, prior: PosePrior | None, looks: Looks) -> PoseEstimate:
        """The estimate of the frame, whichever way it was looked at."""
        camera, turns = camera_key(frame), frame.camera is None or frame.camera.can_turn
        told = _by_track(prior, looks) if turns and upright_only(matcher) else 0
        held = self._held.get(camera, 0) if told is None else told
        queries = {held: _turned(frame, prior, held, looks)}
        found = looks.first(queries[held])
        if told is None and found.reason in UNMATCHED:
            queries |= {quarters: _turned(frame, prior, quarters, looks) for quarters in range(4) if quarters != held}
            likely = max(queries, key=lambda quarters: looks.similarity(queries[quarters]))
            other = looks.first(queries[likely]) if likely != held else found
            if other.localized or other.evidence.inliers > found.evidence.inliers:
                held, found = likely, other
        if not found.localized:
            found = looks.further(queries[held], found)
        if told is None and found.localized:
            self._held[camera] = held
        return _as_given(found, held, frame)


def _by_track(prior: PosePrior | None, looks: Looks) -> int | None:
    """Quarter turns that the track tells; None where it does not."""
    neighbour = None if prior is None else looks.neighbour(prior)
    return None if prior is None or neighbour is None else quarters_between(prior.map_T_camera, neighbour)


def quarters_between(map_T_camera: NDArray[np.float64], map_T_keyframe: NDArray[np.float64]) -> int:
    """Quarter turns, counter-clockwise, after which a camera's image (poses (4, 4)) stands as a keyframe's does."""
    R = map_T_keyframe[:3, :3].T @ map_T_camera[:3, :3]
    roll = np.arctan2(R[1, 0] - R[0, 1], R[0, 0] + R[1, 1])
    return round(-float(roll) / (np.pi / 2)) % 4


def _turned(frame: Frame, prior: PosePrior | None, quarters: int, looks: Looks) -> Query:
    """The query of a frame turned by quarter turns, counter-clockwise."""
    if quarters == 0:
        return looks.query(frame, prior)
    if prior is not None:
        prior = replace(prior, map_T_camera=prior.map_T_camera @ se3.inverse(turned_T_camera(quarters)))
    return looks.query(frame.turned(quarters), prior)


def _as_given(estimate: PoseEstimate, quarters: int, frame: Frame) -> PoseEstimate:
    """An estimate of the turned frame as one of the frame: pose and matches."""
    if quarters == 0:
        return estimate
    if estimate.map_T_camera is not None:
        estimate = replace(estimate, map_T_camera=estimate.map_T_camera @ turned_T_camera(quarters))

    def pixels(one: KeyframeMatches) -> KeyframeMatches:
        xy = turned_back(one.matches.query_xy, quarters, frame.width, frame.height)
        return replace(one, matches=replace(one.matches, query_xy=xy))

    return replace(estimate, matched=tuple(pixels(one) for one in estimate.matched))
