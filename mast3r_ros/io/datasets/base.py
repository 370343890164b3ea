"""What every data set reader is, and the small file readers they share."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, CodecError, DatasetError
from mast3r_ros.frames import Camera, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec.depth import metres
from mast3r_ros.io.codec.image_files import ImageFiles
from mast3r_ros.io.codec.images import decode_file
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
        self.name, self._image_files = name, ImageFiles()

    def _read_image(
        self, path: Path, camera: Camera | None, calibration: str = "its calibration"
    ) -> tuple[NDArray[np.uint8], Camera | None]:
        """An image file and its camera at the image's size. Raises DatasetError naming the file."""
        return read_image(path, camera, self._image_files, calibration)

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


def read_image(
    path: Path,
    camera: Camera | None = None,
    image_files: ImageFiles | None = None,
    calibration: str = "its calibration",
) -> tuple[NDArray[np.uint8], Camera | None]:
    """Image file -> (H, W, 3) uint8 RGB, and its camera rescaled to its size where one is given.

    Args:
        image_files: of the recording that the file belongs to: its 16-bit images are read alike.
        calibration: where ``camera`` comes from, for the message.

    Raises:
        DatasetError: if the file is no image, or the camera does not fit it.
    """
    try:
        return (image_files or ImageFiles()).read(path, camera)
    except CodecError as error:
        raise DatasetError(str(error)) from error
    except CalibrationError as error:
        raise DatasetError(f"{path} does not fit {calibration}: {error}") from error


def read_expected(path: Path, camera: Camera | None, image_files: ImageFiles | None = None) -> NDArray[np.uint8]:
    """Image file -> (H, W, 3) uint8 RGB: as ``camera`` stored it where it is of its size, else upright by its EXIF.

    Raises:
        DatasetError: if the file is no image.
    """
    try:
        return read_image(path, camera, image_files)[0]
    except DatasetError as error:
        if not isinstance(error.__cause__, CalibrationError):
            raise
        return read_image(path, None, image_files)[0]  # another camera's


def read_depth(path: Path, units_per_metre: float = 1000.0) -> NDArray[np.float32]:
    """16-bit depth image file -> (H, W) float32 metres, 0 where it holds 0 or 65535. Raises DatasetError."""
    try:
        raw = decode_file(read_bytes(path), STORED)
    except CodecError as error:
        raise DatasetError(f"{path}: {error}") from error
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise DatasetError(f"{path}: a depth image has one channel of 16 bits, this one is {raw.shape} {raw.dtype}")
    return metres(raw, 1.0 / units_per_metre)


def depth_file(folder: Path, image: Path, alone: bool) -> Path | None:
    """The depth image ``folder/<image>.png``, or ``folder/<stem>.png`` where no other image has that stem.

    Args:
        image: the image's path from the folder of all images.
        alone: whether it is the only image with its stem.

    Raises:
        DatasetError: where several images could claim the same depth.
    """
    own, by_stem = folder / image.with_suffix(".png"), folder / (image.stem + ".png")
    if own.exists():
        return own
    if not by_stem.exists():
        return None
    if not alone:
        raise DatasetError(
            f"{by_stem} could belong to several images named {image.stem}: put the depth of {image} at {own}"
        )
    return by_stem


def read_pose(path: Path) -> NDArray[np.float64]:
    """Text file with a (4, 4) matrix -> rigid motion, its rotation made orthonormal. Raises DatasetError."""
    try:
        matrix = np.array([float(word) for _, words in read_table(path) for word in words])
    except ValueError as error:
        raise DatasetError(f"{path}: expected 16 numbers of a 4x4 matrix ({error})") from error
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise DatasetError(f"{path}: expected 16 finite numbers of a 4x4 matrix, got {matrix.size}")
    return rigid(matrix.reshape(4, 4), str(path))


def rigid(pose: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """A (4, 4) matrix as a rigid motion, its rotation made orthonormal.

    Raises:
        DatasetError: beginning with ``where``, for a transposed, mirrored or scaled matrix.
    """
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-6):
        hint = ": the matrix is transposed" if np.allclose(pose[:, 3], [0, 0, 0, 1], atol=1e-6) else ""
        raise DatasetError(f"{where}: the last row of a pose is 0 0 0 1, got {pose[3].tolist()}{hint}")
    if np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() > 0.05:
        raise DatasetError(f"{where}: the upper left 3x3 of the matrix is no rotation")
    if np.linalg.det(pose[:3, :3]) < 0:
        raise DatasetError(
            f"{where}: the upper left 3x3 of the matrix is mirrored (its determinant is -1): one axis of the camera or "
            "of the world points the wrong way"
        )
    return se3.orthonormalised(pose)


def inside(folder: Path, name: str) -> Path:
    """A file of a folder, by a name that stands in a file. Raises DatasetError for one that leads out of the folder."""
    path = os.path.abspath(folder / name)
    if "\0" in name or not path.startswith(f"{os.path.abspath(folder)}{os.sep}"):
        raise DatasetError(f"the image {name!r} would be outside {folder}: move it there, and correct the name")
    return Path(path)


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and words of every line that is not empty or a comment (# or %).

    Words are separated by white space, or by commas or semicolons where a line uses these throughout.
    """
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith(("#", "%")):
            yield number, split_line(line)


def split_line(line: str) -> list[str]:
    """Words of a line of a table; a comma inside a file's name does not separate."""
    words = line.split()
    for separator in ";,":
        if separator in line and (len(words) == 1 or all(word.endswith(separator) for word in words[:-1])):
            return [word.strip() for word in line.strip().strip(separator).split(separator)]
    return words


def named_values(words: list[str], count: int) -> tuple[str, list[str]]:
    """A file's name, which may hold blanks, and the ``count`` words behind it."""
    return " ".join(words[: max(len(words) - count, 1)]), words[max(len(words) - count, 1) :]


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


def pose_of(path: Path, line: int, translation: list[float], xyzw: list[float], expected: str) -> NDArray[np.float64]:
    """Translation and quaternion of a line -> (4, 4).

    Args:
        expected: the order in which the file's columns were read, for the message.

    Raises:
        DatasetError: for a zero quaternion, or one whose norm says that these columns are something else.
    """
    try:
        return se3.from_unit_quaternion(translation, xyzw)
    except ValueError as error:
        raise DatasetError(
            f"{path}, line {line}: {error}: the columns are read as '{expected}', is the file in another order?"
        ) from error


def read_text(path: Path) -> str:
    """Content of a text file: UTF-8, or UTF-16 with its mark as some editors write it. Raises DatasetError."""
    content = read_bytes(path)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no text file: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Content of a file. Raises DatasetError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
