"""One image message on its way through the relocalizer: checked, decoded, localized, published.

Runs on the worker's thread. Other threads only leave requests, which are obeyed before the next frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import planar, se3
from mast3r_ros.localization.estimate import DepthCheck, PoseEstimate, Track
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.ros.attempts import Attempts, Outcome
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.correction import CorrectionBroadcaster
from mast3r_ros.ros.diagnostics import Statistics
from mast3r_ros.ros.intake import Arrival, FrameRefused, Intake
from mast3r_ros.ros.outputs import Outputs
from mast3r_ros.ros.tf import TransformListener
from mast3r_ros.settings import NodeSettings, Settings
from mast3r_ros.transforms import TransformUnavailable

Array = NDArray[np.float64]

#: Image stamps that go back by more than this are a new beginning (a bag played again), seconds.
JUMP_S = 1.0
#: While nobody is known to publish transforms, they are waited for this long at most, seconds.
NO_TF_WAIT_S = 0.5


@dataclass(frozen=True, eq=False)
class BasePrior:
    """Where a person says that the robot is."""

    map_T_base: Array
    position_sigma_m: float
    rotation_sigma_rad: float
    stamp_ns: int


@dataclass(frozen=True, eq=False)
class _Whereabouts:
    """What TF says about the camera at an image's stamp; None where TF does not say."""

    camera_frame: str
    odom_T_camera: Array | None
    base_T_camera: Array | None


class FrameProcessor:
    """Takes arrivals from the worker; everything it needs is handed in."""

    def __init__(
        self,
        node: Node,
        relocalizer: Relocalizer,
        settings: Callable[[], Settings],
        intake: Intake,
        outputs: Outputs,
        correction: CorrectionBroadcaster,
        attempts: Attempts,
        statistics: Statistics,
        complaints: Complaints,
    ) -> None:
        self._node = node
        self._relocalizer = relocalizer
        self._settings = settings
        self._intake = intake
        self._outputs = outputs
        self._correction = correction
        self._attempts = attempts
        self._statistics = statistics
        self._complaints = complaints
        self.transforms: TransformListener | None = None
        self._lock = threading.Lock()
        self._epoch = 0
        self._next: Relocalizer | None = None
        self._reset_wanted = False
        self._prior: BasePrior | None = None
        self._last_stamp_ns = 0
        self._jumped_at_ns = self._jumped_back_ns = 0
        self._behind_since_ns: int | None = None
        self._base_known = False
        self._first_frame_at: float | None = None
        self._seeded_at: float | None = None
        self._seed_asked = False

    @property
    def relocalizer(self) -> Relocalizer:
        """What the next frame will be localized with."""
        return self._next or self._relocalizer

    def reset(self) -> None:
        """The robot may be anywhere: forget the track, stop broadcasting, drop the attempt in work."""
        with self._lock:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Whoever holds the lock ends an epoch: an attempt checks its own and publishes its pose under one hold."""
        self._epoch += 1
        self._reset_wanted = True
        self._seeded_at = None
        self._correction.forget()

    def time_jumped(self, back_ns: int = 0) -> None:
        """Time went back, the node's clock by ``back_ns``: nothing from before holds any longer."""
        self.reset()
        self._last_stamp_ns = 0
        self._jumped_at_ns, self._jumped_back_ns = time.monotonic_ns(), back_ns
        self._intake.forget_depth()
        self._outputs.forget_path()
        if self.transforms is not None:
            self.transforms.clear()

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
        self._obey_requests()
        if not self._is_timely(arrival, p):
            return
        epoch = self._obey_requests()  # of after a jump in time, which this very image may have told
        clock = _Stages()
        frame = self._intake.frame(
            arrival,
            rectified=p.rectified,
            info_wait_s=p.camera_info_wait,
            depth_slop_s=p.depth_slop,
            info_frame=p.camera_info_frame_id,
        )
        clock.lap("decode")
        where = self._whereabouts(arrival, p)
        self._wait_for_base(where, p)
        self._use_prior(where, arrival.stamp_ns, p)
        clock.lap("tf")
        self._relocalizer.settings = settings
        estimate = replace(self._relocalizer.track(frame, where.odom_T_camera), stamp_ns=frame.stamp_ns)
        clock.skip()
        with self._lock:
            if epoch != self._epoch:  # time jumped or a reset came meanwhile: this pose belongs to the past
                self._statistics.count("overtaken by a reset")
                return
            self._publish_verdict(estimate, where, arrival, p)
        self._publish_pictures(frame, estimate, arrival, p)
        clock.lap("publish")
        whole = (time.monotonic_ns() - arrival.received_ns) / 1e6
        stages = {**clock.ms, **estimate.timings_ms, "image to pose": whole}
        self._statistics.attempt(estimate.localized, estimate.reason.value, stages, estimate.bounds)
        self._tell_unchecked_depth(estimate)
        self._outputs.status(estimate, stages, where.camera_frame)

    def _obey_requests(self) -> int:
        """Do what other threads asked for; returns the epoch that this attempt belongs to."""
        with self._lock:
            if self._next is not None:
                self._relocalizer, self._next = self._next, None
            if self._reset_wanted:
                self._relocalizer.reset()
                self._reset_wanted = False
            return self._epoch

    def _is_timely(self, arrival: Arrival, p: NodeSettings) -> bool:
        """Whether the image is neither too old, nor from the future, nor out of order."""
        if arrival.stamp_ns == 0:
            raise FrameRefused("no_time", "images have no time (their stamps are 0): let the driver stamp them")
        now_ns, stamp_ns = self._node.get_clock().now().nanoseconds, arrival.stamp_ns
        age = (now_ns - stamp_ns) * 1e-9
        back = (self._last_stamp_ns - stamp_ns) * 1e-9
        if p.max_frame_age > 0 and now_ns == 0:
            raise FrameRefused("no_clock", "use_sim_time is set but nobody publishes /clock: images cannot be dated")
        if p.max_frame_age > 0 and abs(age) > p.max_frame_age and self._is_beside_a_jump(arrival, age, back, p):
            self._statistics.count("beside a jump in time")
            return False
        if p.max_frame_age > 0 and age < -p.max_frame_age:
            raise FrameRefused(
                "from_future",
                f"images are stamped {-age:.1f} s in the future: synchronise the clocks, or set use_sim_time",
            )
        if p.max_frame_age > 0 and age > p.max_frame_age:
            self._statistics.count("stale")
            self._complaints.say(
                "stale",
                f"images are {age:.1f} s old when they could be looked at, max_frame_age is {p.max_frame_age:g} s: "
                "dropped. Replaying a recording needs use_sim_time; a slow machine needs a lower camera rate",
            )
            return False
        self._complaints.cured("no_time", "no_clock", "from_future", "stale")
        self._behind_since_ns = None
        if back > JUMP_S:
            self._complaints.say("time_jump", f"image stamps went back by {back:.1f} s: starting anew")
            self.time_jumped()
        elif back > 0:
            self._statistics.count("out of order")
            return False
        self._last_stamp_ns = stamp_ns
        return True

    def _is_beside_a_jump(self, arrival: Arrival, age: float, back: float, p: NodeSettings) -> bool:
        """Whether an image belongs to the other side of a jump of simulated time, such as a recording's new beginning.

        Images and /clock come by different ways. For a moment after a jump, for as long as an image may be old, images
        of before are ahead of the clock, or those of after behind it: no clocks are to be synchronised.
        """
        if not self._node.get_clock().ros_time_is_active:
            return False
        patience_ns = p.max_frame_age * 1e9
        if age < 0:
            since_ns = arrival.received_ns - self._jumped_at_ns
            return since_ns < patience_ns and -age * 1e9 < self._jumped_back_ns + patience_ns
        if back <= JUMP_S:
            return False
        if self._behind_since_ns is None:
            self._behind_since_ns = arrival.received_ns
        return arrival.received_ns - self._behind_since_ns < patience_ns

    def _whereabouts(self, arrival: Arrival, p: NodeSettings) -> _Whereabouts:
        """Ask TF where the camera was, in the odometry frame and on the robot, at the image's stamp."""
        camera_frame = p.camera_frame_id or arrival.message.header.frame_id
        if not camera_frame:
            self._complaints.say(
                "no_camera_frame", "images have no frame_id and camera_frame_id is not set: no TF, no odometry"
            )
            return _Whereabouts("", None, None)
        base = self._lookup("tf_base", p.base_frame_id, camera_frame, arrival.stamp_ns, p.tf_timeout)
        odom = None
        if p.odom_frame_id:
            odom = self._lookup("tf_odom", p.odom_frame_id, camera_frame, arrival.stamp_ns, p.tf_timeout)
        return _Whereabouts(camera_frame, odom, base)

    def _wait_for_base(self, where: _Whereabouts, p: NodeSettings) -> None:
        """Static transforms may arrive seconds after the first image: until then ~/pose would be the camera's."""
        now = time.monotonic()
        if self._first_frame_at is None:
            self._first_frame_at = now
        self._base_known = self._base_known or where.base_T_camera is not None
        waits = bool(p.base_frame_id and where.camera_frame) and not self._base_known
        anybody = self.transforms is not None and self.transforms.anybody_there
        patience = p.tf_wait if anybody else min(p.tf_wait, NO_TF_WAIT_S)
        if waits and now - self._first_frame_at < patience:
            link = f"{p.base_frame_id} -> {where.camera_frame}"
            raise FrameRefused("waiting_for_tf", f"waiting for a first transform {link}")
        self._complaints.cured("waiting_for_tf")

    def _lookup(self, kind: str, target: str, source: str, stamp_ns: int, timeout_s: float) -> Array | None:
        if self.transforms is None or not target:
            return None
        try:
            found = self.transforms.lookup(target, source, stamp_ns, timeout_s)
        except TransformUnavailable as error:
            self._statistics.count(f"{kind} {type(error).__name__}")
            self._complaints.say(kind, f"no transform {target} -> {source} at the image's time: {error}")
            return None
        self._complaints.cured(kind)
        return found

    def _use_prior(self, where: _Whereabouts, stamp_ns: int, p: NodeSettings) -> None:
        """Hand a waiting prior to the tracker, as the pose of the camera."""
        with self._lock:
            prior = self._prior
        if prior is None:
            return
        if where.base_T_camera is None:
            self._complaints.say(
                "prior_waits", f"the initial pose waits for the transform {p.base_frame_id} -> {where.camera_frame}"
            )
            return
        # Odometry at the moment the prior was given, so that the belief moves along with the robot.
        odom_T_camera = where.odom_T_camera
        if p.odom_frame_id and prior.stamp_ns and self.transforms is not None:
            try:
                odom_T_camera = self.transforms.lookup(p.odom_frame_id, where.camera_frame, prior.stamp_ns)
            except TransformUnavailable:
                self._complaints.say("prior_dated", "no odometry at the initial pose's stamp: it is taken to hold now")
        map_T_camera = prior.map_T_base @ where.base_T_camera
        belief = PosePrior(map_T_camera, prior.position_sigma_m, prior.rotation_sigma_rad)
        self._relocalizer.set_prior(belief, odom_T_camera, prior.stamp_ns or stamp_ns)
        with self._lock:
            if self._prior is prior:
                self._prior = None
        self._complaints.cured("prior_waits")

    def _publish_verdict(self, estimate: PoseEstimate, where: _Whereabouts, arrival: Arrival, p: NodeSettings) -> None:
        self._statistics.track = estimate.track, estimate.track_detail
        if estimate.track is Track.LOST:
            self._correction.withdraw()
            self._complaints.say("lost", f"map -> odom is withdrawn: {estimate.track_detail}")
        elif estimate.track is Track.COMMITTED:
            self._complaints.cured("lost")
        if estimate.localized:
            asked = self._attempts.answer(arrival.received_ns, Outcome(True, _pose_in_words(estimate, p)))
            self._publish_pose(estimate, where, asked, p)
        else:
            words = f"not localized: {estimate.reason.value} ({estimate.detail})"
            self._attempts.answer(arrival.received_ns, Outcome(False, words))

    def _publish_pictures(self, frame: Frame, estimate: PoseEstimate, arrival: Arrival, p: NodeSettings) -> None:
        if estimate.localized:
            self._outputs.cloud(self._relocalizer.localizer, frame, estimate, p.points_stride)
        self._outputs.matches(frame, estimate, self._relocalizer.map, arrival.message.header.frame_id)

    def _tell_unchecked_depth(self, estimate: PoseEstimate) -> None:
        """Depth that comes and says nothing where it is asked would look like a check that was passed."""
        if estimate.evidence.depth_check is DepthCheck.TOO_SPARSE:
            self._statistics.count("not checked against depth")
            share = f"at {estimate.evidence.depth_coverage:.0%} of the inliers"
            self._complaints.say("sparse_depth", f"poses are not checked against depth: it was measured {share} only")
        elif estimate.evidence.depth_check is DepthCheck.DONE:
            self._complaints.cured("sparse_depth")

    def _publish_pose(self, estimate: PoseEstimate, where: _Whereabouts, asked: bool, p: NodeSettings) -> None:
        """~/pose is the robot's, as AMCL has it; the camera's only where TF has never told where it is mounted."""
        assert estimate.map_T_camera is not None and estimate.covariance is not None
        map_T_body, covariance = estimate.map_T_camera, estimate.covariance
        if where.base_T_camera is not None:
            camera_T_base = se3.inverse(where.base_T_camera)
            map_T_body = estimate.map_T_camera @ camera_T_base
            covariance = se3.carry_covariance(covariance, estimate.map_T_camera, camera_T_base)
        elif self._base_known:
            return  # a camera's pose among poses of the robot would be a jump
        self._outputs.pose(map_T_body, covariance, estimate.stamp_ns)
        try:
            self._seed_asked = self._seed_asked or asked
            if estimate.track in (Track.TENTATIVE, Track.LOST):
                pass  # nobody is to steer by it yet
            elif p.feed == "amcl":
                self._seed(map_T_body, covariance, estimate.stamp_ns, p)
            elif p.tf_broadcast:
                self._broadcast(map_T_body, estimate.stamp_ns, where, p)
        except planar.NotUprightError as error:
            self._complaints.say(
                "not_upright",
                f"planar: {error}: no transform is made of this pose. The map's z axis must point up, and TF must say "
                f"how the camera is mounted on {p.base_frame_id}; or set planar to false",
            )
        else:
            self._complaints.cured("not_upright")

    def _broadcast(self, map_T_body: Array, stamp_ns: int, where: _Whereabouts, p: NodeSettings) -> None:
        """Map -> odom once the track is committed; map -> base where there is no odometry at all."""
        map_T_odom = self._relocalizer.map_T_odom
        if p.odom_frame_id and where.odom_T_camera is not None and map_T_odom is not None:
            if p.is_planar:
                if where.base_T_camera is None:
                    return  # what is planar is the robot's pose, not the camera's; its absence has been told
                map_T_odom = planar.correction(map_T_body, where.odom_T_camera @ se3.inverse(where.base_T_camera))
            self._correction.correct(map_T_odom, stamp_ns, p.transform_tolerance)
        elif not p.odom_frame_id and where.base_T_camera is not None:
            map_T_base = planar.flattened(map_T_body) if p.is_planar else map_T_body
            self._correction.place(p.base_frame_id, map_T_base, stamp_ns)

    def _seed(self, map_T_base: Array, covariance: Array, stamp_ns: int, p: NodeSettings) -> None:
        """AMCL starts over with every seed, so it gets one at first, on request, and every feed_interval."""
        if not self._base_known:
            return
        now = time.monotonic()
        due = p.feed_interval > 0 and self._seeded_at is not None and now - self._seeded_at >= p.feed_interval
        if self._seed_asked or due or self._seeded_at is None:
            seed = planar.flattened(map_T_base) if p.is_planar else map_T_base
            self._outputs.seed(seed, covariance, stamp_ns)
            self._seeded_at, self._seed_asked = now, False


class _Stages:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """The time since the last lap belongs to this stage."""
        now = time.perf_counter()
        self.ms[name], self._since = 1e3 * (now - self._since), now

    def skip(self) -> None:
        """The time since the last lap is accounted for elsewhere."""
        self._since = time.perf_counter()


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
