"""Picture files through OpenCV, from 4.5.4 (Ubuntu 22.04's) on: what its versions do differently is settled here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mast3r_ros.errors import CodecError

RGB = NDArray[np.uint8]

#: Stored pixels as they are: an EXIF orientation is ignored, because calibration knows nothing of it.
COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
#: The same with 16 bits where the file has them.
DEEP_COLOUR = COLOUR | cv2.IMREAD_ANYDEPTH
STORED = cv2.IMREAD_UNCHANGED


def decode_picture(data: NDArray[np.uint8], flags: int = COLOUR) -> NDArray[Any] | None:
    """A file's bytes (N,) -> (H, W, 3) RGB, or with ``STORED`` what the file holds; None for no picture.

    Raises:
        CodecError: for what OpenCV refuses in the middle of decoding.
    """
    try:
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error as error:
        raise CodecError(str(error.err)) from error
    # IMREAD_COLOR_RGB came with OpenCV 4.11.
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image is not None and flags in (COLOUR, DEEP_COLOUR) else image


def read_picture(path: Path) -> RGB:
    """A picture file of our own -> (H, W, 3) uint8 RGB.

    Raises:
        CodecError: if it is no picture.
    """
    image = decode_picture(np.frombuffer(path.read_bytes(), np.uint8))
    if image is None:
        raise CodecError(f"{path} is no picture")
    return np.asarray(image, dtype=np.uint8)


def encode_jpeg(rgb: RGB, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG with every pixel's own colour (4:4:4).

    By Pillow: OpenCV halves the colours' resolution, and before 4.7 it cannot be told otherwise.
    """
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG", quality=quality, subsampling=0)
    return file.getvalue()
