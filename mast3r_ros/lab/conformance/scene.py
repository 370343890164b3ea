"""The pictures that matchers are checked with: a leaning textured wall, whose every pixel's distance is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: The wall in the map frame: points with NORMAL . x = DISTANCE_M; it leans by half a radian, so that no two columns of
#: pixels are equally far away.
NORMAL, DISTANCE_M = np.array([-np.sin(0.5), 0.0, np.cos(0.5)]), 2.0
#: Texture on the wall: so many random values for each metre, in layers from coarse to fine.
CELLS_PER_M = (4, 12, 40)


@dataclass(frozen=True, eq=False)
class CheckScene:
    """Frames of the wall.

    Attributes:
        reference: with camera and depth.
        query: from a hand's breadth beside it, of another size, with camera and without depth.
        distorted: the reference through a lens that bends, with depth.
    """

    reference: Frame
    query: Frame
    distorted: Frame


def make_scene() -> CheckScene:
    """The same every time."""
    reference = Camera.pinhole(320, 240, 280, 280, 159.5, 119.5)
    query = Camera.pinhole(256, 192, 230, 230, 127.5, 95.5)
    bent = Camera(320, 240, reference.K, "plumb_bob", np.array([-0.25, 0.06, 0.001, -0.001, 0.0]))
    aside = se3.exp([0.12, 0.03, 0.05, 0.02, -0.06, 0.03])
    return CheckScene(
        _see(reference, np.eye(4), "reference"),
        replace(_see(query, aside, "query"), depth=None),
        _see(bent, np.eye(4), "distorted"),
    )


def blank(width: int, height: int, grey: int = 128) -> Frame:
    """A picture of nothing, with a camera and a wall's depth."""
    image = np.full((height, width, 3), grey, np.uint8)
    camera = Camera.pinhole(width, height, width, width, (width - 1) / 2, (height - 1) / 2)
    return Frame(image, camera, depth=np.full((height, width), 2.0, np.float32), name=f"blank {width}x{height}")


def _see(camera: Camera, map_T_camera: Array, name: str) -> Frame:
    rays = np.concatenate([camera.pixel_rays, np.ones((camera.height, camera.width, 1))], axis=-1)
    along = rays @ map_T_camera[:3, :3].T
    depth = (DISTANCE_M - NORMAL @ map_T_camera[:3, 3]) / (along @ NORMAL)
    points = map_T_camera[:3, 3] + along * depth[..., None]
    # Coordinates on the wall: down, and across it.
    across = points @ np.array([NORMAL[2], 0.0, -NORMAL[0]])
    return Frame(_texture(across, points[..., 1]), camera, depth=depth.astype(np.float32), name=name)


def _texture(across: Array, down: Array) -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    value = np.zeros((*across.shape, 3), np.float32)
    for cells in CELLS_PER_M:
        grid = rng.uniform(size=(12 * cells, 12 * cells, 3)).astype(np.float32)
        x, y = ((c + 6) * cells for c in (across, down))
        value += cv2.remap(
            grid, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    return np.clip(255 * value / len(CELLS_PER_M), 0, 255).astype(np.uint8)
