"""Depth of every pixel on disk, and the cloud that all images' depth makes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.multiview.dense_cloud import Cloud, fused
from mast3r_ros.multiview.dense_view import DenseView, pixels_of_rays
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo

Array = NDArray[np.float64]

#: Side of a voxel of the cloud, as a share of the median depth.
VOXEL = 0.01
#: Of an image's pixels those take part whose confidence is above this quantile.
LEAST_CONFIDENCE = 0.2
#: Two images agree on a point whose depths differ by less than this share; a point needs this many others that see it
#: where it is, unless fewer see it at all, and none that sees through it.
AGREE, AGREEING, NEIGHBOURS = 0.05, 1, 6


def write_depths(folder: Path, model: Model, photos: list[Photo]) -> None:
    """``NAME.npz`` of every image: ``depth`` (H, W), ``confidence``, ``xy`` (H, W, 2) pixels of the photo."""
    for n in model.images:
        view = model.depth_of(n)
        file = folder / f"{photos[n].name}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"depth": view.depth, "confidence": view.confidence, "xy": view.xy.astype(np.float32)}
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def dense_cloud(model: Model, photos: list[Photo]) -> Cloud:
    """What the images' depth shows together: confident pixels that other images confirm."""
    depths = [float(np.median(view.depth[view.depth > 0])) for view in map(model.depth_of, model.images[:20])]
    return fused(_confirmed(model, photos), VOXEL * float(np.median(depths)))


def _confirmed(model: Model, photos: list[Photo]) -> Iterator[tuple[Array, NDArray[np.uint8], Array, Array]]:
    view_of = lru_cache(maxsize=32)(model.depth_of)
    for n in model.images:
        view, camera, pose = view_of(n), model.cameras[n], model.world_T_camera[n]
        known = (view.depth > 0) & np.isfinite(view.xy).all(axis=-1) & ~_edges(view.depth)
        if known.any():
            known &= view.confidence >= np.quantile(view.confidence[known], LEAST_CONFIDENCE)
        xy = view.xy[known]
        points = se3.apply(pose, camera.points(xy, view.depth[known]))
        good: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
        good[good] = _agreed(model, n, points[good], view_of)
        image = photos[n].read()
        u, v = np.rint(xy[good]).astype(int).T
        colours = image[v.clip(0, image.shape[0] - 1), u.clip(0, image.shape[1] - 1)]
        yield points[good], colours, view.confidence[known][good].astype(np.float64), pose[:3, 3]


def _agreed(model: Model, number: int, points: Array, view_of: Callable[[int], DenseView]) -> NDArray[np.bool_]:
    """(N,) points that other images see where they are, or that no other image looks at."""
    looks, agrees, through = np.zeros((3, len(points)), np.int64)
    for n in _others(model, number):
        local = se3.apply(se3.inverse(model.world_T_camera[n]), points)
        depth = _sampled(view_of(n), model.cameras[n], local)
        with np.errstate(divide="ignore", invalid="ignore"):
            off = depth / local[:, 2] - 1
        looks += depth > 0
        agrees += (depth > 0) & (np.abs(off) < AGREE)
        through += (depth > 0) & (off > AGREE)
    return np.asarray((agrees >= np.minimum(AGREEING, looks)) & (through <= agrees))


def _others(model: Model, number: int) -> list[int]:
    """The images that share most points with one."""
    mine = np.unique(model.point[model.image == number])
    sharing = np.isin(model.point, mine) & (model.image != number)
    counts = np.bincount(model.image[sharing], minlength=1)
    order = np.argsort(-counts, kind="stable")[:NEIGHBOURS]
    return [int(n) for n in order if counts[n] > 0 and int(n) in model.world_T_camera]


def _sampled(view: DenseView, camera: Camera, local: Array) -> Array:
    """(N,) depth of the pixels that points (N, 3) in a camera's frame fall on; 0 where none does."""
    height, width = view.depth.shape
    affine = pixels_of_rays(camera, view.xy)
    depth, ahead = np.zeros(len(local)), local[:, 2] > 0
    ideal = local[ahead, :2] / local[ahead, 2:]
    column, row = np.rint(np.c_[ideal, np.ones(len(ideal))] @ affine).clip(-1, 1e6).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    depth[np.flatnonzero(ahead)[inside]] = view.depth[row[inside], column[inside]]
    return depth


def _edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) where known depth jumps by more than a tenth between neighbours: networks draw surfaces across."""
    around = np.ones((3, 3), np.uint8)
    near = cv2.erode(np.where(depth > 0, depth, np.inf).astype(np.float32), around)
    return np.asarray(cv2.dilate(depth, around) / 1.1 > near)


def write_dense_cloud(path: Path, cloud: Cloud) -> int:
    """A binary PLY file with normals; returns how many points. Raises MapError where it cannot be written."""
    rows = np.empty(len(cloud.points), dtype=[("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["normal"], rows["rgb"] = cloud.points, cloud.normals, cloud.colours
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {colour}" for colour in ("red", "green", "blue")] + ["end_header", ""]
    try:
        write_replacing(path, "\n".join(header).encode() + rows.tobytes())
    except OSError as error:
        raise MapError(f"{path}: cannot be written ({error.strerror})") from error
    return len(rows)
