"""Pictures that are stamped late: while the robot turns, the pose at the stamp is that of some time ago.

Nothing is wrong with such a pose but its time, so what an answer says of itself cannot show it. Odometry does: answers
are off it while the robot moves fast, by as much as it moved in that time, and agree with where it was then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.localization.belief import Belief
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.protection import AlertLimit
from mast3r_ros.settings import TrackerSettings

Array = NDArray[np.float64]

#: How late stamps may be, and in what steps that is looked for, seconds.
LATEST_S, STEPS_S = 1.0, [0.02 * step for step in range(51)]
#: Being late explains a disagreement where it leaves no more than this share of it.
LEFT = 1 / 3
#: What odometry may be off by, in standard deviations, is its own drift.
SURE = 3.0
#: Answers that a new one is held against; how long odometry is remembered for.
ANSWERS, REMEMBERED_S = 10, 3.0


class LateStamps:
    """Remembers odometry and answers, and how late the stamps are as far as these tell."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.late_s = 0.0
        self._odometry: deque[tuple[int, Array]] = deque()
        self._answers: deque[Belief] = deque(maxlen=ANSWERS)

    def travelled(self, stamp_ns: int, odom_T_camera: Array | None) -> None:
        """Take the odometry of a frame; without it, or where time goes back, nothing is known any more."""
        if odom_T_camera is None or (self._odometry and stamp_ns < self._odometry[-1][0]):
            self._forget()
        if odom_T_camera is None:
            return
        self._odometry.append((stamp_ns, odom_T_camera))
        while self._odometry[0][0] < stamp_ns - (REMEMBERED_S + LATEST_S) * 1e9:
            self._odometry.popleft()
        known = (belief for belief in self._answers if stamp_ns - belief.stamp_ns <= REMEMBERED_S * 1e9)
        self._answers = deque((belief.travelled(odom_T_camera) for belief in known), maxlen=ANSWERS)

    def then(self, odom_T_camera: Array) -> Array:
        """Odometry (4, 4) of when the newest picture was taken, as far as that is known."""
        then = self._before(self.late_s) if self.late_s else None
        return odom_T_camera if then is None else then

    def reconsider(self, fix: Belief, limit: AlertLimit, settings: TrackerSettings) -> None:
        """How late the stamps are, after one more answer.

        Args:
            fix: the answer, with the odometry of its stamp.
            limit: what is within it is not looked into.
        """
        assert fix.odom_T_camera is not None
        for answer in reversed(self._answers):
            off = self._off(answer, fix, self.late_s, limit)
            sigma = answer.now(fix.stamp_ns, fix.odom_T_camera, settings)
            noise = SURE * max(sigma.position_sigma_m / limit.position_m, sigma.rotation_sigma_rad / limit.rotation_rad)
            if off <= max(1.0, noise):
                continue
            tried = {s: self._off(answer, fix, s, limit) for s in STEPS_S}
            best = min(tried, key=lambda seconds: tried[seconds])
            self.late_s = best if tried[best] <= LEFT * off else 0.0
            break
        self._answers.append(replace(fix, odom_T_camera=self.then(fix.odom_T_camera)))

    def beyond(self, estimate: PoseEstimate) -> str:
        """Why a pose is not that of its stamp, to within what can be borne; empty where it is."""
        then, limit = self._before(self.late_s), estimate.alert_limit
        if not self.late_s or then is None or limit is None:
            return ""
        metres, degrees = se3.pose_error(then, self._odometry[-1][1])
        level = estimate.protection
        if metres + level.position_m <= limit.position_m and (
            np.radians(degrees) + level.rotation_rad <= limit.rotation_rad
        ):
            return ""
        return (
            f"pictures look stamped {self.late_s:.2f} s late: the camera has moved {metres:.2f} m and turned "
            f"{degrees:.0f} deg since; stamp them when they are taken, or drive slowly"
        )

    def _off(self, answer: Belief, fix: Belief, late_s: float, limit: AlertLimit) -> float:
        """How far an answer is from another one and the odometry between them, as a share of what can be borne."""
        odom_T_camera, map_T_odom = self._before(late_s), answer.map_T_odom
        if odom_T_camera is None or map_T_odom is None:
            return np.inf
        metres, degrees = se3.pose_error(fix.map_T_camera, map_T_odom @ odom_T_camera)
        return max(metres / limit.position_m, float(np.radians(degrees)) / limit.rotation_rad)

    def _before(self, seconds: float) -> Array | None:
        """Odometry (4, 4) so long before the newest; None where that is not remembered."""
        if not self._odometry:
            return None
        wanted = self._odometry[-1][0] - round(seconds * 1e9)
        if wanted == self._odometry[-1][0]:
            return self._odometry[-1][1]
        for (t0, T0), (t1, T1) in pairwise(self._odometry):
            if t0 <= wanted < t1:
                return se3.interpolate(T0, T1, (wanted - t0) / (t1 - t0))
        return None
