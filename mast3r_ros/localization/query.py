"""One frame that is asked for its pose, and what was computed of it so far."""

from __future__ import annotations

from dataclasses import dataclass

from mast3r_ros.frames import Frame
from mast3r_ros.localization.correspondences import QueryMatches
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.stage_clock import StageClock
from mast3r_ros.matching.base import Features


@dataclass(frozen=True, eq=False)
class Query:
    """A frame, what is known of it, and what was believed of its pose beforehand.

    Attributes:
        features, matches: of the frame, whose depth takes no part in them.
        exclude: ids of keyframes that must not be used.
        enough: keyframes that are matched first because the camera is on track; 0 where it is not, or all K are.
        clock: told where the time goes.
    """

    frame: Frame
    features: Features
    matches: QueryMatches
    prior: PosePrior | None
    exclude: frozenset[str]
    enough: int
    clock: StageClock
