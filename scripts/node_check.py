"""Makes a small map, starts the relocalizer on it, shows it one frame, waits for the pose, and stops it with SIGINT.

Usage: node_check.py NEW_MAP_FOLDER COMMAND...     (the installed relocalizer, or `ros2 launch ...`)
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import CameraInfo, Image

from mast3r_ros.frames import PosedFrame
from mast3r_ros.io.datasets import open_source
from mast3r_ros.lab.synthetic import recording
from mast3r_ros.mapping.build import build_map
from mast3r_ros.matching import create
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.tf import TransformBroadcaster

ANSWER_WITHIN_S = 120.0
STOP_WITHIN_S = 20.0
WORLD = recording.RecordingSettings(family="office", seed=1, width=320, height=240, mapping_s=12.0, mapping_hz=2)


def make_map(folder: Path) -> PosedFrame:
    """A map of a drive through a small generated room; returns a frame of the drive with its true pose."""
    with TemporaryDirectory() as temporary:
        bag = Path(temporary) / "mapping.mcap"
        recording.record_mapping(recording.demo_world(WORLD), bag, WORLD)
        keyframe_map, _ = build_map(open_source(bag), matcher=create("sift"))
        keyframe_map.save(folder)
        return list(open_source(bag))[10]


def answer(process: subprocess.Popen[bytes], posed: PosedFrame) -> np.ndarray:
    """Show the frame until the relocalizer publishes a pose; its position (3,) in the map.

    Raises:
        RuntimeError: when the node ended, or does not answer in time.
    """
    rclpy.init()
    try:
        node = rclpy.create_node("node_check")
        images = node.create_publisher(Image, "/image", qos.reliable(1))
        infos = node.create_publisher(CameraInfo, "/camera_info", qos.reliable(1))
        transforms = TransformBroadcaster(node, static=True)
        transforms.send("base_link", "camera", np.eye(4), node.get_clock().now().nanoseconds)
        poses: list[PoseWithCovarianceStamped] = []
        node.create_subscription(PoseWithCovarianceStamped, "/relocalizer/pose", poses.append, qos.reliable(1))
        assert posed.frame.camera is not None
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while not poses:
            if process.poll() is not None:
                raise RuntimeError(f"it ended with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no pose within {ANSWER_WITHIN_S:g} s")
            stamp = node.get_clock().now().nanoseconds
            infos.publish(conversions.to_camera_info(posed.frame.camera, "camera", stamp))
            images.publish(conversions.to_image(posed.frame.image, "camera", stamp))
            for _ in range(10):
                rclpy.spin_once(node, timeout_sec=0.1)
        at = poses[0].pose.pose.position
        return np.array([at.x, at.y, at.z])
    finally:
        rclpy.shutdown()


def main() -> int:
    """Exit code 0 when the pose was right and the command stopped cleanly."""
    posed = make_map(Path(sys.argv[1]))
    node = subprocess.Popen(sys.argv[2:])
    try:
        error = float(np.linalg.norm(answer(node, posed) - posed.map_T_camera[:3, 3]))
        node.send_signal(signal.SIGINT)
        code = node.wait(STOP_WITHIN_S)
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()
    print(f"one frame localized, {100 * error:.1f} cm off; stopped with exit code {code}")
    return 0 if code == 0 and error < 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
