"""COLMAP sparse models (Schoenberger and Frahm, CVPR 2016), text and binary, with their images.

    sparse/0/cameras.*, images.*, points3D.*    (or in sparse/, or directly in the folder)
    images/                                     the images, by the names in images.*

COLMAP's poses are world to camera and its pixel centres lie at half integers; both are turned into
this package's conventions. A model has no scale of its own: give ``scale`` if it is not in metres.
The points that an image observes become its depth image, a 3x3 patch for each, 0 elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec import fit_camera_to_image
from mast3r_ros.io.datasets.base import FrameList, numbers, pose_of, read_bytes, read_image, read_table, read_text

#: Model name by COLMAP's number, with its parameters and the ROS model that they fit.
MODELS = {
    0: ("SIMPLE_PINHOLE", "f cx cy", "none"),
    1: ("PINHOLE", "fx fy cx cy", "none"),
    2: ("SIMPLE_RADIAL", "f cx cy k1", "plumb_bob"),
    3: ("RADIAL", "f cx cy k1 k2", "plumb_bob"),
    4: ("OPENCV", "fx fy cx cy k1 k2 p1 p2", "plumb_bob"),
    5: ("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4", "equidistant"),
    6: ("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6", "rational_polynomial"),
    8: ("SIMPLE_RADIAL_FISHEYE", "f cx cy k1", "equidistant"),
    9: ("RADIAL_FISHEYE", "f cx cy k1 k2", "equidistant"),
}
#: OpenCV's order of coefficients for the ROS models.
_ORDER = {
    "none": "",
    "plumb_bob": "k1 k2 p1 p2 k3",
    "equidistant": "k1 k2 k3 k4",
    "rational_polynomial": "k1 k2 p1 p2 k3 k4 k5 k6",
}


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
        model = find_model(path)
        if model is None:
            raise DatasetError(f"{path} has no COLMAP model: expected cameras, images and points3D, .bin or .txt")
        self._folder = Path(images) if images else _image_folder(path, model)
        self._scale, self._use_depth = scale, use_depth
        binary = (model / "cameras.bin").exists()
        self._cameras = dict((_cameras_bin if binary else _cameras_txt)(model))
        self._images = sorted((_images_bin if binary else _images_txt)(model), key=lambda image: image.name)
        self._points = dict((_points_bin if binary else _points_txt)(model)) if use_depth else {}
        for image in self._images:
            if image.camera_id not in self._cameras:
                raise DatasetError(f"{model}: image {image.name} has camera {image.camera_id}, which is not in cameras")
        if not self._images:
            raise DatasetError(f"{model} has no images")

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> PosedFrame:
        """One registered image."""
        entry = self._images[index]
        image = read_image(self._folder / entry.name)
        calibrated = self._cameras[entry.camera_id]
        camera = fit_camera_to_image(calibrated, image.shape[1], image.shape[0])
        depth = self._sparse_depth(entry, calibrated, camera) if self._use_depth else None
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

    def _sparse_depth(self, entry: _Image, calibrated: Camera, camera: Camera) -> NDArray[np.float32]:
        seen = np.array([point in self._points for point in entry.point_ids.tolist()], dtype=bool)
        xyz = np.array([self._points[point] for point in entry.point_ids[seen].tolist()]).reshape(-1, 3)
        z = se3.apply(entry.camera_T_world, xyz)[:, 2] * self._scale
        stretch = np.array([camera.width / calibrated.width, camera.height / calibrated.height])
        u, v = np.rint(entry.xy[seen] * stretch - 0.5).astype(int).T
        depth = np.zeros((camera.height + 2, camera.width + 2), dtype=np.float32)
        inside = (z > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        for i in np.flatnonzero(inside)[np.argsort(-z[inside])]:  # the nearest point is drawn last
            depth[v[i] : v[i] + 3, u[i] : u[i] + 3] = z[i]
        return depth[1:-1, 1:-1].copy()


def find_model(path: Path) -> Path | None:
    """Folder of the sparse model in or below a path, or None."""
    for folder in (path, path / "sparse" / "0", path / "sparse"):
        if any((folder / f"cameras{suffix}").exists() for suffix in (".bin", ".txt")):
            return folder
    return None


def _image_folder(path: Path, model: Path) -> Path:
    for folder in (path, model, *model.parents[:2]):
        if (folder / "images").is_dir():
            return folder / "images"
    return path


def camera_of_model(where: str, model: str, width: int, height: int, parameters: list[float]) -> Camera:
    """A camera from the name and parameters of COLMAP's model; ``where`` names the file and line in errors.

    Raises:
        DatasetError: for a model that ROS has no name for, or wrong parameters.
    """
    known = {name: (names, ros_model) for name, names, ros_model in MODELS.values()}
    if model not in known:
        raise DatasetError(f"{where}: camera model {model} has no ROS counterpart; undistort the images, or use OPENCV")
    names, ros_model = known[model]
    if len(parameters) != len(names.split()):
        raise DatasetError(f"{where}: {model} has parameters '{names}', got {len(parameters)} values")
    value = dict(zip(names.split(), parameters, strict=True))
    fx, fy = value.get("fx", value.get("f", 0.0)), value.get("fy", value.get("f", 0.0))
    K = np.array([[fx, 0, value["cx"] - 0.5], [0, fy, value["cy"] - 0.5], [0, 0, 1]])
    D = np.array([value.get(name, 0.0) for name in _ORDER[ros_model].split()])
    try:
        return Camera(width, height, K, ros_model, D)
    except CalibrationError as error:
        raise DatasetError(f"{where}: {error}") from error


# Text


def _cameras_txt(model: Path) -> Iterator[tuple[int, Camera]]:
    file = model / "cameras.txt"
    for line, words in read_table(file):
        if len(words) < 5:
            raise DatasetError(f"{file}, line {line}: expected 'id model width height parameters'")
        number, width, height = numbers(file, line, [words[0], *words[2:4]], "id width height")
        parameters = numbers(file, line, words[4:], " ".join("x" * (len(words) - 4)))
        yield int(number), camera_of_model(f"{file}, line {line}", words[1], int(width), int(height), parameters)


def _images_txt(model: Path) -> Iterator[_Image]:
    file = model / "images.txt"
    # Two lines for each image, of which the second (observations) may be empty.
    lines = [(i, line) for i, line in enumerate(read_text(file).splitlines(), 1) if not line.startswith("#")]
    for (line, pose_line), (_, points_line) in zip(lines[::2], [*lines[1::2], (0, "")], strict=False):
        words = pose_line.split(maxsplit=9)
        if len(words) != 10:
            raise DatasetError(f"{file}, line {line}: expected 'id qw qx qy qz tx ty tz camera_id name'")
        _, w, x, y, z, *rest = numbers(file, line, words[:9], "id qw qx qy qz tx ty tz camera_id")
        try:
            observed = np.array(points_line.split(), dtype=np.float64).reshape(-1, 3)
        except ValueError as error:
            raise DatasetError(f"{file}, line {line + 1}: expected triples 'x y point3D_id' ({error})") from error
        pose = pose_of(file, line, rest[:3], [x, y, z, w])
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


_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


def _cameras_bin(model: Path) -> Iterator[tuple[int, Camera]]:
    file = _Binary(model / "cameras.bin")
    for _ in range(file.take("Q")[0]):
        number, kind, width, height = file.take("iiQQ")
        if kind not in MODELS:
            raise DatasetError(f"{file.path}: camera {number} has model number {kind}, which has no ROS counterpart")
        name, names, _ = MODELS[kind]
        parameters = list(file.take(f"{len(names.split())}d"))
        yield number, camera_of_model(f"{file.path}, camera {number}", name, width, height, parameters)


def _images_bin(model: Path) -> Iterator[_Image]:
    file = _Binary(model / "images.bin")
    for _ in range(file.take("Q")[0]):
        number, w, x, y, z, *translation, camera_id = file.take("i7di")
        name = file.text()
        observed = file.array(_OBSERVATION, file.take("Q")[0])
        pose = pose_of(file.path, number, translation, [x, y, z, w])
        yield _Image(name, pose, camera_id, observed["xy"], observed["point"])


def _points_bin(model: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    file = _Binary(model / "points3D.bin")
    for _ in range(file.take("Q")[0]):
        number, x, y, z, *_, track = file.take("Q3d3BdQ")
        file.at += 8 * track
        yield number, np.array([x, y, z])
