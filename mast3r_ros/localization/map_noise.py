"""How well a map agrees with itself: its keyframes localized against the rest of it.

A covariance from matches alone promises millimetres. The keyframes' own poses come from odometry, SLAM or
KinectFusion and are off by centimetres, and every match of a query shares that error. Leaving keyframes out
and localizing them measures it, without any ground truth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mast3r_ros.geometry import se3
from mast3r_ros.localization.localizer import Localizer, LocalizerSettings
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher

#: Keyframes on either side (in insertion order) that are left out too, as a share of the map: neighbours in
#: time drift together, so they say nothing of the error that a later visit meets.
LEFT_OUT = 0.1
#: A map with fewer keyframes, or fewer of them found again, says nothing about its noise.
FEWEST = 10
#: Median length of a 3-vector whose entries have unit variance.
CHI3_MEDIAN = 1.538


def measure_pose_noise(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    samples: int = 40,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PoseNoise | None:
    """Standard deviation per axis of the keyframes' poses against each other.

    Args:
        samples: keyframes left out and localized, evenly chosen.

    Returns:
        None where too few keyframes can be found again from the others.
    """
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    if len(ids) < FEWEST:
        return None
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(second_look=0))
    reach = max(1, round(LEFT_OUT * len(ids)))
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(samples, len(ids))).round().astype(int))
    errors = []
    for done, index in enumerate(chosen, start=1):
        left_out = ids[max(0, index - reach) : index + reach + 1]
        estimate = localizer.localize(keyframe_map.frame(ids[index]), exclude=left_out)
        if estimate.localized and estimate.map_T_camera is not None:
            errors.append(se3.pose_error(estimate.map_T_camera, keyframe_map[ids[index]].map_T_camera))
        progress(done, len(chosen))
    if len(errors) < FEWEST:
        return None
    metres, degrees = np.median(errors, axis=0) / CHI3_MEDIAN
    return PoseNoise(float(metres), float(np.radians(degrees)))


def save_ready(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    path: Path,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> None:
    """Save a new map and get it ready for a robot: features, retrieval and pose noise.

    It is saved before the long work as well, so that nothing is lost when that is interrupted.

    Args:
        progress: called with (what is being done, done, total).
    """
    keyframe_map.save(path)
    keyframe_map.prepare(matcher, lambda done, total: progress("describing keyframes", done, total))
    keyframe_map.pose_noise = measure_pose_noise(
        keyframe_map, matcher, progress=lambda done, total: progress("measuring pose noise", done, total)
    )
    keyframe_map.save(path)
