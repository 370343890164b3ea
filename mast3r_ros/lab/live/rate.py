"""How many images a second the real relocalizer answers, and how late: images over DDS, a network of any size.

The network knows the painted room (:mod:`known_truth`), so that the node localizes in earnest, tracker and all. Camera,
relocalizer and listener are processes of their own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from mast3r_ros.geometry import se3
from mast3r_ros.lab.live.listener import LiveListener
from mast3r_ros.lab.live.processes import Process, own_environment
from mast3r_ros.lab.live.run import await_activity
from mast3r_ros.lab.runs.environment import machine
from mast3r_ros.lab.speed import known_truth
from mast3r_ros.lab.speed.network_benchmark import CONFIGS
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.network.checkpoint import save_network
from mast3r_ros.ros import attempt_status, conversions, qos
from mast3r_ros.ros.attempt_status import AttemptStatus

#: Keyframes of the map.
KEYFRAMES = 12
#: Different images that the camera sends, again and again: a walk to and fro.
IMAGES = 40
#: Attempts of the first seconds are not counted: graphs are recorded, the track begins.
WARM_UP_S = 2.0
CAMERA_FRAME = "camera"


@dataclass(frozen=True)
class NodeRate:
    """What is measured.

    Attributes:
        config: a network of ``network_benchmark.CONFIGS``.
        keyframes: K, on track too.
        rates: images a second, one after the other.
        seconds: of each rate, after the warm-up.
        size: of the network's images, 0 for what it knows.
        dtype, device: of the node.
    """

    config: str = "vitl"
    keyframes: int = 4
    rates: tuple[float, ...] = (30.0, 60.0)
    seconds: float = 8.0
    size: int = 0
    dtype: str = "auto"
    device: str = "auto"


class _Listener(LiveListener):
    """Also notes how long after its image's stamp every status came, seconds."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, AttemptStatus]] = []
        super().__init__()

    def _take_status(self, message: DiagnosticArray) -> None:
        attempt = attempt_status.from_message(message)
        self.heard.append((time.time() - attempt.stamp_ns / 1e9, attempt))


def node_rate(settings: NodeRate, tell: Callable[[dict[str, Any]], None]) -> None:
    """Start the node and send it images at each rate; a row for the start and for each rate.

    Raises:
        LiveError: if the node does not start; with the last thing it said.
    """
    with TemporaryDirectory(prefix="mast3r_ros_rate_") as name, own_environment():
        folder = Path(name)
        start = time.monotonic()
        arguments = _arguments(settings, folder)
        tell({"row": "node set-up", "seconds": time.monotonic() - start, "machine": machine()})
        start, before_mib, listener = time.monotonic(), gpu_memory_mib(), _Listener()
        with listener, Process("relocalizer", arguments, folder) as node:
            await_activity(listener, node)
            tell({"row": "node start", "seconds": time.monotonic() - start})
            for rate in settings.rates:
                row = {"row": f"node {rate:g} Hz", "keyframes": settings.keyframes, **_sent(listener, settings, rate)}
                tell(row | {"gpu_memory_mib": gpu_memory_mib() - before_mib})


def gpu_memory_mib() -> float:
    """Memory of the first GPU that is in use, by anybody; NaN where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return float("nan")


def _arguments(settings: NodeRate, folder: Path) -> list[str]:
    """A checkpoint, a map and parameters in the folder; what the node is started with."""
    network = known_truth.knowing_network(CONFIGS[settings.config])
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    save_network(network, folder / "network.safetensors", torch.bfloat16 if on_gpu else torch.float32)
    keyframe_map = KeyframeMap()
    for keyframe in known_truth.views(KEYFRAMES, 0)[0]:
        keyframe_map.add(keyframe)
    keyframe_map.save(folder / "map")
    parameters = {
        "map": str(folder / "map"),
        "matcher": "mast3r",
        "checkpoint": str(folder / "network.safetensors"),
        "network_size": settings.size,
        "device": settings.device,
        "dtype": settings.dtype,
        "keyframes": settings.keyframes,
        "keyframes_on_track": settings.keyframes,
        "odom_frame_id": "",
        "base_frame_id": "",
        "use_depth": False,
    }
    file = folder / "relocalizer.yaml"
    file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}))
    return ["--ros-args", "--params-file", str(file)]


def _sent(listener: _Listener, settings: NodeRate, rate: float) -> dict[str, Any]:
    """What came of images at a rate."""
    context = get_context("spawn")
    began, ended = context.Value("d", 0.0), context.Value("d", 0.0)
    camera = context.Process(
        target=send_images, args=(rate, WARM_UP_S + settings.seconds, began, ended), daemon=True, name="camera"
    )
    listener.heard.clear()
    camera.start()
    while camera.is_alive():
        listener.listen(0.05)
    listener.listen(1.0)
    since, until = began.value + WARM_UP_S, ended.value
    counted = [(late, one) for late, one in listener.heard if since <= one.stamp_ns / 1e9 < until]
    return {
        "sent_per_second": rate,
        "answered_per_second": len(counted) / max(until - since, 1e-9),
        "localized": sum(one.accepted for _, one in counted) / max(len(counted), 1),
        "reasons": sorted({one.reason for _, one in counted if not one.accepted}),
        "image_to_status_ms": _percentiles([1e3 * late for late, _ in counted]),
        "inside_the_node_ms": _percentiles([one.timings_ms.get("image to pose", np.nan) for _, one in counted]),
        "stages_ms": {
            name: statistics.median(one.timings_ms.get(name, 0.0) for _, one in counted)
            for name in (counted[0][1].timings_ms if counted else ())
        },
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": float("nan"), "p95": float("nan"), "max": float("nan")}
    return {"p50": float(np.median(values)), "p95": float(np.percentile(values, 95)), "max": max(values)}


def send_images(rate: float, seconds: float, began: Any, ended: Any) -> None:
    """The camera's process: images of a walk in the painted room, stamped when they are sent.

    Args:
        began, ended: shared numbers that become the stamps of the first image and of the end, seconds.
    """
    rclpy.init()
    node = rclpy.create_node("camera")
    profile: QoSProfile = qos.newest()
    images = node.create_publisher(Image, "image", profile)
    infos = node.create_publisher(CameraInfo, "camera_info", qos.reliable())
    messages = [conversions.to_image(image, CAMERA_FRAME, 1) for image in _walk()]
    info = conversions.to_camera_info(known_truth.CAMERA, CAMERA_FRAME, 1)
    deadline = time.monotonic() + 10
    while images.get_subscription_count() == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    began.value = time.time()
    start = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        message = messages[number % len(messages)]
        message.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        infos.publish(info)
        images.publish(message)
    ended.value = began.value + int(rate * seconds) / rate
    time.sleep(0.5)
    node.destroy_node()
    rclpy.shutdown()


def _walk() -> Iterator[np.ndarray]:
    """Images along a closed path, so that the last is as near to the first as to the one before."""
    for number in range(IMAGES):
        turn = 2 * np.pi * number / IMAGES
        pose = se3.exp(np.array([0.3 * np.cos(turn), 0.1 * np.sin(turn), -1.0, 0, 0.1 * np.sin(turn), 0]))
        yield known_truth.see(pose, seed=number).frame.image


def lines(row: dict[str, Any]) -> Iterator[str]:
    """One line for each figure of a row."""
    name = row["row"]
    if "seconds" in row:
        yield f"{name}: {row['seconds']:.1f} s"
    if "answered_per_second" in row:
        yield f"{name}: answered {row['answered_per_second']:.1f} a second, localized {row['localized']:.0%}"
        for key in ("image_to_status_ms", "inside_the_node_ms"):
            values = row[key]
            yield f"{name}: {key} p50 {values['p50']:.1f}, p95 {values['p95']:.1f}, max {values['max']:.1f}"
        yield f"{name}: stages " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in row["stages_ms"].items()) + " ms"
        yield f"{name}: memory of the GPU {row['gpu_memory_mib']:.0f} MiB"
        if row["reasons"]:
            yield f"{name}: refused for {', '.join(row['reasons'])}"
