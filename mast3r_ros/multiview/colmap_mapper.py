"""pycolmap's incremental mapper (COLMAP; Schoenberger and Frahm, CVPR 2016) on matches that were found here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.colmap_cameras import camera_of_model
from mast3r_ros.mapping.export import colmap_camera
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.tracks import indexed
from mast3r_ros.multiview.verification import VerifiedPair

if TYPE_CHECKING:
    import pycolmap

#: COLMAP counts pixels from the corner of the first one, we from its centre.
HALF = 0.5
#: Images of the smallest component.
SMALLEST = 3


def pycolmap_installed() -> bool:
    """Whether the optional extra ``colmap`` is there."""
    return importlib.util.find_spec("pycolmap") is not None


def map_with_pycolmap(
    photos: Sequence[Photo],
    pairs: Sequence[VerifiedPair],
    images: Path,
    work: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Model]:
    """Every component that COLMAP reconstructs, the largest first.

    Args:
        images: folder that the photos' names start from.
        work: folder for its database.
    """
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR.value)
    database = work / "database.db"
    points = indexed(pairs, len(photos))
    with pycolmap.Database.open(database) as db:
        _write_database(db, photos, pairs, points)
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size, options.random_seed, options.num_threads = SMALLEST, 0, 1
    options.extract_colors = False
    options.multiple_models = True
    options.ba_refine_focal_length = options.ba_refine_extra_params = not all(p.calibrated for p in photos)
    options.constant_cameras = {n + 1 for n, photo in enumerate(photos) if photo.calibrated}
    options.mapper.init_min_num_inliers = 50
    done = [2]

    def next_image() -> None:
        done[0] += 1
        progress(min(done[0], len(photos)), len(photos))

    found = pycolmap.incremental_mapping(database, images, work / "models", options, next_image_callback=next_image)
    return read_models(found.values(), photos)


def read_models(found: Iterable[pycolmap.Reconstruction], photos: Sequence[Photo]) -> list[Model]:
    """COLMAP's reconstructions as models, the largest first; an image is kept in the largest one that has it."""
    models, taken = [], set[int]()
    for reconstruction in sorted(found, key=lambda r: -r.num_reg_images()):
        model = _model(reconstruction, photos)
        if len(set(model.images) - taken) >= SMALLEST:
            models.append(model)
            taken |= set(model.images)
    return models


def _write_database(db: Any, photos: Sequence[Photo], pairs: Sequence[VerifiedPair], points: Any) -> None:
    import pycolmap

    lenses: dict[str, int] = {}
    for n, photo in enumerate(photos):
        key = photo.lens if not photo.calibrated else f"known {n}"
        if key not in lenses:
            camera = _colmap_camera(photo)
            lenses[key] = db.write_camera(camera)
        image = pycolmap.Image(name=photo.name, camera_id=lenses[key], image_id=n + 1)
        db.write_image(image, use_image_id=True)
        db.write_keypoints(n + 1, (points.keypoints[n] + HALF).astype(np.float32))
    for pair, rows in zip(pairs, points.rows, strict=True):
        geometry = pycolmap.TwoViewGeometry()
        both = photos[pair.i].calibrated and photos[pair.j].calibrated
        kinds = pycolmap.TwoViewGeometryConfiguration
        geometry.config = kinds.CALIBRATED if both else kinds.UNCALIBRATED
        geometry.inlier_matches = rows.astype(np.uint32)
        db.write_matches(pair.i + 1, pair.j + 1, rows.astype(np.uint32))
        db.write_two_view_geometry(pair.i + 1, pair.j + 1, geometry)


def _colmap_camera(photo: Photo) -> pycolmap.Camera:
    """A camera as COLMAP has it; one that nobody calibrated gets a radial distortion to be found."""
    import pycolmap

    camera = photo.camera
    if photo.calibrated:
        name, width, height, *words = colmap_camera(camera).split()
        params = [float(word) for word in words]
    else:
        name, width, height = "SIMPLE_RADIAL", str(camera.width), str(camera.height)
        params = [camera.focal, camera.cx + HALF, camera.cy + HALF, 0.0]
    made = pycolmap.Camera(model=name, width=int(width), height=int(height), params=params)
    made.has_prior_focal_length = photo.calibrated
    return made


def _model(found: pycolmap.Reconstruction, photos: Sequence[Photo]) -> Model:
    """COLMAP's reconstruction in our numbers and conventions."""
    number = {photo.name: n for n, photo in enumerate(photos)}
    place = {id: row for row, id in enumerate(found.point3D_ids())}
    cameras: dict[int, Camera] = {}
    poses: dict[int, NDArray[np.float64]] = {}
    observed: list[tuple[int, int, int]] = []
    for image_id in found.reg_image_ids():
        image = found.image(image_id)
        n = number[image.name]
        lens = found.camera(image.camera_id)
        params = [float(value) for value in lens.params]
        cameras[n] = (
            photos[n].camera
            if photos[n].calibrated
            else camera_of_model(image.name, lens.model_name, lens.width, lens.height, params)
        )
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        poses[n] = se3.inverse(se3.orthonormalised(pose))
        observed += [
            (place[point.point3D_id], n, row) for row, point in enumerate(image.points2D) if point.has_point3D()
        ]
    rows = np.array(observed, dtype=np.int64).reshape(-1, 3)
    xy = np.zeros((len(rows), 2))
    for image_id in found.reg_image_ids():
        image = found.image(image_id)
        mine = rows[:, 1] == number[image.name]
        xy[mine] = np.array([point.xy for point in image.points2D]).reshape(-1, 2)[rows[mine, 2]] - HALF
    points = [found.point3D(id) for id in place]
    return Model(
        cameras,
        poses,
        np.array([point.xyz for point in points]).reshape(-1, 3),
        np.array([point.error for point in points]),
        rows[:, 0],
        rows[:, 1],
        rows[:, 2],
        xy,
    )
