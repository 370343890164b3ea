"""ROS messages <-> the core's types. The only module that knows both.

``Image.data`` and ``PointCloud2.data`` are filled from ``array.array``: rclpy copies bytes and numpy
arrays element by element, up to 100 times slower.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io import codec
from mast3r_ros.mapping.keyframe import Keyframe

Array = NDArray[np.float64]

SECOND_NS = 1_000_000_000
#: Largest time a builtin_interfaces/Time can hold, nanoseconds.
LATEST_NS = (2**31 - 1) * SECOND_NS
#: A frustum's far corners in units of its depth are the image corners; this is the depth drawn, metres.
FRUSTUM_DEPTH_M = 0.15
FRUSTUM_COLOUR = ColorRGBA(r=0.1, g=0.6, b=1.0, a=0.9)


def stamp_ns(stamp: Time) -> int:
    """builtin_interfaces/Time -> nanoseconds."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def to_time(ns: int) -> Time:
    """Nanoseconds -> builtin_interfaces/Time; times before 1970 and after 2038 are clamped."""
    sec, nanosec = divmod(min(max(int(ns), 0), LATEST_NS), SECOND_NS)
    return Time(sec=sec, nanosec=nanosec)


def header(frame_id: str, stamp: int) -> Header:
    """A header from a frame id and nanoseconds."""
    return Header(frame_id=frame_id, stamp=to_time(stamp))


def matrix_from_pose(pose: Pose) -> Array:
    """geometry_msgs/Pose -> (4, 4); a quaternion of any non-zero norm is normalised.

    Raises:
        ValueError: if a value is not finite or the quaternion is zero.
    """
    p, q = pose.position, pose.orientation
    return se3.from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def to_pose(T: Array) -> Pose:
    """(4, 4) -> geometry_msgs/Pose."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = map(float, T[:3, 3])
    q = pose.orientation
    q.x, q.y, q.z, q.w = map(float, se3.quaternion(T))
    return pose


def to_pose_with_covariance(T: Array, covariance: Array, frame_id: str, stamp: int) -> PoseWithCovarianceStamped:
    """(4, 4) and (6, 6) in ROS order -> geometry_msgs/PoseWithCovarianceStamped."""
    message = PoseWithCovarianceStamped(header=header(frame_id, stamp))
    message.pose.pose = to_pose(T)
    message.pose.covariance = np.asarray(covariance, dtype=np.float64).reshape(36)
    return message


def to_transform_stamped(parent: str, child: str, parent_T_child: Array, stamp: int) -> TransformStamped:
    """(4, 4) -> geometry_msgs/TransformStamped."""
    message = TransformStamped(header=header(parent, stamp), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, parent_T_child[:3, 3])
    q.x, q.y, q.z, q.w = map(float, se3.quaternion(parent_T_child))
    return message


def rgb_from_image(message: Image | CompressedImage, eight_bits: codec.EightBits | None = None) -> NDArray[np.uint8]:
    """Image or CompressedImage -> (H, W, 3) uint8 RGB.

    Args:
        eight_bits: what makes 8 bits of the 16-bit images of this topic; None chooses for this image alone.

    Raises:
        CodecError: naming what is wrong with the message.
    """
    if isinstance(message, CompressedImage):
        return codec.decode_compressed_image(message.data, message.format, eight_bits)
    return codec.decode_image(message.data, **_layout(message), eight_bits=eight_bits)


def metres_from_depth(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Depth image (16UC1 mm, 32FC1 m), or compressedDepth (PNG, RVL) -> (H, W) float32 metres, 0 where invalid.

    Raises:
        CodecError: naming what is wrong with the message.
    """
    if isinstance(message, CompressedImage):
        return codec.decode_compressed_depth(message.data, message.format)
    return codec.decode_depth(message.data, **_layout(message))


def _layout(message: Image) -> dict[str, Any]:
    return {
        "encoding": message.encoding,
        "width": message.width,
        "height": message.height,
        "step": message.step,
        "is_bigendian": message.is_bigendian,
    }


def camera_for_image(info: CameraInfo, width: int, height: int, rectified: bool = False) -> Camera | None:
    """Calibration of an image of this size; None where the camera says that it is not calibrated.

    Raises:
        CalibrationError: for NaN, unknown distortion, or a calibration of another image shape.
    """
    camera = codec.camera_from_info(info, rectified, (width, height))
    return None if camera is None else codec.fit_camera_to_image(camera, width, height)


def to_image(rgb: NDArray[np.uint8], frame_id: str, stamp: int) -> Image:
    """(H, W, 3) uint8 RGB -> sensor_msgs/Image, rgb8."""
    data, step = codec.encode_image(rgb)
    return _image(data, "rgb8", rgb.shape[1], rgb.shape[0], step, frame_id, stamp)


def to_depth_image(depth: NDArray[np.floating], frame_id: str, stamp: int, encoding: str = "16UC1") -> Image:
    """(H, W) metres -> sensor_msgs/Image, 16UC1 (mm) or 32FC1 (m)."""
    data, step = codec.encode_depth(depth, encoding)
    return _image(data, encoding, depth.shape[1], depth.shape[0], step, frame_id, stamp)


def _image(data: bytes, encoding: str, width: int, height: int, step: int, frame_id: str, stamp: int) -> Image:
    message = Image(header=header(frame_id, stamp), encoding=encoding, width=width, height=height, step=step)
    message.data = array("B", data)
    return message


def to_camera_info(camera: Camera, frame_id: str, stamp: int) -> CameraInfo:
    """Camera -> sensor_msgs/CameraInfo (no rectification: P repeats K)."""
    message = CameraInfo(header=header(frame_id, stamp), width=camera.width, height=camera.height)
    message.distortion_model = camera.model if camera.is_distorted else "plumb_bob"
    message.d = array("d", camera.D if camera.is_distorted else np.zeros(5))
    message.k = camera.K.reshape(9)
    message.r = np.eye(3).reshape(9)
    message.p = np.hstack([camera.K, np.zeros((3, 1))]).reshape(12)
    return message


def to_point_cloud(
    xyz: NDArray[np.floating],
    rgb: NDArray[np.uint8] | None,
    frame_id: str,
    stamp: int,
    confidence: NDArray[np.floating] | None = None,
) -> PointCloud2:
    """Points (N, 3) in metres with colours (N, 3) and confidence (N,) -> unordered sensor_msgs/PointCloud2."""
    fields, point_step, data = codec.pack_points(xyz, rgb, confidence)
    message = PointCloud2(header=header(frame_id, stamp), height=1, width=len(xyz), is_dense=True)
    message.fields = [PointField(name=n, offset=o, datatype=t, count=c) for n, o, t, c in fields]
    message.point_step = point_step
    message.row_step = point_step * len(xyz)
    message.data = array("B", data.tobytes())
    return message


def to_keyframe_markers(keyframes: Sequence[Keyframe], frame_id: str, stamp: int) -> MarkerArray:
    """All keyframes as camera frustums in one marker (RViz is slow with thousands of markers)."""
    frustums = Marker(header=header(frame_id, stamp), ns="keyframes", type=Marker.LINE_LIST, action=Marker.ADD)
    frustums.scale.x = 0.005
    frustums.color = FRUSTUM_COLOUR
    frustums.pose.orientation.w = 1.0
    if keyframes:
        ends = np.concatenate([_frustum_lines(keyframe) for keyframe in keyframes])
        frustums.points = [Point(x=x, y=y, z=z) for x, y, z in ends.tolist()]
    clear = Marker(header=frustums.header, ns="keyframes", action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, frustums] if keyframes else [clear])


def _frustum_lines(keyframe: Keyframe) -> Array:
    """End points (16, 3) of a frustum's 8 edges in the map frame."""
    camera = keyframe.camera
    u = np.array([0, camera.width - 1, camera.width - 1, 0])
    v = np.array([0, 0, camera.height - 1, camera.height - 1])
    # Plain pinhole corners: a wide lens may have no ray at its very corners, and this is a symbol.
    corners = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(4)], axis=1)
    apex = np.zeros((4, 3))
    edges = np.stack([apex, corners], axis=1), np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    return se3.apply(keyframe.map_T_camera, FRUSTUM_DEPTH_M * np.concatenate(edges).reshape(-1, 3))
