"""Evidence for and against a pose, beyond the inlier count, and the verdict.

Pose solvers and networks fail quietly: a wrong pose can have a hundred inliers, all on one poster that
hangs in two places. So a pose has to pass gates that such a failure does not pass: inliers spread over the
image, a geometry that fixes all six degrees of freedom, keyframes that agree with each other, sensor depth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth
from mast3r_ros.geometry import se3
from mast3r_ros.localization.cells import grouped, spread
from mast3r_ros.localization.estimate import Evidence, Reason
from mast3r_ros.localization.protection import (
    FEWEST,
    AlertLimit,
    ProtectionLevel,
    alert_limit,
    protection_level,
    tail_of,
)
from mast3r_ros.localization.support import (
    SUPPORT,
    Support,
    inliers_by_keyframe,
    seen_from_behind,
    viewpoint_gap,
)
from mast3r_ros.localization.uncertainty import careful_covariance, pose_covariance, usual_noise, worst_sigmas
from mast3r_ros.localization.visibility import explained
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.settings import Gates

Array = NDArray[np.float64]

#: Inliers that show this share of what the map expects may lie close together: there is no more of it to be seen. And a
#: single keyframe is enough for a pose only where this share of what it expects is seen.
FOUND_ALL, FOUND_MOST = 0.8, 0.6
SO_FEW = "so few matches leave much open, whatever their residuals are: "


@dataclass(frozen=True, eq=False)
class Verdict:
    """Accepted (``reason`` is NONE) or rejected, why, and the figures behind it."""

    reason: Reason
    detail: str
    evidence: Evidence
    covariance: Array
    protection: ProtectionLevel


def verify(
    support: Support,
    frame: Frame,
    gates: Gates = Gates(),
    noise: PoseNoise | None = None,
    limit: AlertLimit | None = None,
    scale_sigma_m: float = 0.0,
    measure: Callable[[Support, Frame, Array], Evidence] | None = None,
) -> Verdict:
    """Judge a pose by evidence that a confident mistake does not produce.

    Args:
        noise: of the map, where it was measured.
        limit: error that the application can bear; by default what suits the scene.
        scale_sigma_m: standard deviation that a scale which nothing confirms leaves to the position, metres.
        measure: what gathers the figures, where it is not one frame that the pose rests on.

    Returns:
        the first gate that it fails, in the order of :class:`Gates`, or acceptance.
    """
    why_wide = few_found(noise)
    noise, limit = noise or usual_noise(support.scene_depth_m), limit or alert_limit(support.scene_depth_m)
    measured, of_matches = pose_covariance(support, noise)
    covariance = measured + np.diag([scale_sigma_m**2] * 3 + [0.0] * 3)
    evidence = (measure or gather)(support, frame, covariance)
    freedom = tail_of(noise.found)
    careful = protection_level(careful_covariance(support, noise), limit.integrity_risk)
    level = protection_level(covariance, limit.integrity_risk, freedom).and_at_least(careful)
    checks = (
        *_checks(evidence, of_matches, support.offered, frame, gates),
        _inside(Reason.UNCERTAIN, careful, limit, why_wide or SO_FEW),
        _inside(Reason.UNCERTAIN, protection_level(measured, limit.integrity_risk, freedom), limit, why_wide),
        _inside(Reason.SCALE_UNVERIFIED, level, limit, "nothing confirms the scale of what was seen: "),
        _of_map(noise, support.believed, gates),
    )
    for reason, passed, detail in checks:
        if not passed:
            return Verdict(reason, detail, evidence, covariance, level)
    return Verdict(Reason.NONE, "", evidence, covariance, level)


def few_found(noise: PoseNoise | None) -> str:
    """What makes bounds wide in a map that was held against itself in vain, a clause; nothing of other maps."""
    if noise is None or noise.found >= FEWEST:
        return ""
    return f"of the map's own keyframes only {noise.found} are known to be found again by this matcher when left out: "


def _inside(reason: Reason, level: ProtectionLevel, limit: AlertLimit, why: str = "") -> tuple[Reason, bool, str]:
    """Whether the bounds of the error are inside what can be borne, as in :func:`_checks`."""
    return (
        reason,
        level.inside(limit),
        f"{why}the error may be {level.position_m:.3g} m and {np.degrees(level.rotation_rad):.3g} deg (more in one of "
        f"{1 / limit.integrity_risk:.0f} cases); alert_limit_m is {limit.position_m:.3g}, alert_limit_deg "
        f"{np.degrees(limit.rotation_rad):.3g}",
    )


def gather(support: Support, frame: Frame, covariance: Array) -> Evidence:
    """Measure everything the gates read."""
    inlier = support.pose.inlier
    position, rotation = worst_sigmas(covariance)
    error, coverage = depth_error(support, frame)
    return Evidence(
        inliers=int(inlier.sum()),
        inlier_ratio=float(inlier.mean()) if len(inlier) else 0.0,
        spread=spread(support.query_xy[inlier], frame.width, frame.height),
        residual_px=float(np.median(support.pose.residual_px[inlier])) if inlier.any() else float("nan"),
        position_sigma_m=position,
        rotation_sigma_deg=float(np.degrees(rotation)),
        agreeing_keyframes=int((inliers_by_keyframe(support) >= SUPPORT).sum()),
        explained=explained(
            support.query_xy[inlier], support.pose.camera_T_map, support.pose.focal_px, frame, support.landmarks
        ),
        depth_error=error,
        depth_coverage=coverage,
        seen_from_behind=seen_from_behind(support),
        viewpoint_gap_deg=float(np.degrees(viewpoint_gap(support))),
    )


def _checks(
    evidence: Evidence, of_matches: Array, offered: int, frame: Frame, gates: Gates
) -> Sequence[tuple[Reason, bool, str]]:
    """Each gate as (reason, passed, sentence), given the covariance that the matches leave."""
    residual = evidence.residual_px * 640 / max(frame.width, frame.height)
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(of_matches[:3, :3]), 0))
    condition = float(axes[-1] / axes[0]) if axes[0] > 0 else np.inf
    e = evidence
    strong = e.inliers >= gates.strong_inliers and e.spread >= gates.strong_spread and not e.explained < FOUND_MOST
    wanted = min(gates.min_agreeing_keyframes, offered)
    return (
        (
            Reason.TOO_FEW_INLIERS,
            e.inliers >= gates.min_inliers and e.inlier_ratio >= gates.min_inlier_ratio,
            f"{e.inliers} inliers ({e.inlier_ratio:.0%} of the matches), "
            f"{gates.min_inliers} and {gates.min_inlier_ratio:.0%} needed",
        ),
        (
            Reason.INLIERS_ON_ONE_PATCH,
            e.spread >= gates.min_spread or e.explained >= FOUND_ALL,
            f"inliers cover {e.spread:.0%} of the image, {gates.min_spread:.0%} needed",
        ),
        (
            Reason.LARGE_RESIDUALS,
            residual <= gates.max_residual_px,
            f"median reprojection error {e.residual_px:.1f} px, at most {gates.max_residual_px:g} px at 640 wide",
        ),
        (
            Reason.SEEN_FROM_BEHIND,
            e.seen_from_behind <= gates.max_seen_from_behind,
            f"{e.seen_from_behind:.0%} of the inliers would be seen from behind, at most "
            f"{gates.max_seen_from_behind:.0%}: a mirrored picture, a mirror, or a pane seen through",
        ),
        (
            Reason.ILL_CONDITIONED,
            condition <= gates.max_condition,
            f"position is {condition:.0f} times less certain in one direction, at most {gates.max_condition:g}",
        ),
        (
            Reason.KEYFRAMES_DISAGREE,
            strong or e.agreeing_keyframes >= wanted,
            f"{e.agreeing_keyframes} of {offered} keyframes support the pose, {wanted} needed",
        ),
        (
            Reason.EXPECTED_NOT_SEEN,
            not e.explained < gates.min_explained,  # NaN (nothing is expected) passes
            f"of the image's parts in which the map shows something {e.explained:.0%} show it, "
            f"{gates.min_explained:.0%} needed",
        ),
        (
            Reason.DEPTH_DISAGREES,
            not e.depth_error > gates.max_depth_error,  # NaN (not checked, see Evidence.depth_check) passes
            f"differs from the camera's depth by {e.depth_error:.0%}, at most {gates.max_depth_error:.0%}",
        ),
    )


def _of_map(noise: PoseNoise, believed: bool, gates: Gates) -> tuple[Reason, bool, str]:
    """Whether the map can be trusted to tell its places apart, as in :func:`_checks`."""
    return (
        Reason.AMBIGUOUS_MAP,
        believed or noise.found_elsewhere <= gates.max_found_elsewhere,
        f"{noise.found_elsewhere:.0%} of the map's own keyframes are found where they are not: it has places that look "
        "alike, or its poses are wrong; an initial pose helps",
    )


def depth_error(support: Support, frame: Frame) -> tuple[float, float]:
    """Median relative difference between the inliers' distance and the depth the query measured itself.

    NaN where the query has no depth at enough inliers to tell. And the share of the inliers at which it has; NaN for a
    query without depth.
    """
    if frame.depth is None:
        return float("nan"), float("nan")
    inlier = support.pose.inlier
    u, v = np.rint(support.query_xy[inlier]).astype(np.int64).T
    measured = frame.depth[v.clip(0, frame.height - 1), u.clip(0, frame.width - 1)]
    expected = se3.apply(support.pose.camera_T_map, support.points[inlier])[:, 2]
    known = valid_depth(measured)
    coverage = float(known.mean()) if known.size else 0.0
    if known.sum() < SUPPORT:
        return float("nan"), coverage
    return float(np.median(np.abs(measured[known] - expected[known]) / expected[known])), coverage


def balanced(
    weights: Array, inlier: NDArray[np.bool_], keyframe: NDArray[np.int64], xy: Array, width: int, height: int
) -> Array:
    """Weights (N,) such that the inliers of one keyframe in one image cell count as one observation.

    Matches that lie together share the error of the same piece of depth map and keyframe pose. Counted
    one by one they would outvote the rest of the image and promise millimetres.

    Args:
        xy: (N, 2) pixels of the matches in the query.
    """
    group = grouped(keyframe, xy, width, height)
    count = np.bincount(group[inlier], minlength=int(group.max()) + 1)
    shared: Array = weights / np.maximum(count[group], 1)
    return shared


def __getattr__(name: str) -> PoseNoise:
    """``USUAL_NOISE``, the noise of a map in a room as version 0.1 named it; it follows the scene's depth now."""
    if name == "USUAL_NOISE":
        warnings.warn("USUAL_NOISE is uncertainty.usual_noise(scene_depth_m) now", DeprecationWarning, stacklevel=2)
        return usual_noise(scene_depth_m=2.5)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
