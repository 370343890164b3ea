"""Queries of long-term visual localization: Aachen Day-Night, Cambridge Landmarks and others that come as lists.

queries        "name MODEL width height parameters", a camera of COLMAP's (Sattler et al., CVPR 2018);
               or only names (Cambridge's list_query.txt), with the cameras in a COLMAP model
poses          "name qw qx qy qz tx ty tz", world to camera: what visuallocalization.net takes;
               or Cambridge's dataset_test.txt ("Camera Position [X Y Z W P Q R]": the camera's centre, and the
               rotation world to camera); or a COLMAP model
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, CodecError, DatasetError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec.image_files import ImageFiles
from mast3r_ros.io.datasets.base import IMAGE_SUFFIXES, named_values, numbers, pose_of, read_table, read_text
from mast3r_ros.io.datasets.colmap import Colmap, find_model
from mast3r_ros.io.datasets.colmap_cameras import MODELS, camera_of_model
from mast3r_ros.io.datasets.trajectory_file import is_number

Array = NDArray[np.float64]

QUERY = "name MODEL width height parameters"
POSE = "qw qx qy qz tx ty tz"
#: What tells Cambridge's files from others.
CAMBRIDGE = "Camera Position"
_MODEL_NAMES = {name for name, *_ in MODELS.values()}


@dataclass(frozen=True, eq=False)
class ListedQuery:
    """An image to be localized; ``truth`` is its (4, 4) ``map_T_camera`` where somebody knows it."""

    name: str
    camera: Camera
    truth: Array | None = None


class QueryList:
    """Queries whose images are read only when asked for.

    Iteration yields a PosedFrame for a query whose pose is known and a Frame for others.

    Args:
        file: the list.
        images: folder that its names start from.
        cameras: COLMAP model that knows the cameras of queries whose line does not say.
        poses: true poses, see :func:`read_poses`.
        scale: metres for each unit of ``poses``.

    Raises:
        DatasetError: for a missing or malformed file, a query without camera or image, or poses of other images.
    """

    def __init__(
        self, file: Path, images: Path, cameras: Path | None = None, poses: Path | None = None, scale: float = 1.0
    ) -> None:
        self.name, self._images = file.stem, images
        known = {} if cameras is None else {name: camera for name, (camera, _) in _model(cameras).items()}
        truth = {} if poses is None else read_poses(poses, scale)
        self.queries = [ListedQuery(name, camera, truth.get(name)) for name, camera in _read_queries(file, known)]
        if truth and not any(query.truth is not None for query in self.queries):
            raise DatasetError(
                f"{poses} has poses of other images: it knows {next(iter(truth))}, {file} asks for "
                f"{self.queries[0].name}"
            )
        missing = [query.name for query in self.queries if not (images / query.name).is_file()]
        if missing:
            raise DatasetError(
                f"{images / missing[0]} does not exist ({len(missing)} of {len(self)} images are missing)"
            )

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[PosedFrame | Frame]:
        image_files = ImageFiles()
        for query in self.queries:
            try:
                image, camera = image_files.read(self._images / query.name, query.camera)
            except CodecError as error:
                raise DatasetError(str(error)) from error
            except CalibrationError as error:
                raise DatasetError(f"{query.name} in the list {self.name}: {error}") from error
            frame = Frame(image, camera, name=query.name)
            yield frame if query.truth is None else PosedFrame(frame, query.truth)


def read_poses(path: Path, scale: float = 1.0) -> dict[str, Array]:
    """``map_T_camera`` (4, 4) in metres by image name, from any of the pose files above.

    Args:
        scale: metres for each unit of the file.

    Raises:
        DatasetError: for a missing or malformed file.
    """
    if path.is_dir():
        poses = {name: pose for name, (_, pose) in _model(path).items()}
    elif CAMBRIDGE in read_text(path):
        poses = dict(_cambridge_poses(path))
    else:
        poses = dict(_listed_poses(path))
    if not poses:
        raise DatasetError(f"{path} is empty: expected lines 'name {POSE}'")
    for pose in poses.values():
        pose[:3, 3] *= scale
    return poses


def write_poses(path: Path, poses: Iterable[tuple[str, Array]], base_names: bool = False, scale: float = 1.0) -> None:
    """Write ``map_T_camera`` (4, 4) by image name as "name qw qx qy qz tx ty tz", world to camera.

    Args:
        base_names: leave the folders in the names away, as visuallocalization.net wants it for Aachen.
        scale: metres for each unit of the file.
    """
    lines = []
    for name, map_T_camera in poses:
        camera_T_map = se3.inverse(map_T_camera)
        x, y, z, w = se3.quaternion(camera_T_map)
        values = " ".join(f"{value:.9f}" for value in (w, x, y, z, *camera_T_map[:3, 3] / scale))
        lines.append(f"{PurePosixPath(name).name if base_names else name} {values}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def _read_queries(file: Path, known: Mapping[str, Camera]) -> list[tuple[str, Camera]]:
    queries = []
    for line, words in _rows(file):
        where = f"{file}, line {line}"
        at = _place_of_model(words)
        if at is not None:
            name = " ".join(words[:at])
            expected = " ".join(["width", "height", *(f"parameter{i}" for i in range(1, len(words) - at - 2))])
            width, height, *parameters = numbers(file, line, words[at + 1 :], expected)
            queries.append((name, camera_of_model(where, words[at], int(width), int(height), parameters)))
            continue
        name = named_values(words, 7)[0] if all(map(is_number, words[-7:])) else " ".join(words)
        if name not in known and (missing := _why_unknown(name, words, known)):
            raise DatasetError(f"{where}: {missing}")
        queries.append((name, known[name]))
    if not queries:
        raise DatasetError(f"{file} is empty: expected lines '{QUERY}'")
    return queries


def _place_of_model(words: list[str]) -> int | None:
    """Where the camera's model stands: behind the name, which may hold blanks."""
    for at in range(1, len(words) - 3):
        if words[at] in _MODEL_NAMES:
            return at
    return 1 if len(words) >= 5 and not is_number(words[1]) and is_number(words[-1]) else None


def _why_unknown(name: str, words: list[str], known: Mapping[str, Camera]) -> str:
    if len(words) not in (1, 8) and not any(name.endswith(suffix) for suffix in IMAGE_SUFFIXES):
        return f"expected '{QUERY}' or only a name, got {len(words)} words"
    source = "give the COLMAP model that knows it (--cameras)" if not known else "it is not in the COLMAP model"
    return f"{name} comes without a camera: {source}, or write '{QUERY}'"


def _listed_poses(file: Path) -> Iterator[tuple[str, Array]]:
    for line, words in read_table(file):
        name, values = named_values(words, 7)
        if len(values) != 7:
            raise DatasetError(f"{file}, line {line}: expected 'name {POSE}', got {len(words)} words")
        w, x, y, z, *translation = numbers(file, line, values, POSE)
        yield name, se3.inverse(pose_of(file, line, translation, [x, y, z, w], f"name {POSE}"))


def _cambridge_poses(file: Path) -> Iterator[tuple[str, Array]]:
    for line, words in _rows(file):
        expected = "X Y Z W P Q R"
        name, values = named_values(words, 7)
        if len(values) != 7:
            raise DatasetError(f"{file}, line {line}: expected 'name {expected}', got {len(words)} words")
        *centre, w, x, y, z = numbers(file, line, values, expected)
        camera_R_map = pose_of(file, line, [0, 0, 0], [x, y, z, w], f"name {expected}")[:3, :3]
        yield name, se3.make(camera_R_map.T, centre)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a list, without the head that Cambridge's have."""
    head = 2 if CAMBRIDGE in read_text(file) else 0
    return ((line, words) for line, words in read_table(file) if line > head)


def _model(path: Path) -> dict[str, tuple[Camera, Array]]:
    if find_model(path) is None:
        raise DatasetError(f"{path} has no COLMAP model: expected cameras and images, .bin or .txt")
    return Colmap(path, use_depth=False).cameras_and_poses()
