"""Photographs of a box with papered walls, cheaply made, with the truth."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from test_matching import texture

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3

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


def photograph(folder: Path, poses: list[np.ndarray], seed: int = 0, prefix: str = "view") -> dict[str, np.ndarray]:
    """Write a JPEG for each pose; returns the poses by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(poses):
        image = see(pose, seed)
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
