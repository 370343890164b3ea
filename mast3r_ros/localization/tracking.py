"""Localization over time: odometry between attempts contradicts a wrong pose, and guides retrieval.

Odometry drifts slowly and never jumps; a wrong pose jumps. So a pose that odometry cannot explain is held
back until further attempts confirm it, and a robot that really was carried away is found again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.belief import Belief
from mast3r_ros.localization.estimate import PoseEstimate, Reason, Status
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.uncertainty import worst_sigmas
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.settings import TrackerSettings

Array = NDArray[np.float64]


class Tracker:
    """A Localizer with a memory. One caller at a time."""

    def __init__(self, localizer: Localizer, settings: TrackerSettings = TrackerSettings()) -> None:
        self.localizer = localizer
        self.settings = settings
        self._accepted: Belief | None = None
        self._proposed: Belief | None = None
        self._prior: Belief | None = None

    @property
    def map(self) -> KeyframeMap:
        """The map that frames are localized in."""
        return self.localizer.map

    @property
    def map_T_odom(self) -> Array | None:
        """(4, 4) correction of the odometry by the last accepted pose; None before the first one."""
        return self._accepted.map_T_odom if self._accepted is not None else None

    def reset(self) -> None:
        """Forget everything: the robot may be anywhere."""
        self._accepted = self._proposed = self._prior = None

    def set_prior(self, prior: PosePrior, odom_T_camera: Array | None = None, stamp_ns: int = 0) -> None:
        """Tell where the camera is believed to be (a person's estimate). Replaces what was known.

        Args:
            odom_T_camera: (4, 4) odometry at that moment, so that the belief moves along with the robot.
        """
        self.reset()
        self._prior = Belief(
            prior.map_T_camera,
            odom_T_camera,
            stamp_ns,
            prior.position_sigma_m,
            prior.rotation_sigma_rad,
            told=True,
        )

    def localize(self, frame: Frame, odom_T_camera: Array | None = None) -> PoseEstimate:
        """Localize one frame and hold it against odometry.

        Args:
            odom_T_camera: (4, 4) pose of the camera in the odometry frame at the frame's stamp, or None.
        """
        self._accepted, self._proposed, self._prior = (
            None if belief is None or belief.expired(frame.stamp_ns, self.settings) else belief.travelled(odom_T_camera)
            for belief in (self._accepted, self._proposed, self._prior)
        )
        believed = self._accepted or self._prior
        prior = None if believed is None else believed.now(frame.stamp_ns, odom_T_camera, self.settings)
        estimate = self.localizer.localize(frame, prior)
        if not estimate.localized:
            return estimate
        return self._judge(estimate, odom_T_camera, frame.stamp_ns)

    def _judge(self, estimate: PoseEstimate, odom_T_camera: Array | None, stamp_ns: int) -> PoseEstimate:
        """Accept a pose that agrees with the track, or with enough earlier proposals."""
        assert estimate.map_T_camera is not None and estimate.covariance is not None
        position, rotation = worst_sigmas(estimate.covariance)
        fix = Belief(estimate.map_T_camera, odom_T_camera, stamp_ns, position, rotation)
        if self._accepted is not None and self._agree(self._accepted, fix):
            self._accepted, self._proposed = fix, None
            return estimate
        if self._proposed is not None and self._agree(self._proposed, fix):
            fix = replace(fix, seen=self._proposed.seen + 1)
        self._proposed = fix
        first = self._accepted is None
        needed = self.settings.first_confirmations if first else self.settings.confirmations
        if fix.seen >= needed:
            self._accepted, self._proposed, self._prior = fix, None, None
            return estimate
        against = "no earlier attempt" if first else self._difference(self._accepted, fix)
        detail = f"{against}; confirmed by {fix.seen} of {needed} attempts"
        return replace(estimate, status=Status.REJECTED, reason=Reason.ODOMETRY_DISAGREES, detail=detail)

    def _agree(self, earlier: Belief, fix: Belief) -> bool:
        """Whether odometry explains how the camera came from one pose to the other."""
        settings = self.settings
        predicted = earlier.now(fix.stamp_ns, fix.odom_T_camera, self.settings)
        metres, degrees = se3.pose_error(fix.map_T_camera, predicted.map_T_camera)
        position = np.hypot(predicted.position_sigma_m, fix.position_sigma_m)
        rotation = np.hypot(predicted.rotation_sigma_rad, fix.rotation_sigma_rad)
        return bool(
            metres <= settings.slack * self.map.view_depth_m + settings.limit * position
            and np.radians(degrees) <= settings.slack_rad + settings.limit * rotation
        )

    def _difference(self, earlier: Belief | None, fix: Belief) -> str:
        assert earlier is not None
        predicted = earlier.now(fix.stamp_ns, fix.odom_T_camera, self.settings)
        metres, degrees = se3.pose_error(fix.map_T_camera, predicted.map_T_camera)
        return f"{metres:.2f} m and {degrees:.0f} deg from where odometry says the camera is"
