"""A recording played in real time through the real relocalizer: two processes, DDS between them, and a listener.

The outcome has the form of an offline replay, so that reports, result bags and figures are the same for both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import FrameTopics, open_bag
from mast3r_ros.io.bags.topics import COMPRESSED, tf_topics
from mast3r_ros.lab.live.listener import LiveListener
from mast3r_ros.lab.live.processes import Process, own_environment
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.replay import Replay, ReplaySettings, reference_poses
from mast3r_ros.ros.attempt_status import AttemptStatus
from mast3r_ros.transforms import TransformUnavailable

Array = NDArray[np.float64]

#: What loading a map may take before we stop waiting, seconds.
START_S = 120.0
#: Every tick of /clock wakes every node; images are stamped, so that time need not be finer than this.
CLOCK_HZ = 20.0
#: No attempt for this long after the last image means that none will come, seconds.
QUIET_S = 1.5


class LiveError(UserError):
    """A process of a live run that did not start or ended early."""


@dataclass(frozen=True)
class LiveSettings:
    """A live run.

    Attributes:
        bag: recording to play.
        map: folder of the map.
        topics: of the recording; those not given are found, as in an offline replay.
        rate: seconds of recording per second.
        parameters: further parameters of the relocalizer, by name.
        logs: folder for what the processes say; None throws it away.
    """

    bag: Path
    map: Path
    topics: ReplaySettings = ReplaySettings()
    rate: float = 1.0
    parameters: dict[str, Any] = field(default_factory=dict)
    logs: Path | None = None


@dataclass
class LiveRun:
    """What is known about a live run, while it goes on and when it is over.

    Attributes:
        replay: records of all attempts, corrections of the odometry; see :class:`Replay`.
        images_played: images in the recording.
        start_ns: stamp of the recording's beginning.
        health: the newest /diagnostics of the relocalizer, by name.
        seconds: since the recording began to play.
    """

    replay: Replay
    images_played: int
    start_ns: int = 0
    health: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def records(self) -> list[Record]:
        """One record for each frame that the node took."""
        return self.replay.evaluation.records

    def counted(self, name: str) -> int:
        """A counter of the node's diagnostics."""
        return int(float(self.health.get(name, "0")))

    @property
    def received(self) -> int:
        """Images that reached the node."""
        return self.counted("received")

    @property
    def dropped(self) -> int:
        """Images that reached the node and were not looked at: a newer one came, or they were too old."""
        return self.counted("replaced by newer frames") + self.counted("stale") + self.counted("out of order")


#: Called several times per second with the run so far.
Watch = Callable[[LiveRun], None]


def play_live(settings: LiveSettings, watch: Watch | None = None) -> LiveRun:
    """Start the relocalizer, play the recording to it in real time, and record what it says.

    Processes are stopped whatever happens, also on Ctrl-C.

    Raises:
        BagError: if the recording cannot be read.
        LiveError: if a process does not start, or ends before its time; with the last thing it said.
    """
    run = _prepare(settings)
    truth_at = reference_poses(settings.bag, settings.topics)
    with TemporaryDirectory(prefix="mast3r_ros_live_") as folder, own_environment():
        logs = settings.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        arguments = _relocalizer_arguments(settings, run, Path(folder) / "relocalizer.yaml")
        with LiveListener() as listener, Process("relocalizer", arguments, logs) as node:
            await_activity(listener, node)
            player_arguments = ["--ros-args", "-p", f"bag:={settings.bag.resolve()}", "-p", f"rate:={settings.rate}"]
            player_arguments += ["-p", "wait_for_subscribers:=15.0", "-p", f"clock_rate:={CLOCK_HZ}"]
            with Process("bag_player", player_arguments, logs) as player:
                _follow(listener, node, player, run, truth_at, watch)
            if player.code != 0:
                raise LiveError(f"the bag player ended with exit code {player.code}: {player.end_of_log()}")
    return run


def _prepare(settings: LiveSettings) -> LiveRun:
    """Which topics there are, where the camera is on the robot, and an empty record."""
    wanted = settings.topics
    with open_bag(settings.bag) as bag:
        topics = wanted.find_topics(bag)
        camera_frame = bag.first(topics.image).header.frame_id.lstrip("/")
        transforms = bag.transforms(topics.image)
        try:
            base_T_camera = transforms.lookup(wanted.base_frame, camera_frame, None)
        except TransformUnavailable:
            base_T_camera = None
        transport = "compressed" if bag.topics[topics.image].type == COMPRESSED else "raw"
        has_odometry = transforms.can_transform(wanted.odom_frame, camera_frame)
        packed = topics.depth is not None and bag.topics[topics.depth].type == COMPRESSED
        info_frame = bag.topics[topics.camera_info].frame_id if topics.camera_info else ""
        about = {
            **topics.names,
            "depth_transport": "compressedDepth" if packed else "raw",
            "image_transport": transport,
            "odometry": has_odometry,
            "camera_info_frame": info_frame or "",  # named, or the images' own
            "tf": list(tf_topics(bag.topics, topics.image)[0]),
        }
        evaluation = Evaluation(f"live run of {settings.bag.name}", settings={**about, "rate": settings.rate})
        replay = Replay(evaluation, camera_frame, base_T_camera)
        return LiveRun(replay, bag.topics[topics.image].count, bag.start_ns)


def _relocalizer_arguments(settings: LiveSettings, run: LiveRun, file: Path) -> list[str]:
    """Parameters in a file (YAML reads JSON), topics by remapping."""
    about = run.replay.evaluation.settings
    parameters = {
        "use_sim_time": True,
        "map": str(settings.map.resolve()),
        "image_transport": about["image_transport"],
        "depth_transport": about["depth_transport"],
        "use_depth": about["depth"] is not None,
        "odom_frame_id": settings.topics.odom_frame if about["odometry"] else "",
        "base_frame_id": settings.topics.base_frame,
        "rectified": FrameTopics(about["image"]).rectified,
        "camera_info_frame_id": about["camera_info_frame"],
        **settings.parameters,
    }
    file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}))
    arguments = ["--ros-args", "--params-file", str(file)]
    heard = {"image": "image", "camera_info": "camera_info", "depth": "depth", "depth/camera_info": "depth_info"}
    for name, topic in heard.items():
        if about[topic]:
            arguments += ["-r", f"{name}:={about[topic]}"]
    for topic in about["tf"]:
        arguments += ["-r", f"/{topic.rpartition('/')[2]}:={topic}"]
    return arguments


def await_activity(listener: LiveListener, node: Process) -> None:
    """Wait until the node is active and our subscriptions have found its topics."""
    deadline = time.monotonic() + START_S
    while not (listener.state() == "active" and listener.connected):
        if not node.running:
            raise LiveError(f"the relocalizer ended with exit code {node.code}: {node.end_of_log()}")
        if time.monotonic() > deadline:
            raise LiveError(f"the relocalizer was not active within {START_S:g} s: {node.end_of_log()}")
        refused = node.said("cannot configure")
        if refused:
            raise LiveError(f"the relocalizer did not start: {refused}")


def _follow(
    listener: LiveListener,
    node: Process,
    player: Process,
    run: LiveRun,
    truth_at: Callable[[int], Array | None],
    watch: Watch | None,
) -> None:
    """Record what the node says until the recording is over and the node has been quiet for a moment."""
    began: float | None = None
    last_news = shown = time.monotonic()
    while player.running or time.monotonic() - last_news < QUIET_S:
        listener.listen(0.05)
        now = time.monotonic()
        attempts = listener.take_attempts()
        if attempts or player.running:
            last_news = now
        if attempts and began is None:
            began = now
        for attempt in attempts:
            run.records.append(_record(attempt, listener, run, truth_at))
        run.replay.corrections = list(listener.corrections)
        run.health = dict(listener.health)
        run.seconds = now - began if began is not None else 0.0
        if watch is not None and now - shown > 0.2:
            watch(run)
            shown = now
        if not node.running:
            raise LiveError(f"the relocalizer ended in the middle (exit code {node.code}): {node.end_of_log()}")
    if watch is not None:
        watch(run)


def _record(
    attempt: AttemptStatus,
    listener: LiveListener,
    run: LiveRun,
    truth_at: Callable[[int], Array | None],
) -> Record:
    """An attempt with its pose, as the camera's: the node publishes the robot's where TF relates the two."""
    base_T_camera = run.replay.base_T_camera
    pose, covariance = listener.poses.get(attempt.stamp_ns, (None, None))
    if pose is not None and covariance is not None and base_T_camera is not None:
        covariance = se3.carry_covariance(covariance, pose, base_T_camera)
        pose = pose @ base_T_camera
    stages = dict(attempt.timings_ms)
    stages.pop("total", None)
    total = stages.pop("image to pose", float("nan"))
    return Record(
        name=f"{(attempt.stamp_ns - run.start_ns) / 1e9:.2f} s",
        stamp_ns=attempt.stamp_ns,
        accepted=attempt.accepted,
        reason=attempt.reason,
        detail=attempt.detail,
        map_T_camera=pose,
        truth=truth_at(attempt.stamp_ns),
        covariance=covariance,
        keyframes=attempt.keyframes,
        evidence=attempt.evidence,
        confidence=attempt.confidence,
        timings_ms={**stages, "total": total},
    )
