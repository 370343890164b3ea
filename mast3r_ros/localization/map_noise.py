"""How well a map agrees with itself: its keyframes localized against the rest of it.

A covariance from matches alone promises millimetres. The keyframes' own poses come from odometry, SLAM or
KinectFusion and are off by centimetres, and every match of a query shares that error; and how much a match is worth
depends on the camera, the matcher and the place. Leaving keyframes out and localizing them measures both, without
any ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import PoseEstimate, Reason
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.portable import PortableLocalizer, Query
from mast3r_ros.localization.protection import CALIBRATED_AT, FEWEST
from mast3r_ros.localization.uncertainty import (
    MEASURED_WITH,
    PRIOR,
    USUAL_POSITION,
    USUAL_ROTATION,
    map_covariance,
    unproven_noise,
    usual_noise,
)
from mast3r_ros.mapping.consistency import Consistency, check_consistency
from mast3r_ros.mapping.described import describe
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.overlap import view_overlap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.settings import Gates, LocalizerSettings
from mast3r_ros.workers import Here, Workers

Array = NDArray[np.float64]

#: Keyframes on either side (in insertion order) that are left out too, as a share of the map: neighbours in
#: time drift together, so they say nothing of the error that a later visit meets.
LEFT_OUT = 0.1
#: Degrees of freedom of the distribution that the parts of the covariance are fitted with: few, so that a keyframe
#: that is found elsewhere does not decide.
TAIL = 5.0
#: Errors this many times as large as the typical one (of those within the alert limit) are those of another place.
FAR = 8.0


def measure_pose_noise(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    samples: int = 40,
    progress: Callable[[int, int], None] = lambda done, total: None,
    by: Workers = Here(),
) -> PoseNoise | None:
    """How far poses in this map are off, and what its matches are worth.

    Args:
        samples: keyframes left out and localized, evenly chosen.
        by: who localizes them; the map must be saved then.

    Returns:
        None for a map of fewer keyframes than say anything. Where hardly any is found again, the noise is no smaller
        than the usual one, and larger where none is; ``found_elsewhere`` says how many are found at wrong places.
    """
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    if len(ids) < FEWEST:
        return None
    # What was measured before is not believed while it is measured anew: covariances are those of the matches alone.
    before, texts = keyframe_map.pose_noise, dict(keyframe_map.provenance)
    keyframe_map.pose_noise = PoseNoise(0.0, 0.0, found=len(ids))
    keyframe_map.provenance[MEASURED_WITH] = matcher.signature
    try:
        return _measured(keyframe_map, matcher, samples, progress, by)
    finally:
        keyframe_map.pose_noise, keyframe_map.provenance = before, texts


def _measured(
    keyframe_map: KeyframeMap, matcher: Matcher, samples: int, progress: Callable[[int, int], None], by: Workers
) -> PoseNoise | None:
    """See :func:`measure_pose_noise`."""
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(second_look=0))
    reach = max(1, round(LEFT_OUT * len(ids)))
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(samples, len(ids))).round().astype(int))
    queries = (Query(ids[index], ids[max(0, index - reach) : index + reach + 1]) for index in chosen)
    estimates = by.run(PortableLocalizer(localizer), queries)
    outcomes = []
    for done, (index, estimate) in enumerate(zip(chosen, estimates, strict=True), start=1):
        progress(done, len(chosen))
        outcomes += _outcome(estimate, keyframe_map, ids[index])
    errors, of_matches, elsewhere = sorted_outcomes(outcomes)
    return noise_of(errors, of_matches, elsewhere, keyframe_map.view_depth_m)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A left-out keyframe that a pose was found for at which no gate saw a wrong place.

    Attributes:
        error: (6,) of the pose, metres and radians.
        of_matches: (6, 6) covariance that the matches leave.
        share: of the error in the alert limit.
        overlaps: whether the pose sees something of what the keyframe sees.
        accepted: False where it was refused for what its matches leave open.
    """

    error: Array
    of_matches: Array
    share: float
    overlaps: bool
    accepted: bool = True


def _outcome(estimate: PoseEstimate, keyframe_map: KeyframeMap, id: str) -> list[Outcome]:
    """What became of a left-out keyframe; nothing where it was not found."""
    limit, pose = estimate.alert_limit, estimate.map_T_camera
    found = estimate.localized or estimate.reason is Reason.UNCERTAIN
    if not found or pose is None or estimate.covariance is None or limit is None:
        return []
    own = keyframe_map[id].map_T_camera
    error = se3.difference(pose, own)
    off = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
    share = max(off[0] / limit.position_m, off[1] / limit.rotation_rad)
    overlaps = bool(view_overlap(pose, own[None], keyframe_map.view_depth_m)[0] > 0)
    return [Outcome(error, estimate.covariance, share, overlaps, estimate.localized)]


def sorted_outcomes(outcomes: Sequence[Outcome]) -> tuple[Array, Array, int]:
    """Errors (N, 6) and covariances (N, 6, 6) of keyframes found at their places, and how many were found elsewhere.

    Where too few were accepted at their places to tell what is typical, those that would have been, had their matches
    left less open, count as well; and what is far off and still sees the same things is how this map errs, as far as
    anybody knows.
    """
    accepted = [outcome for outcome in outcomes if outcome.accepted]
    far = found_elsewhere(np.array([outcome.share for outcome in accepted]))
    here = [outcome for outcome, off in zip(accepted, far, strict=True) if not off]
    if len(here) < FEWEST:
        here = [outcome for outcome in outcomes if outcome.share <= 1 or outcome.overlaps]
    elsewhere = sum(outcome not in here for outcome in accepted)
    errors = np.array([outcome.error for outcome in here]).reshape(-1, 6)
    return errors, np.array([outcome.of_matches for outcome in here]).reshape(-1, 6, 6), elsewhere


def found_elsewhere(shares: Array) -> NDArray[np.bool_]:
    """Which left-out keyframes (N,) were found at another place, and not just badly.

    What is beyond the alert limit, but not far beyond what is typical, is how this map errs: left out of its noise,
    a map whose errors are as large as the limit would seem good, because its worst half was not counted.

    Args:
        shares: (N,) of each error in the alert limit.
    """
    within = shares[shares <= 1]
    return shares > max(1.0, FAR * float(np.median(within)) if len(within) else 0.0)


def noise_of(errors: Array, of_matches: Array, elsewhere: int, scene_depth_m: float) -> PoseNoise:
    """The noise of a map by the keyframes that were found again.

    A few good ones may be luck and make no noise smaller than the usual, a few bad ones make it larger. None at all is
    no sign of a good map either: the usual noise is that of maps whose keyframes are found.

    Args:
        errors: (N, 6) of those found at their places, as for :func:`fit_noise`.
        of_matches: (N, 6, 6) covariances that the matches leave.
        elsewhere: how many were found, and accepted, at wrong places.
        scene_depth_m: how far away things typically are.
    """
    found = elsewhere + len(errors)
    usual = usual_noise(scene_depth_m)
    noise = fit_noise(errors, of_matches, scene_depth_m) if len(errors) else unproven_noise(scene_depth_m)
    if 0 < len(errors) < FEWEST:
        noise = replace(
            noise,
            position_m=max(noise.position_m, usual.position_m),
            rotation_rad=max(noise.rotation_rad, usual.rotation_rad),
            match_scale=max(noise.match_scale, usual.match_scale),
        )
    return replace(noise, found_elsewhere=elsewhere / found if found else 0.0)


def fit_noise(errors: Array, of_matches: Array, scene_depth_m: float) -> PoseNoise:
    """The noise under which errors are as large as covariances say.

    Most probable sizes of the two parts under a multivariate t distribution (Lange, Little and Taylor, "Robust
    Statistical Modeling Using the t Distribution", JASA 84, 1989) and a vague prior at the usual noise, then scaled
    together such that the :data:`CALIBRATED_AT` ellipsoids hold that share.

    Args:
        errors: (N, 6) differences of poses from the truth, metres and radians.
        of_matches: (N, 6, 6) covariances that the matches leave.
        scene_depth_m: how far away things typically are.
    """
    usual = np.log([1.0, USUAL_POSITION * scene_depth_m, USUAL_ROTATION])

    def cost(logarithms: Array) -> float:
        covariance = _published(_noise(logarithms), of_matches)
        _, determinant = np.linalg.slogdet(covariance)
        likely = np.sum(determinant / 2 + (TAIL + 6) / 2 * np.log1p(_normalised(errors, covariance) / TAIL))
        return float(likely + np.sum(((logarithms - usual) / PRIOR) ** 2) / 2)

    # From large noise and from small: the likelihood can have a summit where one part explains everything.
    starts = usual + np.array([[0.0, 0.0, 0.0], [0.0, -4.0, -4.0], [2.0, -2.0, -2.0]])
    found = min((minimize(cost, start, method="Nelder-Mead") for start in starts), key=lambda result: result.fun)
    noise = _noise(found.x)
    normalised = np.sort(_normalised(errors, _published(noise, of_matches)))
    # The rank that the next error stays below with this probability, not the share of those that were seen.
    rank = min(math.ceil(CALIBRATED_AT * (len(errors) + 1)), len(errors))
    factor = float(normalised[rank - 1] / chi2.ppf(CALIBRATED_AT, 6))
    root = math.sqrt(factor)
    return PoseNoise(noise.position_m * root, noise.rotation_rad * root, noise.match_scale * factor, found=len(errors))


def _noise(logarithms: Array) -> PoseNoise:
    """(match_scale, position_m, rotation_rad) from their logarithms."""
    scale, position, rotation = (float(value) for value in np.exp(logarithms))
    return PoseNoise(position, rotation, scale)


def _published(noise: PoseNoise, of_matches: Array) -> Array:
    return noise.match_scale * of_matches + map_covariance(noise)


def _normalised(errors: Array, covariance: Array) -> Array:
    """Squared Mahalanobis distances (N,)."""
    return np.asarray(np.einsum("ni,ni->n", errors, np.linalg.solve(covariance, errors[..., None])[..., 0]))


def save_ready(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    path: Path,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    by: Workers = Here(),
) -> list[str]:
    """Save a new map and get it ready for a robot: features, retrieval and pose noise.

    It is saved before the long work as well, so that nothing is lost when that is interrupted.

    Args:
        progress: called with (what is being done, done, total).
        by: who describes the keyframes, and localizes those that are left out.

    Returns:
        a sentence for each contradiction between poses, images and depth; the map keeps what was found.
    """
    keyframe_map.save(path)
    describe(keyframe_map, matcher, by, lambda done, total: progress("describing keyframes", done, total))
    keyframe_map.prepare(matcher)
    keyframe_map.pose_noise = measure_pose_noise(
        keyframe_map, matcher, progress=lambda done, total: progress("measuring pose noise", done, total), by=by
    )
    keyframe_map.provenance[MEASURED_WITH] = matcher.signature
    found = check_consistency(keyframe_map, lambda done, total: progress("comparing poses and images", done, total))
    keyframe_map.provenance["consistency"] = str(found)
    keyframe_map.save(path)
    return doubts(keyframe_map.pose_noise, found)


def doubts(noise: PoseNoise | None, consistency: Consistency) -> list[str]:
    """What a person should know of a new map before a robot relies on it, a sentence each."""
    found = consistency.doubts
    if noise is not None and noise.found < FEWEST:
        text = (
            f"only {noise.found} of the keyframes were found again from the others when they were left out: how large "
            "errors are is hardly known, bounds are wide and many images refused (uncertain). Keyframes closer to each "
            "other help, or another matcher"
        )
        found = [text, *found]
    if noise is not None and noise.found_elsewhere > Gates.max_found_elsewhere:
        why = "" if found else ": the place looks alike in several spots, or its poses or depth are wrong"
        found = [f"{noise.found_elsewhere:.0%} of the keyframes are found elsewhere than their poses say{why}", *found]
    return found
