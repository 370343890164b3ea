"""The covariance of a pose: what its matches leave open, seen from where they are, and the noise of the map's poses."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.localization.protection import FEWEST
from mast3r_ros.localization.support import Support, inliers_by_keyframe, viewpoint_gap
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

#: Assumed of maps that were never held against themselves: position as a share of the scene's depth, rotation (rad).
USUAL_POSITION, USUAL_ROTATION = 0.004, float(np.radians(0.3))
#: What is thought of a map before its keyframes are left out: the usual noise, give or take a factor of e to the power
#: of this (one standard deviation). It counts where a few keyframes were found again, and hardly where many were. Where
#: none was, the matches' variance is taken to be one such deviation larger than the usual one, and so is all the rest.
PRIOR = 2.0
#: Where a map notes which matcher its noise was measured with (its signature).
MEASURED_WITH = "noise_measured_with"
#: How much of what the residuals say about the matches' noise is believed, as a power of their variance: residuals show
#: blur, other lenses and poor depth, but not what all matches share.
RESIDUALS = 0.75
#: How many times the variance grows where things are seen at right angles to how the keyframes saw them, with the
#: square of 1 - cos of the gap: errors of their depth do no harm from where it was measured. Both were set on the
#: stress worlds of seeds 0 to 999, where the scale of each map came from its own left-out keyframes.
SIDEWAYS = 90.0
#: A keypoint of the query is found a little beside where it is, and all keyframes that show it share that error: what
#: counts is how many keypoints there are. They count as no more than this many in place of each of the weights' own
#: observations (1 / OF_KEYFRAME), because what lies together shares the error of one piece of a keyframe as well.
OF_KEYFRAME = 0.25
#: A pose at a wrong place has small residuals too. Whether there is enough evidence for a place is judged by what as
#: many matches leave open with the usual residuals: this share of that variance at least.
LEAST_SCALE = 0.2


def usual_noise(scene_depth_m: float) -> PoseNoise:
    """What is assumed of a map of such a scene that was never held against itself."""
    return PoseNoise(position_m=USUAL_POSITION * scene_depth_m, rotation_rad=USUAL_ROTATION)


def unproven_noise(scene_depth_m: float) -> PoseNoise:
    """What is assumed of a map whose keyframes are not known to be found again by the matcher that is there.

    The usual noise is that of maps in which they are.
    """
    usual, wider = usual_noise(scene_depth_m), math.exp(PRIOR / 2)
    return PoseNoise(wider * usual.position_m, wider * usual.rotation_rad, wider**2)


def noise_with(keyframe_map: KeyframeMap, matcher: Matcher) -> PoseNoise | None:
    """The noise of poses that this matcher finds in a map; None where nobody has measured it with any matcher.

    What another matcher's matches were worth says nothing of this one's; where the map mistakes its places, it does.
    """
    noise = keyframe_map.pose_noise
    if noise is None or not _another(keyframe_map, matcher):
        return noise
    return replace(unproven_noise(keyframe_map.view_depth_m), found_elsewhere=noise.found_elsewhere)


def warn_of_another(keyframe_map: KeyframeMap, matcher: Matcher) -> None:
    """Say in the log that a map was measured with another matcher than this one."""
    if keyframe_map.pose_noise is not None and (other := _another(keyframe_map, matcher)):
        logger.warning(
            "the map's noise was measured with %s, not with %s: bounds of errors are taken wider (measure it: "
            "mast3r_ros map measure MAP --matcher %s)",
            other,
            matcher.signature,
            matcher.name,
        )


def _another(keyframe_map: KeyframeMap, matcher: Matcher) -> str:
    """The matcher that the noise was measured with, where that is known to be another one."""
    measured_with = keyframe_map.provenance.get(MEASURED_WITH, matcher.signature)
    return measured_with if measured_with != matcher.signature else ""


def match_covariance(support: Support, least_variance: float = 0.0) -> Array:
    """Covariance (6, 6) of map_T_camera that the matches leave, in ROS order and fixed map axes (metres, radians).

    The inverse Hessian of the balanced problem, scaled by how large the residuals really are and by how many pixels of
    the query they are of, plus how much the keyframes pull in different directions (cluster-robust variance, Liang and
    Zeger, Biometrika 1986, with keyframes as clusters).

    Args:
        least_variance: of the residuals, as a share of what is assumed; smaller ones are not believed, and the weights'
            own count of observations is.
    """
    pose = support.pose
    # A direction the matches say nothing about must come out uncertain, not zero.
    weak = np.diag([1e-5 / support.scene_depth_m**2] * 3 + [1e-6] * 3)
    bread = np.linalg.inv(pose.information + weak)
    pulls = pose.gradient_by(support.keyframe, support.offered)
    counts = inliers_by_keyframe(support)
    pulling = np.flatnonzero(counts > 0)
    clustered = np.zeros((6, 6))
    if len(pulling) > 1:
        correction = len(pulling) / (len(pulling) - 1)
        clustered = correction * bread @ (pulls[pulling].T @ pulls[pulling]) @ bread
    variance = _variance(pose.variance_factor, int(counts.sum()))
    if not least_variance:
        variance *= max(OF_KEYFRAME, support.recounted)
    covariance = bread * max(least_variance, variance) + clustered
    symmetric: Array = (covariance + covariance.T) / 2
    return symmetric


def sideways(support: Support) -> float:
    """How many times the variance grows because things are seen from another side than the keyframes saw them from."""
    return 1 + SIDEWAYS * float(1 - np.cos(min(viewpoint_gap(support), np.pi / 2))) ** 2


def _variance(factor: float, inliers: int) -> float:
    """Variance of the matches as a share of what is assumed, by their residuals, of which six numbers were fitted."""
    return float((factor * inliers / max(inliers - 3, 1)) ** RESIDUALS)


def map_covariance(noise: PoseNoise) -> Array:
    """The part (6, 6) of a pose's covariance that the keyframes' own poses bring."""
    return np.diag([noise.position_m**2] * 3 + [noise.rotation_rad**2] * 3)


def pose_covariance(support: Support, noise: PoseNoise) -> tuple[Array, Array]:
    """Covariance (6, 6) of a pose in a map of such noise, and the part of it that the matches leave, unscaled."""
    # Where hardly any keyframe was left out and found, nobody knows what residuals are worth here.
    of_matches = match_covariance(support, least_variance=0.0 if noise.found >= FEWEST else 1.0)
    return noise.match_scale * sideways(support) * of_matches + map_covariance(noise), of_matches


def careful_covariance(support: Support, noise: PoseNoise) -> Array:
    """What the covariance (6, 6) of such a pose is at least taken to be when it is judged, see LEAST_SCALE."""
    return LEAST_SCALE * match_covariance(support, least_variance=1.0) + map_covariance(noise)


def worst_sigmas(covariance: Array) -> tuple[float, float]:
    """Standard deviations of position (m) and rotation (rad) in their worst directions."""
    position = np.linalg.eigvalsh(covariance[:3, :3])[-1]
    rotation = np.linalg.eigvalsh(covariance[3:, 3:])[-1]
    return float(np.sqrt(max(position, 0))), float(np.sqrt(max(rotation, 0)))
