"""Pixels in a byte buffer: size, row step and byte order, checked before anything is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError
from mast3r_ros.frames import MOST_PIXELS


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """Any contiguous buffer (bytes, array.array, memoryview, numpy) as (N,) uint8, without a copy.

    Raises:
        CodecError: if the object has no buffer.
    """
    try:
        return np.frombuffer(memoryview(data).cast("B"), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise CodecError(f"data must be a contiguous byte buffer, got {type(data).__name__}: {error}") from error


def check_size(width: int, height: int) -> None:
    """Refuse empty and absurdly large images.

    Raises:
        CodecError: naming the size.
    """
    if width < 1 or height < 1:
        raise CodecError(f"the image is empty: {width}x{height} pixels")
    if width * height > MOST_PIXELS:
        raise CodecError(f"the image is {width}x{height} pixels, more than the {MOST_PIXELS // 10**6} million allowed")


def pixels(
    data: Any, dtype: str, channels: int, width: int, height: int, step: int, is_bigendian: bool, encoding: str
) -> NDArray[Any]:
    """View of an image buffer as (height, width, channels) of ``dtype``; row padding is dropped.

    Args:
        dtype: numpy type code without byte order, such as "u1" or "f4".
        step: bytes from one row to the next, at least one row of pixels.
        encoding: for the messages only.

    Raises:
        CodecError: for an empty size, a step that is too small, or data of another length.
    """
    check_size(width, height)
    scalar = np.dtype((">" if is_bigendian else "<") + dtype)
    row = width * channels * scalar.itemsize
    if step < row:
        raise CodecError(f"step is {step} bytes, but a row of {width} {encoding} pixels needs at least {row}")
    buffer = as_bytes(data)
    if len(buffer) != step * height:
        what = "truncated" if len(buffer) < step * height else "too long"
        raise CodecError(
            f"image data is {what}: {len(buffer)} bytes, expected step x height = {step} x {height} = {step * height}"
        )
    rows = np.ascontiguousarray(buffer.reshape(height, step)[:, :row])
    return rows.view(scalar).reshape(height, width, channels)
