"""Whether a camera has the calibration that is given for it: another camera's, of a stretched image, moved or bent.

Such a calibration leaves a pose that explains a part of the matches and is decimetres off. The matches of an accepted
pose are explained once more with the lens free. Where that explains them far better, and the pose would be elsewhere
by more than can be borne, the calibration is contradicted. It stays so until a picture that determines the lens well
agrees with it; what says little of the lens, a wall seen face-on, says neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.lens import AS_CALIBRATED, LensProblem, PoseAndLens
from mast3r_ros.localization.protection import AlertLimit
from mast3r_ros.localization.stretch import stretched
from mast3r_ros.localization.uncertainty import worst_sigmas

Array = NDArray[np.float64]

#: What freeing the lens promises to lower the cost by, in cells full of matches: below QUIET the calibration is right
#: as far as the picture can tell.
QUIET = 1.0
#: A lens contradicts its calibration where the pose would be elsewhere by more than BEYOND times what can be borne, the
#: lens is SURE standard deviations off, and the cost truly less by GAINED. Where no better lens is found on the way,
#: what was promised must be CLEAR. None of 403 poses with right calibrations passes (docs/evaluation.md).
BEYOND, SURE, GAINED, CLEAR = 1.2, 8.0, 8.0, 5.0
#: Standard deviations that bound the error of a pose with a free lens.
BOUND = 3.0
#: Images are taken for stretched where height against width is off by this.
STRETCHED = 0.15


class CalibrationCheck:
    """Remembers which calibrations are contradicted."""

    def __init__(self) -> None:
        self._doubts: list[tuple[Camera, str]] = []

    def doubt(self, camera: Camera) -> str:
        """What contradicts a calibration; empty where nothing does."""
        return next((doubt for known, doubt in self._doubts if known.same_as(camera)), "")

    def judge(self, camera: Camera, problem: LensProblem, map_T_camera: Array, limit: AlertLimit) -> str:
        """What contradicts a calibration after one more frame; empty where nothing does.

        Args:
            problem: the frame's matches.
            map_T_camera: (4, 4) pose with the calibration as it is.
            limit: the error that can be borne.
        """
        given = problem.at(map_T_camera, AS_CALIBRATED)
        if _reach(given, float(np.linalg.norm(given.step[:3]))) <= limit.position_m:
            if given.promised < QUIET:
                self._remember(camera, "")
        elif given.promised > QUIET and (free := problem.refine(map_T_camera)) is not None:
            metres, degrees = se3.pose_error(free.map_T_camera, map_T_camera)
            beyond = BEYOND * limit.position_m
            far_better = metres > beyond and free.contradiction > SURE and given.cost - free.cost > GAINED
            if far_better or (given.promised > CLEAR and _reach(free, metres) > beyond):
                self._remember(camera, _sentence(camera, free, metres, degrees))
        return self.doubt(camera)

    def _remember(self, camera: Camera, doubt: str) -> None:
        others = [known for known in self._doubts if not known[0].same_as(camera)]
        self._doubts = [*others, (camera, doubt)] if doubt else others


def _reach(found: PoseAndLens, metres: float) -> float:
    """How far the pose may be from where it was, with a lens that moves it so far."""
    return metres + BOUND * worst_sigmas(found.covariance[:6, :6])[0]


def _sentence(camera: Camera, free: PoseAndLens, metres: float, degrees: float) -> str:
    fx, fy = (camera.fx, camera.fy) * free.lens.scale
    cx, cy = (camera.cx, camera.cy) + np.array([camera.fx, camera.fy]) * free.lens.values[2:4]
    ratio = (fy / fx) / (camera.fy / camera.fx)
    why = stretched(ratio) if abs(np.log(ratio)) > STRETCHED else "give the calibration of this camera"
    return (
        f"focal lengths look like {fx:.0f} and {fy:.0f} px, centre ({cx:.0f}, {cy:.0f}), and the calibration says "
        f"{camera.fx:.0f} and {camera.fy:.0f} px, ({camera.cx:.0f}, {camera.cy:.0f}): the pose would be {metres:.2g} m "
        f"and {degrees:.2g} deg elsewhere; {why}"
    )
