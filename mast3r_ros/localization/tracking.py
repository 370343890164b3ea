"""Localization over time: odometry between attempts contradicts a wrong pose, and guides retrieval.

Odometry drifts slowly and never jumps; a wrong pose jumps. So a pose that odometry cannot explain is held
back until further attempts confirm it, and a robot that really was carried away is found again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import PoseEstimate, Reason, Status
from mast3r_ros.localization.localizer import Localizer, PosePrior
from mast3r_ros.localization.verification import worst_sigmas
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.settings import TrackerSettings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Fix:
    """An accepted (or proposed) pose together with where odometry was at that moment."""

    map_T_camera: Array
    odom_T_camera: Array | None
    stamp_ns: int
    position_sigma_m: float
    rotation_sigma_rad: float
    seen: int = 1

    @property
    def map_T_odom(self) -> Array | None:
        if self.odom_T_camera is None:
            return None
        return self.map_T_camera @ se3.inverse(self.odom_T_camera)


class Tracker:
    """A Localizer with a memory. One caller at a time."""

    def __init__(self, localizer: Localizer, settings: TrackerSettings = TrackerSettings()) -> None:
        self.localizer = localizer
        self.settings = settings
        self._accepted: _Fix | None = None
        self._proposed: _Fix | None = None
        self._prior: _Fix | None = None

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
        self._prior = _Fix(
            prior.map_T_camera, odom_T_camera, stamp_ns, prior.position_sigma_m, prior.rotation_sigma_rad
        )

    def localize(self, frame: Frame, odom_T_camera: Array | None = None) -> PoseEstimate:
        """Localize one frame and hold it against odometry.

        Args:
            odom_T_camera: (4, 4) pose of the camera in the odometry frame at the frame's stamp, or None.
        """
        # Time that runs backwards (a bag played again) or a long blackout ends what odometry can vouch for.
        if self._accepted is not None:
            age = (frame.stamp_ns - self._accepted.stamp_ns) * 1e-9
            if not 0 <= age <= self.settings.forget_s:
                self._accepted = self._proposed = None
        believed = self._accepted or self._prior
        prior = self._predict(believed, frame.stamp_ns, odom_T_camera) if believed is not None else None
        estimate = self.localizer.localize(frame, prior)
        if not estimate.localized:
            return estimate
        return self._judge(estimate, odom_T_camera, frame.stamp_ns)

    def _judge(self, estimate: PoseEstimate, odom_T_camera: Array | None, stamp_ns: int) -> PoseEstimate:
        """Accept a pose that agrees with the track, or with enough earlier proposals."""
        assert estimate.map_T_camera is not None and estimate.covariance is not None
        position, rotation = worst_sigmas(estimate.covariance)
        fix = _Fix(estimate.map_T_camera, odom_T_camera, stamp_ns, position, rotation)
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

    def _predict(self, fix: _Fix, stamp_ns: int, odom_T_camera: Array | None) -> PosePrior:
        """Where the camera should be now, and how sure that is."""
        settings = self.settings
        if odom_T_camera is not None and fix.map_T_odom is not None:
            assert fix.odom_T_camera is not None
            moved = se3.inverse(fix.odom_T_camera) @ odom_T_camera
            metres, radians = float(np.linalg.norm(moved[:3, 3])), se3.angle(moved)
            return PosePrior(
                fix.map_T_odom @ odom_T_camera,
                float(np.hypot(fix.position_sigma_m, settings.drift_per_metre * metres)),
                float(np.hypot(fix.rotation_sigma_rad, settings.drift_per_radian * (radians + metres))),
            )
        seconds = abs(stamp_ns - fix.stamp_ns) * 1e-9
        return PosePrior(
            fix.map_T_camera,
            float(np.hypot(fix.position_sigma_m, settings.speed * seconds)),
            float(np.hypot(fix.rotation_sigma_rad, settings.turn_rate * seconds)),
        )

    def _agree(self, earlier: _Fix, fix: _Fix) -> bool:
        """Whether odometry explains how the camera came from one pose to the other."""
        settings = self.settings
        predicted = self._predict(earlier, fix.stamp_ns, fix.odom_T_camera)
        metres, degrees = se3.pose_error(fix.map_T_camera, predicted.map_T_camera)
        position = np.hypot(predicted.position_sigma_m, fix.position_sigma_m)
        rotation = np.hypot(predicted.rotation_sigma_rad, fix.rotation_sigma_rad)
        return bool(
            metres <= settings.slack_m + settings.limit * position
            and np.radians(degrees) <= settings.slack_rad + settings.limit * rotation
        )

    def _difference(self, earlier: _Fix | None, fix: _Fix) -> str:
        assert earlier is not None
        predicted = self._predict(earlier, fix.stamp_ns, fix.odom_T_camera)
        metres, degrees = se3.pose_error(fix.map_T_camera, predicted.map_T_camera)
        return f"{metres:.2f} m and {degrees:.0f} deg from where odometry says the camera is"
