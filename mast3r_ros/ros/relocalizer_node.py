"""The relocalizer: a managed node that finds a camera in a map of keyframes.

It holds no geometry. This file says what exists in which lifecycle state, and has its services.
"""

from __future__ import annotations

import concurrent.futures
import time
import traceback
from collections.abc import Callable
from threading import RLock
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, State, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Empty, Trigger

from mast3r_ros.errors import UserError, as_run_here
from mast3r_ros.matching import Matcher, from_settings
from mast3r_ros.memory import resident_mib
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.ros import bond, conversions, diagnostics, priors, qos
from mast3r_ros.ros.amcl_interface import AmclInterface
from mast3r_ros.ros.attempts import Attempts, Outcome
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.correction import CorrectionBroadcaster
from mast3r_ros.ros.depth_registration import DepthRegistration
from mast3r_ros.ros.frame_processor import FrameProcessor
from mast3r_ros.ros.intake import Arrival, Intake
from mast3r_ros.ros.lifecycle import Lifecycle
from mast3r_ros.ros.map_loading import load_relocalizer
from mast3r_ros.ros.node_context import NodeContext
from mast3r_ros.ros.outputs import Outputs
from mast3r_ros.ros.parameters import ParameterError, Parameters
from mast3r_ros.ros.tf import TransformListener
from mast3r_ros.ros.worker import LatestWorker
from mast3r_ros.settings import NodeSettings, Settings

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class RelocalizerNode(LifecycleNodeMixin, Node):
    """Managed node; needs an executor with several threads, because ``~/relocalize`` waits for its attempt.

    Attributes:
        lifecycle: tells the node's state.

    Raises:
        ParameterError: listing every refused value of the launch or parameter file.
    """

    def __init__(self, **options: Any) -> None:
        Node.__init__(self, "relocalizer", **options)
        # get_state must answer while configure loads a map: lifecycle services may run side by side.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.lifecycle = Lifecycle(self)
        try:
            self._settings = Parameters(self, Settings)
        except ParameterError:
            Node.destroy_node(self)
            raise
        self._complaints = Complaints(self.get_logger())
        self._statistics = diagnostics.Statistics()
        self._attempts = Attempts()
        self._intake = Intake(self._complaints)
        self._transitions = RLock()
        self._stopping = False
        self._processor: FrameProcessor | None = None
        self._outputs: Outputs | None = None
        self._correction: CorrectionBroadcaster | None = None
        self._amcl: AmclInterface | None = None
        self._worker: LatestWorker[Arrival] | None = None
        self._live: list[Callable[[], Any]] = []
        self._submitted_at = -np.inf
        self._offer_services()
        self._report_health()
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jumps = self.get_clock().create_jump_callback(backwards, post_callback=self._clock_jumped)
        self._autostart: Timer | None = None
        if self._settings.snapshot().node.autostart:
            group = MutuallyExclusiveCallbackGroup()
            self._autostart = self.create_timer(0.0, self._start_by_itself, group, _steady())

    # -- lifecycle ---------------------------------------------------------------------------------

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load matcher and map. A failure leaves the node unconfigured, and says why."""
        with self._transitions:
            try:
                self._configure()
            except UserError as error:
                self.get_logger().error(f"cannot configure: {as_run_here(str(error))}")
                return FAILURE
            except Exception:
                self.get_logger().error(f"cannot configure:\n{traceback.format_exc()}")
                return FAILURE
            return super().on_configure(state)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Create topics, transforms and the worker."""
        with self._transitions:
            try:
                super().on_activate(state)
                self._activate()
            except Exception:
                self.get_logger().error(f"cannot activate:\n{traceback.format_exc()}")
                return TransitionCallbackReturn.ERROR
        return SUCCESS

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Take topics, transforms and the worker down; map and model stay."""
        with self._transitions:
            self._deactivate()
            return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Forget map and model."""
        with self._transitions:
            self._clean_up()
            return super().on_cleanup(state)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Take everything down, from whatever state."""
        return self._take_down()

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """An unexpected failure in a transition: back to unconfigured."""
        return self._take_down()

    def destroy_node(self) -> None:
        """Take everything down and destroy the node. The executor must not spin it any more."""
        self._stopping = True
        self._take_down()
        self._jumps.unregister()
        super().destroy_node()

    def stop_loading(self) -> None:
        """The process is about to end: give up a *configure* at its next keyframe, and answer all who wait."""
        self._stopping = True
        self._attempts.answer_all(Outcome(False, "the node is shutting down"))

    def _configure(self) -> None:
        settings = self._settings.snapshot()
        p = settings.node
        if p.bond == "true":
            bond.status_type()  # raises where it is not installed
        relocalizer = self._load(settings, from_settings(settings.matching))
        self._settings.freeze(True)
        self._outputs = Outputs(self, p.global_frame_id, p.path_length, p.feed == "amcl")
        self._correction = CorrectionBroadcaster(self, p.global_frame_id, p.odom_frame_id)
        context = NodeContext(self, self._settings.snapshot, self._attempts, self._statistics, self._complaints)
        self._processor = FrameProcessor(context, relocalizer, self._intake, self._outputs, self._correction)
        self._amcl = AmclInterface(context, self._processor, beside_amcl=p.feed == "amcl")
        self._worker = LatestWorker(self._processor.process, self._say_failure, "localization")
        if p.set_initial_pose:
            self._processor.set_prior(priors.from_settings(p.initial_pose))

    def _load(self, settings: Settings, matcher: Matcher) -> Relocalizer:
        """Read the map that the settings name. Raises MapError."""
        return load_relocalizer(settings, matcher, self.get_logger(), lambda: self._stopping)

    def _activate(self) -> None:
        assert self._processor is not None and self._worker is not None
        assert self._outputs is not None and self._amcl is not None
        p = self._settings.snapshot().node
        self._worker.start()
        transforms = TransformListener(self, lambda why: self._complaints.say("bad_tf", why))
        self._processor.camera.listener = transforms
        image_type = CompressedImage if p.image_transport == "compressed" else Image
        self._subscribe(image_type, "image", self._take_image, qos.newest())
        self._subscribe(CameraInfo, "camera_info", self._intake.take_info, qos.newest())
        if p.use_depth:
            self._hear_depth(p, transforms)
        if p.feed != "amcl":  # our own seeds on initialpose would come back as priors
            self._subscribe(PoseWithCovarianceStamped, "initialpose", self._amcl.take_initial_pose, qos.reliable())
        timer = self.create_timer(1 / p.tf_rate, self._repeat_correction, MutuallyExclusiveCallbackGroup())
        self._live += [transforms.destroy, lambda: self.destroy_timer(timer)]
        self._outputs.map(self._processor.relocalizer.map, p.map_points_voxel, self._now_ns())
        self._form_bond(p)

    def _form_bond(self, p: NodeSettings) -> None:
        if p.bond == "false" or p.bond_heartbeat_period == 0:
            return
        if p.bond == "true" or bond.is_available():
            self._live.append(bond.Bond(self, p.bond_heartbeat_period).destroy)
        elif not p.autostart:  # a lifecycle manager started us, and may wait for a bond
            why = "the ROS package bond is not installed"
            self.get_logger().warning(f"no bond: {why}. Nav2's lifecycle manager needs bond_timeout: 0.0, then")

    def _hear_depth(self, p: NodeSettings, transforms: TransformListener) -> None:
        registration = DepthRegistration(transforms, lambda: self._settings.snapshot().node.tf_timeout)
        self._intake.registration = registration
        depth_type = CompressedImage if p.depth_transport == "compressedDepth" else Image
        self._subscribe(depth_type, "depth", self._intake.take_depth, qos.newest())
        self._subscribe(CameraInfo, "depth/camera_info", registration.take_info, qos.newest())

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], profile: object) -> None:
        group = MutuallyExclusiveCallbackGroup()
        subscription = self.create_subscription(
            kind, topic, callback, profile, callback_group=group, qos_overriding_options=qos.overridable()
        )
        self._live.append(lambda: self.destroy_subscription(subscription))

    def _deactivate(self) -> None:
        while self._live:
            self._live.pop()()
        if self._worker is not None and not self._worker.stop():
            self.get_logger().error("the frame in work does not end; its result will be ignored")
        if self._processor is not None:
            self._processor.camera.listener = None
        if self._correction is not None:
            self._correction.forget()
        self._intake.clear()
        self._attempts.answer_all(Outcome(False, "the node was deactivated"))

    def _clean_up(self) -> None:
        for part in (self._amcl, self._outputs, self._correction):
            if part is not None:
                part.destroy()
        self._processor = self._outputs = self._correction = self._amcl = self._worker = None
        self._settings.freeze(False)

    def _take_down(self) -> TransitionCallbackReturn:
        with self._transitions:
            self._deactivate()
            self._clean_up()
        return SUCCESS

    def _start_by_itself(self) -> None:
        assert self._autostart is not None
        self._autostart.cancel()
        if self.lifecycle.state != "unconfigured":
            return  # somebody was faster
        if self.lifecycle.change(Transition.TRANSITION_CONFIGURE):
            self.lifecycle.change(Transition.TRANSITION_ACTIVATE)
        elif self.lifecycle.state == "unconfigured" and not self._stopping:
            name = self.get_fully_qualified_name()
            self.get_logger().error(f"not started. Correct what is wrong, then: ros2 lifecycle set {name} configure")

    # -- messages: only kept here, looked at on the worker --------------------------------------------

    def _take_image(self, message: Image | CompressedImage) -> None:
        self._statistics.count("received")
        now = time.monotonic()
        max_rate = self._settings.snapshot().node.max_rate if self._worker is not None else 0
        # 10 % grace: a camera at 30 Hz that jitters must pass a limit of 30 Hz.
        if max_rate > 0 and now - self._submitted_at < 0.9 / max_rate and not self._attempts.asked:
            self._statistics.count("skipped")
            return
        self._submitted_at = now
        worker = self._worker
        if worker is not None:
            worker.submit(Arrival(message, time.monotonic_ns()))

    def _repeat_correction(self) -> None:
        p, correction = self._settings.snapshot().node, self._correction
        if correction is not None and p.tf_broadcast and p.feed != "amcl" and p.odom_frame_id:
            correction.repeat(p.transform_tolerance)

    def _clock_jumped(self, jump: Any) -> None:
        processor = self._processor
        if processor is not None:
            processor.time_jumped(max(-jump.delta.nanoseconds, 0))

    def _say_failure(self, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._complaints.say(f"failure {type(error).__name__}", f"a frame failed, the node goes on:\n{trace}")

    # -- services ----------------------------------------------------------------------------------

    def _offer_services(self) -> None:
        waiting, loading, quick = (MutuallyExclusiveCallbackGroup() for _ in range(3))
        self.create_service(Trigger, "~/relocalize", self._relocalize, callback_group=waiting)
        self.create_service(Trigger, "~/reload_map", self._reload_map, callback_group=loading)
        self.create_service(Empty, "reinitialize_global_localization", self._reinitialize, callback_group=quick)

    def _relocalize(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Answer with the outcome of the first attempt on an image that arrives from now on."""
        if self.lifecycle.state != "active":
            response.success, response.message = False, "the node is not active"
            return response
        timeout = self._settings.snapshot().node.relocalize_timeout
        before = self._statistics.counts().get("received", 0)
        asked = self._attempts.ask(time.monotonic_ns())
        try:
            outcome = asked.result(timeout)
            response.success, response.message = outcome.success, outcome.message
        except concurrent.futures.TimeoutError:
            self._attempts.give_up(asked)
            came = self._statistics.counts().get("received", 0) - before
            why = f"{came} images came: {self._complaints.last}" if came else "no image came"
            response.success, response.message = False, f"no attempt within {timeout:g} s: {why}"
        return response

    def _reinitialize(self, request: Empty.Request, response: Empty.Response) -> Empty.Response:
        processor = self._processor
        if processor is not None:
            processor.reset()
            self.get_logger().info("global localization: the track is forgotten")
        return response

    def _reload_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Load the map that parameter ``map`` names now; the old one stays where that fails."""
        with self._transitions:
            processor, outputs = self._processor, self._outputs
            if processor is None or outputs is None:
                response.success, response.message = False, "the node is not configured"
                return response
            settings = self._settings.snapshot()
            try:
                relocalizer = self._load(settings, processor.relocalizer.matcher)
            except UserError as error:
                message = f"the old map stays: {as_run_here(str(error))}"
                self.get_logger().error(message)
                response.success, response.message = False, message
                return response
            processor.switch(relocalizer)
            if self.lifecycle.state == "active":
                outputs.map(relocalizer.map, settings.node.map_points_voxel, self._now_ns())
            response.success = True
            response.message = f"{len(relocalizer.map)} keyframes from {settings.node.map}"
        return response

    # -- diagnostics -------------------------------------------------------------------------------

    def _report_health(self) -> None:
        self._health = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.reliable(), event_callbacks=qos.no_publisher_events()
        )
        self.create_timer(1.0, self._diagnose, MutuallyExclusiveCallbackGroup(), _steady())

    def _diagnose(self) -> None:
        state = self.lifecycle.state
        worker, processor = self._worker, self._processor
        matcher = processor.relocalizer.matcher if processor is not None else None
        listener = processor.camera.listener if processor is not None else None
        if listener is not None:
            listener.report_duplicate_publishers(self._complaints)
        values = {"state": state, **self._statistics.values()}
        values["replaced by newer frames"] = str(worker.replaced if worker is not None else 0)
        values["device"] = str(getattr(matcher, "device", "cpu"))
        values["matcher"] = matcher.signature if matcher is not None else ""
        values["keyframes"] = str(len(processor.relocalizer.map)) if processor is not None else "0"
        values["memory (MiB)"] = f"{resident_mib():.0f}"
        values["troubles"] = ", ".join(self._complaints.going_on)
        values["last trouble"] = self._complaints.last
        level, message = self._statistics.health(state)
        name = self.get_fully_qualified_name().lstrip("/")
        found = [diagnostics.status(f"{name}: localization", values["device"], level, message, values)]
        if state == "active" and processor is not None:
            forget_s = processor.relocalizer.settings.tracking.forget_s
            found.append(diagnostics.error_status(f"{name}: localization error", self._statistics, forget_s))
        self._health.publish(DiagnosticArray(header=conversions.header("", self._now_ns()), status=found))

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _steady() -> Clock:
    """For timers that must tick when simulated time stands still."""
    return Clock(clock_type=ClockType.STEADY_TIME)
