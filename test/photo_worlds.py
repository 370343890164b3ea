"""Photographs of a box with papered walls, cheaply made, with the truth."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from test_matching import texture

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter

CAMERA = Camera.pinhole(320, 240, 260, 260, 159.5, 119.5)
#: Half the sides of the box, metres.
HALF = np.array([2.5, 2.0, 1.5])
#: Side of a wall's paper in pixels, and how many of them make a metre.
PAPER, PER_METRE = 768, 150.0


def look(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """map_T_camera (4, 4) of an upright camera that looks at a point; z is up in the map."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    return se3.make(np.stack([x, np.cross(z, x), z], axis=1), position)


def arc(count: int) -> list[np.ndarray]:
    """Poses of somebody who walks a bow and looks into a corner of the box."""
    steps = np.linspace(-1, 1, count)
    return [
        look(np.array([0.9 * s - 0.3, -0.6 - 0.3 * s**2, 0.2 * np.sin(4 * s)]), np.array([1.2, 2, 0])) for s in steps
    ]


def drive(count: int, rounds: float = 1.15) -> np.ndarray:
    """(N, 4, 4) map_T_base of a robot that goes in a circle on the box's floor, more than once around."""
    angles = np.linspace(0, 2 * np.pi * rounds, count)
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros(count), np.ones(count)
    rotations = np.stack([-s, -c, zero, c, -s, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
    return np.stack([se3.make(R, [1.1 * x, 0.9 * y, -1.2]) for R, x, y in zip(rotations, c, s, strict=True)])


#: A camera one metre above the floor that looks ahead and to the right, at the walls.
BASE_T_CAMERA = se3.make(Rotation.from_euler("z", -50, degrees=True).as_matrix(), [0.1, 0, 1.1]) @ se3.make(
    [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0]
)


#: Its small images.
ROBOT_CAMERA = CAMERA.resized(240, 180)


def drive_bag(path: Path, map_T_base: np.ndarray, odom_T_base: np.ndarray, seed: int = 0) -> None:
    """A recording of RGB images and odometry in TF, two images a second."""
    with BagWriter(path, overwrite=True) as bag:
        bag.transform("base_link", "camera", BASE_T_CAMERA, 0, static=True)
        for step, (true, driven) in enumerate(zip(map_T_base, odom_T_base, strict=True)):
            stamp = (step + 1) * 500_000_000
            bag.transform("odom", "base_link", driven, stamp)
            # Out of focus a little: the paper has so many corners that tests would take long.
            image = cv2.GaussianBlur(see(true @ BASE_T_CAMERA, seed, ROBOT_CAMERA), (0, 0), 1.0)
            bag.image("/camera/image_raw", image, stamp, "camera")
            bag.camera_info("/camera/camera_info", ROBOT_CAMERA, stamp, "camera")


def see(map_T_camera: np.ndarray, seed: int = 0, camera: Camera = CAMERA) -> np.ndarray:
    """(H, W, 3) what a camera inside the box sees."""
    rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
    directions, origin = rays @ map_T_camera[:3, :3].T, map_T_camera[:3, 3]
    distance = np.where(directions > 0, HALF - origin, -HALF - origin) / directions
    axis = distance.argmin(axis=-1)
    points = origin + directions * distance.min(axis=-1)[..., None]
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    for wall in range(6):
        on_wall = (axis == wall // 2) & ((directions[..., wall // 2] > 0) == bool(wall % 2))
        along = [a for a in range(3) if a != wall // 2]
        u, v = ((points[..., a] * PER_METRE + PAPER / 2).astype(np.float32) for a in along)
        image[on_wall] = cv2.remap(_paper(10 * seed + wall), u, v, cv2.INTER_LINEAR)[on_wall]
    return image


@cache
def _paper(number: int) -> np.ndarray:
    return texture(number, PAPER, PAPER)


def photograph(
    folder: Path, poses: list[np.ndarray], seed: int = 0, prefix: str = "view", camera: Camera = CAMERA
) -> dict[str, np.ndarray]:
    """Write a JPEG for each pose; returns the poses by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(poses):
        image = see(pose, seed, camera)
        cv2.imwrite(str(folder / f"{prefix}_{number:02d}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return {f"{prefix}_{number:02d}.jpg": pose for number, pose in enumerate(poses)}


def write_poses(file: Path, poses: dict[str, np.ndarray]) -> Path:
    """Lines "name qw qx qy qz tx ty tz"."""
    lines = []
    for name, pose in poses.items():
        x, y, z, w = se3.quaternion(pose)
        lines.append(" ".join([name, *(f"{value:.9f}" for value in (w, x, y, z, *pose[:3, 3]))]))
    file.write_text("\n".join(lines) + "\n")
    return file


INTRINSICS = "320 240 260 260 159.5 119.5\n"
