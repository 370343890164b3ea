"""Photographs without their poses and depth: how many are registered and how exactly, beside COLMAP on the same."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.io.datasets import open_source
from mast3r_ros.lab.metrics.trajectories import absolute_errors
from mast3r_ros.mapping.export import colmap_camera
from mast3r_ros.matching.base import Matcher
from mast3r_ros.multiview.colmap_mapper import read_models
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo, open_photos
from mast3r_ros.multiview.reconstruct import ReconstructSettings, reconstruct
from mast3r_ros.multiview.scale import from_poses

Array = NDArray[np.float64]
Stages = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Images on disk, and the truth that reconstruction is not told.

    Attributes:
        cameras: by name.
        poses: map_T_camera (4, 4) by name.
    """

    images: Path
    cameras: dict[str, Camera]
    poses: dict[str, Array]


def write_set(source: Path, folder: Path, step: int = 1, most: int = 0) -> PhotoSet:
    """The images of any posed data set, without anything else.

    Args:
        step: takes every so many-th frame.
        most: at most this many of them; 0 for all.

    Raises:
        DatasetError: for a set that cannot be read, or without calibration.
    """
    cameras: dict[str, Camera] = {}
    poses: dict[str, Array] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number, posed in enumerate(open_source(source, use_depth=False)):
        if number % step or (most and len(poses) >= most):
            continue
        if posed.frame.camera is None:
            raise DatasetError(f"{source}: {posed.frame.name or number} has no calibration")
        name = f"{number:06d}.jpg"
        cv2.imwrite(str(folder / name), posed.frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
        cameras[name], poses[name] = posed.frame.camera, posed.map_T_camera
    return PhotoSet(folder, cameras, poses)


def evaluate_reconstruction(
    source: Path,
    matcher: Matcher,
    settings: ReconstructSettings = ReconstructSettings(),
    progress: Stages = lambda stage, done, total: None,
    *,
    calibrated: bool = True,
    colmap: bool = True,
    step: int = 1,
    most: int = 0,
) -> dict[str, Any]:
    """Reconstruct a set and compare with its poses; figures by method.

    Args:
        calibrated: tell the calibration.
        colmap: also by pycolmap's own features, exhaustive matching and mapper, in the same run.
        step, most: see :func:`write_set`.

    Raises:
        DatasetError, ReconstructionError: for a set that cannot be read, or of which nothing can be reconstructed.
    """
    with tempfile.TemporaryDirectory(prefix="mast3r_ros_") as work:
        photos = write_set(source, Path(work) / "images", step, most)
        began, cpu = time.monotonic(), time.process_time()
        listed = replace(open_photos(photos.images), cameras=photos.cameras if calibrated else {})
        result = reconstruct(listed, matcher, settings, progress)
        found = {"mast3r_ros": _figures(result.photos, result.models, photos, began, cpu)}
        if colmap:
            began, cpu = time.monotonic(), time.process_time()
            models = colmap_alone(result.photos, photos.images, Path(work))
            found["pycolmap"] = _figures(result.photos, models, photos, began, cpu)
    return found


def colmap_alone(photos: Sequence[Photo], images: Path, work: Path) -> list[Model]:
    """What COLMAP makes of the same photos by itself: its SIFT, every pair matched, its incremental mapper.

    All photos must be of one camera.
    """
    import pycolmap

    database, first = work / "colmap.db", photos[0]
    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR.value)
    pycolmap.set_random_seed(0)
    reader = pycolmap.ImageReaderOptions()
    if first.calibrated:
        reader.camera_model, _, _, *params = colmap_camera(first.camera).split()
        reader.camera_params = ",".join(params)
    pycolmap.extract_features(
        database, images, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader, device=pycolmap.Device.cpu
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.min_model_size = 0, 3
    options.ba_refine_focal_length = options.ba_refine_extra_params = not first.calibrated
    found = pycolmap.incremental_mapping(database, images, work / "colmap", options)
    return read_models(found.values(), photos)


def _figures(
    photos: Sequence[Photo], models: Sequence[Model], truth: PhotoSet, began: float, cpu: float
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "images": len(truth.poses),
        "registered": sum(len(model) for model in models),
        "components": len(models),
        "largest": len(models[0]) if models else 0,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
    }
    metres, degrees = _errors(photos, models[0], truth) if models else (np.zeros(0), np.zeros(0))
    if len(metres):
        figures |= {
            "median_position_m": float(np.median(metres)),
            "mean_position_m": float(np.mean(metres)),
            "worst_position_m": float(metres.max()),
            "median_rotation_deg": float(np.median(degrees)),
            "worst_rotation_deg": float(degrees.max()),
            "focal_px": float(np.median([camera.focal for camera in models[0].cameras.values()])),
            "points": len(models[0].points),
            "error_px": float(np.median(models[0].error_px)),
        }
    return figures


def _errors(photos: Sequence[Photo], model: Model, truth: PhotoSet) -> tuple[Array, Array]:
    """Metres and degrees of a model's images after a similarity: rotations decide its turn, positions the rest."""
    known = {n: truth.poses[photos[n].name] for n in model.images}
    scale = from_poses(model, known, "truth")
    if scale is None:
        return np.zeros(0), np.zeros(0)
    aligned = scale.applied(model)
    return absolute_errors(
        np.array([aligned.world_T_camera[n] for n in model.images]), np.array([known[n] for n in model.images])
    )
