"""Where would relocalization fail? Frames of known pose are tried against the map while it is being made.

A frame that was just mapped would always be found by its own keyframe. So the keyframes taken around the
same time are left out: what is asked is whether the rest of the map knows the place. This cannot foresee other
light or moved furniture; it shows where a map is thin, turns too fast, or looks at bare walls.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer


@dataclass(frozen=True)
class CoverageSettings:
    """How coverage is judged.

    Attributes:
        leave_out_s: keyframes taken within this time of a frame do not count, seconds.
        same_place, same_place_deg: a new trial replaces earlier ones this near (scene depths, degrees).
        max_trials: the oldest are forgotten beyond this number.
    """

    leave_out_s: float = 1.0
    same_place: float = 0.12
    same_place_deg: float = 20.0
    max_trials: int = 2000


class CoverageVerdict(str, Enum):
    """What a trial shows."""

    COVERED = "covered"
    UNCOVERED = "uncovered"
    #: The map answers with a pose further from the given one than the alert limit: the poses drift, or the place exists
    #: twice.
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, eq=False)
class Trial:
    """One frame tried against the map.

    Attributes:
        map_T_camera: (4, 4) its given pose.
        verdict: what came out.
        reason: named reason of a rejection; empty otherwise.
        distance_m, angle_deg: between given and found pose, NaN where none was accepted.
    """

    map_T_camera: NDArray[np.float64]
    verdict: CoverageVerdict
    reason: str = ""
    distance_m: float = float("nan")
    angle_deg: float = float("nan")


class Coverage:
    """The latest trial of every place. One caller at a time."""

    def __init__(self, localizer: Localizer, settings: CoverageSettings = CoverageSettings()) -> None:
        self.localizer = localizer
        self.settings = settings
        self._trials: tuple[Trial, ...] = ()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The latest trial of every place, oldest first."""
        return self._trials

    def try_frame(self, posed: PosedFrame) -> Trial:
        """Localize a frame with the keyframes taken around its time left out, and remember the outcome."""
        around = self.settings.leave_out_s * 1e9
        stamp_ns = posed.frame.stamp_ns
        left_out = [k.id for k in self.localizer.map.keyframes if abs(k.stamp_ns - stamp_ns) <= around]
        trial = self._judged(posed, self.localizer.localize(posed.frame, exclude=left_out))
        elsewhere = [earlier for earlier in self._trials if not self._same_place(earlier, trial)]
        self._trials = (*elsewhere, trial)[-self.settings.max_trials :]
        return trial

    def counts(self) -> dict[CoverageVerdict, int]:
        """Number of places by verdict."""
        counted = Counter(trial.verdict for trial in self._trials)
        return {verdict: counted[verdict] for verdict in CoverageVerdict}

    def summary(self) -> str:
        """The state of the map in one sentence."""
        if not self._trials:
            return "no place was tried yet"
        counts = self.counts()
        text = f"{counts[CoverageVerdict.COVERED]} of {len(self._trials)} places would be found again"
        reasons = Counter(trial.reason for trial in self._trials if trial.verdict is CoverageVerdict.UNCOVERED)
        if reasons:
            text += f"; not found: {', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))}"
        if elsewhere := counts[CoverageVerdict.CONTRADICTED]:
            text += f"; {elsewhere} found elsewhere: the given poses drift, or the place exists twice"
        return text

    def _judged(self, posed: PosedFrame, estimate: PoseEstimate) -> Trial:
        given = posed.map_T_camera
        if not estimate.localized or estimate.map_T_camera is None:
            return Trial(given, CoverageVerdict.UNCOVERED, estimate.reason.value)
        distance, angle = se3.pose_error(estimate.map_T_camera, given)
        limit = estimate.alert_limit
        close = limit is None or (distance <= limit.position_m and np.radians(angle) <= limit.rotation_rad)
        verdict = CoverageVerdict.COVERED if close else CoverageVerdict.CONTRADICTED
        return Trial(given, verdict, distance_m=distance, angle_deg=angle)

    def _same_place(self, earlier: Trial, trial: Trial) -> bool:
        between = se3.inverse(earlier.map_T_camera) @ trial.map_T_camera
        reach = self.settings.same_place * self.localizer.map.view_depth_m
        near = float(np.linalg.norm(between[:3, 3])) < reach
        return near and se3.angle(between) < np.radians(self.settings.same_place_deg)
