"""Depth images: 16UC1, 32FC1 and compressedDepth <-> (H, W) float32 metres, 0 where unknown."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError
from mast3r_ros.io.codec.images import decode_file
from mast3r_ros.io.codec.picture_files import STORED
from mast3r_ros.io.codec.raw import as_bytes, check_size, pixels

Depth = NDArray[np.float32]

#: Encoding -> (numpy type, metres per unit).
DEPTH_ENCODINGS = {"16uc1": ("u2", 0.001), "mono16": ("u2", 0.001), "32fc1": ("f4", 1.0), "64fc1": ("f8", 1.0)}
#: compressed_depth_image_transport: format enum, depthQuantA, depthQuantB.
_HEADER = struct.Struct("<iff")
_INVERSE_DEPTH = 0
#: A 16-bit sensor that is saturated or saw nothing writes this instead of 0.
_SATURATED = 65535


def metres(raw: NDArray[Any], unit: float = 0.001) -> Depth:
    """Raw depth (H, W) in any number type -> float32 metres; 0 where it is not finite, not positive,
    or (16-bit) saturated at 65535."""
    if raw.dtype.kind == "u":
        return np.where(raw == _SATURATED, np.float32(0), raw.astype(np.float32) * np.float32(unit))
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(raw) & (raw > 0), raw * unit, 0).astype(np.float32)


def decode_depth(
    data: Any, *, encoding: str, width: int, height: int, step: int, is_bigendian: bool | int = False
) -> Depth:
    """sensor_msgs/Image with depth (REP 118) -> (height, width) float32 metres, 0 where invalid.

    16UC1 and mono16 are millimetres, 32FC1 and 64FC1 metres.

    Raises:
        CodecError: for another encoding, or size, step and data length that do not fit together.
    """
    if encoding.strip().lower() not in DEPTH_ENCODINGS:
        raise CodecError(f"unknown depth encoding '{encoding}': supported are 16UC1, mono16 (mm), 32FC1, 64FC1 (m)")
    dtype, unit = DEPTH_ENCODINGS[encoding.strip().lower()]
    return metres(pixels(data, dtype, 1, width, height, step, bool(is_bigendian), encoding)[..., 0], unit)


def encode_depth(depth: NDArray[np.floating], encoding: str = "16UC1") -> tuple[bytes, int]:
    """(H, W) metres -> data and step of a sensor_msgs/Image; what is invalid or beyond 65 m becomes 0.

    Raises:
        CodecError: for an encoding other than 16UC1, 32FC1.
    """
    if encoding == "16UC1":
        return millimetres(depth).tobytes(), 2 * depth.shape[1]
    if encoding == "32FC1":
        return metres(depth, 1.0).astype("<f4").tobytes(), 4 * depth.shape[1]
    raise CodecError(f"cannot write depth encoding '{encoding}': use 16UC1 or 32FC1")


def millimetres(depth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """(H, W) metres -> (H, W) little-endian uint16 millimetres; 0 where invalid or too far for 16 bits."""
    scaled = np.rint(metres(np.asarray(depth), 1.0) * 1000.0)
    return np.where(scaled < _SATURATED, scaled, 0).astype("<u2")


def decode_compressed_depth(data: Any, format: str = "16UC1; compressedDepth") -> Depth:
    """CompressedImage of compressed_depth_image_transport (PNG or RVL) -> (H, W) float32 metres.

    16UC1 holds millimetres; 32FC1 holds quantised inverse depth, ``depth = A / (value - B)`` with A and B
    from the 12-byte header. A plain 16-bit PNG without that header is accepted as millimetres.

    Raises:
        CodecError: for data that are truncated, damaged, too large, or in another encoding.
    """
    encoding = format.split(";")[0].strip().lower() or "16uc1"
    buffer = as_bytes(data).tobytes()
    if encoding not in ("16uc1", "mono16", "32fc1") and not (encoding == "png" and buffer.startswith(b"\x89PNG")):
        raise CodecError(f"unknown compressed depth format '{format}': supported are 16UC1 and 32FC1, PNG or RVL")
    if buffer.startswith(b"\x89PNG"):
        return metres(_png16(buffer, format))
    if len(buffer) <= _HEADER.size:
        raise CodecError(
            f"compressed depth is truncated: {len(buffer)} bytes, not even its 12-byte header and an image"
        )
    _, quant_a, quant_b = _HEADER.unpack_from(buffer)
    body = buffer[_HEADER.size :]
    raw = decode_rvl(body) if "rvl" in format.lower() else _png16(body, format)
    if encoding != "32fc1":
        return metres(raw)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(quant_a) / (raw.astype(np.float32) - np.float32(quant_b))
    return metres(np.where(raw > 0, depth, 0), 1.0)


def encode_compressed_depth(
    depth: NDArray[np.floating], encoding: str = "16UC1", depth_max: float = 10.0, quantisation: float = 100.0
) -> bytes:
    """(H, W) metres -> data of a CompressedImage with format "<encoding>; compressedDepth png".

    Args:
        depth_max, quantisation: of the inverse-depth code for 32FC1 (the transport's own defaults).

    Raises:
        CodecError: for an encoding other than 16UC1, 32FC1.
    """
    if encoding == "16UC1":
        return _HEADER.pack(_INVERSE_DEPTH, 0.0, 0.0) + _write_png16(millimetres(depth))
    if encoding != "32FC1":
        raise CodecError(f"cannot write compressed depth encoding '{encoding}': use 16UC1 or 32FC1")
    quant_a = quantisation * (quantisation + 1.0)
    quant_b = 1.0 - quant_a / depth_max
    clean = metres(np.asarray(depth), 1.0).astype(np.float64)
    with np.errstate(divide="ignore"):
        code = np.rint(quant_a / clean + quant_b)
    inside = (clean > 0) & (clean < depth_max) & (code < _SATURATED)
    return _HEADER.pack(_INVERSE_DEPTH, quant_a, quant_b) + _write_png16(np.where(inside, code, 0).astype(np.uint16))


def _png16(data: bytes, format: str) -> NDArray[np.uint16]:
    image = decode_file(data, STORED, format)
    if image.ndim != 2 or image.dtype != np.uint16:
        raise CodecError(f"a depth PNG has one channel of 16 bits, this one is {image.shape} {image.dtype}")
    return image


def _write_png16(image: NDArray[np.uint16]) -> bytes:
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise CodecError(f"OpenCV cannot write a depth PNG of {image.shape[1]}x{image.shape[0]} pixels")
    return bytes(encoded.tobytes())


def decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """RVL (Wilson 2017: runs of zeros, differences as nibbles) with its int32 columns, rows -> (H, W) uint16.

    Raises:
        CodecError: for data that end before the image is full, or a size that does not fit.
    """
    if len(data) < 8:
        raise CodecError(f"RVL depth is truncated: {len(data)} bytes")
    width, height = struct.unpack_from("<ii", data)
    check_size(width, height)
    values = _nibble_codes(data[8 : len(data) - len(data) % 4])
    image = np.zeros(width * height, dtype=np.uint16)
    at, filled, level = 0, 0, 0
    while filled < image.size:
        if at + 2 > len(values):
            raise CodecError(f"RVL depth is truncated: {filled} of {image.size} pixels")
        zeros, count = int(values[at]), int(values[at + 1])
        codes = values[at + 2 : at + 2 + count]
        filled += zeros
        whole = len(codes) == count and zeros >= 0 and filled + count <= image.size
        if not whole or zeros + count == 0:
            raise CodecError(f"RVL depth is damaged or truncated at pixel {filled} of {image.size}")
        levels = level + np.cumsum((codes >> 1) ^ -(codes & 1))
        image[filled : filled + count] = levels
        level = int(levels[-1]) if count else level
        filled, at = filled + count, at + 2 + count
    return image.reshape(height, width)


def _nibble_codes(data: bytes) -> NDArray[np.int64]:
    """Variable-length integers: 3 bits per nibble, low bits first, bit 3 says that more follow."""
    words = np.frombuffer(data, dtype=">u1").reshape(-1, 4)[:, ::-1].reshape(-1)
    nibbles: NDArray[np.int64] = np.stack([words >> 4, words & 15], axis=1).reshape(-1).astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    nibbles = nibbles[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(nibbles)) - np.repeat(starts, ends - starts + 1)
    return np.asarray(np.add.reduceat((nibbles & 7) << np.minimum(3 * place, 60), starts), dtype=np.int64)
