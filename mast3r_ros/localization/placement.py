"""Where one map lies in another: its keyframes are localized there, and one similarity must explain them.

A single keyframe can be found at a wrong place, with confidence; many that agree on one motion of the whole map
cannot. Where no motion has the majority, or two have their followers, nothing is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import PoseFit, Similarity, fit_poses
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.portable import PortableLocalizer, Query
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.rescale import is_metric
from mast3r_ros.matching.base import Matcher
from mast3r_ros.settings import Gates, LocalizerSettings
from mast3r_ros.workers import Here, Workers

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

#: Keyframes that are looked for, evenly chosen.
SAMPLES = 80
#: A keyframe agrees with the motion of its map when its own pose is off by no more (scene depths, degrees).
REACH, TURN_DEG = 0.1, 5.0
#: Fewer keyframes that agree prove nothing; they must be this share of those that were found, and a placement that has
#: nothing in common with the first must have less than this share of its followers.
FEWEST, MAJORITY, RIVAL = 3, 0.5, 0.5
#: Maps in metres may differ in length by this before they are said to disagree; an unknown scale must be told to this.
SCALE_OFF, SCALE_TOLD = 0.05, 0.05
#: Inliers of one keyframe whose depth is compared, at least.
FEWEST_DEPTHS = 20
#: An interval holds 95 %, and no scale is known better than this.
SIGMAS, BEST_SCALE = 2.0, 0.005

#: Places that look alike are told apart by the majority here.
TRYING = LocalizerSettings(gates=Gates(max_found_elsewhere=1.0))


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a map b lies in a map a.

    Attributes:
        a_T_b: from b's frame and unit to those of a.
        tried: ids of b's keyframes that were looked for.
        found: the pose (4, 4) in a of those that were found, by id.
        missing: why others were not, by id.
        fit: what explains them; its rows are in the order of ``found``.
        scale_interval: units of a for each unit of b, at least and at most (95 %).
    """

    a_T_b: Similarity
    tried: list[str]
    found: dict[str, Array]
    missing: dict[str, str]
    fit: PoseFit
    scale_interval: tuple[float, float]

    @property
    def agreeing(self) -> list[str]:
        """Ids of the keyframes that were found where the others say."""
        return [id for id, agrees in zip(self.found, self.fit.agrees, strict=True) if agrees]

    def facts(self) -> dict[str, object]:
        """What is to be told of it, representable in JSON; lengths in units of a."""
        off, turned = self.fit.position[self.fit.agrees], np.degrees(self.fit.rotation_rad[self.fit.agrees])
        residuals = {
            id: {"position": float(p), "rotation_deg": float(np.degrees(r)), "agrees": bool(agrees)}
            for id, p, r, agrees in zip(
                self.found, self.fit.position, self.fit.rotation_rad, self.fit.agrees, strict=True
            )
        }
        return {
            "tried": len(self.tried),
            "found": len(self.found),
            "agreeing": len(self.agreeing),
            "scale": self.a_T_b.scale,
            "scale_interval": list(self.scale_interval),
            "rotation_xyzw": se3.quaternion(se3.make(self.a_T_b.R, np.zeros(3))).tolist(),
            "translation": self.a_T_b.t.tolist(),
            "position_residual": {"median": float(np.median(off)), "p90": float(np.percentile(off, 90))},
            "rotation_residual_deg": {"median": float(np.median(turned)), "p90": float(np.percentile(turned, 90))},
            "residuals": residuals,
            "missing": self.missing,
        }


def place(
    a: KeyframeMap,
    b: KeyframeMap,
    matcher: Matcher,
    progress: Progress = lambda done, total: None,
    by: Workers = Here(),
) -> Placement:
    """Find map ``b`` in map ``a``; workers, if others than this process, look for its keyframes in the saved map ``a``.

    Raises:
        MapError: where that cannot be told, or the two maps' metres disagree; it says why.
    """
    for side, name in ((a, "first"), (b, "second")):
        if len(side) == 0:
            raise MapError(f"the {name} map has no keyframes: there is nothing to align")
    ids = [keyframe.id for keyframe in b.keyframes]
    tried = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(SAMPLES, len(ids))).round().astype(int))]
    a.prepare(matcher)
    # Its own depth would have it refused where the two maps' units differ: that is compared below.
    queries = (Query(replace(b.frame(id), depth=None)) for id in tried)
    estimates = by.run(PortableLocalizer(Localizer(a, matcher, TRYING)), queries)
    found, ratios, missing = dict[str, Array](), list[float](), dict[str, str]()
    for done, (id, estimate) in enumerate(zip(tried, estimates, strict=True), start=1):
        progress(done, len(tried))
        if estimate.localized and estimate.map_T_camera is not None:
            found[id] = estimate.map_T_camera
            ratios.append(_depth_ratio(a, b.frame(id), estimate))
        else:
            missing[id] = estimate.reason.value
    _refuse_few(found, missing, len(tried))
    a_poses, b_poses = np.array(list(found.values())), np.array([b[id].map_T_camera for id in found])
    limits = REACH * a.view_depth_m, float(np.radians(TURN_DEG))
    fit = fit_poses(a_poses, b_poses, *limits, np.array(ratios), rigid=False)
    _refuse_doubtful(fit, len(found))
    sigma = SIGMAS * float(np.hypot(fit.scale_sigma, BEST_SCALE))
    interval = fit.a_T_b.scale * float(np.exp(-sigma)), fit.a_T_b.scale * float(np.exp(sigma))
    if is_metric(a) and is_metric(b):
        _refuse_other_metres(fit.a_T_b.scale, interval)
        fit = fit_poses(a_poses, b_poses, *limits, np.array(ratios), rigid=True)
        _refuse_doubtful(fit, len(found))
    elif sigma > SCALE_TOLD:
        raise MapError(
            f"the scale between the maps cannot be told: {fit.a_T_b.scale:.3g}, give or take {sigma:.0%}. Keyframes "
            "that are found must stand apart, or know depth; or give the map a scale first (`mast3r_ros map scale`)"
        )
    return Placement(fit.a_T_b, tried, found, missing, fit, interval)


def _depth_ratio(a: KeyframeMap, frame: Frame, estimate: PoseEstimate) -> float:
    """Depth in the map over the frame's own, of what both know; NaN where that is little."""
    if frame.depth is None or estimate.map_T_camera is None:
        return float("nan")
    camera_T_a = se3.inverse(estimate.map_T_camera)
    ratios = [np.zeros(0)]
    for matched in estimate.matched:
        points = se3.apply(a[matched.keyframe_id].map_T_camera, matched.matches.points[matched.inlier])
        x, y = np.rint(matched.matches.query_xy[matched.inlier]).astype(int).T
        own = frame.depth[y.clip(0, frame.height - 1), x.clip(0, frame.width - 1)].astype(np.float64)
        there = se3.apply(camera_T_a, points)[:, 2]
        known = np.isfinite(own) & (own > 0) & (there > 0)
        ratios.append(there[known] / own[known])
    every = np.concatenate(ratios)
    return float(np.median(every)) if len(every) >= FEWEST_DEPTHS else float("nan")


def _refuse_few(found: dict[str, Array], missing: dict[str, str], tried: int) -> None:
    if len(found) >= FEWEST:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(missing.values()).most_common(3))
    raise MapError(
        f"the maps cannot be aligned: {len(found)} of {tried} keyframes of the second are found in the first, "
        f"{FEWEST} must be ({reasons}). They must show the same place, from where both have been; a matcher for other "
        "light (--matcher aliked) may find more"
    )


def _refuse_doubtful(fit: PoseFit, found: int) -> None:
    agreeing = int(fit.agrees.sum())
    if agreeing >= FEWEST and agreeing > MAJORITY * found and fit.rival < max(RIVAL * agreeing, FEWEST):
        return
    raise MapError(
        f"the maps cannot be aligned: of {found} keyframes that are found, {agreeing} agree where the second map lies "
        f"and {fit.rival} agree on another place. The place looks alike in several spots, or one map is bent: "
        "run `mast3r_ros map check` on both"
    )


def _refuse_other_metres(scale: float, interval: tuple[float, float]) -> None:
    unsure = float(np.log(interval[1] / interval[0])) / 2
    if abs(float(np.log(scale))) > max(SCALE_OFF, unsure):
        raise MapError(
            f"the maps' scales disagree: a metre of the second is {scale:.3f} m in the first ({interval[0]:.3f} to "
            f"{interval[1]:.3f}). Correct the one that is wrong, for example by `mast3r_ros map scale SECOND --factor "
            f"{scale:.4g} -o CORRECTED`"
        )
