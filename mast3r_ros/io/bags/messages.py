"""What stands in recorded messages, of ROS 1 and 2."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.io import codec


def stamp_ns(message: Any) -> int:
    """Header stamp of a message in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def raw_stamp_ns(data: bytes, serialization: str = "cdr") -> int:
    """The same from the bytes of a message that begins with its header, without reading the rest."""
    if serialization == "ros1":
        _, seconds, nanoseconds = struct.unpack_from("<III", data)
    else:
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def frame_of(message: Any) -> str:
    """frame_id without the leading slash that ROS 1 wrote."""
    return str(message.header.frame_id).lstrip("/")


def decode_colour(message: Any, eight_bits: codec.EightBits | None = None) -> NDArray[np.uint8]:
    """sensor_msgs/Image or CompressedImage -> (H, W, 3) uint8 RGB. Raises CodecError.

    Args:
        eight_bits: how the recording's images of more than 8 bits are brought to 8.
    """
    if hasattr(message, "format"):
        return codec.decode_compressed_image(message.data, message.format, eight_bits)
    return codec.decode_image(message.data, **_layout(message), eight_bits=eight_bits)


def decode_any_depth(message: Any) -> NDArray[np.float32]:
    """sensor_msgs/Image or compressedDepth CompressedImage -> (H, W) float32 metres. Raises CodecError."""
    if hasattr(message, "format"):
        return codec.decode_compressed_depth(message.data, message.format)
    return codec.decode_depth(message.data, **_layout(message))


def _layout(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ("encoding", "width", "height", "step", "is_bigendian")}
