"""A tiny world on disk for tests of evaluation and commands: textured walls as a 7-Scenes scene and as a bag."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from test_matching import texture

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter

CAMERA = Camera.pinhole(640, 480, 525, 525, 320, 240)
#: The robot's camera, 20 cm in front of and 50 cm above its centre.
BASE_T_CAMERA = se3.make([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.2, 0.0, 0.5])
#: Number of a wall that is in no map.
UNKNOWN = 99


def image(number: int) -> np.ndarray:
    """(480, 640, 3) a wall of its own texture."""
    return texture(number, 640, 480)


def poster(seed: int, height: int = 1400, width: int = 1400) -> np.ndarray:
    """(height, width, 3) blobs of all sizes; large ones are made of a smaller picture, which is as smooth."""
    rng, mixed = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for sigma in (2, 5, 12, 30):
        step = sigma // 2
        noise = rng.standard_normal((-(-height // step), -(-width // step), 3), dtype=np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), sigma / step)
        layer = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
        mixed += layer / layer.std()
    return np.clip(128 + 30 * mixed, 0, 255).astype(np.uint8)


def depth() -> np.ndarray:
    """(480, 640) metres: the wall recedes to the right, so that a pose is well determined."""
    return np.tile(np.linspace(1.5, 3.5, 640, dtype=np.float32), (480, 1))


def map_T_camera(number: int) -> np.ndarray:
    """Each wall is seen from its own place."""
    return se3.exp([0.8 * number, 0.3, 0, 0, 0.2 * number, 0])


def posed(number: int) -> PosedFrame:
    """The view of a wall."""
    frame = Frame(image(number), CAMERA, number * 10**9, depth(), f"wall{number}")
    return PosedFrame(frame, map_T_camera(number))


def write_scene(folder: Path, train: tuple[int, ...] = (0, 1, 2), test: tuple[int, ...] = (0, 1, 2, UNKNOWN)) -> Path:
    """A 7-Scenes scene whose queries show the same walls from the same places, and one that is in no map."""
    for name, numbers in (("seq-01", train), ("seq-02", test)):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            stem = folder / name / f"frame-{number:06d}"
            cv2.imwrite(f"{stem}.color.png", image(number)[..., ::-1])
            cv2.imwrite(f"{stem}.depth.png", (1000 * depth()).astype(np.uint16))
            np.savetxt(f"{stem}.pose.txt", map_T_camera(number))
    (folder / "TrainSplit.txt").write_text("sequence1\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    return folder


def write_bag(path: Path, numbers: tuple[int, ...] = (0, 1, 2, UNKNOWN)) -> Path:
    """A robot that passes the walls, with perfect odometry from where it started, depth, and its true pose."""
    odom_T_map = se3.inverse(map_T_camera(0) @ se3.inverse(BASE_T_CAMERA))
    with BagWriter(path) as bag:
        bag.transform("base_link", "camera", BASE_T_CAMERA, 0, static=True)
        for step, number in enumerate(numbers):
            stamp = (step + 1) * 10**9
            pose = map_T_camera(number if number != UNKNOWN else step)
            bag.transform("odom", "base_link", odom_T_map @ pose @ se3.inverse(BASE_T_CAMERA), stamp)
            bag.image("/camera/image_raw", image(number), stamp, "camera")
            bag.camera_info("/camera/camera_info", CAMERA, stamp, "camera")
            bag.depth("/camera/depth/image_raw", depth(), stamp, "camera")
            bag.pose("/truth", pose, np.eye(6), stamp, "map")
    return path
