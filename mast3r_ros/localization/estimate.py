"""What the Localizer says about one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import isnan

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.localization.protection import AlertLimit, ProtectionLevel
from mast3r_ros.matching.base import Matches


class Status(str, Enum):
    """Whether a pose may be used."""

    LOCALIZED = "localized"
    REJECTED = "rejected"


class Reason(str, Enum):
    """Why a frame was not localized. Stable names: diagnostics, JSON and reports count by them."""

    NONE = ""
    EMPTY_MAP = "empty_map"
    UNUSABLE_IMAGE = "unusable_image"
    NOTHING_RETRIEVED = "nothing_retrieved"
    TOO_FEW_MATCHES = "too_few_matches"
    NO_POSE = "no_pose"
    TOO_FEW_INLIERS = "too_few_inliers"
    INLIERS_ON_ONE_PATCH = "inliers_on_one_patch"
    ILL_CONDITIONED = "ill_conditioned"
    LARGE_RESIDUALS = "large_residuals"
    KEYFRAMES_DISAGREE = "keyframes_disagree"
    EXPECTED_NOT_SEEN = "expected_not_seen"
    DEPTH_DISAGREES = "depth_disagrees"
    ODOMETRY_DISAGREES = "odometry_disagrees"
    UNCERTAIN = "uncertain"
    SCALE_UNVERIFIED = "scale_unverified"
    SEEN_FROM_BEHIND = "seen_from_behind"
    CALIBRATION_DISAGREES = "calibration_disagrees"
    AMBIGUOUS_MAP = "ambiguous_map"


class Track(str, Enum):
    """What is known of the way that the camera is on, by odometry. Stable names, in ``~/status``."""

    NONE = ""  # no odometry, or nothing found yet
    TENTATIVE = "tentative"  # found, but not from views enough: map -> odom waits
    COMMITTED = "committed"
    LOST = "lost"  # contradicted: map -> odom is withdrawn


class DepthCheck(str, Enum):
    """Whether a pose was held against the depth that the query measured itself."""

    DONE = "done"
    NONE = "none"  # no depth, or no pose
    TOO_SPARSE = "too_few_pixels"


@dataclass(frozen=True, eq=False)
class KeyframeMatches:
    """Matches with one keyframe and which of them the pose explains."""

    keyframe_id: str
    matches: Matches
    inlier: NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """The figures the verdict is based on; each gate of verification reads one of them.

    Attributes:
        inliers: matches the pose explains.
        inlier_ratio: their share of all matches.
        spread: share of the image's cells (8 x 6) that hold an inlier.
        residual_px: median reprojection error of the inliers.
        position_sigma_m: largest standard deviation of the position, metres.
        rotation_sigma_deg: largest standard deviation of the rotation, degrees.
        agreeing_keyframes: keyframes that support the pose on their own.
        explained: of the image cells in which the map shows something, the share that shows it; NaN where unknown.
        depth_error: median relative difference to the query's own depth, NaN where it was not checked.
        depth_coverage: share of the inliers at which the query measured depth itself, NaN for a query without depth.
        seen_from_behind: share of the inliers that the query and their keyframe look at from opposite sides.
        viewpoint_gap_deg: angle at the inliers between where the query and where its keyframes see them from.
    """

    inliers: int = 0
    inlier_ratio: float = 0.0
    spread: float = 0.0
    residual_px: float = float("nan")
    position_sigma_m: float = float("nan")
    rotation_sigma_deg: float = float("nan")
    agreeing_keyframes: int = 0
    explained: float = float("nan")
    depth_error: float = float("nan")
    depth_coverage: float = float("nan")
    seen_from_behind: float = 0.0
    viewpoint_gap_deg: float = float("nan")

    @property
    def depth_check(self) -> DepthCheck:
        """Whether the pose was held against the query's own depth."""
        if not isnan(self.depth_coverage):
            return DepthCheck.TOO_SPARSE if isnan(self.depth_error) else DepthCheck.DONE
        return DepthCheck.NONE


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """The outcome of one localization attempt: a metric pose, or the reason why there is none.

    Attributes:
        status: localized or rejected.
        reason: why it was rejected, by name.
        detail: the same as a sentence with the figures, for people.
        map_T_camera: (4, 4) camera optical frame -> map; present whenever a pose was computed, also when
            it was rejected (look at ``status`` first).
        covariance: (6, 6) of that pose in ROS order (x, y, z, rotation about x, y, z; fixed map axes; m, rad).
        protection: bounds of that pose's error, see :mod:`mast3r_ros.localization.protection`.
        alert_limit: what they were held against; None without a pose.
        keyframes: ids of the keyframes that support the pose, best first.
        evidence: the figures behind the verdict.
        confidence: 0 to 1, for ranking estimates.
        camera_focal_px: focal length used (estimated where the frame had no calibration).
        timings_ms: milliseconds by stage: describe, retrieve, match, solve, verify, total.
        matched: matches by keyframe, for drawing.
        frames: that the pose rests on: more than one where this frame alone was refused.
        track: of a Tracker with odometry, whether the track is believed; ``track_detail`` says what is missing.
    """

    status: Status
    reason: Reason = Reason.NONE
    detail: str = ""
    map_T_camera: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    protection: ProtectionLevel = ProtectionLevel()
    alert_limit: AlertLimit | None = None
    keyframes: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    confidence: float = 0.0
    camera_focal_px: float = float("nan")
    timings_ms: dict[str, float] = field(default_factory=dict)
    matched: tuple[KeyframeMatches, ...] = ()
    stamp_ns: int = 0
    frames: int = 1
    track: Track = Track.NONE
    track_detail: str = ""

    @property
    def bounds(self) -> dict[str, float]:
        """Protection levels and alert limits by the names that messages and JSON give them; NaN without a pose."""
        limit = self.alert_limit or AlertLimit(float("nan"), float("nan"), float("nan"))
        return {
            "protection_m": self.protection.position_m,
            "protection_deg": float(np.degrees(self.protection.rotation_rad)),
            "alert_limit_m": limit.position_m,
            "alert_limit_deg": float(np.degrees(limit.rotation_rad)),
            "integrity_risk": limit.integrity_risk,
        }

    @property
    def localized(self) -> bool:
        """Whether the pose may be published."""
        return self.status is Status.LOCALIZED

    @classmethod
    def rejected(cls, reason: Reason, detail: str) -> PoseEstimate:
        """An estimate without a pose."""
        return cls(status=Status.REJECTED, reason=reason, detail=detail)
