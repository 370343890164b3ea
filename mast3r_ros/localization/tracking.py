"""Localization over time: odometry between attempts contradicts a wrong pose, and guides retrieval.

Odometry drifts slowly and never jumps; a wrong pose jumps. So a pose that odometry cannot explain is held
back until further attempts confirm it, and a robot that really was carried away is found again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.belief import Belief
from mast3r_ros.localization.commitment import View, Views
from mast3r_ros.localization.estimate import PoseEstimate, Reason, Status, Track
from mast3r_ros.localization.frozen import RepeatedPicture
from mast3r_ros.localization.late_stamps import LateStamps
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.several_views import RecentSightings, solve_together
from mast3r_ros.localization.uncertainty import worst_sigmas
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.settings import TrackerSettings

Array = NDArray[np.float64]

#: A camera should see what a keyframe saw when their views overlap by this (:mod:`mast3r_ros.mapping.overlap`) ...
SAME_VIEW = 0.2
#: ... unless hardly anything was matched: covered, dark or blurred pictures say nothing.
TELLING_MATCHES = 20
#: Frames that speak against a track count once in this share of the time after which it is given up: neighbours show
#: the same person passing.
APART = 8


class Tracker:
    """A Localizer with a memory. One caller at a time."""

    def __init__(self, localizer: Localizer, settings: TrackerSettings = TrackerSettings()) -> None:
        self.localizer = localizer
        self.settings = settings
        self.reset()

    @property
    def map(self) -> KeyframeMap:
        """The map that frames are localized in."""
        return self.localizer.map

    @property
    def map_T_odom(self) -> Array | None:
        """(4, 4) correction of the odometry by the last accepted pose; None before the track is committed."""
        return self._accepted.map_T_odom if self._accepted is not None and self._committed else None

    def reset(self) -> None:
        """Forget everything: the robot may be anywhere."""
        self._accepted: Belief | None = None
        self._proposed: Belief | None = None
        self._prior: Belief | None = None
        self._views = self._proposed_views = Views()
        self._committed = False
        self._lost = ""
        self._unseen: list[int] = []
        self._recent = RecentSightings()
        self._picture = RepeatedPicture()
        self._late = LateStamps()

    def set_prior(self, prior: PosePrior, odom_T_camera: Array | None = None, stamp_ns: int = 0) -> None:
        """Tell where the camera is believed to be (a person's estimate). Replaces what was known.

        The first answer that agrees with it is committed at once.

        Args:
            odom_T_camera: (4, 4) odometry at that moment, so that the belief moves along with the robot.
        """
        self.reset()
        self._prior = Belief(
            prior.map_T_camera,
            odom_T_camera,
            stamp_ns,
            prior.position_sigma_m,
            prior.rotation_sigma_rad,
            told=True,
        )

    def localize(self, frame: Frame, odom_T_camera: Array | None = None) -> PoseEstimate:
        """Localize one frame and hold it against odometry.

        Args:
            odom_T_camera: (4, 4) pose of the camera in the odometry frame at the frame's stamp, or None.
        """
        self._accepted, self._proposed, self._prior = (
            None if belief is None or belief.expired(frame.stamp_ns, self.settings) else belief.travelled(odom_T_camera)
            for belief in (self._accepted, self._proposed, self._prior)
        )
        if self._accepted is None:
            self._views, self._committed = Views(), False
        self._late.travelled(frame.stamp_ns, odom_T_camera)
        believed = self._guide
        prior = None if believed is None else believed.now(frame.stamp_ns, odom_T_camera, self.settings)
        estimate = self.localizer.localize(frame, prior)
        slack_m = self.settings.slack * self.map.view_depth_m
        frozen = self._picture.frozen(frame, odom_T_camera, slack_m, self.settings.slack_rad)
        if frozen:  # an old picture says nothing of where the camera is, and nothing of the track
            return self._told(self._contradicted(estimate, frozen) if estimate.localized else estimate)
        if odom_T_camera is not None and self.settings.joint_frames > 1:
            depth_m = self.map.view_depth_m
            recent = self._recent.with_frame(frame, estimate, odom_T_camera, self.settings, depth_m)
            if not estimate.localized:
                estimate = solve_together(self.localizer, recent, prior)
        if estimate.localized:
            estimate = self._judge(estimate, odom_T_camera, frame.stamp_ns)
        if not estimate.localized:
            self._refused(estimate, odom_T_camera, frame.stamp_ns)
        elif late := self._late.beyond(estimate):  # the track is right, with the odometry of then
            estimate = self._contradicted(estimate, late)
        return self._told(estimate)

    @property
    def _guide(self) -> Belief | None:
        """What may guide an attempt: answers that are to confirm a track must not be led by it.

        Of a camera that was carried away the track shows the wrong keyframes: while it is in doubt, every other attempt
        looks everywhere.
        """
        tentative = self._accepted is not None and self._accepted.map_T_odom is not None and not self._committed
        if len(self._unseen) % 2:
            return None
        return self._prior if tentative else self._accepted or self._prior

    def _judge(self, estimate: PoseEstimate, odom_T_camera: Array | None, stamp_ns: int) -> PoseEstimate:
        """Accept a pose that agrees with the track, or with enough earlier proposals."""
        assert estimate.map_T_camera is not None and estimate.covariance is not None
        position, rotation = worst_sigmas(estimate.covariance)
        fix = Belief(estimate.map_T_camera, odom_T_camera, stamp_ns, position, rotation)
        if odom_T_camera is not None and estimate.alert_limit is not None:
            self._late.reconsider(fix, estimate.alert_limit, self.settings)
            fix = replace(fix, odom_T_camera=self._late.then(odom_T_camera))
        told = self._prior is not None and self._agree(self._prior, fix)
        if self._accepted is not None and self._agree(self._accepted, fix):
            self._accept(fix, self._with_view(self._views, odom_T_camera, estimate), told)
            return estimate
        views = Views()
        if self._proposed is not None and self._agree(self._proposed, fix):
            fix, views = replace(fix, seen=self._proposed.seen + 1), self._proposed_views
        self._proposed, self._proposed_views = fix, self._with_view(views, odom_T_camera, estimate)
        first = self._accepted is None
        needed = self.settings.first_confirmations if first else self.settings.confirmations
        against = "no earlier attempt" if first else self._difference(self._accepted, fix)
        if fix.seen >= needed:
            if self._committed:
                self._lose(f"{fix.seen} answers agree that the camera is {against}")
            self._accept(fix, self._proposed_views, told)
            return estimate
        detail = f"{against}; confirmed by {fix.seen} of {needed} attempts"
        return self._contradicted(estimate, detail)

    @staticmethod
    def _contradicted(estimate: PoseEstimate, why: str) -> PoseEstimate:
        return replace(estimate, status=Status.REJECTED, reason=Reason.ODOMETRY_DISAGREES, detail=why)

    def _accept(self, fix: Belief, views: Views, told: bool) -> None:
        """The track goes on from here, and is committed where that is due."""
        self._accepted, self._proposed, self._views, self._unseen = fix, None, views, []
        if self._committed or told or views.suffice(self.settings):
            self._committed, self._lost, self._prior = True, "", None

    def _lose(self, why: str) -> None:
        """The track is contradicted: nothing is known but what will be found from now on."""
        self._accepted, self._prior, self._views = None, None, Views()
        self._committed, self._lost, self._unseen = False, why, []
        self._recent = RecentSightings()

    def _refused(self, estimate: PoseEstimate, odom_T_camera: Array | None, stamp_ns: int) -> None:
        """What an attempt without an answer says about the track."""
        if self._accepted is None or odom_T_camera is None:
            return
        predicted = self._accepted.now(stamp_ns, odom_T_camera, self.settings)
        other = estimate.reason is Reason.ODOMETRY_DISAGREES
        if estimate.map_T_camera is not None and self._near(estimate.map_T_camera, predicted):
            self._unseen = []  # found, if not well enough to be answered
            return
        against = other or self._should_see(estimate, predicted.map_T_camera)
        if self._committed:
            self._doubt(against, stamp_ns)
        elif against:
            self._views = self._with_view(self._views, odom_T_camera, estimate)

    def _doubt(self, against: bool, stamp_ns: int) -> None:
        """A committed track was not confirmed: it is given up where that lasts, and enough of it speaks against it.

        Frames that say nothing (the map knows nothing there, or they show nothing) do not confirm it either.
        """
        apart_s = self.settings.lost_after_s / APART
        if against and (not self._unseen or stamp_ns - self._unseen[-1] >= apart_s * 1e9):
            self._unseen.append(stamp_ns)
        for_s = (stamp_ns - self._unseen[0]) * 1e-9 if self._unseen else 0.0
        if 0 < self.settings.lost_after_s <= for_s and len(self._unseen) >= self.settings.confirmations:
            self._lose(f"for {for_s:.1f} s nothing was seen of what should be seen where the track has the camera")

    def _should_see(self, estimate: PoseEstimate, map_T_camera: Array) -> bool:
        """Whether a picture that shows something shows nothing of what a keyframe saw from about there."""
        telling = sum(len(m.matches) for m in estimate.matched) >= TELLING_MATCHES
        return telling and max(self.map.overlaps(map_T_camera).values(), default=0.0) >= SAME_VIEW

    def _with_view(self, views: Views, odom_T_camera: Array | None, estimate: PoseEstimate) -> Views:
        if odom_T_camera is None or estimate.frames > 1:  # several frames together are no evidence of their own
            return views
        found = estimate.localized
        view = View(
            odom_T_camera,
            found,
            estimate.evidence.explained,
            frozenset(estimate.keyframes) if found else frozenset(),
        )
        return views.with_view(view, self.settings.commit_distance * self.map.view_depth_m, self.settings.commit_turn)

    def _told(self, estimate: PoseEstimate) -> PoseEstimate:
        """The estimate with what is known of the track."""
        if self.map_T_odom is not None:
            return replace(estimate, track=Track.COMMITTED)
        missing = self._views.missing(self.settings) if self._accepted is not None else ""
        if self._lost:
            return replace(
                estimate, track=Track.LOST, track_detail="; ".join(part for part in (self._lost, missing) if part)
            )
        if not self._views.views:
            return estimate
        return replace(estimate, track=Track.TENTATIVE, track_detail=missing)

    def _agree(self, earlier: Belief, fix: Belief) -> bool:
        """Whether odometry explains how the camera came from one pose to the other."""
        predicted = earlier.now(fix.stamp_ns, fix.odom_T_camera, self.settings)
        return self._near(fix.map_T_camera, predicted, fix.position_sigma_m, fix.rotation_sigma_rad)

    def _near(self, map_T_camera: Array, predicted: PosePrior, sigma_m: float = 0.0, sigma_rad: float = 0.0) -> bool:
        """Whether a pose of such uncertainty can be the predicted one."""
        settings = self.settings
        metres, degrees = se3.pose_error(map_T_camera, predicted.map_T_camera)
        return bool(
            metres
            <= settings.slack * self.map.view_depth_m + settings.limit * np.hypot(predicted.position_sigma_m, sigma_m)
            and np.radians(degrees)
            <= settings.slack_rad + settings.limit * np.hypot(predicted.rotation_sigma_rad, sigma_rad)
        )

    def _difference(self, earlier: Belief | None, fix: Belief) -> str:
        assert earlier is not None
        predicted = earlier.now(fix.stamp_ns, fix.odom_T_camera, self.settings)
        metres, degrees = se3.pose_error(fix.map_T_camera, predicted.map_T_camera)
        return f"{metres:.2f} m and {degrees:.0f} deg from where odometry says the camera is"
