"""What every data set reader is, and the small file readers they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError, DatasetError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec.depth import metres
from mast3r_ros.io.codec.images import decode_compressed_image, decode_file
from mast3r_ros.io.codec.picture_files import STORED

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class Source:
    """Posed frames that can be iterated over, again and again; pixels are read only when asked for.

    Attributes:
        name: what a person calls it.
        layout: the kind of data set, as in ``open_source(path, layout=...)``.
    """

    layout = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def __iter__(self) -> Iterator[PosedFrame]:
        raise NotImplementedError


class FrameList(Source):
    """A source whose frames are known beforehand: it has a length, and frames can be read by index."""

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> PosedFrame:
        """Read one frame from disk. Raises DatasetError."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> PosedFrame:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, not {index}")
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[PosedFrame]:
        return (self.read(index) for index in range(len(self)))


class Part(FrameList):
    """Some frames of a list, by their places in it."""

    def __init__(self, whole: FrameList, places: Sequence[int], name: str) -> None:
        super().__init__(name)
        self.layout, self._whole, self._places = whole.layout, whole, places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> PosedFrame:
        """One of them."""
        return self._whole.read(self._places[index])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Image file -> (H, W, 3) uint8 RGB. Raises DatasetError naming the file."""
    try:
        return decode_compressed_image(read_bytes(path))
    except CodecError as error:
        raise DatasetError(f"{path}: {error}") from error


def read_depth(path: Path, units_per_metre: float = 1000.0) -> NDArray[np.float32]:
    """16-bit depth image file -> (H, W) float32 metres, 0 where it holds 0 or 65535. Raises DatasetError."""
    try:
        raw = decode_file(read_bytes(path), STORED)
    except CodecError as error:
        raise DatasetError(f"{path}: {error}") from error
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise DatasetError(f"{path}: a depth image has one channel of 16 bits, this one is {raw.shape} {raw.dtype}")
    return metres(raw, 1.0 / units_per_metre)


def read_pose(path: Path) -> NDArray[np.float64]:
    """Text file with a (4, 4) matrix -> rigid motion, its rotation made orthonormal. Raises DatasetError."""
    try:
        matrix = np.array([float(word) for word in read_text(path).split()])
    except ValueError as error:
        raise DatasetError(f"{path}: expected 16 numbers of a 4x4 matrix ({error})") from error
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise DatasetError(f"{path}: expected 16 finite numbers of a 4x4 matrix, got {matrix.size}")
    pose = matrix.reshape(4, 4)
    if np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() > 0.05:
        raise DatasetError(f"{path}: the upper left 3x3 of the matrix is no rotation")
    return se3.orthonormalised(pose)


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and words of every line that is not empty or a comment (#)."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()


def numbers(path: Path, line: int, words: list[str], expected: str) -> list[float]:
    """Words as finite numbers, one for each word of ``expected`` (their names). Raises DatasetError."""
    if len(words) != len(expected.split()):
        raise DatasetError(f"{path}, line {line}: expected '{expected}', got {len(words)} values")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DatasetError(f"{path}, line {line}: expected '{expected}' ({error})") from error
    if not np.isfinite(values).all():
        raise DatasetError(f"{path}, line {line}: '{expected}' contains NaN or infinity")
    return values


def pose_of(path: Path, line: int, translation: list[float], xyzw: list[float]) -> NDArray[np.float64]:
    """Translation and quaternion of a line -> (4, 4). Raises DatasetError."""
    try:
        return se3.from_quaternion(translation, xyzw)
    except ValueError as error:
        raise DatasetError(f"{path}, line {line}: {error}") from error


def read_text(path: Path) -> str:
    """Content of a text file. Raises DatasetError."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no text file: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Content of a file. Raises DatasetError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
