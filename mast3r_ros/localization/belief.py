"""Where the camera is believed to be, and how that fades: with the way travelled, or with time without odometry."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.settings import BeliefSettings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Belief:
    """A pose that was found or told, and everything that has happened to the camera since.

    Attributes:
        map_T_camera: (4, 4) at that moment.
        odom_T_camera: (4, 4) odometry at that moment; None where there was none.
        stamp_ns: of that moment.
        position_sigma_m, rotation_sigma_rad: how sure it was.
        way_m, way_rad: how far the camera has gone and turned since, along its way: a loop that ends where it began has
            let the odometry drift all the same.
        latest: (4, 4) odometry when the way was measured last.
        seen: attempts that agreed with it.
        told: by a person, not found.
    """

    map_T_camera: Array
    odom_T_camera: Array | None
    stamp_ns: int
    position_sigma_m: float
    rotation_sigma_rad: float
    way_m: float = 0.0
    way_rad: float = 0.0
    latest: Array | None = None
    seen: int = 1
    told: bool = False

    @property
    def map_T_odom(self) -> Array | None:
        """(4, 4) correction of the odometry; None without odometry."""
        if self.odom_T_camera is None:
            return None
        return self.map_T_camera @ se3.inverse(self.odom_T_camera)

    def travelled(self, odom_T_camera: Array | None) -> Belief:
        """The belief after the camera went on to where odometry has it now."""
        before = self.latest if self.latest is not None else self.odom_T_camera
        if odom_T_camera is None or before is None:
            return self
        step = se3.inverse(before) @ odom_T_camera
        way_m = self.way_m + float(np.linalg.norm(step[:3, 3]))
        return replace(self, way_m=way_m, way_rad=self.way_rad + se3.angle(step), latest=odom_T_camera)

    def expired(self, stamp_ns: int, settings: BeliefSettings) -> bool:
        """Whether too much time has gone by, or time has jumped back (a recording played again).

        What a person tells may be a little newer than the frame that is looked at.
        """
        age = (stamp_ns - self.stamp_ns) * 1e-9
        return not (-settings.forget_s if self.told else 0.0) <= age <= settings.forget_s

    def now(self, stamp_ns: int, odom_T_camera: Array | None, settings: BeliefSettings) -> PosePrior:
        """Where the camera should be now, and how sure that is."""
        if odom_T_camera is not None and self.map_T_odom is not None:
            here = self.travelled(odom_T_camera)
            predicted = self.map_T_odom @ odom_T_camera
            lever = float(np.linalg.norm(predicted[:3, 3] - self.map_T_camera[:3, 3]))
            turned = settings.drift_per_radian * here.way_rad + settings.turn_per_metre * here.way_m
            # A heading that is off carries the camera aside, the further it goes.
            aside = lever * self.rotation_sigma_rad
            position = np.linalg.norm([self.position_sigma_m, settings.drift_per_metre * here.way_m, aside])
            return PosePrior(predicted, float(position), float(np.hypot(self.rotation_sigma_rad, turned)))
        seconds = abs(stamp_ns - self.stamp_ns) * 1e-9
        return PosePrior(
            self.map_T_camera,
            float(np.hypot(self.position_sigma_m, settings.speed / 3 * seconds)),
            float(np.hypot(self.rotation_sigma_rad, settings.turn_rate / 3 * seconds)),
        )
