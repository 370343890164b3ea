"""A recording through the pipeline, offline and as fast as it goes: what the live node would have said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import BagError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagReader, BagWriter, FrameTopics, find_topics, open_bag
from mast3r_ros.io.datasets.recorded_poses import RecordedPoses
from mast3r_ros.io.documents import status_values
from mast3r_ros.lab.runs.localization import Evaluation, Watch
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.viewpoint import Viewpoints
from mast3r_ros.localization.estimate import Track
from mast3r_ros.localization.initial_pose import initial_prior
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.settings import NodeSettings
from mast3r_ros.transforms import TransformBuffer, TransformUnavailable

log = logging.getLogger(__name__)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReplaySettings:
    """What to read from the recording. Topics that are not given are found by type and name.

    Attributes:
        image_topic, camera_info_topic, depth_topic: of the camera.
        use_depth: whether verification sees the recorded depth.
        depth_slop_s: depth this close in time belongs to an image.
        odom_frame, base_frame: TF frames of odometry and robot; without them poses are tracked without odometry.
        truth_topic: topic with reference poses, to measure errors against.
        truth_file: TUM trajectory with reference poses, instead.
        truth_frame: the frame that the reference poses are in; without topic and file they are taken from TF.
        truth_body: the frame that they are the pose of, where the recording does not say; the camera by default.
        truth_gap_s, truth_difference_s, truth_offset_s: how they are held against images, see RecordedPoses.
        every: take each n-th frame only.
        stamps_ns: take the frames of these times only, such as those that a live node looked at; None takes all.
        camera: calibration of the images, instead of the recorded one.
    """

    image_topic: str | None = None
    camera_info_topic: str | None = None
    depth_topic: str | None = None
    use_depth: bool = True
    odom_frame: str = "odom"
    base_frame: str = "base_link"
    truth_topic: str | None = None
    truth_frame: str | None = None
    every: int = 1
    stamps_ns: frozenset[int] | None = None
    truth_file: Path | None = None
    truth_body: str | None = None
    truth_gap_s: float = 0.5
    truth_difference_s: float = 0.02
    truth_offset_s: float = 0.0
    depth_slop_s: float = NodeSettings.depth_slop
    camera: Camera | None = None

    @classmethod
    def of_node(cls, node: NodeSettings, **others: Any) -> ReplaySettings:
        """Reads the recording as a node with these settings hears it; ``others`` are further fields."""
        own = {
            "use_depth": node.use_depth,
            "odom_frame": node.odom_frame_id,
            "base_frame": node.base_frame_id,
            "depth_slop_s": node.depth_slop,
        }
        return cls(**{**own, **others})

    def find_topics(self, bag: BagReader) -> FrameTopics:
        """The topics that a recording's frames are read from. Raises BagError."""
        given = self.image_topic, self.camera_info_topic, self.depth_topic
        return find_topics(bag.topics, str(bag.path), *given, self.use_depth, calibrated=self.camera is not None)


@dataclass
class Replay:
    """Outcome of a replay.

    Attributes:
        evaluation: a record for every frame.
        camera_frame: optical frame of the camera.
        base_T_camera: (4, 4), or None where the recording does not tell.
        corrections: (stamp_ns, map_T_odom) after each accepted pose of a committed track.
        uncommitted: stamps of accepted poses that had odometry, of a track that was not committed.
        map_in_tf: whether the recording's own TF says where the robot is in the map.
    """

    evaluation: Evaluation
    camera_frame: str
    base_T_camera: Array | None = None
    corrections: list[tuple[int, Array]] = field(default_factory=list)
    uncommitted: set[int] = field(default_factory=set)
    map_in_tf: bool = False


def replay_bag(
    path: Path,
    relocalizer: Relocalizer,
    settings: ReplaySettings = ReplaySettings(),
    watch: Watch | None = None,
    about: dict[str, Any] | None = None,
    truth: RecordedPoses | None = None,
) -> Replay:
    """Localize the frames of a recording in their order.

    Args:
        watch: is shown every result.
        about: goes into the evaluation's settings.
        truth: reference poses, of :func:`recorded_truth`.

    Raises:
        BagError: if the recording cannot be read or has no frames.
    """
    with open_bag(path) as bag:
        topics = settings.find_topics(bag)
        camera_frame = bag.first(topics.image).header.frame_id.lstrip("/")
        transforms = bag.transforms(topics.image)
        run = Replay(
            Evaluation(
                f"Replay of {path.resolve().name}",
                settings={**topics.names, **(about or {})},
                map_fingerprint=Viewpoints(relocalizer.map).fingerprint,
            ),
            camera_frame,
            _lookup(transforms, settings.base_frame, camera_frame, None),
            map_in_tf=transforms.can_transform(relocalizer.map.frame_id, camera_frame),
        )
        _localize_all(bag, relocalizer, settings, transforms, truth, run, watch)
    records = run.evaluation.records
    if not records:
        raise BagError(f"{path}: no readable frame on {topics.image}")
    without = len(run.evaluation.accepted) - len(run.corrections) - len(run.uncommitted)
    if without:
        log.warning(
            "%d of %d poses had no odometry ('%s' to '%s' in TF)",
            without,
            len(run.evaluation.accepted),
            settings.odom_frame,
            camera_frame,
        )
    return run


def _localize_all(
    bag: BagReader,
    relocalizer: Relocalizer,
    settings: ReplaySettings,
    transforms: TransformBuffer,
    truth: RecordedPoses | None,
    run: Replay,
    watch: Watch | None,
) -> None:
    frames = bag.frames(
        settings.image_topic,
        settings.camera_info_topic,
        settings.depth_topic,
        settings.depth_slop_s,
        settings.use_depth,
        camera=settings.camera,
    )
    viewpoints, node = Viewpoints(relocalizer.map), relocalizer.settings.node
    for number, frame in enumerate(frames):
        if number % settings.every or (settings.stamps_ns is not None and frame.stamp_ns not in settings.stamps_ns):
            continue
        odom_T_camera = _lookup(transforms, settings.odom_frame, run.camera_frame, frame.stamp_ns)
        if not run.evaluation.records and node.set_initial_pose:
            relocalizer.set_prior(initial_prior(node.initial_pose, run.base_T_camera), odom_T_camera, frame.stamp_ns)
        estimate = relocalizer.track(frame, odom_T_camera)
        true_pose = pose_at(truth, frame.stamp_ns)
        viewpoint = viewpoints.nearest(true_pose)
        record = Record.of(f"{number:06d}", frame.stamp_ns, estimate, true_pose, viewpoint=viewpoint)
        run.evaluation.records.append(record)
        if estimate.localized and relocalizer.map_T_odom is not None:
            run.corrections.append((frame.stamp_ns, relocalizer.map_T_odom))
        elif estimate.localized and estimate.track is not Track.NONE:
            run.uncommitted.add(frame.stamp_ns)
        if watch is not None:
            watch(record, frame, estimate)


def count_frames(path: Path, settings: ReplaySettings = ReplaySettings()) -> int:
    """Number of images that a replay will read. Raises BagError."""
    with open_bag(path) as bag:
        topics = find_topics(bag.topics, str(path), settings.image_topic, use_depth=False)
        return -(-bag.topics[topics.image].count // settings.every)


def write_result_bag(path: Path, run: Replay, settings: ReplaySettings, map_frame: str) -> None:
    """Write the poses as the node publishes them, to be opened beside the recording.

    ~/status of every frame, with the bounds of its error; ~/pose and ~/path of the robot (of the camera where the
    recording does not relate the two), ~/ground_truth as a path where it is known, and map -> odom, or map -> robot
    where there is no odometry. Where the recording's own TF has the map, the robot hangs from it a second time as
    relocalizer/<robot>: two parents of one frame would fight.

    Raises:
        BagError: if the recording cannot be written.
    """
    body = settings.base_frame if run.base_T_camera is not None else run.camera_frame
    camera_T_body = np.eye(4) if run.base_T_camera is None else se3.inverse(run.base_T_camera)
    corrections = {} if run.map_in_tf else dict(run.corrections)
    leaf = f"relocalizer/{body}" if run.map_in_tf else body
    way: list[tuple[int, Array]] = []
    with BagWriter(path, overwrite=True) as bag:
        for record in run.evaluation.records:
            _write_status(bag, record, map_frame)
        for record in run.evaluation.accepted:
            assert record.map_T_camera is not None and record.covariance is not None
            pose = record.map_T_camera @ camera_T_body
            covariance = se3.carry_covariance(record.covariance, record.map_T_camera, camera_T_body)
            way.append((record.stamp_ns, pose))
            bag.pose("/relocalizer/pose", pose, covariance, record.stamp_ns, map_frame)
            if record.stamp_ns in corrections:
                bag.transform(map_frame, settings.odom_frame, corrections[record.stamp_ns], record.stamp_ns)
            elif run.map_in_tf or record.stamp_ns not in run.uncommitted:
                bag.transform(map_frame, leaf, pose, record.stamp_ns)
        if way:
            bag.trajectory("/relocalizer/path", way, way[-1][0], map_frame)
        truth = [(r.stamp_ns, r.truth @ camera_T_body) for r in run.evaluation.records if r.truth is not None]
        if truth:
            bag.trajectory("/relocalizer/ground_truth", truth, truth[-1][0], map_frame)


def _write_status(bag: BagWriter, record: Record, map_frame: str) -> None:
    """How the attempt ended, as the node says it on ~/status."""
    values = status_values(
        reason=record.reason,
        keyframes=record.keyframes,
        confidence=record.confidence,
        evidence=record.evidence,
        timings_ms=record.timings_ms,
        bounds=record.bounds,
    )
    message = "localized" if record.accepted else record.detail
    name = "relocalizer: attempt"
    bag.status("/relocalizer/status", name, record.accepted, message, values, record.stamp_ns, map_frame)


def recorded_truth(path: Path, settings: ReplaySettings) -> RecordedPoses | None:
    """The reference poses of a recording, None where the settings name none.

    Raises:
        BagError, DatasetError: if they cannot be read.
    """
    if settings.truth_topic is None and settings.truth_file is None and settings.truth_frame is None:
        return None
    with open_bag(path) as bag:
        topics = find_topics(bag.topics, str(path), settings.image_topic, use_depth=False)
        camera = bag.first(topics.image).header.frame_id.lstrip("/")
        if settings.truth_file is not None:
            fixed = settings.truth_frame or "map"
            truth = RecordedPoses.of_file(settings.truth_file, bag, camera, settings.truth_body, fixed, topics.image)
        elif settings.truth_topic is not None:
            body, fixed_frame = settings.truth_body, settings.truth_frame
            truth = RecordedPoses.of_topic(bag, settings.truth_topic, camera, body, fixed_frame, topics.image)
        else:
            truth = RecordedPoses.of_tf(bag, camera, settings.truth_frame, topics.image)
            transforms = bag.transforms(topics.image)
            if not transforms.can_transform(truth.fixed_frame, camera):
                known = ", ".join(transforms.frames) or "nothing"
                raise DatasetError(
                    f"{path}: TF (it has {known}) does not lead from '{truth.fixed_frame}' to the camera '{camera}': "
                    "name the frame of the truth (--truth-frame), or take the truth from a topic or a file"
                )
    truth.longest_gap_s, truth.max_difference_s = settings.truth_gap_s, settings.truth_difference_s
    truth.offset_s = settings.truth_offset_s
    return truth


def reference_poses(path: Path, settings: ReplaySettings) -> Callable[[int], Array | None]:
    """The reference pose at a time, None where it is unknown. Raises as :func:`recorded_truth`."""
    truth = recorded_truth(path, settings)
    return lambda stamp_ns: pose_at(truth, stamp_ns)


def pose_at(truth: RecordedPoses | None, stamp_ns: int) -> Array | None:
    """The reference pose (4, 4) at a time, None where it is unknown."""
    try:
        return None if truth is None else truth.at(stamp_ns)
    except TransformUnavailable:
        return None


def _lookup(transforms: TransformBuffer, target: str, source: str, stamp_ns: int | None) -> Array | None:
    try:
        return transforms.lookup(target, source, stamp_ns)
    except TransformUnavailable:
        return None
