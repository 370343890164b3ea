"""One keyframe as one line of keyframes.jsonl, and cameras as entries of map.yaml: written and read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, MapError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.blob import DEPTH_FORMATS, IMAGE_FORMATS, Blob
from mast3r_ros.mapping.keyframe import Keyframe

#: Ids become file names, so nothing that could leave the map's folder or hide in it.
ID_PATTERN = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,127}")
#: The same for many, one a line.
IDS_PATTERN = re.compile(rf"{ID_PATTERN.pattern}(?:\n{ID_PATTERN.pattern})*")
#: A quaternion this close to unit length was rounded; further off it means something else.
UNIT_TOLERANCE = 1e-3
#: Rotations of poses given to the map may be off by this much and are made exact; beyond it they are refused.
ROTATION_TOLERANCE = 1e-2
MAX_IMAGE_SIDE = 16_384
MAX_IMAGE_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Entry:
    """A keyframe with its pixels.

    Attributes:
        keyframe: pose and calibration.
        image: the encoded image.
        depth: the encoded depth image of a sensor, or None.
        points: encoded points that were triangulated, or None.
        depth_median_m: median of the known depth, metres; NaN where none is known.
    """

    keyframe: Keyframe
    image: Blob
    depth: Blob | None = None
    depth_median_m: float = float("nan")
    points: Blob | None = None

    @property
    def content_key(self) -> str:
        """Changes whenever the pixels or the depth change: caches are filed under it."""
        surface = self.depth or self.points
        return f"{self.image.sha256[:20]}-{surface.sha256[:20] if surface else 'none'}"

    def blobs(self) -> Iterator[tuple[str, Blob]]:
        """What is in files of its own, with the folder they belong into."""
        for kind, blob in (("images", self.image), ("depth", self.depth), ("points", self.points)):
            if blob is not None:
                yield kind, blob

    def at(self, map_T_camera: NDArray[np.float64]) -> Entry:
        """The same at another pose (4, 4), without points that were triangulated with the old one."""
        measured = self.depth is not None
        keyframe = replace(self.keyframe, map_T_camera=map_T_camera, has_depth=measured)
        median = self.depth_median_m if measured else float("nan")
        return replace(self, keyframe=keyframe, points=None, depth_median_m=median)

    def stored(self, folder: Path) -> Entry:
        """The same after its map was saved to a folder: pixels there, not in memory."""
        id = self.keyframe.id
        image = replace(self.image, data=None, path=folder / "images" / f"{id}.{self.image.suffix}")
        depth = self.depth and replace(self.depth, data=None, path=folder / "depth" / f"{id}.{self.depth.suffix}")
        points = self.points and replace(self.points, data=None, path=folder / "points" / f"{id}.safetensors")
        return replace(self, image=image, depth=depth, points=points)


def valid_id(text: str) -> bool:
    """Whether a text may be a keyframe id: letters, digits, ``_ . -``, no leading dot, at most 128."""
    return ID_PATTERN.fullmatch(text) is not None


def id_of_name(name: str, taken: Callable[[str], bool] = lambda id: False) -> str:
    """A keyframe id that a person recognises an image by, none of those that are taken."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(name).with_suffix("").as_posix()).lstrip(".")[:100] or "image"
    id, number = stem, 1
    while taken(id):
        number += 1
        id = f"{stem}_{number}"
    return id


def to_line(entry: Entry, camera: str) -> bytes:
    """The line of keyframes.jsonl for one keyframe whose camera has that name in map.yaml."""
    keyframe = entry.keyframe
    translation, rotation = _rounded(keyframe.map_T_camera)
    record = {
        "id": keyframe.id,
        "stamp_ns": keyframe.stamp_ns,
        "camera": camera,
        "pose": {"translation": translation, "rotation_xyzw": rotation},
        "image": {"format": entry.image.suffix, "bytes": entry.image.size, "sha256": entry.image.sha256},
        "depth": None,
    }
    if entry.depth is not None:
        record["depth"] = {"format": entry.depth.suffix, **_surface(entry.depth, entry.depth_median_m)}
    elif entry.points is not None:
        record["points"] = _surface(entry.points, entry.depth_median_m)
    return json.dumps(record).encode() + b"\n"


def rounded_pose(map_T_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pose (4, 4) as it is read back from its line."""
    return se3.from_quaternion(*_rounded(map_T_camera))


def _rounded(pose: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Translation and quaternion with the digits that a line has."""
    return [round(float(v), 9) for v in pose[:3, 3]], [round(float(v), 12) for v in se3.quaternion(pose)]


def _surface(blob: Blob, median_m: float) -> dict[str, Any]:
    median = float(f"{median_m:.6g}") if np.isfinite(median_m) else None
    return {"bytes": blob.size, "sha256": blob.sha256, "median_m": median}


def from_line(line: bytes, folder: Path, cameras: Mapping[str, Camera]) -> Entry:
    """Inverse of :func:`to_line` for the map in ``folder``.

    Raises:
        ValueError: says what is wrong with the line.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    id, camera = _member(record, "id", str), _member(record, "camera", str)
    if not valid_id(id):
        raise ValueError(f"has an unusable id {id!r:.80}: letters, digits, '_', '-' and '.' only, no leading dot")
    if camera not in cameras:
        raise ValueError(f"names the camera {camera!r:.80}, which map.yaml does not have")
    image, depth, points = _member(record, "image", dict), record.get("depth"), record.get("points")
    suffix = _member(image, "format", str)
    if suffix not in IMAGE_FORMATS:
        raise ValueError(f"has an unknown image format {suffix!r:.20}: it must be {' or '.join(IMAGE_FORMATS)}")
    stamp = _member(record, "stamp_ns", int)
    pose = _pose(_member(record, "pose", dict))
    entry_depth = entry_points = None
    median = float("nan")
    if depth is not None:
        kind = depth.get("format", "png") if isinstance(depth, dict) else "png"  # format 1 had no other
        if kind not in DEPTH_FORMATS:
            raise ValueError(f"has an unknown depth format {kind!r:.20}: it must be {' or '.join(DEPTH_FORMATS)}")
        entry_depth = _blob(depth, folder / "depth" / f"{id}.{kind}")
        median = float(depth.get("median_m") or "nan")
    elif points is not None:
        entry_points = _blob(points, folder / "points" / f"{id}.safetensors")
        median = float(points.get("median_m") or "nan")
    keyframe = Keyframe(id, cameras[camera], pose, stamp, entry_depth is not None or entry_points is not None)
    return Entry(keyframe, _blob(image, folder / "images" / f"{id}.{suffix}"), entry_depth, median, entry_points)


def camera_to_dict(camera: Camera) -> dict[str, Any]:
    """A camera as map.yaml holds it, in the words of CameraInfo."""
    return {
        "width": camera.width,
        "height": camera.height,
        "K": [float(v) for v in camera.K.reshape(-1)],
        "distortion_model": camera.model,
        "D": [float(v) for v in camera.D],
    }


def camera_from_dict(record: Any) -> Camera:
    """Inverse of :func:`camera_to_dict`.

    Raises:
        ValueError: says what is wrong.
    """
    width, height = _member(record, "width", int), _member(record, "height", int)
    if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
        raise ValueError(f"has a size of {width}x{height}: sides of 1 to {MAX_IMAGE_SIDE} pixels are possible")
    K = _floats(_member(record, "K", list), 9, "K")
    D = _floats(_member(record, "D", list), None, "D")
    try:
        return Camera(width, height, K, _member(record, "distortion_model", str), D)
    except CalibrationError as error:
        raise ValueError(str(error)) from error


def _pose(record: dict[str, Any]) -> NDArray[Any]:
    translation = _floats(_member(record, "translation", list), 3, "translation")
    rotation = _floats(_member(record, "rotation_xyzw", list), 4, "rotation_xyzw")
    norm = float(np.linalg.norm(rotation))
    if abs(norm - 1) > UNIT_TOLERANCE:
        raise ValueError(f"has a quaternion of length {norm:.6g}: it must be 1")
    return se3.from_quaternion(translation, rotation)


def _blob(record: Any, path: Path) -> Blob:
    size, sha256 = _member(record, "bytes", int), _member(record, "sha256", str)
    if not 0 < size <= MAX_IMAGE_BYTES:
        raise ValueError(f"says {path.name} has {size} bytes")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"has no valid sha256 for {path.name}")
    return Blob(path.suffix[1:], size, sha256, path=path)


def _member(record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"lacks a valid '{name}'")
    return value


def _floats(values: list[Any], count: int | None, name: str) -> NDArray[Any]:
    if (count is not None and len(values) != count) or not all(type(v) in (int, float) for v in values):
        raise ValueError(f"lacks a valid '{name}': {count or 'only'} numbers are needed")
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"has NaN or infinity in '{name}'")
    return array


def map_error(path: Path, error: ValueError | str, line: int | None = None) -> MapError:
    """An error that names the file, the line and the way out."""
    where = f"{path} line {line}" if line else str(path)
    return MapError(f"{where}: {error}; restore it from a copy, or run `mast3r_ros map repair {path.parent}`")


def rigid_pose(pose: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """A pose made exactly rigid, or MapError where it is not even nearly so."""
    pose = np.asarray(pose, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise MapError(f"frame {name}: its pose is not a finite 4x4 matrix")
    R = pose[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(R) < 0:
        raise MapError(f"frame {name}: its pose is not a rigid motion (the rotation is not orthogonal)")
    return se3.orthonormalised(pose)
