"""Colour images: sensor_msgs/Image and sensor_msgs/CompressedImage <-> (H, W, 3) uint8 RGB."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError
from mast3r_ros.io.codec.eight_bits import EightBits
from mast3r_ros.io.codec.picture_files import DEEP_COLOUR, STORED, decode_picture
from mast3r_ros.io.codec.raw import as_bytes, check_size, pixels

RGB = NDArray[np.uint8]

#: Encoding -> (numpy type, channels, OpenCV conversion to RGB or None where the channels are RGB).
_PACKED: dict[str, tuple[str, int, int | None]] = {
    "rgb8": ("u1", 3, None),
    "bgr8": ("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": ("u2", 3, None),
    "bgr16": ("u2", 3, cv2.COLOR_BGR2RGB),
    "mono8": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": ("u2", 1, cv2.COLOR_GRAY2RGB),
    "8uc1": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8uc3": ("u1", 3, cv2.COLOR_BGR2RGB),
    "8uc4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "16uc1": ("u2", 1, cv2.COLOR_GRAY2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
}
#: OpenCV's older names, which say what stands in the second row and column. The others came with 4.5.5.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
for _name, _code in _BAYER.items():
    _PACKED[f"bayer_{_name}8"] = ("u1", 1, _code)
    _PACKED[f"bayer_{_name}16"] = ("u2", 1, _code)
#: A full-resolution grey plane over a half-resolution colour plane.
_PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}

#: What :func:`decode_image` understands (in any letter case).
IMAGE_ENCODINGS = (*_PACKED, *_PLANAR)

_ENCODE = {
    "rgb8": None,
    "bgr8": cv2.COLOR_RGB2BGR,
    "rgba8": cv2.COLOR_RGB2RGBA,
    "bgra8": cv2.COLOR_RGB2BGRA,
    "mono8": cv2.COLOR_RGB2GRAY,
}
#: Encodings whose channels image_transport exchanged before it compressed them, in releases before 2012.
_COLOUR = ("rgb", "bgr")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"


def decode_image(
    data: Any,
    *,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool | int = False,
    eight_bits: EightBits | None = None,
) -> RGB:
    """sensor_msgs/Image -> (height, width, 3) uint8 RGB, never sharing memory with ``data``.

    Grey is repeated over the channels; Bayer is demosaiced; 8UC3 and 8UC4 are taken as BGR(A), as OpenCV writes them.

    Args:
        eight_bits: what makes 8 bits of the 16-bit images of this recording; None chooses for this image alone.

    Raises:
        CodecError: for an unknown encoding, or size, step and data length that do not fit together.
    """
    name = encoding.strip().lower()
    if name in _PLANAR:
        return _decode_planar(data, name, width, height, step)
    if name not in _PACKED:
        raise CodecError(f"unknown image encoding '{encoding}': supported are {', '.join(IMAGE_ENCODINGS)}")
    dtype, channels, conversion = _PACKED[name]
    image = pixels(data, dtype, channels, width, height, step, bool(is_bigendian), encoding)
    if dtype == "u2":
        image = (eight_bits or EightBits())(image)
    if conversion is None:
        return np.array(image)
    if channels == 2 and width % 2:
        raise CodecError(f"{encoding} images have an even width, got {width}")
    if name.startswith("bayer") and (width < 2 or height < 2):
        raise CodecError(f"{encoding} needs at least 2x2 pixels, got {width}x{height}")
    return np.asarray(cv2.cvtColor(image, conversion), dtype=np.uint8)


def _decode_planar(data: Any, name: str, width: int, height: int, step: int) -> RGB:
    if width % 2 or height % 2:
        raise CodecError(f"{name} images have an even width and height, got {width}x{height}")
    planes = pixels(data, "u1", 1, width, height * 3 // 2, step, False, name)
    return np.asarray(cv2.cvtColor(planes, _PLANAR[name]), dtype=np.uint8)


def encode_image(rgb: RGB, encoding: str = "rgb8") -> tuple[bytes, int]:
    """(H, W, 3) uint8 RGB -> data and step of a sensor_msgs/Image.

    Raises:
        CodecError: for an encoding other than rgb8, bgr8, rgba8, bgra8, mono8.
    """
    if encoding not in _ENCODE:
        raise CodecError(f"cannot write image encoding '{encoding}': use {', '.join(_ENCODE)}")
    conversion = _ENCODE[encoding]
    image = rgb if conversion is None else cv2.cvtColor(rgb, conversion)
    return image.tobytes(), image.nbytes // image.shape[0]


def decode_compressed_image(data: Any, format: str = "", eight_bits: EightBits | None = None) -> RGB:
    """sensor_msgs/CompressedImage -> (H, W, 3) uint8 RGB.

    The bytes tell what they are (JPEG, PNG, WebP, TIFF, BMP). ``format`` tells what image_transport put into them:
    a Bayer mosaic that is still to be demosaiced ("bayer_rggb8; jpeg compressed"), or red and blue in exchanged places
    ("rgb8; jpeg compressed" without the "bgr8" at the end that newer releases write). An EXIF orientation is ignored:
    camera_info describes the pixels as they were sent.

    Args:
        eight_bits: what makes 8 bits of the 16-bit images of this recording; None chooses for this image alone.

    Raises:
        CodecError: for data that are empty, truncated, damaged, too large, or no colour image.
    """
    encoding, _, rest = (part.strip() for part in format.lower().partition(";"))
    if "compresseddepth" in format.lower():
        raise CodecError(f"format '{format}' is a compressed depth image, not a colour image: decode it as depth")
    if encoding in _PACKED and encoding.startswith("bayer"):
        mosaic = decode_file(data, STORED, format)
        if mosaic.ndim == 2 and min(mosaic.shape) >= 2:
            mosaic = mosaic if mosaic.dtype == np.uint8 else (eight_bits or EightBits())(mosaic)
            return np.asarray(cv2.cvtColor(mosaic, _PACKED[encoding][2] or 0), dtype=np.uint8)
    image = to_rgb(decode_file(data, DEEP_COLOUR, format), eight_bits)
    exchanged = encoding.startswith(_COLOUR) and "compressed" in rest and "bgr" not in rest and "rgb" not in rest
    return np.ascontiguousarray(image[..., ::-1]) if exchanged else image


def to_rgb(image: NDArray[Any], eight_bits: EightBits | None = None) -> RGB:
    """(H, W, 3) RGB as a file holds it -> 8 bits.

    Raises:
        CodecError: for numbers that are no colours.
    """
    if image.dtype == np.uint16:
        return (eight_bits or EightBits())(image)
    if image.dtype != np.uint8:
        raise CodecError(f"an image with values of type {image.dtype} is no photograph: expected 8 or 16 bits")
    return image


def decode_file(data: Any, flags: int, format: str = "") -> NDArray[Any]:
    """An image file's bytes as (H, W[, C]) by OpenCV, refusing what OpenCV would quietly fill with grey.

    Args:
        flags: ``COLOUR`` or ``DEEP_COLOUR`` for RGB, or ``STORED``, see :mod:`mast3r_ros.io.codec.picture_files`.

    Raises:
        CodecError: for data that are empty, truncated, damaged or too large.
    """
    buffer = as_bytes(data)
    name = f"image (format '{format}')" if format else "image"
    if not len(buffer):
        raise CodecError(f"compressed {name} is empty")
    check_size(*(_claimed_size(buffer.tobytes()) or (1, 1)))
    head = buffer[:8].tobytes()
    if head == _PNG and (why := _png_damage(buffer.tobytes())):
        raise CodecError(f"compressed {name} is {why}")
    if head.startswith(_JPEG) and b"\xff\xd9" not in buffer[-4096:].tobytes():
        raise CodecError(f"compressed {name} is truncated: its end is missing after {len(buffer)} bytes")
    try:
        image = decode_picture(buffer, flags)
    except CodecError as error:
        raise CodecError(f"compressed {name} cannot be decoded: {error}") from error
    if image is None:
        raise CodecError(
            f"compressed {name} cannot be decoded: {len(buffer)} bytes starting with {head.hex(' ')} are no "
            "intact JPEG, PNG, WebP or TIFF"
        )
    check_size(image.shape[1], image.shape[0])
    return image


def _claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a PNG or JPEG header: known before memory is taken for them."""
    if data.startswith(_PNG) and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = 2 if data.startswith(_JPEG) else len(data)
    while at + 9 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF:
            return None
        # Start-of-frame markers; C4, C8 and CC are tables that share their range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + length
    return None


def _png_damage(data: bytes) -> str:
    """What is wrong with a PNG's chunks, or nothing.

    OpenCV fills what is missing with black, and with a damaged chunk length it can spend many seconds.
    """
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"damaged: wrong checksum in its chunk {kind!r}"
        if kind == b"IEND":
            return ""
        at = end
    return f"truncated: its end is missing after {len(data)} bytes"


def encode_compressed_image(rgb: RGB, format: str = "jpeg", quality: int = 90) -> bytes:
    """(H, W, 3) uint8 RGB -> data of a sensor_msgs/CompressedImage.

    Args:
        format: "jpeg" or "png".
        quality: 1 to 100, for JPEG.

    Raises:
        CodecError: for another format.
    """
    if format not in ("jpeg", "png"):
        raise CodecError(f"cannot write compressed format '{format}': use jpeg or png")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if format == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    done, encoded = cv2.imencode("." + format, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise CodecError(f"OpenCV cannot write a {format} of {rgb.shape[1]}x{rgb.shape[0]} pixels")
    return bytes(encoded.tobytes())
