"""Encoded images: in memory until the map is saved, in its folder afterwards, checked whenever read."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mast3r_ros.errors import CodecError, MapError
from mast3r_ros.frames import Camera, valid_depth
from mast3r_ros.io.codec.picture_files import COLOUR, STORED, decode_picture, encode_jpeg

#: How an image may be kept: ``png`` is exact, ``jpg`` a quarter of its size and hardly different.
IMAGE_FORMATS = ("jpg", "png")
JPEG_QUALITY = 95
#: Depth is kept in millimetres, 16 bits; 0 means unknown, so does anything further than this.
MAX_DEPTH_M = 65.535


@dataclass(frozen=True)
class Blob:
    """The bytes of one image file with their checksum.

    Attributes:
        suffix: ``jpg`` or ``png``.
        size: length in bytes.
        sha256: checksum of the bytes, hexadecimal.
        data: the bytes, or None when they are in ``path``.
        path: the file that holds them, or None when they are in ``data``.
    """

    suffix: str
    size: int
    sha256: str
    data: bytes | None = None
    path: Path | None = None

    @classmethod
    def of(cls, data: bytes, suffix: str) -> Blob:
        """Bytes in memory."""
        return cls(suffix, len(data), hashlib.sha256(data).hexdigest(), data=data)

    def read(self) -> bytes:
        """The bytes.

        Raises:
            MapError: if the file is missing or is not what was saved.
        """
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            if self.path.stat().st_size != self.size:
                raise MapError(_changed(self.path))
            data = self.path.read_bytes()
        except OSError as error:
            raise MapError(f"{self.path}: cannot be read ({error.strerror}): restore it or repair the map") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MapError(_changed(self.path))
        return data

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return str(self.path) if self.path is not None else f"an unsaved {self.suffix} image"


def _changed(path: Path) -> str:
    folder = path.parent.parent
    return f"{path}: changed since it was saved; restore it, or accept it by `mast3r_ros map repair {folder}`"


def encode_image(image: NDArray[np.uint8], suffix: str) -> Blob:
    """(H, W, 3) RGB -> JPEG without chroma subsampling, or PNG."""
    if suffix == "jpg":
        return Blob.of(encode_jpeg(image, JPEG_QUALITY), suffix)
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return Blob.of(data.tobytes(), suffix)


def encode_depth(depth: NDArray[np.floating]) -> Blob:
    """(H, W) metres -> 16-bit PNG in millimetres."""
    known = valid_depth(depth) & (depth <= MAX_DEPTH_M)
    millimetres = np.rint(np.where(known, depth, 0) * 1000).astype(np.uint16)
    _, data = cv2.imencode(".png", millimetres)
    return Blob.of(data.tobytes(), "png")


def decode_image(blob: Blob, camera: Camera) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of the camera's size.

    Raises:
        MapError: if the file is missing, changed, damaged or of another size.
    """
    return _decode(blob, camera, COLOUR).astype(np.uint8, copy=False)


def decode_depth(blob: Blob, camera: Camera) -> NDArray[np.float32]:
    """(H, W) float32 metres of the camera's size, 0 where unknown.

    Raises:
        MapError: if the file is missing, changed, damaged or of another size.
    """
    millimetres = _decode(blob, camera, STORED)
    if millimetres.dtype != np.uint16 or millimetres.ndim != 2:
        raise MapError(f"{blob.name}: a depth image must be a 16-bit single-channel PNG in millimetres")
    return millimetres.astype(np.float32) / np.float32(1000)


def _decode(blob: Blob, camera: Camera, flags: int) -> NDArray:
    data = blob.read()
    try:  # the header first: a small file can claim an enormous image
        width, height = Image.open(io.BytesIO(data)).size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise MapError(f"{blob.name}: not an image that can be decoded") from error
    if (width, height) != (camera.width, camera.height):
        raise MapError(f"{blob.name}: is {width}x{height} but its camera is {camera.width}x{camera.height}")
    try:
        image = decode_picture(np.frombuffer(data, np.uint8), flags)
    except CodecError:
        image = None
    if image is None:
        raise MapError(f"{blob.name}: damaged: it cannot be decoded")
    return image
