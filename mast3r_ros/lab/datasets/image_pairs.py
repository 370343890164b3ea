"""Image pairs with their relative pose: ScanNet-1500, MegaDepth-1500, YFCC and lists of one's own.

A text file in the format that SuperGlue's evaluation introduced (Sarlin et al., CVPR 2020), 38 words a line:

    path1 path2 turns1 turns2 K1[9] K2[9] camera2_T_camera1[16]

Matrices are written row by row. K and pose belong to the images as they are stored; an image whose ``turns`` is n was
stored turned clockwise by n times 90 degrees, and is turned back before anything is done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError, CodecError, DatasetError
from mast3r_ros.frames import Camera, Frame, turned_T_camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec.image_files import ImageFiles
from mast3r_ros.io.datasets.base import read_table

Array = NDArray[np.float64]

FORMAT = "path1 path2 turns1 turns2 K1[9] K2[9] camera2_T_camera1[16]"
WORDS = 38


@dataclass(frozen=True, eq=False)
class StoredImage:
    """One image of a pair as it lies on disk.

    Attributes:
        name: path in the list.
        turns: how many times 90 degrees it was turned clockwise.
        K: (3, 3) intrinsics of the stored image, pixel centres at integers.
    """

    name: str
    turns: int
    K: Array


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images and the pose between the cameras as stored.

    Attributes:
        camera2_T_camera1: (4, 4).
        overlap: share of the surface that both see, 0 to 1; NaN where nobody said.
    """

    first: StoredImage
    second: StoredImage
    camera2_T_camera1: Array
    overlap: float = float("nan")


class PairList:
    """The pairs of a list; images are read only when asked for.

    Args:
        file: the list.
        images: folder that its paths start from.

    Raises:
        DatasetError: naming file and line, for a list that is missing or malformed.
    """

    def __init__(self, file: Path, images: Path) -> None:
        self.name, self.images = file.stem, images
        if not images.is_dir():
            raise DatasetError(f"{images} is no folder: expected the one that the paths in {file} start from")
        self.pairs = [_pair(file, line, words) for line, words in read_table(file)]
        if not self.pairs:
            raise DatasetError(f"{file} is empty: expected lines '{FORMAT}'")

    def __len__(self) -> int:
        return len(self.pairs)

    def frame(self, stored: StoredImage) -> Frame:
        """The image turned upright, with its camera.

        Raises:
            DatasetError: if it cannot be read, or its intrinsics cannot be those of an image of its size.
        """
        try:
            image, _ = ImageFiles().read(self.images / stored.name, as_stored=True)
        except CodecError as error:
            raise DatasetError(str(error)) from error
        height, width = image.shape[:2]
        try:
            camera = Camera(width, height, stored.K)
        except CalibrationError as error:
            raise DatasetError(f"{stored.name} in the list {self.name}: {error}") from error
        if not (0 < camera.cx < width and 0 < camera.cy < height):
            raise DatasetError(
                f"{stored.name} is {width}x{height}, but the list {self.name} has its principal point at "
                f"({camera.cx:g}, {camera.cy:g}): use the images at the size that the list was made for"
            )
        try:
            return Frame(image, camera, name=stored.name).turned(stored.turns)
        except CalibrationError as error:
            raise DatasetError(f"{stored.name} in the list {self.name}: {error}") from error

    def truth(self, pair: ImagePair) -> Array:
        """(4, 4) pose of the second upright camera in the first, ``camera1_T_camera2``."""
        turned1, turned2 = (turned_T_camera(stored.turns) for stored in (pair.first, pair.second))
        return turned1 @ se3.inverse(pair.camera2_T_camera1) @ se3.inverse(turned2)


def write_pair_list(file: Path, pairs: Sequence[ImagePair]) -> None:
    """Write pairs in the format above."""
    lines = []
    for pair in pairs:
        values = np.concatenate([pair.first.K.ravel(), pair.second.K.ravel(), pair.camera2_T_camera1.ravel()])
        numbers_text = " ".join(f"{value:.10g}" for value in values)
        lines.append(f"{pair.first.name} {pair.second.name} {pair.first.turns} {pair.second.turns} {numbers_text}\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")


def _pair(file: Path, line: int, words: list[str]) -> ImagePair:
    where = f"{file}, line {line}"
    if len(words) != WORDS:
        raise DatasetError(
            f"{where}: expected {WORDS} words '{FORMAT}', got {len(words)}"
            + (" (paths may not hold spaces)" if len(words) > WORDS else "")
        )
    if not all(word in ("0", "1", "2", "3") for word in words[2:4]):
        raise DatasetError(f"{where}: turns must be 0, 1, 2 or 3 quarters, got '{words[2]}' and '{words[3]}'")
    values = _finite(where, words[4:])
    K1, K2, motion = values[:9].reshape(3, 3), values[9:18].reshape(3, 3), values[18:].reshape(4, 4)
    for number, K in enumerate((K1, K2), start=1):
        if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[2], [0, 0, 1]):
            raise DatasetError(f"{where}: K{number} is no intrinsic matrix (fx 0 cx 0 fy cy 0 0 1)")
    R = motion[:3, :3]
    if np.abs(R.T @ R - np.eye(3)).max() > 0.05 or np.linalg.det(R) < 0 or not np.allclose(motion[3], [0, 0, 0, 1]):
        raise DatasetError(f"{where}: the last 16 numbers are no rigid motion, row by row")
    first, second = (StoredImage(words[i], int(words[2 + i]), K) for i, K in ((0, K1), (1, K2)))
    return ImagePair(first, second, se3.orthonormalised(motion))


def _finite(where: str, words: list[str]) -> Array:
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise DatasetError(f"{where}: expected numbers after the turns ({error})") from error
    if not np.isfinite(values).all():
        raise DatasetError(f"{where}: K or pose contains NaN or infinity")
    return values
