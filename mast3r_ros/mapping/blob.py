"""Encoded images: in memory until the map is saved, in its folder afterwards, checked whenever read."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.numpy import load

from mast3r_ros.errors import CodecError, MapError
from mast3r_ros.frames import Camera, valid_depth
from mast3r_ros.io.codec.picture_files import COLOUR, STORED, decode_picture, encode_jpeg
from mast3r_ros.mapping import tensor_file

#: How an image may be kept: ``png`` is exact, ``jpg`` a quarter of its size and hardly different.
IMAGE_FORMATS = ("jpg", "png")
JPEG_QUALITY = 95
#: Depth is kept in whole millimetres of 16 bits (PNG) where these reach far enough and round by less than ROUNDING of
#: the distance in all but a FEW pixels; else, whatever the distances, as 32-bit floats in metres (TIFF). 0: unknown.
ROUNDING, FEW, MAX_MILLIMETRES = 1e-3, 0.05, 65535
DEPTH_FORMATS = ("png", "tiff")
#: A point is drawn into a depth image as a square of this half width, in pixels of an image DRAWN_SIDE long at most:
#: matchers look depth up near their features, and shrink larger images before they look for any.
HALF_WIDTH, DRAWN_SIDE = 1, 1024


@dataclass(frozen=True)
class Blob:
    """The bytes of one image file with their checksum.

    Attributes:
        suffix: ``jpg``, ``png``, ``tiff`` or ``safetensors``.
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
    """(H, W) metres -> 16-bit PNG in millimetres, or TIFF of floats in metres where that would lose something."""
    known = valid_depth(depth)
    metres = np.where(known, depth, 0).astype(np.float32)
    millimetres = np.rint(metres * 1000)
    lost = np.abs(metres * 1000 - millimetres)[known] > ROUNDING * 1000 * metres[known]
    if millimetres.max(initial=0) <= MAX_MILLIMETRES and lost.sum() <= FEW * lost.size:
        _, data = cv2.imencode(".png", millimetres.astype(np.uint16))
        return Blob.of(data.tobytes(), "png")
    _, data = cv2.imencode(".tiff", metres)
    return Blob.of(data.tobytes(), "tiff")


def encode_points(xy: NDArray[np.floating], depth: NDArray[np.floating]) -> Blob:
    """Pixels (N, 2) and the distances (N,) along the optical axis of what they show, metres, as they are."""
    tensors = {"xy": np.asarray(xy, np.float32).reshape(-1, 2), "depth": np.asarray(depth, np.float32)}
    return Blob.of(tensor_file.pack(tensors, {}), "safetensors")


def decode_points(blob: Blob) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels (N, 2) and distances (N,) in metres.

    Raises:
        MapError: if the file is missing, changed or damaged.
    """
    try:
        tensors = load(blob.read())
        xy, depth = tensors["xy"], tensors["depth"]
    except (SafetensorError, KeyError) as error:
        raise MapError(f"{blob.name}: damaged: it holds no points ({error})") from error
    good = xy.dtype == depth.dtype == np.float32 and xy.shape == (len(depth), 2) and depth.ndim == 1
    if not good or not np.isfinite(xy).all() or not valid_depth(depth).all():
        raise MapError(f"{blob.name}: damaged: points are finite pixels (N, 2) and positive depths (N,), float32")
    return xy, depth


def drawn(xy: NDArray[np.float32], depth: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """Points as a depth image (H, W) of a camera, metres, 0 where there is none; the nearest wins a pixel."""
    image = np.zeros((camera.height, camera.width), np.float32)
    half = HALF_WIDTH * math.ceil(max(camera.width, camera.height) / DRAWN_SIDE)
    reach = np.arange(-half, half + 1)
    order = np.argsort(-depth, kind="stable")
    u, v = np.rint(xy[order]).astype(np.int64).T
    columns, rows = np.broadcast_arrays(u[:, None, None] + reach, v[:, None, None] + reach[:, None])
    inside = (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
    image[rows[inside], columns[inside]] = np.broadcast_to(depth[order, None, None], inside.shape)[inside]
    return image


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
    image = _decode(blob, camera, STORED)
    if blob.suffix == "tiff":
        if image.dtype != np.float32 or image.ndim != 2:
            raise MapError(f"{blob.name}: a depth image in TIFF must have one channel of 32-bit floats in metres")
        return np.where(valid_depth(image), image, np.float32(0))
    millimetres = image
    if millimetres.dtype != np.uint16 or millimetres.ndim != 2:
        raise MapError(f"{blob.name}: a depth image must be a 16-bit single-channel PNG in millimetres")
    return millimetres.astype(np.float32) / np.float32(1000)


def _decode(blob: Blob, camera: Camera, flags: int) -> NDArray[Any]:
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
