"""How large a pose's error may be, and how large an error the application can bear.

In safety-critical navigation an answer is used only while a bound of its error, the *protection level*, is inside the
*alert limit*; what remains is the *integrity risk*: the probability that the error exceeds the bound all the same
(RTCA DO-229, appendix J; Zhu, Marais, Betaille and Berbineau, "GNSS Position Integrity in Urban Environments", IEEE
T-ITS 19(9), 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtri

from mast3r_ros.settings import OLD_SIGMAS, LocalizerSettings

#: The alert limit of the position where nobody states one: 25 cm where keyframes typically see things 1 to 5 m away, as
#: in rooms; a quarter of the distance where they see nearer things, a twentieth where they see further.
ROOM_LIMIT_M, ROOM_DEPTHS_M = 0.25, (1.0, 5.0)
#: Degrees of freedom of the errors' distribution (multivariate t): its tails are heavier than a normal one's. Where few
#: left-out keyframes were found they are heavier still: each, whose six errors hang together, counts as three of them.
TAIL, EACH = 30.0, 3.0
#: Fewer left-out keyframes can show that a map's noise is larger than the usual, but not that it is smaller.
FEWEST = 4
#: Ellipsoids of this share hold it, see :mod:`map_noise`.
CALIBRATED_AT = 0.9


@dataclass(frozen=True)
class AlertLimit:
    """The largest error that the application can bear.

    Attributes:
        position_m: of the camera's position, metres.
        rotation_rad: of its rotation, radians.
        integrity_risk: probability with which an answer's error may exceed its protection level.
    """

    position_m: float
    rotation_rad: float = float(np.radians(10.0))
    integrity_risk: float = 1e-3


@dataclass(frozen=True)
class ProtectionLevel:
    """Bounds that the error of a pose exceeds with no more than the integrity risk.

    Attributes:
        position_m: of the distance from the true position, metres.
        rotation_rad: of the angle to the true rotation, radians.
    """

    position_m: float = float("nan")
    rotation_rad: float = float("nan")

    def inside(self, limit: AlertLimit) -> bool:
        """Whether both bounds are; unknown ones are not."""
        return self.position_m <= limit.position_m and self.rotation_rad <= limit.rotation_rad

    def and_at_least(self, other: ProtectionLevel) -> ProtectionLevel:
        """The larger of both bounds each."""
        return ProtectionLevel(max(self.position_m, other.position_m), max(self.rotation_rad, other.rotation_rad))


def alert_limit(
    scene_depth_m: float, position_m: float = 0.0, rotation_deg: float = 10.0, integrity_risk: float = 1e-3
) -> AlertLimit:
    """The alert limit as it was asked for.

    Args:
        scene_depth_m: typical distance of what the map's keyframes see.
        position_m: metres; 0 takes what suits such a scene.
    """
    if not position_m and not 0 < scene_depth_m < math.inf:
        position_m = math.nan  # nothing is inside
    elif not position_m:
        near, far = ROOM_DEPTHS_M
        position_m = ROOM_LIMIT_M * (min(scene_depth_m, near) / near) * (max(scene_depth_m, far) / far)
    return AlertLimit(position_m, float(np.radians(rotation_deg)), integrity_risk)


def limit_of(settings: LocalizerSettings, scene_depth_m: float) -> AlertLimit:
    """The alert limit of the settings in a map that typically sees that far; gates of earlier versions count too."""
    gates = settings.gates
    position_m = settings.alert_limit_m or OLD_SIGMAS * gates.max_position_sigma_m
    rotation_deg = min(180.0, OLD_SIGMAS * gates.max_rotation_sigma_deg) or settings.alert_limit_deg
    return alert_limit(scene_depth_m, position_m, rotation_deg, settings.integrity_risk)


def tail_of(found: int) -> float:
    """Degrees of freedom of the errors' distribution in a map whose noise rests on so many left-out keyframes.

    A map that was never held against itself has the usual noise, which is generous, and the usual tail.
    """
    return min(TAIL, EACH * found) if found else TAIL


def protection_level(covariance: NDArray[np.float64], integrity_risk: float, freedom: float = TAIL) -> ProtectionLevel:
    """Bounds of position and rotation from the covariance (6, 6) of a pose in ROS order.

    The error is taken to follow a multivariate t distribution whose ellipsoid of CALIBRATED_AT is the covariance's. The
    squared length of such a part is a weighted sum of squares; it is bounded through the F distribution with as many
    degrees of freedom as the sum is worth (Satterthwaite, Biometrics Bulletin 2, 1946).
    """
    position, rotation = covariance[:3, :3], covariance[3:, 3:]
    return ProtectionLevel(_bound(position, integrity_risk, freedom), _bound(rotation, integrity_risk, freedom))


def _bound(covariance: NDArray[np.float64], risk: float, tail: float) -> float:
    """Length that an error of this covariance (3, 3) exceeds with that probability."""
    variances = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    total = float(variances.sum())
    if not np.isfinite(total) or total == 0:
        return 0.0 if total == 0 else math.inf
    freedom = total**2 / float((variances**2).sum())
    return float(np.sqrt(_calibrated(tail) * total * fdtri(freedom, tail, 1 - risk)))


@lru_cache(maxsize=64)
def _calibrated(tail: float) -> float:
    """What the square of a covariance calibrated at CALIBRATED_AT as a normal one is to the t distribution's."""
    return float(chdtri(6, 1 - CALIBRATED_AT) / (6 * fdtri(6, tail, CALIBRATED_AT)))
