"""The mapper: camera frames and their poses from TF -> a map, and how well the map covers the place.

An ordinary node, not a managed one: it loads nothing that takes long, and its map must not be lost in a
transition.
"""

from __future__ import annotations

import time
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from mast3r_ros.errors import MapError, UserError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.localization.coverage import Coverage, CoverageVerdict
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.mapping.session import MappingSession
from mast3r_ros.matching import from_settings
from mast3r_ros.memory import resident_mib
from mast3r_ros.multiview.refine_map import is_odometry, refine_map
from mast3r_ros.ros import conversions, diagnostics, qos
from mast3r_ros.ros.attempts import Attempts, Outcome
from mast3r_ros.ros.complaints import Complaints
from mast3r_ros.ros.coverage_markers import to_coverage_markers
from mast3r_ros.ros.depth_registration import DepthRegistration
from mast3r_ros.ros.diagnostics import Statistics
from mast3r_ros.ros.intake import Arrival, FrameRefused, Intake
from mast3r_ros.ros.mapper_parameters import MapperParameters
from mast3r_ros.ros.parameters import Parameters
from mast3r_ros.ros.tf import TransformListener
from mast3r_ros.ros.worker import LatestWorker
from mast3r_ros.transforms import TransformUnavailable

#: How long ~/add_keyframe waits for a frame that can be used, seconds.
ADD_TIMEOUT_S = 5.0
DIAGNOSTICS_PERIOD_S = 1.0
#: Image stamps that step back by more than this mean that time was reset (a bag played again), nanoseconds.
TIME_RESET_NS = 1_000_000_000
#: A map without a camera is useless, so frames wait for camera_info as long as it takes.
FOREVER_S = float("inf")


class Mapper(Node):
    """Selects keyframes on a worker thread, tries frames against the map on a second one.

    Needs an executor with several threads, because ``~/add_keyframe`` waits for a frame.

    Attributes:
        exit_code: 1 if keyframes could not be saved when the node was destroyed.

    Raises:
        ParameterError, MapError, MatcherError: where it cannot begin.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("mapper", **options)
        self.exit_code = 0
        try:
            self._table = Parameters(self, MapperParameters, managed=False)
            self._settings = self._table.snapshot()
            self._table.freeze(True)
            self.session, self._coverage = _prepared(self._settings)
        except UserError:
            super().destroy_node()
            raise
        self._complaints = Complaints(self.get_logger())
        self._statistics = Statistics()
        self._wanted = Attempts()
        self._last_stamp_ns = self._shown = 0
        self._next_trial = self._next_autosave = 0.0
        self._tf = TransformListener(self, lambda message: self._complaints.say("bad_transform", message))
        self._registration = DepthRegistration(self._tf, lambda: self._table.snapshot().tf_timeout)
        self._intake = Intake(self._complaints, self._registration)
        self._mapping = LatestWorker(self._map, self._failed, "mapping")
        self._trying = LatestWorker(self._try, self._failed, "coverage")
        self._announce()
        self._mapping.start()
        self._trying.start()
        where = f"in frame '{self._settings.global_frame_id}' to {self._settings.map}"
        self.get_logger().info(f"mapping {where} ({len(self.session.map)} keyframes)")

    def destroy_node(self) -> None:
        """Stop working, save what is not saved yet, and destroy the node. The executor must not spin it any more."""
        self._mapping.stop()
        self._trying.stop()
        self._tf.destroy()
        self._wanted.answer_all(Outcome(False, "the node is shutting down"))
        self.session.settle()
        if self.session.unsaved and self._table.snapshot().save_on_shutdown:
            self.exit_code = 0 if self.save(triangulate=False).success else 1
        super().destroy_node()

    def save(self, triangulate: bool = True) -> Outcome:
        """Save to the parameter ``map``; the outcome says what was saved or why not."""
        try:
            message = self.session.save(Path(self._table.snapshot().map), triangulate)
        except MapError as error:
            self.get_logger().error(f"not saved: {error}; {self.session.unsaved} keyframes are kept in memory")
            return Outcome(False, str(error))
        self.get_logger().info(message)
        return Outcome(True, message)

    # -- topics and services -----------------------------------------------------------------------

    def _announce(self) -> None:
        compressed = self._settings.image_transport == "compressed"
        sensors, services = MutuallyExclusiveCallbackGroup(), ReentrantCallbackGroup()

        def listen(kind: type, topic: str, take: Any, profile: Any) -> None:
            self.create_subscription(
                kind, topic, take, profile, callback_group=sensors, qos_overriding_options=qos.overridable()
            )

        listen(CompressedImage if compressed else Image, "image", self._take_image, qos.newest())
        listen(CameraInfo, "camera_info", self._intake.take_info, qos.small_sensor_data())
        if self._settings.use_depth:
            packed = self._settings.depth_transport == "compressedDepth"
            listen(CompressedImage if packed else Image, "depth", self._intake.take_depth, qos.small_sensor_data())
            listen(CameraInfo, "depth/camera_info", self._registration.take_info, qos.small_sensor_data())
        self._keyframes_topic = self.create_publisher(
            MarkerArray, "~/keyframes", qos.latched(), event_callbacks=qos.no_publisher_events()
        )
        self._coverage_topic = self.create_publisher(
            MarkerArray, "~/coverage", qos.latched(), event_callbacks=qos.no_publisher_events()
        )
        self._diagnostics_topic = self.create_publisher(
            DiagnosticArray, "/diagnostics", qos.reliable(), event_callbacks=qos.no_publisher_events()
        )
        self.create_service(Trigger, "~/save_map", self._on_save, callback_group=services)
        self.create_service(Trigger, "~/add_keyframe", self._on_add, callback_group=services)
        # Wall time: diagnostics and autosave go on while simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, MutuallyExclusiveCallbackGroup(), steady)

    def _take_image(self, message: Image | CompressedImage) -> None:
        arrival = Arrival(message, time.monotonic_ns())
        self._statistics.count("received")
        if arrival.stamp_ns < self._last_stamp_ns - TIME_RESET_NS:
            self.get_logger().warning("time has jumped back: transforms and depth of before are forgotten")
            self._tf.clear()
            self._intake.forget_depth()
        self._last_stamp_ns = arrival.stamp_ns
        self._mapping.submit(arrival)

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        outcome = self.save()
        self._shown = 0  # refined keyframes stand elsewhere
        response.success, response.message = outcome.success, outcome.message
        return response

    def _on_add(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        future = self._wanted.ask(time.monotonic_ns())
        try:
            outcome = future.result(ADD_TIMEOUT_S)
        except FutureTimeout:
            self._wanted.give_up(future)
            why = self._complaints.last or "no image has come"
            outcome = Outcome(False, f"no frame could be added within {ADD_TIMEOUT_S:g} s: {why}")
        response.success, response.message = outcome.success, outcome.message
        return response

    # -- on the mapping thread ---------------------------------------------------------------------

    def _map(self, arrival: Arrival) -> None:
        settings = self._table.snapshot()
        asked = self._wanted.due(arrival.received_ns)
        if not (settings.automatic or asked or settings.coverage_rate):
            return
        try:
            posed = self._posed(arrival, settings)
        except FrameRefused as refusal:
            self._statistics.count(f"refused {refusal.kind}")
            self._complaints.say(refusal.kind, str(refusal))
            return
        started = time.monotonic()
        if asked or (settings.automatic and not self._lacks_depth(posed, settings)):
            self._offer(posed, arrival, asked)
        if settings.coverage_rate and started >= self._next_trial and len(self.session.map):
            self._next_trial = started + 1.0 / settings.coverage_rate
            self._trying.submit(posed)

    def _posed(self, arrival: Arrival, settings: MapperParameters) -> PosedFrame:
        """The frame with its pose at the time of exposure."""
        frame = self._intake.frame(arrival, settings, FOREVER_S)
        camera_frame = settings.camera_frame_id or arrival.message.header.frame_id
        try:
            pose = self._tf.lookup(settings.global_frame_id, camera_frame, arrival.stamp_ns, settings.tf_timeout)
        except TransformUnavailable as error:
            raise FrameRefused("no_transform", f"no pose for the image: {error}") from error
        self._complaints.cured("no_transform")
        return PosedFrame(frame, pose)

    def _lacks_depth(self, posed: PosedFrame, settings: MapperParameters) -> bool:
        """Whether a frame has no depth although somebody publishes it: a later one will, so this one is no keyframe."""
        if posed.frame.depth is not None or not (settings.use_depth and settings.selection.require_depth):
            self._complaints.cured("no_depth")
            return False
        if not self.count_publishers(self.resolve_topic_name("depth")):
            return False
        self._statistics.count("skipped no_depth")
        self._complaints.say(
            "no_depth",
            "depth is published, but none fits this image: no keyframe (see depth_slop and selection.require_depth)",
        )
        return True

    def _offer(self, posed: PosedFrame, arrival: Arrival, asked: bool) -> None:
        try:
            result = self.session.offer(posed, force=asked)
        except MapError as error:
            self._complaints.say("unusable_frame", str(error))
            self._wanted.answer(arrival.received_ns, Outcome(False, str(error)))
            return
        if isinstance(result, Keyframe):
            self._statistics.count("keyframes")
            self._wanted.answer(arrival.received_ns, Outcome(True, f"added keyframe {result.id}"))
        else:
            self._statistics.count(f"skipped {result.value}")

    # -- on the coverage thread --------------------------------------------------------------------

    def _try(self, posed: PosedFrame) -> None:
        self.session.triangulate_newest()
        trial = self._coverage.try_frame(self.session.in_map(posed))
        self._statistics.count(f"tried {trial.verdict.value}")
        self._coverage_topic.publish(
            to_coverage_markers(self._coverage.trials, self.session.map.frame_id, posed.frame.stamp_ns)
        )

    # -- on the executor ---------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        self._statistics.count("failed")
        self._complaints.say("failed", f"a frame could not be processed: {type(error).__name__}: {error}")

    def _report(self) -> None:
        self._autosave()
        self._show_keyframes()
        self._tf.report_duplicate_publishers(self._complaints)
        session, counts = self.session, self._coverage.counts()
        trouble = self._complaints.going_on
        uncovered = counts[CoverageVerdict.UNCOVERED] + counts[CoverageVerdict.CONTRADICTED]
        level = DiagnosticStatus.WARN if trouble or uncovered > counts[CoverageVerdict.COVERED] else DiagnosticStatus.OK
        message = f"{len(session.map)} keyframes, {session.unsaved} not saved; {self._coverage.summary()}"
        values = {
            **{name: str(number) for name, number in sorted(self._statistics.counts().items())},
            "replaced by a newer frame": str(self._mapping.replaced),
            "troubles": ", ".join(trouble) or "none",
            "memory (MiB)": f"{resident_mib():.0f}",
        }
        status = diagnostics.status(f"{self.get_name()}: map", self._settings.map, level, message, values)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_topic.publish(array)

    def _show_keyframes(self) -> None:
        """At the pace of the diagnostics: drawing thousands of keyframes anew for each new one would be slow."""
        keyframes = self.session.map.keyframes
        if len(keyframes) != self._shown:
            self._shown = len(keyframes)
            markers = conversions.to_keyframe_markers(keyframes, self.session.map.frame_id, self._last_stamp_ns)
            self._keyframes_topic.publish(markers)

    def _autosave(self) -> None:
        interval, now = self._table.snapshot().autosave_interval, time.monotonic()
        if not interval or now < self._next_autosave:
            return
        due, self._next_autosave = self._next_autosave > 0, now + interval
        if due and self.session.unsaved:
            self.save(triangulate=False)


def _prepared(settings: MapperParameters) -> tuple[MappingSession, Coverage]:
    """The map to be made and its trials. Raises UserError where that cannot begin."""
    if not settings.map:
        raise MapError("no place for the map given: set the parameter map (--ros-args -p map:=FOLDER)")
    path, frame_id = Path(settings.map), settings.global_frame_id
    refined = settings.refine == "true" or (settings.refine == "auto" and is_odometry(frame_id))
    session = MappingSession(
        path, frame_id, settings.selection, settings.existing, source="mapper", refine=refine_map if refined else None
    )
    matcher = from_settings(settings.matching)
    return session, Coverage(Localizer(session.map, matcher), settings.coverage_settings())
