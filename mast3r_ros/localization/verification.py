"""Evidence for and against a pose, beyond the inlier count, and the verdict.

Pose solvers and networks fail quietly: a wrong pose can have a hundred inliers, all on one poster that
hangs in two places. So a pose has to pass gates that such a failure does not pass: inliers spread over the
image, a geometry that fixes all six degrees of freedom, keyframes that agree with each other, sensor depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import AbsolutePose
from mast3r_ros.localization.cells import CELLS, cells_of, spread
from mast3r_ros.localization.estimate import Evidence, Reason
from mast3r_ros.localization.protection import AlertLimit, ProtectionLevel, alert_limit, protection_level
from mast3r_ros.localization.visibility import explained
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.settings import Gates

Array = NDArray[np.float64]


#: A keyframe supports a pose on its own with this many inliers.
SUPPORT = 8
#: Assumed of maps that were never held against themselves: position as a share of the scene's depth, rotation (rad).
USUAL_POSITION, USUAL_ROTATION = 0.004, float(np.radians(0.3))


#: The same in a room, as earlier versions assumed it everywhere.
USUAL_NOISE = PoseNoise(position_m=0.01, rotation_rad=USUAL_ROTATION)


@dataclass(frozen=True, eq=False)
class Support:
    """A pose and the matches it rests on, as verification reads them.

    Attributes:
        pose: the solved pose.
        query_xy: (N, 2) pixels of the query.
        points: (N, 3) map points, metres.
        keyframe: (N,) index of the keyframe each match comes from, 0 .. offered - 1.
        centres: (K, 3) where the cameras of the keyframes that were matched stand in the map, metres.
        scene_depth_m: how far away things typically are here: what lengths are held against.
        landmarks: (M, 3) what the matcher knows of the map around here, metres; none where it cannot tell.
        believed: whether somebody or odometry knew that the camera is about there.
    """

    pose: AbsolutePose
    query_xy: Array
    points: Array
    keyframe: NDArray[np.int64]
    centres: Array
    scene_depth_m: float
    landmarks: Array = field(default_factory=lambda: np.zeros((0, 3)))
    believed: bool = False

    @property
    def offered(self) -> int:
        """Number of keyframes that were matched."""
        return len(self.centres)


@dataclass(frozen=True, eq=False)
class Verdict:
    """Accepted (``reason`` is NONE) or rejected, why, and the figures behind it."""

    reason: Reason
    detail: str
    evidence: Evidence
    covariance: Array
    protection: ProtectionLevel


def usual_noise(scene_depth_m: float) -> PoseNoise:
    """What is assumed of a map of such a scene that was never held against itself."""
    return PoseNoise(position_m=USUAL_POSITION * scene_depth_m, rotation_rad=USUAL_ROTATION)


def verify(
    support: Support,
    frame: Frame,
    gates: Gates = Gates(),
    noise: PoseNoise | None = None,
    limit: AlertLimit | None = None,
    scale_sigma_m: float = 0.0,
) -> Verdict:
    """Judge a pose by evidence that a confident mistake does not produce.

    Args:
        noise: of the map, where it was measured.
        limit: error that the application can bear; by default what suits the scene.
        scale_sigma_m: standard deviation that a scale which nothing confirms leaves to the position, metres.

    Returns:
        the first gate that it fails, in the order of :class:`Gates`, or acceptance.
    """
    noise, limit = noise or usual_noise(support.scene_depth_m), limit or alert_limit(support.scene_depth_m)
    of_matches = match_covariance(support)
    measured = noise.match_scale * of_matches + map_covariance(noise)
    covariance = measured + np.diag([scale_sigma_m**2] * 3 + [0.0] * 3)
    evidence = gather(support, frame, covariance)
    level = protection_level(covariance, limit.integrity_risk)
    checks = (
        *_checks(evidence, of_matches, support.offered, frame, gates),
        _inside(Reason.UNCERTAIN, protection_level(measured, limit.integrity_risk), limit),
        _inside(Reason.SCALE_UNVERIFIED, level, limit),
        _of_map(noise, support.believed, gates),
    )
    for reason, passed, detail in checks:
        if not passed:
            return Verdict(reason, detail, evidence, covariance, level)
    return Verdict(Reason.NONE, "", evidence, covariance, level)


def _inside(reason: Reason, level: ProtectionLevel, limit: AlertLimit) -> tuple[Reason, bool, str]:
    """Whether the bounds of the error are inside what can be borne, as in :func:`_checks`."""
    why = "nothing confirms the scale of what was seen: " if reason is Reason.SCALE_UNVERIFIED else ""
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
    )


def _checks(
    evidence: Evidence, of_matches: Array, offered: int, frame: Frame, gates: Gates
) -> Sequence[tuple[Reason, bool, str]]:
    """Each gate as (reason, passed, sentence), given the covariance that the matches leave."""
    residual = evidence.residual_px * 640 / max(frame.width, frame.height)
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(of_matches[:3, :3]), 0))
    condition = float(axes[-1] / axes[0]) if axes[0] > 0 else np.inf
    strong = evidence.inliers >= gates.strong_inliers and evidence.spread >= gates.strong_spread
    wanted = min(gates.min_agreeing_keyframes, offered)
    e = evidence
    return (
        (
            Reason.TOO_FEW_INLIERS,
            e.inliers >= gates.min_inliers and e.inlier_ratio >= gates.min_inlier_ratio,
            f"{e.inliers} inliers ({e.inlier_ratio:.0%} of the matches), "
            f"{gates.min_inliers} and {gates.min_inlier_ratio:.0%} needed",
        ),
        (
            Reason.INLIERS_ON_ONE_PATCH,
            e.spread >= gates.min_spread,
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


def inliers_by_keyframe(support: Support) -> NDArray[np.int64]:
    """(offered,) inliers from each keyframe."""
    return np.bincount(support.keyframe[support.pose.inlier], minlength=support.offered)


def seen_from_behind(support: Support) -> float:
    """Share of the inliers whose ray to the query and ray to their keyframe oppose.

    A plane in a mirrored picture is the plane seen from its other side, so a pose that explains it looks through the
    wall. What both cameras see of a surface they see from one side of it, and mostly at less than a right angle.
    """
    inlier = support.pose.inlier
    points, centres = support.points[inlier], support.centres[support.keyframe[inlier]]
    if not len(points):
        return 0.0
    query = support.pose.map_T_camera[:3, 3]
    return float((np.einsum("ij,ij->i", query - points, centres - points) < 0).mean())


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


def worst_sigmas(covariance: Array) -> tuple[float, float]:
    """Standard deviations of position (m) and rotation (rad) in their worst directions."""
    position = np.linalg.eigvalsh(covariance[:3, :3])[-1]
    rotation = np.linalg.eigvalsh(covariance[3:, 3:])[-1]
    return float(np.sqrt(max(position, 0))), float(np.sqrt(max(rotation, 0)))


def balanced_weights(support: Support, weights: Array, width: int, height: int) -> Array:
    """Weights (N,) such that the inliers of one keyframe in one image cell count as one observation.

    Matches that lie together share the error of the same piece of depth map and keyframe pose. Counted
    one by one they would outvote the rest of the image and promise millimetres.
    """
    group = support.keyframe * CELLS + cells_of(support.query_xy, width, height)
    count = np.bincount(group[support.pose.inlier], minlength=int(group.max()) + 1)
    balanced: Array = weights / np.maximum(count[group], 1)
    return balanced


def match_covariance(support: Support) -> Array:
    """Covariance (6, 6) of map_T_camera that the matches leave, in ROS order and fixed map axes (metres, radians).

    The inverse Hessian of the balanced problem, scaled by how large the residuals really are, plus how
    much the keyframes pull in different directions (cluster-robust variance, Liang and Zeger,
    Biometrika 1986, with keyframes as clusters).
    """
    pose = support.pose
    # A direction the matches say nothing about must come out uncertain, not zero.
    weak = np.diag([1e-5 / support.scene_depth_m**2] * 3 + [1e-6] * 3)
    bread = np.linalg.inv(pose.information + weak)
    pulls = pose.gradient_by(support.keyframe, support.offered)
    pulling = np.flatnonzero(inliers_by_keyframe(support) > 0)
    clustered = np.zeros((6, 6))
    if len(pulling) > 1:
        correction = len(pulling) / (len(pulling) - 1)
        clustered = correction * bread @ (pulls[pulling].T @ pulls[pulling]) @ bread
    covariance = bread * max(1.0, pose.variance_factor) + clustered
    return (covariance + covariance.T) / 2


def map_covariance(noise: PoseNoise) -> Array:
    """The part (6, 6) of a pose's covariance that the keyframes' own poses bring."""
    return np.diag([noise.position_m**2] * 3 + [noise.rotation_rad**2] * 3)
