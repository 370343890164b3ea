"""Images, depth images, point clouds and calibration as they stand in ROS messages.

A small numpy codec of our own: it takes plain values, so it serves rclpy messages and bags alike,
and cv_bridge breaks on NumPy 2.
"""

from mast3r_ros.io.codec.calibration import camera_from_info, doubt_about, fit_camera_to_image, is_placeholder
from mast3r_ros.io.codec.depth import decode_compressed_depth, decode_depth, encode_compressed_depth, encode_depth
from mast3r_ros.io.codec.eight_bits import EightBits
from mast3r_ros.io.codec.images import (
    IMAGE_ENCODINGS,
    decode_compressed_image,
    decode_image,
    encode_compressed_image,
    encode_image,
)
from mast3r_ros.io.codec.points import pack_points, unpack_points

__all__ = [
    "IMAGE_ENCODINGS",
    "EightBits",
    "camera_from_info",
    "decode_compressed_depth",
    "decode_compressed_image",
    "decode_depth",
    "decode_image",
    "doubt_about",
    "encode_compressed_depth",
    "encode_compressed_image",
    "encode_depth",
    "encode_image",
    "fit_camera_to_image",
    "is_placeholder",
    "pack_points",
    "unpack_points",
]
