"""Views of one scene: images, depth, poses, and how much every two of them see of the same surfaces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mast3r_ros.errors import DatasetError
from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Pixels between the points whose visibility decides about overlap.
OVERLAP_STRIDE = 8
#: A point is seen where the depth measured there agrees to this part of it.
DEPTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class View:
    """One view of a scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres along the optical axis; 0 where unknown.
        map_T_camera: (4, 4).
        K: (3, 3) pinhole intrinsics.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    map_T_camera: Array
    K: Array


class SceneFile:
    """Views of one scene in a safetensors file, read one by one.

    Attributes:
        overlap: (V, V) share of row's points that column sees.
        gap: (V, V) degrees between the optical axes.
    """

    def __init__(self, path: Path) -> None:
        """Raises DatasetError for a file that is no scene."""
        try:
            self._file: Any = safe_open(path, framework="numpy")
            self.overlap: NDArray[np.float16] = self._file.get_tensor("overlap")
            self.gap: NDArray[np.float16] = self._file.get_tensor("gap")
            self._poses, self._K = self._file.get_tensor("map_T_camera"), self._file.get_tensor("K")
        except (OSError, SafetensorError) as error:
            raise DatasetError(f"{path} is no scene of views, or damaged: delete it, and it is made again") from error

    def __len__(self) -> int:
        return len(self._poses)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float32], NDArray[np.float32]]:
        """All views at once: images, depth, map_T_camera and K, as in :class:`View`, as they are stored."""
        return self._file.get_tensor("images"), self._file.get_tensor("depth"), self._poses, self._K

    def __getitem__(self, index: int) -> View:
        depth = self._file.get_slice("depth")[index : index + 1][0].astype(np.float32)
        image = self._file.get_slice("images")[index : index + 1][0]
        return View(image, depth, self._poses[index].astype(np.float64), self._K[index].astype(np.float64))


def save_scene(path: Path, views: list[View]) -> None:
    """Write views of one size, and how they overlap; a reader never finds half a file."""
    tensors: dict[str, NDArray] = {
        "images": np.stack([view.image for view in views]),
        "depth": np.stack([view.depth for view in views]).astype(np.float16),
        "map_T_camera": np.stack([view.map_T_camera for view in views]).astype(np.float32),
        "K": np.stack([view.K for view in views]).astype(np.float32),
        "overlap": overlaps(views).astype(np.float16),
        "gap": axis_gaps(np.stack([view.map_T_camera for view in views])).astype(np.float16),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def overlaps(views: list[View]) -> Array:
    """(V, V): share of the points of the row's view that the column's view sees, occlusion considered."""
    result = np.zeros((len(views), len(views)))
    camera_T_map = np.stack([se3.inverse(view.map_T_camera) for view in views])
    K = np.stack([view.K for view in views])
    depths = np.stack([view.depth for view in views])
    height, width = depths.shape[1:]
    y, x = (
        axis.ravel()
        for axis in np.mgrid[
            OVERLAP_STRIDE // 2 : height : OVERLAP_STRIDE, OVERLAP_STRIDE // 2 : width : OVERLAP_STRIDE
        ]
    )
    for row, view in enumerate(views):
        z = view.depth[y, x].astype(np.float64)
        rays = np.stack([(x - view.K[0, 2]) / view.K[0, 0], (y - view.K[1, 2]) / view.K[1, 1], np.ones(len(x))])
        points = se3.apply(view.map_T_camera, (rays * z).T)
        seen = camera_T_map[:, :3, :3] @ points.T + camera_T_map[:, :3, 3:]
        pixel = K @ seen
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = np.rint(pixel[:, 0] / pixel[:, 2]), np.rint(pixel[:, 1] / pixel[:, 2])
            inside = (seen[:, 2] > 0.05) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0)
        column, line = np.where(inside, u, 0).astype(int), np.where(inside, v, 0).astype(int)
        measured = depths[np.arange(len(views))[:, None], line, column]
        same = inside & (np.abs(measured - seen[:, 2]) < DEPTH_TOLERANCE * seen[:, 2])
        result[row] = same.sum(axis=1) / max(int((z > 0).sum()), 1)
    return result


def axis_gaps(map_T_camera: Array) -> Array:
    """(V, V) degrees between the optical axes of views."""
    axes = map_T_camera[:, :3, 2]
    return np.degrees(np.arccos(np.clip(axes @ axes.T, -1, 1)))
