"""The pose of one frame, or why it has none: describe, retrieve, match, solve, verify."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry.absolute_pose import MINIMUM, AbsolutePose, ransac_pose, refine_pose
from mast3r_ros.geometry.lens import LensProblem
from mast3r_ros.geometry.unknown_focal import solve_pose_and_focal
from mast3r_ros.localization.calibration import CalibrationCheck
from mast3r_ros.localization.cells import grouped, recounted
from mast3r_ros.localization.correspondences import Correspondences, QueryMatches
from mast3r_ros.localization.estimate import KeyframeMatches, PoseEstimate, Reason, Status
from mast3r_ros.localization.focal_memory import FocalMemory, camera_key
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.protection import AlertLimit, limit_of
from mast3r_ros.localization.query import Query
from mast3r_ros.localization.rival import unrivalled, with_less
from mast3r_ros.localization.stage_clock import StageClock
from mast3r_ros.localization.stretch import StretchCheck, stretched
from mast3r_ros.localization.support import SUPPORT, Support, inliers_by_keyframe
from mast3r_ros.localization.turned import Looks, TurnedLooks
from mast3r_ros.localization.uncertainty import noise_with, usual_noise, warn_of_another
from mast3r_ros.localization.verification import Verdict, balanced, verify
from mast3r_ros.localization.visibility import MapLandmarks
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, Matcher, keyframes_on_track, prefetches
from mast3r_ros.settings import Gates, LocalizerSettings, SolverSettings

Array = NDArray[np.float64]

#: Images with fewer pixels on a side hold nothing to match.
SMALLEST_IMAGE = 32
#: Keyframes whose landmarks say what should be seen from a pose.
EXPECTING = 5
#: A camera is on track while its pose is known beforehand to within these standard deviations (scene depths, rad).
ON_TRACK, ON_TRACK_RAD = 0.2, 0.3
#: Beyond three standard deviations, what a pose on track may be off and still be taken without matching more
#: keyframes (scene depths, rad).
SLACK, SLACK_RAD = 0.04, 0.1
#: A prior tells places that look alike apart while three standard deviations of it are within these (scene depths,
#: rad): such places are a room apart, and RViz's 0.5 m counts in rooms of which keyframes see 0.75 m and more.
UNAMBIGUOUS, UNAMBIGUOUS_RAD = 2.0, float(np.pi / 2)

#: A pose, the matches it was solved from, and whether its focal length was known from earlier frames.
_Solved = tuple[AbsolutePose, Correspondences, bool]


class Localizer:
    """Localizes single frames in a keyframe map.

    Not thread-safe: one caller at a time (a node's worker thread).
    """

    def __init__(
        self, keyframe_map: KeyframeMap, matcher: Matcher, settings: LocalizerSettings = LocalizerSettings()
    ) -> None:
        self.map, self.matcher, self.settings = keyframe_map, matcher, settings
        self._focals, self._turned = FocalMemory(), TurnedLooks()
        self._stretch, self._calibration = StretchCheck(), CalibrationCheck()
        self._map_landmarks = MapLandmarks(keyframe_map, matcher)
        self._described: tuple[Frame, Features] | None = None
        warn_of_another(keyframe_map, matcher)

    def localize(self, frame: Frame, prior: PosePrior | None = None, *, exclude: Collection[str] = ()) -> PoseEstimate:
        """Find the pose of ``frame``, or say why it cannot be found.

        Args:
            prior: where the camera should be. Its neighbourhood is searched beside what looks similar.
            exclude: ids of keyframes that must not be used.
        """
        clock, estimate = StageClock(), self._unusable(frame)
        if estimate is None:
            enough = self._enough_on_track(prior)
            query = partial(self._query, exclude=frozenset(exclude), enough=enough, clock=clock)
            near = partial(self._neighbour, enough=enough)
            looks = Looks(query, self._first_look, self._further_look, self._similarity, near)
            estimate = self._turned.localize(self.matcher, frame, prior, looks)
        return replace(estimate, timings_ms=clock.finished(), stamp_ns=frame.stamp_ns)

    def alone(self, frame: Frame, *, exclude: Collection[str] = ()) -> PoseEstimate:
        """The same, whatever was localized before: nothing that is remembered of cameras takes part."""
        fresh = copy(self)
        fresh._focals, fresh._stretch, fresh._described = FocalMemory(), StretchCheck(), None
        fresh._calibration, fresh._turned = CalibrationCheck(), TurnedLooks()
        return fresh.localize(frame, exclude=exclude)

    def features(self, frame: Frame) -> Features:
        """What the matcher knows of a frame but for its depth; of the last one without computing it again."""
        if self._described is not None and self._described[0] is frame:
            return self._described[1]
        return self._describe(frame)

    def _describe(self, frame: Frame) -> Features:
        """A frame's depth takes no part in matching: it is evidence that the pose is held against."""
        return self.matcher.describe(replace(frame, depth=None))

    def _unusable(self, frame: Frame) -> PoseEstimate | None:
        """Why a frame need not be looked at; None where it should."""
        if len(self.map) == 0:
            return PoseEstimate.rejected(Reason.EMPTY_MAP, "the map has no keyframes")
        if min(frame.width, frame.height) < SMALLEST_IMAGE:
            return PoseEstimate.rejected(Reason.UNUSABLE_IMAGE, f"the image is only {frame.width}x{frame.height}")
        return None

    def _query(
        self, frame: Frame, prior: PosePrior | None, exclude: frozenset[str], enough: int, clock: StageClock
    ) -> Query:
        with clock.stage("describe"):
            features = self._describe(frame)
            self._prefetch(prior)  # while a GPU still encodes the frame
        most, image_size = self.settings.matches_per_keyframe, (frame.width, frame.height)
        matches = QueryMatches(self.map, self.matcher, features, most, image_size)
        return Query(frame, features, matches, prior, exclude, enough, clock)

    def _similarity(self, query: Query) -> float:
        """With the keyframe that it looks most like."""
        with query.clock.stage("retrieve"):
            found = self.map.retrieve_scored(self.matcher, query.features, 1, exclude=query.exclude)
        return found[0][1] if found else -1.0

    def _neighbour(self, prior: PosePrior, enough: int) -> Array | None:
        """Pose (4, 4) of the keyframe that sees most of what a camera on track sees."""
        near = self.map.retrieve_near(prior.map_T_camera, 1) if enough else []
        return self.map[near[0]].map_T_camera if near else None

    def _first_look(self, query: Query) -> PoseEstimate:
        """With as many keyframes as suffice in most cases: fewer on track, else K."""
        self._described, prior = (query.frame, query.features), query.prior
        if prior is not None and query.enough:
            tracked = self._look(query, query.enough, prior)
            if tracked.map_T_camera is not None and tracked.localized and self._on_track(tracked.map_T_camera, prior):
                return tracked
        return self._look(query, self.settings.keyframes, prior)

    def _further_look(self, query: Query, first: PoseEstimate) -> PoseEstimate:
        """With many more keyframes after a rejection, where that may help and there is time."""
        all_seen = min(self.settings.second_look, len(self.map)) <= self.settings.keyframes
        # Many more keyframes take longer than the next frame, which is as easy to find while the track holds.
        if all_seen or query.enough:
            return first
        # A pose that was nearly good enough tells where to look for more support.
        around = query.prior if first.map_T_camera is None else PosePrior(first.map_T_camera)
        second = self._look(query, self.settings.second_look, around)
        return second if second.localized or second.evidence.inliers >= first.evidence.inliers else first

    def _prefetch(self, prior: PosePrior | None) -> None:
        """Tell the matcher which keyframes the prior will have matched."""
        if prior is not None and prefetches(self.matcher):
            near = self.map.retrieve_near(prior.map_T_camera, _from_prior(self.settings.keyframes))
            self.matcher.prefetch([self.map.features(self.matcher, id) for id in near])

    def _enough_on_track(self, prior: PosePrior | None) -> int:
        """Keyframes that are matched first because the camera is on track; 0 where it is not, or all K are."""
        if prior is None or prior.rotation_sigma_rad > ON_TRACK_RAD:
            return 0
        if not prior.position_sigma_m <= ON_TRACK * self._depth_near(prior.map_T_camera):
            return 0
        enough = self.settings.keyframes_on_track or keyframes_on_track(self.matcher)
        return enough if enough < self.settings.keyframes else 0

    def _on_track(self, map_T_camera: Array, prior: PosePrior) -> bool:
        """Whether a pose is so near to what was believed that no more keyframes need to be matched."""
        return prior.agrees(map_T_camera, SLACK * self._depth_near(map_T_camera), SLACK_RAD)

    def _depth_near(self, map_T_camera: Array) -> float:
        """How far away things typically are around a pose, metres."""
        depth = self.map.typical_depth(self.map.retrieve_near(map_T_camera, EXPECTING))
        return depth if depth > 0 else self.map.view_depth_m

    def _look(self, query: Query, count: int, around: PosePrior | None) -> PoseEstimate:
        """One attempt with ``count`` keyframes, some of them from ``around`` a pose."""
        frame, clock = query.frame, query.clock
        with clock.stage("retrieve"):
            ids = self._retrieve(query.features, count, around, query.exclude)
        if not ids:
            return PoseEstimate.rejected(Reason.NOTHING_RETRIEVED, "no keyframe looks like this image")
        with clock.stage("match"):
            found = query.matches.with_keyframes(ids)
        if len(found.xy) < MINIMUM:
            return PoseEstimate.rejected(Reason.TOO_FEW_MATCHES, found.how_few())
        with clock.stage("solve"):
            depth = self.scene_depth(found)
            solved = self._solve(frame, found, depth)
            if frame.camera is None:
                frame, solved = self._as_the_maps_camera(frame, found, depth, solved)
        if solved is None:
            return PoseEstimate.rejected(Reason.NO_POSE, f"no pose explains the {len(found.xy)} matches")
        with clock.stage("verify"):
            pose, found, told = solved
            support = self._support(pose, found, depth, (frame.width, frame.height))
            support = replace(
                support, landmarks=self.landmarks_around(found, support), believed=self.agrees(support, query.prior)
            )
            limit = self.alert_limit if np.isfinite(self.map.scene_depth_m) else limit_of(self.settings, depth)
            judged = partial(self._judged, frame, found, support, limit)
            verdict = judged(self.settings.gates)
            if verdict.reason is Reason.EXPECTED_NOT_SEEN and self._unrivalled(frame, found, support, verdict):
                verdict = judged(with_less(self.settings.gates))
            if verdict.reason is Reason.NONE:
                # A keyframe that is left out has the map's own calibration: what contradicts it is the map's noise.
                lens = not query.exclude
                verdict = self._with_calibration(frame, found, support, verdict, limit, lens=lens)
        if verdict.reason is Reason.NONE and frame.camera is None and not told:
            self._focals.remember(camera_key(frame), support.pose.focal_px)
        return _estimate(found, support, verdict, limit)

    def _judged(
        self, frame: Frame, found: Correspondences, support: Support, limit: AlertLimit, gates: Gates
    ) -> Verdict:
        noise = noise_with(self.map, self.matcher)
        return verify(support, frame, gates, noise, limit, self.scale_sigma(found, support))

    def _unrivalled(self, frame: Frame, found: Correspondences, support: Support, verdict: Verdict) -> bool:
        """Whether a calibrated picture that shows too little of what the map expects supports no other pose."""
        if frame.camera is None:
            return False
        ideal, settings = frame.camera.rays(found.xy), self.solver(frame, support.scene_depth_m)
        return unrivalled(support, verdict.evidence, ideal, self.settings.gates, settings)

    def _with_calibration(
        self,
        frame: Frame,
        found: Correspondences,
        support: Support,
        verdict: Verdict,
        limit: AlertLimit,
        *,
        lens: bool,
    ) -> Verdict:
        """The verdict, unless the image says that its calibration is another camera's, or of another image."""
        if frame.camera is None:
            return verdict
        settings = self.solver(frame, support.scene_depth_m)
        # The lens first: it tells focal lengths and stretches apart, of which a stretch may explain a part.
        doubt = self._doubt(frame, frame.camera, found, support, limit) if lens else ""
        if not doubt:
            stretch = self._stretch.found(
                frame.camera, found.xy, found.points, found.weights, verdict.evidence.inliers, settings
            )
            doubt = stretched(stretch) if stretch is not None else ""
        return replace(verdict, reason=Reason.CALIBRATION_DISAGREES, detail=doubt) if doubt else verdict

    def _doubt(self, frame: Frame, camera: Camera, found: Correspondences, support: Support, limit: AlertLimit) -> str:
        """What contradicts a calibration, after this frame."""
        pose, settings = support.pose, self.solver(frame, support.scene_depth_m)
        weights = balanced(found.weights, pose.inlier, found.keyframe, found.xy, frame.width, frame.height)
        problem = LensProblem(camera.rays(found.xy), found.points, weights, found.keyframe, pose.focal_px, settings)
        return self._calibration.judge(camera, problem, pose.map_T_camera, limit)

    def doubt_of(self, camera: Camera) -> str:
        """What earlier frames found wrong with a calibration; empty where nothing is."""
        return self._calibration.doubt(camera)

    def agrees(self, support: Support, prior: PosePrior | None) -> bool:
        """Whether the camera was believed to be where it was found, to within three standard deviations.

        A prior too vague to tell places or directions apart agrees with nothing. However exact a prior is, a pose is
        found no better than the map's own poses are.
        """
        if prior is None or 3 * prior.rotation_sigma_rad > UNAMBIGUOUS_RAD:
            return False
        if 3 * prior.position_sigma_m > UNAMBIGUOUS * support.scene_depth_m:
            return False
        noise = noise_with(self.map, self.matcher) or usual_noise(support.scene_depth_m)
        belief = replace(
            prior,
            position_sigma_m=float(np.hypot(prior.position_sigma_m, noise.position_m)),
            rotation_sigma_rad=float(np.hypot(prior.rotation_sigma_rad, noise.rotation_rad)),
        )
        return belief.agrees(support.pose.map_T_camera)

    def _retrieve(self, features: Features, count: int, prior: PosePrior | None, exclude: frozenset[str]) -> list[str]:
        """Keyframes that look similar; with a prior, half of them are those nearest to where the camera should be."""
        similar = self.map.retrieve(self.matcher, features, count, exclude=exclude)
        if prior is None:
            return similar
        near = self.map.retrieve_near(prior.map_T_camera, _from_prior(count) + len(exclude))
        near = [id for id in near if id not in exclude][: _from_prior(count)]
        return list(dict.fromkeys([*near, *similar]))[:count]

    @property
    def alert_limit(self) -> AlertLimit:
        """The error that the application can bear in this map."""
        return limit_of(self.settings, self.map.view_depth_m)

    def scene_depth(self, found: Correspondences) -> float:
        """How far away what was matched typically is, metres: by the keyframes, or by the points themselves."""
        depth = self.map.typical_depth(found.ids)
        return depth if depth > 0 else float(np.median(np.concatenate([m.points[:, 2] for m in found.matches])))

    def _support(
        self, pose: AbsolutePose, found: Correspondences, scene_depth_m: float, size: tuple[int, int]
    ) -> Support:
        centres = np.array([self.map[id].map_T_camera[:3, 3] for id in found.ids])
        xy = found.xy[pose.inlier]
        counted = recounted(grouped(found.keyframe[pose.inlier], xy, *size), xy)
        return Support(pose, found.xy, found.points, found.keyframe, centres, scene_depth_m, recounted=counted)

    def solver(self, frame: Frame, scene_depth_m: float) -> SolverSettings:
        """The solver's settings, with the thresholds of this image and this scene."""
        return replace(
            self.settings.solver,
            threshold_px=self.settings.threshold * float(np.hypot(frame.width, frame.height)),
            point_sigma_m=self.settings.point_noise * scene_depth_m,
        )

    def _solve(self, frame: Frame, found: Correspondences, scene_depth_m: float) -> _Solved | None:
        """Robust pose over all keyframes, refined with balanced weights, and whether its focal length was known."""
        settings = self.solver(frame, scene_depth_m)
        known = None
        centre = np.array([frame.width - 1, frame.height - 1]) / 2
        if frame.camera is not None:
            ideal, found = found.seen_by(frame.camera)
            pose = ransac_pose(ideal, found.points, found.weights, frame.camera.focal, settings)
        else:
            known = self._focals.known(camera_key(frame))
            pose = None
            if known is not None:
                pose = ransac_pose((found.xy - centre) / known, found.points, found.weights, known, settings)
            if pose is None or pose.inlier.sum() < self.settings.gates.min_inliers:  # it may have another lens now
                side, known = max(frame.width, frame.height), None
                pose = solve_pose_and_focal(found.xy - centre, found.points, found.weights, side, settings)
            ideal = (found.xy - centre) / pose.focal_px if pose is not None else found.xy
        if pose is None:
            return None
        weights = balanced(found.weights, pose.inlier, found.keyframe, found.xy, frame.width, frame.height)
        refined = refine_pose(pose.map_T_camera, ideal, found.points, weights, pose.focal_px, settings)
        return (refined, found, known is not None) if refined is not None else None

    def _as_the_maps_camera(
        self, frame: Frame, found: Correspondences, scene_depth_m: float, solved: _Solved | None
    ) -> tuple[Frame, _Solved | None]:
        """An image without calibration is the map's own camera's where that explains it as well as any focal length.

        A free focal length also fits distortion and errors of the points: it was 13 % off, and poses decimetres.
        """
        camera = self.map.camera_of_size(frame.width, frame.height)
        if camera is None:
            return frame, solved
        own = replace(frame, camera=camera)
        with_own = self._solve(own, found, scene_depth_m)
        if with_own is None:
            return frame, solved
        fewer = solved is not None and with_own[0].inlier.sum() < solved[0].inlier.sum()
        return (frame, solved) if fewer else (own, with_own)

    def landmarks_around(self, found: Correspondences, support: Support) -> Array:
        """Map points (M, 3) that the matcher knows from the keyframes which support the pose most."""
        counts = inliers_by_keyframe(support)
        best = [int(k) for k in np.argsort(-counts, kind="stable")[:EXPECTING] if counts[k] >= SUPPORT]
        return self._map_landmarks.of(found.ids[k] for k in best)

    def scale_sigma(self, found: Correspondences, support: Support) -> float:
        """Standard deviation (m) of a scale that nothing confirms: it moves the camera to and from a keyframe."""
        origin = support.pose.map_T_camera[:3, 3]
        uncertain = [
            m.scale_sigma * float(np.linalg.norm(origin - self.map[id].map_T_camera[:3, 3]))
            for id, m, inliers in zip(found.ids, found.matches, inliers_by_keyframe(support), strict=True)
            if inliers >= SUPPORT
        ]
        # The pose is as certain as the supporting keyframe whose scale matters least leaves it.
        return min(uncertain, default=0.0)


def _from_prior(count: int) -> int:
    """How many of so many keyframes come from where the camera should be; the others look similar."""
    return (count + 1) // 2


def _estimate(found: Correspondences, support: Support, verdict: Verdict, limit: AlertLimit) -> PoseEstimate:
    """Gather pose, verdict and what supports them."""
    counts = inliers_by_keyframe(support)
    order = [int(k) for k in np.argsort(-counts, kind="stable")]
    bounds = np.cumsum([len(m) for m in found.matches])[:-1]
    inliers = np.split(support.pose.inlier, bounds)
    evidence = verdict.evidence
    # Ranks estimates from 0 to 1: inliers that are many and everywhere; 0.5 about where the gates are.
    strength = evidence.inliers * evidence.spread
    return PoseEstimate(
        status=Status.LOCALIZED if verdict.reason is Reason.NONE else Status.REJECTED,
        reason=verdict.reason,
        detail=verdict.detail,
        map_T_camera=support.pose.map_T_camera,
        covariance=verdict.covariance,
        protection=verdict.protection,
        alert_limit=limit,
        keyframes=tuple(found.ids[k] for k in order if counts[k] > 0),
        evidence=evidence,
        confidence=float(strength / (strength + 4.0)),
        camera_focal_px=support.pose.focal_px,
        matched=tuple(KeyframeMatches(found.ids[k], found.matches[k], inliers[k]) for k in order),
    )
