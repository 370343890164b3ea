"""One image message on its way through the relocalizer: checked, decoded, localized, published.

Runs on the worker's thread. Other threads only leave requests, which are applied before the next frame.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.localization.estimate import DepthCheck, PoseEstimate
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.stage_clock import StageClock
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.ros.attempts import Outcome
from mast3r_ros.ros.camera_transforms import CameraInTf, CameraTransforms
from mast3r_ros.ros.correction import CorrectionBroadcaster
from mast3r_ros.ros.frame_dates import FrameDates
from mast3r_ros.ros.intake import Arrival, FrameRefused, Intake
from mast3r_ros.ros.node_context import NodeContext
from mast3r_ros.ros.outputs import Outputs
from mast3r_ros.ros.pose_output import PoseOutput
from mast3r_ros.settings import NodeSettings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BasePrior:
    """Where a person says that the robot is."""

    map_T_base: Array
    position_sigma_m: float
    rotation_sigma_rad: float
    stamp_ns: int


class FrameProcessor:
    """Takes arrivals from the worker.

    Attributes:
        camera: what TF says of the camera; its listener is set while the node is active.
    """

    def __init__(
        self,
        context: NodeContext,
        relocalizer: Relocalizer,
        intake: Intake,
        outputs: Outputs,
        correction: CorrectionBroadcaster,
    ) -> None:
        self._settings = context.settings
        self._attempts = context.attempts
        self._statistics = context.statistics
        self._complaints = context.complaints
        self._relocalizer = relocalizer
        self._intake = intake
        self._outputs = outputs
        self._poses = PoseOutput(outputs, correction, context.complaints)
        self._dates = FrameDates(context, self.time_jumped)
        self.camera = CameraTransforms(context.statistics, context.complaints)
        self._lock = threading.Lock()
        self._epoch = 0
        self._next: Relocalizer | None = None
        self._reset_wanted = False
        self._prior: BasePrior | None = None

    @property
    def relocalizer(self) -> Relocalizer:
        """What the next frame will be localized with."""
        return self._next or self._relocalizer

    def reset(self) -> None:
        """The robot may be anywhere: forget the track, stop broadcasting, drop the attempt in work."""
        with self._lock:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """End an epoch; the caller holds the lock, under which an attempt checks its epoch and publishes its pose."""
        self._epoch += 1
        self._reset_wanted = True
        self._poses.forget()

    def time_jumped(self, back_ns: int = 0) -> None:
        """Time went back, the node's clock by ``back_ns``: nothing from before holds any longer."""
        self.reset()
        self._dates.time_jumped(back_ns)
        self._intake.forget_depth()
        self._outputs.forget_path()
        self.camera.clear()

    def set_prior(self, prior: BasePrior) -> None:
        """Where the robot is believed to be; used as soon as TF tells where the camera is on the robot."""
        with self._lock:
            self._prior = prior

    def switch(self, relocalizer: Relocalizer) -> None:
        """Use another map from the next frame on."""
        with self._lock:
            self._begin_anew()
            self._next = relocalizer
        self._outputs.forget_path()

    def process(self, arrival: Arrival) -> None:
        """Worker's entry: one attempt, whose outcome is told to whoever asked for it."""
        try:
            self._attempt(arrival)
        except FrameRefused as refused:
            self._statistics.count(f"refused {refused.kind}")
            self._complaints.say(refused.kind, str(refused))
            if not refused.kind.startswith("waiting"):
                self._attempts.answer(arrival.received_ns, Outcome(False, str(refused)))
        except UserError as error:
            self._statistics.count(f"refused {type(error).__name__}")
            self._complaints.say(type(error).__name__, f"frame refused: {error}")
            self._attempts.answer(arrival.received_ns, Outcome(False, str(error)))
        except Exception as error:
            self._statistics.count("refused internal_error")
            self._attempts.answer(arrival.received_ns, Outcome(False, f"internal error: {error!r}"))
            raise

    def _attempt(self, arrival: Arrival) -> None:
        settings = self._settings()
        p = settings.node
        self._apply_requests()
        if not self._dates.is_timely(arrival, p.max_frame_age):
            return
        epoch = self._apply_requests()  # again: this image may have shown a jump in time
        clock = StageClock()
        with clock.stage("decode"):
            frame = self._intake.frame(arrival, p, p.camera_info_wait)
        with clock.stage("tf"):
            camera = self.camera.at(arrival, p)
            self._use_prior(camera, arrival.stamp_ns, p)
        self._relocalizer.settings = settings
        estimate = replace(self._relocalizer.track(frame, camera.odom_T_camera), stamp_ns=frame.stamp_ns)
        with clock.stage("publish"):
            with self._lock:
                if epoch != self._epoch:  # time jumped or a reset came meanwhile: this pose belongs to the past
                    self._statistics.count("overtaken by a reset")
                    return
                self._publish_verdict(estimate, camera, arrival, p)
            self._publish_pictures(frame, estimate, arrival, p)
        whole = (time.monotonic_ns() - arrival.received_ns) / 1e6
        stages = {**clock.ms, **estimate.timings_ms, "image to pose": whole}
        self._statistics.attempt(estimate.localized, estimate.reason.value, stages, estimate.bounds)
        self._tell_unchecked_depth(estimate)
        self._outputs.status(estimate, stages, camera.frame_id)

    def _apply_requests(self) -> int:
        """Do what other threads asked for; returns the epoch that this attempt belongs to."""
        with self._lock:
            if self._next is not None:
                self._relocalizer, self._next = self._next, None
            if self._reset_wanted:
                self._relocalizer.reset()
                self._reset_wanted = False
            return self._epoch

    def _use_prior(self, camera: CameraInTf, stamp_ns: int, p: NodeSettings) -> None:
        """Hand a waiting prior to the tracker, as the pose of the camera."""
        with self._lock:
            prior = self._prior
        if prior is None:
            return
        if camera.base_T_camera is None:
            self._complaints.say(
                "prior_waits", f"the initial pose waits for the transform {p.base_frame_id} -> {camera.frame_id}"
            )
            return
        # Odometry at the moment the prior was given, so that the belief moves along with the robot.
        odom_T_camera = self.camera.odometry_at(camera, prior.stamp_ns, p)
        map_T_camera = prior.map_T_base @ camera.base_T_camera
        belief = PosePrior(map_T_camera, prior.position_sigma_m, prior.rotation_sigma_rad)
        self._relocalizer.set_prior(belief, odom_T_camera, prior.stamp_ns or stamp_ns)
        with self._lock:
            if self._prior is prior:
                self._prior = None
        self._complaints.cured("prior_waits")

    def _publish_verdict(self, estimate: PoseEstimate, camera: CameraInTf, arrival: Arrival, p: NodeSettings) -> None:
        self._statistics.track = estimate.track, estimate.track_detail
        self._poses.follow(estimate)
        if not estimate.localized:
            words = f"not localized: {estimate.reason.value} ({estimate.detail})"
            self._attempts.answer(arrival.received_ns, Outcome(False, words))
            return
        asked = self._attempts.answer(arrival.received_ns, Outcome(True, _pose_in_words(estimate, p)))
        map_T_odom, known = self._relocalizer.map_T_odom, self.camera.base_known
        self._poses.publish(estimate, camera, map_T_odom, p, base_known=known, asked=asked)

    def _publish_pictures(self, frame: Frame, estimate: PoseEstimate, arrival: Arrival, p: NodeSettings) -> None:
        if estimate.localized:
            self._outputs.cloud(self._relocalizer.localizer, frame, estimate, p.points_stride)
        self._outputs.matches(frame, estimate, self._relocalizer.map, arrival.message.header.frame_id)

    def _tell_unchecked_depth(self, estimate: PoseEstimate) -> None:
        """Depth that has no values at the inliers would look like a check that was passed."""
        if estimate.evidence.depth_check is DepthCheck.TOO_SPARSE:
            self._statistics.count("not checked against depth")
            share = f"at {estimate.evidence.depth_coverage:.0%} of the inliers"
            self._complaints.say("sparse_depth", f"poses are not checked against depth: it was measured {share} only")
        elif estimate.evidence.depth_check is DepthCheck.DONE:
            self._complaints.cured("sparse_depth")


def _pose_in_words(estimate: PoseEstimate, p: NodeSettings) -> str:
    assert estimate.map_T_camera is not None
    x, y, z = estimate.map_T_camera[:3, 3]
    evidence = estimate.evidence
    return (
        f"localized: camera at ({x:.3f}, {y:.3f}, {z:.3f}) m in {p.global_frame_id}, "
        f"+- {100 * evidence.position_sigma_m:.1f} cm and {evidence.rotation_sigma_deg:.1f} deg, "
        f"{evidence.inliers} inliers, keyframes {', '.join(estimate.keyframes[:3])}"
        f"{f'; track {estimate.track.value}: {estimate.track_detail}' if estimate.track_detail else ''}"
    )
