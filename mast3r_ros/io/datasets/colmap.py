"""COLMAP sparse models (Schoenberger and Frahm, CVPR 2016), text and binary, with their images.

    sparse/0/cameras.*, images.*, points3D.*    (or in sparse/, distorted/sparse/, or directly in the folder)
    images/                                     the images, by the names in images.*; or input/

Of several models (sparse/0, sparse/1, ...) the one with most images is read, and that is told.

COLMAP's poses are world to camera and its pixel centres lie at half integers; both are turned into
this package's conventions. A model has no scale of its own: give ``scale`` if it is not in metres.
The points that an image observes become its depth image, a 3x3 patch for each, 0 elsewhere.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import FrameList, numbers, pose_of, read_bytes, read_table, read_text
from mast3r_ros.io.datasets.colmap_cameras import MODELS, camera_of_model
from mast3r_ros.io.datasets.trajectory_file import is_number

log = logging.getLogger(__name__)

_IMAGE_LINE = "id qw qx qy qz tx ty tz camera_id name"


class _Image(NamedTuple):
    name: str
    camera_T_world: NDArray[np.float64]
    camera_id: int
    xy: NDArray[np.float64]  # (N, 2) observations, pixel centres at half integers
    point_ids: NDArray[np.int64]  # (N,), -1 where an observation has no point


class Colmap(FrameList):
    """One sparse model.

    Args:
        images: folder of the images; None takes images/ beside the model, or the folder itself.
        scale: metres for each unit of the model.
        use_depth: False leaves the sparse depth away.

    Raises:
        DatasetError: for a missing or malformed file, or a camera model ROS has no name for.
    """

    layout = "colmap"

    def __init__(
        self, path: Path, images: Path | str | None = None, scale: float = 1.0, use_depth: bool = True
    ) -> None:
        super().__init__(path.name)
        model = find_model(path, tell=True)
        if model is None:
            raise DatasetError(f"{path} has no COLMAP model: expected cameras, images and points3D, .bin or .txt")
        self._scale, self._use_depth = scale, use_depth
        binary = (model / "cameras.bin").exists()
        cameras = dict((_cameras_bin if binary else _cameras_txt)(model))
        self._images = sorted((_images_bin if binary else _images_txt)(model), key=lambda image: image.name)
        self._points = dict((_points_bin if binary else _points_txt)(model)) if use_depth else {}
        if not self._images:
            raise DatasetError(f"{model} has no images")
        self._cameras = {number: _used(cameras, number, model) for number in {i.camera_id for i in self._images}}
        self._folder = Path(images) if images else _image_folder(path, model, self._images[0].name)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> PosedFrame:
        """One registered image."""
        entry = self._images[index]
        calibrated = self._cameras[entry.camera_id]
        image, camera = self._read_image(self._folder / entry.name, calibrated)
        assert camera is not None
        depth = self._sparse_depth(index, camera) if self._use_depth else None
        world_T_camera = se3.inverse(entry.camera_T_world)
        world_T_camera[:3, 3] *= self._scale
        return PosedFrame(Frame(image, camera, depth=depth, name=entry.name), world_T_camera)

    def cameras_and_poses(self) -> dict[str, tuple[Camera, NDArray[np.float64]]]:
        """Calibration and ``map_T_camera`` (4, 4) of every image by its name, without reading any image."""
        found = {}
        for entry in self._images:
            world_T_camera = se3.inverse(entry.camera_T_world)
            world_T_camera[:3, 3] *= self._scale
            found[entry.name] = self._cameras[entry.camera_id], world_T_camera
        return found

    def observed(self, index: int, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points that an image observes: pixels (N, 2) of it at that size, and depth (N,) along its axis, positive."""
        entry = self._images[index]
        calibrated = self._cameras[entry.camera_id]
        seen = np.array([point in self._points for point in entry.point_ids.tolist()], dtype=bool)
        xyz = np.array([self._points[point] for point in entry.point_ids[seen].tolist()]).reshape(-1, 3)
        z = se3.apply(entry.camera_T_world, xyz)[:, 2] * self._scale
        stretch = np.array([width / calibrated.width, height / calibrated.height])
        return (entry.xy[seen] * stretch - 0.5)[z > 0], z[z > 0]

    def _sparse_depth(self, index: int, camera: Camera) -> NDArray[np.float32]:
        xy, z = self.observed(index, camera.width, camera.height)
        u, v = np.rint(xy).astype(int).T
        depth = np.zeros((camera.height + 2, camera.width + 2), dtype=np.float32)
        inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        for i in np.flatnonzero(inside)[np.argsort(-z[inside])]:  # the nearest point is drawn last
            depth[v[i] : v[i] + 3, u[i] : u[i] + 3] = z[i]
        return depth[1:-1, 1:-1].copy()


def _used(cameras: Mapping[int, Camera | DatasetError], number: int, model: Path) -> Camera:
    """A camera that an image was taken with; others may be of any kind."""
    if number not in cameras:
        raise DatasetError(f"{model}: an image has camera {number}, which is not in cameras")
    camera = cameras[number]
    if isinstance(camera, DatasetError):
        raise camera
    return camera


def find_model(path: Path, tell: bool = False) -> Path | None:
    """Folder of the sparse model in or below a path, or None; of several that with most images (``tell``: say so)."""
    for parent in (path, path / "sparse", path / "distorted" / "sparse"):
        if _is_model(parent):
            return parent
        models = [folder for folder in sorted(parent.glob("*")) if _is_model(folder)] if parent != path else []
        if models:
            sizes = {folder: _count_images(folder) for folder in models}
            largest = max(models, key=lambda folder: sizes[folder])
            if len(models) > 1 and tell:
                others = ", ".join(f"{folder.name} with {sizes[folder]}" for folder in models if folder != largest)
                log.warning(
                    "%s has %d models: taken is %s with %d images, left out %s (name a model's folder to choose it)",
                    parent,
                    len(models),
                    largest.name,
                    sizes[largest],
                    others,
                )
            return largest
    return None


def _is_model(folder: Path) -> bool:
    return any((folder / f"cameras{suffix}").exists() for suffix in (".bin", ".txt"))


def _count_images(model: Path) -> int:
    """Number of images in a model, without reading all of it; 0 where it cannot be told."""
    if (model / "images.bin").exists():
        head = (model / "images.bin").open("rb").read(8)
        return int.from_bytes(head, "little") if len(head) == 8 else 0
    return sum(1 for _ in _image_lines(model / "images.txt")) if (model / "images.txt").exists() else 0


def _image_folder(path: Path, model: Path, name: str) -> Path:
    """Where the images of a model are: the folder that has the one of this name."""
    kinds = ("input", "images", ".") if "distorted" in model.parts[-3:] else ("images", "input", ".")
    folders = [folder / kind for folder in (path, model, *model.parents[:3]) for kind in kinds]
    there = next((folder for folder in folders if (folder / name).is_file()), None)
    return there or next((folder for folder in folders if folder.name in kinds and folder.is_dir()), path)


# Text


def _cameras_txt(model: Path) -> Iterator[tuple[int, Camera | DatasetError]]:
    file = model / "cameras.txt"
    for line, words in read_table(file):
        if len(words) < 4:
            raise DatasetError(f"{file}, line {line}: expected 'id model width height parameters'")
        number, width, height = numbers(file, line, [words[0], *words[2:4]], "id width height")
        parameters = numbers(file, line, words[4:], " ".join("x" * (len(words) - 4)))
        where = f"{file}, line {line}"
        yield int(number), _camera_or_error(where, words[1], int(width), int(height), parameters)


def _camera_or_error(where: str, model: str, width: int, height: int, parameters: list[float]) -> Camera | DatasetError:
    """A camera that cannot be used matters only if an image was taken with it."""
    try:
        return camera_of_model(where, model, width, height, parameters)
    except DatasetError as error:
        return error


def _image_lines(file: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Number of the line and words of each image's pose, and the words of its observations.

    Each image has two lines, of which the second may be empty, or is left out by some programs.
    """
    pose: tuple[int, list[str]] | None = None
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split(maxsplit=9)
        if line.startswith("#") or (pose is None and not words):
            continue
        if pose is None:
            pose = number, words
        elif len(words) == 10 and not all(map(is_number, words[9].split())):
            yield *pose, []
            pose = number, words
        else:
            yield *pose, line.split()
            pose = None
    if pose is not None:
        yield *pose, []


def _images_txt(model: Path) -> Iterator[_Image]:
    file = model / "images.txt"
    for line, words, points in _image_lines(file):
        if len(words) != 10:
            raise DatasetError(f"{file}, line {line}: expected '{_IMAGE_LINE}'")
        _, w, x, y, z, *rest = numbers(file, line, words[:9], "id qw qx qy qz tx ty tz camera_id")
        try:
            observed = np.array(points, dtype=np.float64).reshape(-1, 3)
        except ValueError as error:
            raise DatasetError(f"{file}, line {line + 1}: expected triples 'x y point3D_id' ({error})") from error
        pose = pose_of(file, line, rest[:3], [x, y, z, w], _IMAGE_LINE)
        yield _Image(words[9].strip(), pose, int(rest[3]), observed[:, :2], observed[:, 2].astype(np.int64))


def _points_txt(model: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    file = model / "points3D.txt"
    for line, words in read_table(file):
        number, *xyz = numbers(file, line, words[:4], "id x y z")
        yield int(number), np.array(xyz)


# Binary, little endian


class _Binary:
    """Values one after the other from a file, with an error that names it."""

    def __init__(self, path: Path) -> None:
        self.path, self.at, self.data = path, 0, read_bytes(path)

    def take(self, codes: str) -> tuple:  # type: ignore[type-arg]  # as the codes say
        layout = struct.Struct("<" + codes)
        self.at += layout.size
        if self.at > len(self.data):
            raise DatasetError(f"{self.path} is truncated: it ends after {len(self.data)} bytes")
        return layout.unpack_from(self.data, self.at - layout.size)

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise DatasetError(f"{self.path} is truncated: a name has no end")
        start, self.at = self.at, end + 1
        return self.data[start:end].decode(errors="replace")

    def array(self, dtype: np.dtype, count: int) -> NDArray:  # type: ignore[type-arg]  # as the dtype says
        if self.at + count * dtype.itemsize > len(self.data):
            raise DatasetError(f"{self.path} is truncated: it ends after {len(self.data)} bytes")
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += count * dtype.itemsize
        return values


#: One observation of a binary images.bin: pixel, and number of its point (-1: none).
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


def _cameras_bin(model: Path) -> Iterator[tuple[int, Camera | DatasetError]]:
    file = _Binary(model / "cameras.bin")
    for _ in range(file.take("Q")[0]):
        number, kind, width, height = file.take("iiQQ")
        if kind not in MODELS:
            raise DatasetError(
                f"{file.path}: camera {number} has model number {kind}, of a newer COLMAP: write the model as text "
                "(colmap model_converter --output_type TXT), or use OPENCV"
            )
        name, names, _ = MODELS[kind]
        parameters = list(file.take(f"{len(names.split())}d"))
        yield number, _camera_or_error(f"{file.path}, camera {number}", name, width, height, parameters)


def _images_bin(model: Path) -> Iterator[_Image]:
    file = _Binary(model / "images.bin")
    for _ in range(file.take("Q")[0]):
        number, w, x, y, z, *translation, camera_id = file.take("i7di")
        name = file.text()
        observed = file.array(_OBSERVATION, file.take("Q")[0])
        pose = pose_of(file.path, number, translation, [x, y, z, w], _IMAGE_LINE)
        yield _Image(name, pose, camera_id, observed["xy"], observed["point"])


def _points_bin(model: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    file = _Binary(model / "points3D.bin")
    for _ in range(file.take("Q")[0]):
        number, x, y, z, *_, track = file.take("Q3d3BdQ")
        file.at += 8 * track
        yield number, np.array([x, y, z])
