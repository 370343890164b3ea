"""One pose from several frames together, where each alone says too little: a moving camera's last frames, or a rig.

The frames' own matches are used again, solved as one generalized camera, and judged by the gates that a single frame
has to pass. What several frames show of the same thing counts once: inliers are different points of the map, spread is
over directions, and what the map expects in any of the frames must be found there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.rig_pose import RIGID_M, RIGID_RAD, RigPose, RigView, ransac_rig_pose, refine_rig_pose
from mast3r_ros.localization import verification
from mast3r_ros.localization.belief import Belief
from mast3r_ros.localization.cells import CELLS, COLUMNS, ROWS, grouped, recounted
from mast3r_ros.localization.correspondences import Correspondences
from mast3r_ros.localization.estimate import Evidence, KeyframeMatches, PoseEstimate, Reason, Status
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.support import SUPPORT, Support
from mast3r_ros.localization.uncertainty import USUAL_POSITION, noise_with
from mast3r_ros.settings import TrackerSettings

Array = NDArray[np.float64]

#: Refusals that more frames can cure; the others say that something is wrong.
CURABLE = frozenset(
    {
        Reason.TOO_FEW_INLIERS,
        Reason.INLIERS_ON_ONE_PATCH,
        Reason.ILL_CONDITIONED,
        Reason.KEYFRAMES_DISAGREE,
        Reason.EXPECTED_NOT_SEEN,
        Reason.LARGE_RESIDUALS,
        Reason.UNCERTAIN,
    }
)
#: The frame whose pose is asked for must show this much of the map itself.
OWN_INLIERS = 5


@dataclass(frozen=True, eq=False)
class Sighting:
    """A frame and what it was matched with on its own.

    Attributes:
        reference_T_camera: (4, 4) in a frame that all sightings share: odometry, or a rig's.
        position_sigma_m, rotation_sigma_rad: how sure the way from the first sighting to this one is.
    """

    frame: Frame
    estimate: PoseEstimate
    reference_T_camera: Array
    position_sigma_m: float = RIGID_M
    rotation_sigma_rad: float = RIGID_RAD


@dataclass(frozen=True, eq=False)
class _Part:
    """A sighting's matches that have a ray, and the view that they make."""

    frame: Frame
    found: Correspondences
    view: RigView

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.frame.width, self.frame.height


class RecentSightings:
    """The last frames that saw different things, with odometry between them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Frame, PoseEstimate, Belief]] = []

    def with_frame(
        self, frame: Frame, estimate: PoseEstimate, odom_T_camera: Array, settings: TrackerSettings, depth_m: float
    ) -> list[Sighting]:
        """This frame and those before it, newest first; it is remembered, in place of one that it is like."""
        known = [
            (f, e, b.travelled(odom_T_camera)) for f, e, b in self._kept if not b.expired(frame.stamp_ns, settings)
        ]
        found = [Sighting(frame, estimate, odom_T_camera)]
        apart = []
        for f, e, belief in known:
            assert belief.odom_T_camera is not None
            way = belief.now(frame.stamp_ns, odom_T_camera, settings)
            metres, degrees = se3.pose_error(odom_T_camera, belief.odom_T_camera)
            if metres >= settings.commit_distance * depth_m or np.radians(degrees) >= settings.commit_turn:
                apart.append((f, e, belief))
                found.append(Sighting(f, e, belief.odom_T_camera, way.position_sigma_m, way.rotation_sigma_rad))
        own = Belief(np.eye(4), odom_T_camera, frame.stamp_ns, 0.0, 0.0)
        self._kept = [(frame, estimate, own), *apart][: settings.joint_frames - 1]
        return found[: settings.joint_frames]


def localize_rig(localizer: Localizer, frames: Sequence[Frame], rig_T_cameras: Array) -> PoseEstimate:
    """The pose of the first of a rig's cameras, from pictures that all took at the same time.

    Args:
        frames: calibrated, one of each camera.
        rig_T_cameras: (C, 4, 4) where they are on the rig.

    Returns:
        what the first camera's picture says alone, where that is accepted; else what all say together, or the first
        one's refusal.
    """
    found = [Sighting(f, localizer.localize(f), T) for f, T in zip(frames, rig_T_cameras, strict=True)]
    return found[0].estimate if found[0].estimate.localized else solve_together(localizer, found)


def solve_together(localizer: Localizer, sightings: Sequence[Sighting], prior: PosePrior | None = None) -> PoseEstimate:
    """The pose of the first sighting's camera from all of them; its own estimate where that is not accepted either."""
    alone = sightings[0].estimate
    parts = [part for s in sightings if (part := _part(localizer, s, sightings[0])) is not None]
    if len(parts) < 2 or parts[0].frame is not sightings[0].frame or alone.reason not in CURABLE:
        return alone
    depth = localizer.scene_depth(parts[0].found)
    settings = localizer.solver(parts[0].frame, depth)
    start = ransac_rig_pose([part.view for part in parts], settings)
    rig = None if start is None else refine_rig_pose(start, [part.view for part in parts], settings)
    if rig is None:
        return alone
    balanced = [
        replace(p.view, weights=verification.balanced(p.found.weights, inlier, p.found.keyframe, p.found.xy, *p.size))
        for p, inlier in zip(parts, _split(rig.pose.inlier, parts), strict=True)
    ]
    rig = refine_rig_pose(rig.map_T_cameras[0], balanced, settings)
    if rig is None or _split(rig.pose.inlier, parts)[0].sum() < OWN_INLIERS:
        return alone
    return _judged(localizer, parts, rig, depth, prior, alone)


def _part(localizer: Localizer, sighting: Sighting, first: Sighting) -> _Part | None:
    """What a sighting brings; nothing without matches, or a calibration that nothing contradicts."""
    camera, matched = sighting.frame.camera, {m.keyframe_id: m.matches for m in sighting.estimate.matched}
    if camera is None or localizer.doubt_of(camera) or not sum(len(m) for m in matched.values()):
        return None
    ideal, found = Correspondences.of(localizer.map, matched).seen_by(camera)
    first_T_camera = se3.inverse(first.reference_T_camera) @ sighting.reference_T_camera
    sigmas = sighting.position_sigma_m, sighting.rotation_sigma_rad
    view = RigView(first_T_camera, ideal, found.points, found.weights, camera.focal, *sigmas)
    return _Part(sighting.frame, found, view)


def _judged(
    localizer: Localizer, parts: list[_Part], rig: RigPose, depth: float, prior: PosePrior | None, alone: PoseEstimate
) -> PoseEstimate:
    """The joint pose through the gates of a single one."""
    ids = list(dict.fromkeys(id for part in parts for id in part.found.ids))
    number = {id: k for k, id in enumerate(ids)}
    keyframe = np.concatenate([np.array([number[id] for id in p.found.ids])[p.found.keyframe] for p in parts])
    matched_by_id = {id: m for p in parts for id, m in zip(p.found.ids, p.found.matches, strict=True)}
    together = Correspondences.of(localizer.map, {id: matched_by_id[id] for id in ids})
    support = Support(
        rig.pose,
        np.concatenate([part.found.xy for part in parts]),
        np.concatenate([part.found.points for part in parts]),
        keyframe,
        np.array([localizer.map[id].map_T_camera[:3, 3] for id in ids]),
        depth,
        recounted=_recounted(parts, rig.pose.inlier),
    )
    support = replace(
        support, landmarks=localizer.landmarks_around(together, support), believed=localizer.agrees(support, prior)
    )
    limit = localizer.alert_limit
    verdict = verification.verify(
        support,
        parts[0].frame,
        localizer.settings.gates,
        noise_with(localizer.map, localizer.matcher),
        limit,
        localizer.scale_sigma(together, support),
        partial(_gather, parts, rig),
    )
    if verdict.reason is not Reason.NONE:
        return alone
    own = {id: k for k, id in enumerate(parts[0].found.ids)}
    inlier = _split(rig.pose.inlier, parts)[0]
    matched = tuple(
        KeyframeMatches(id, parts[0].found.matches[k], inlier[parts[0].found.keyframe == k]) for id, k in own.items()
    )
    strength = verdict.evidence.inliers * verdict.evidence.spread
    return replace(
        alone,
        status=Status.LOCALIZED,
        reason=Reason.NONE,
        detail="",
        map_T_camera=rig.pose.map_T_camera,
        covariance=verdict.covariance,
        protection=verdict.protection,
        alert_limit=limit,
        evidence=verdict.evidence,
        confidence=float(strength / (strength + 4.0)),
        keyframes=tuple(m.keyframe_id for m in matched if m.inlier.any()),
        matched=matched,
        frames=len(parts),
    )


def _gather(parts: list[_Part], rig: RigPose, support: Support, frame: Frame, covariance: Array) -> Evidence:
    """As :func:`verification.gather`, over all frames; what several of them show counts once."""
    inlier = support.pose.inlier
    supports = _supports(parts, rig, support)
    each = [verification.gather(own, part.frame, covariance) for own, part in zip(supports, parts, strict=True)]
    # Points that lie within the noise of each other are one.
    lattice = np.round(support.points / (USUAL_POSITION * support.scene_depth_m)).astype(np.int64)
    distinct = np.unique(np.column_stack([support.keyframe, lattice])[inlier], axis=0)
    per_keyframe = np.bincount(distinct[:, 0], minlength=support.offered)
    shares = np.array([e.inliers for e in each]) / max(int(inlier.sum()), 1)
    return replace(
        each[0],
        inliers=len(distinct),
        inlier_ratio=float(inlier.mean()),
        spread=_spread(parts, rig, inlier),
        residual_px=float(np.median(support.pose.residual_px[inlier])),
        agreeing_keyframes=int((per_keyframe >= SUPPORT).sum()),
        explained=_mean([e.explained for e in each]),
        depth_error=max((e.depth_error for e in each if np.isfinite(e.depth_error)), default=float("nan")),
        depth_coverage=_mean([e.depth_coverage for e in each]),
        seen_from_behind=float(shares @ [e.seen_from_behind for e in each]),
    )


def _supports(parts: list[_Part], rig: RigPose, support: Support) -> list[Support]:
    """What each frame brings to the joint pose, at its own."""
    bounds = np.cumsum([len(part.found.xy) for part in parts])[:-1]
    rows = np.split(np.arange(len(support.points)), bounds)
    return [
        replace(
            support,
            pose=replace(
                support.pose,
                camera_T_map=se3.inverse(pose),
                inlier=support.pose.inlier[row],
                residual_px=support.pose.residual_px[row],
                focal_px=part.view.focal_px,
            ),
            query_xy=part.found.xy,
            points=part.found.points,
            keyframe=support.keyframe[row],
        )
        for part, pose, row in zip(parts, rig.map_T_cameras, rows, strict=True)
    ]


def _spread(parts: list[_Part], rig: RigPose, inlier: NDArray[np.bool_]) -> float:
    """Directions with an inlier, in cells as large as those of the first image, as a share of that image's."""
    camera = parts[0].frame.camera
    assert camera is not None
    across = 2 * np.arctan(camera.width / 2 / camera.fx) / COLUMNS, 2 * np.arctan(camera.height / 2 / camera.fy) / ROWS
    cells: set[tuple[int, int]] = set()
    for part, pose, own in zip(parts, rig.map_T_cameras, _split(inlier, parts), strict=True):
        rays = np.column_stack([part.view.ideal[own], np.ones(int(own.sum()))])
        seen = rays @ (rig.map_T_cameras[0][:3, :3].T @ pose[:3, :3]).T
        azimuth = np.arctan2(seen[:, 0], seen[:, 2])
        elevation = np.arctan2(seen[:, 1], np.hypot(seen[:, 0], seen[:, 2]))
        cells.update(zip((azimuth // across[0]).astype(int), (elevation // across[1]).astype(int), strict=True))
    return len(cells) / CELLS


def _recounted(parts: list[_Part], inlier: NDArray[np.bool_]) -> float:
    """As :func:`cells.recounted`, over all frames."""
    groups, pixels = [], []
    for number, (part, own) in enumerate(zip(parts, _split(inlier, parts), strict=True)):
        xy, of_frame = part.found.xy[own], np.full(int(own.sum()), number)
        groups.append(np.column_stack([of_frame, grouped(part.found.keyframe[own], xy, *part.size)]))
        pixels.append(np.column_stack([of_frame, xy]))
    return recounted(np.concatenate(groups), np.concatenate(pixels))


def _split(values: NDArray[np.bool_], parts: list[_Part]) -> list[NDArray[np.bool_]]:
    """What belongs to each part's matches."""
    return np.split(values, np.cumsum([len(part.found.xy) for part in parts])[:-1])


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
