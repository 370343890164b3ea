"""What happened to one query of a run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.viewpoint import Viewpoint
from mast3r_ros.localization import PoseEstimate

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Record:
    """What happened to one query.

    Attributes:
        name: what a person calls the frame.
        stamp_ns: its time, nanoseconds.
        accepted: whether its pose may be used.
        reason, detail: why not, by name and as a sentence.
        map_T_camera: (4, 4) the pose that was found, also where it was rejected; None without one.
        truth: (4, 4) the true ``map_T_camera``, or None where nobody knows.
        covariance: (6, 6) of the pose found, as in PoseEstimate.
        keyframes: ids that support the pose.
        evidence: figures behind the verdict, by name.
        confidence: 0 to 1.
        focal_px: focal length used, estimated where the frame had no calibration.
        timings_ms: milliseconds by stage, ``total`` among them.
        group: condition or kind of negative that the query belongs to, where a run has several; else empty.
        negative: whether the map holds nothing of what the query shows, so that every accepted pose is wrong.
        viewpoint_m, viewpoint_deg, view_overlap: of the true pose beside the nearest keyframe, see :class:`Viewpoint`.
        unit_m: metres of the map for each metre that limits are stated in: not 1 where a data set was made larger.
        bounds: protection levels and alert limits by name, see :attr:`PoseEstimate.bounds`.
    """

    name: str
    stamp_ns: int
    accepted: bool
    reason: str = ""
    detail: str = ""
    map_T_camera: Array | None = None
    truth: Array | None = None
    covariance: Array | None = None
    keyframes: tuple[str, ...] = ()
    evidence: dict[str, float] = field(default_factory=dict)
    confidence: float = 0.0
    focal_px: float = math.nan
    timings_ms: dict[str, float] = field(default_factory=dict)
    group: str = ""
    negative: bool = False
    viewpoint_m: float = math.nan
    viewpoint_deg: float = math.nan
    view_overlap: float = math.nan
    unit_m: float = 1.0
    bounds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        stamp_ns: int,
        estimate: PoseEstimate,
        truth: Array | None = None,
        *,
        group: str = "",
        negative: bool = False,
        viewpoint: Viewpoint = Viewpoint(),
        unit_m: float = 1.0,
    ) -> Record:
        """The record of an estimate."""
        return cls(
            name,
            stamp_ns,
            estimate.localized,
            estimate.reason.value,
            estimate.detail,
            estimate.map_T_camera,
            truth,
            estimate.covariance,
            estimate.keyframes,
            asdict(estimate.evidence),
            estimate.confidence,
            estimate.camera_focal_px,
            dict(estimate.timings_ms),
            group,
            negative,
            *viewpoint,
            unit_m=unit_m,
            bounds=estimate.bounds,
        )

    @property
    def error(self) -> tuple[float, float]:
        """Metres and degrees from the truth, of rejected poses too; NaN where either is unknown, and of negatives."""
        if self.map_T_camera is None or self.truth is None or self.negative:
            return math.nan, math.nan
        return se3.pose_error(self.map_T_camera, self.truth)

    @property
    def stated_error(self) -> tuple[float, float]:
        """The error in the metres that limits are stated in, and degrees."""
        metres, degrees = self.error
        return metres / self.unit_m, degrees

    @property
    def wrong(self) -> bool:
        """Accepted, but off by more than 25 cm or 10 degrees; or accepted where there is nothing to be found."""
        return self.accepted and (self.negative or bool(metrics.is_wrong(*self.stated_error)))

    @property
    def hazardous(self) -> bool:
        """Answered with an error beyond the alert limit, so that somebody relies on it who must not."""
        metres, degrees = self.error
        beyond = metres > self.bounds.get("alert_limit_m", math.nan) or degrees > self.bounds.get(
            "alert_limit_deg", math.nan
        )
        return self.accepted and (self.negative or beyond)

    @property
    def judged(self) -> bool:
        """Whether it is known if an answer is right."""
        return self.negative or self.truth is not None

    @property
    def normalised_error(self) -> float:
        """See :func:`metrics.normalised_error`; NaN where something for it is unknown."""
        if self.map_T_camera is None or self.truth is None or self.covariance is None or self.negative:
            return math.nan
        return metrics.normalised_error(self.map_T_camera, self.truth, self.covariance)
