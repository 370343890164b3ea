"""Messages <-> core types: nothing is lost on the way, and large arrays are filled the fast way."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")
from geometry_msgs.msg import Pose, TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage

from mast3r_ros.errors import CalibrationError, CodecError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io import codec
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.ros import conversions
from mast3r_ros.transforms import TransformBuffer

POSE = se3.make(se3.exp([0, 0, 0, 0.3, -0.5, 2.0])[:3, :3], [1.0, -2.0, 3.0])


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


@pytest.mark.parametrize("ns", [0, 1, 999_999_999, 1_000_000_000, 1_795_229_024_367_306_920])
def test_times_are_exact(ns: int) -> None:
    assert conversions.stamp_ns(conversions.to_time(ns)) == ns


def test_times_that_no_message_can_hold_are_clamped() -> None:
    assert conversions.stamp_ns(conversions.to_time(-5)) == 0
    assert conversions.stamp_ns(conversions.to_time(2**63)) == conversions.LATEST_NS


def test_poses_round_trip() -> None:
    np.testing.assert_allclose(conversions.matrix_from_pose(conversions.to_pose(POSE)), POSE, atol=1e-12)


def test_a_quaternion_of_any_length_is_normalised_and_a_zero_one_refused() -> None:
    pose = conversions.to_pose(POSE)
    for axis in "xyzw":
        setattr(pose.orientation, axis, 7.0 * getattr(pose.orientation, axis))
    np.testing.assert_allclose(conversions.matrix_from_pose(pose), POSE, atol=1e-12)
    zero = Pose()
    zero.orientation.w = 0.0
    with pytest.raises(ValueError, match="zero"):
        conversions.matrix_from_pose(zero)


def test_transforms_are_what_the_buffer_reads() -> None:
    buffer = TransformBuffer()
    message = conversions.to_transform_stamped("map", "odom", POSE, 5_000_000_000)
    assert isinstance(message, TransformStamped)
    buffer.set_message(message)
    np.testing.assert_allclose(buffer.lookup("map", "odom", 5_000_000_000), POSE, atol=1e-12)


def test_covariance_keeps_ros_order() -> None:
    covariance = np.arange(36.0).reshape(6, 6)
    message = conversions.to_pose_with_covariance(POSE, covariance, "map", 1)
    assert list(message.pose.covariance) == list(range(36))
    assert message.header.frame_id == "map"


def test_images_round_trip_and_the_data_is_handed_over_as_it_is(picture: np.ndarray) -> None:
    message = conversions.to_image(picture, "camera", 12)
    assert isinstance(message.data, array)  # rclpy copies anything else byte by byte
    np.testing.assert_array_equal(conversions.rgb_from_image(message), picture)


def test_compressed_images_are_decoded(picture: np.ndarray) -> None:
    message = CompressedImage(format="png", data=codec.encode_compressed_image(picture, "png"))
    np.testing.assert_array_equal(conversions.rgb_from_image(message), picture)


@pytest.mark.parametrize(("encoding", "tolerance"), [("16UC1", 5.1e-4), ("32FC1", 1e-6)])
def test_depth_round_trips(encoding: str, tolerance: float) -> None:
    depth = np.linspace(0.1, 9, 48, dtype=np.float32).reshape(6, 8)
    message = conversions.to_depth_image(depth, "camera", 0, encoding)
    np.testing.assert_allclose(conversions.metres_from_depth(message), depth, atol=tolerance)


def test_a_wrong_step_is_named(picture: np.ndarray) -> None:
    message = conversions.to_image(picture, "camera", 0)
    message.step = 7
    with pytest.raises(CodecError, match="step"):
        conversions.rgb_from_image(message)


@pytest.mark.parametrize(
    ("model", "D"),
    [("none", []), ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01]), ("equidistant", [0.1, 0.01, 0.0, 0.0])],
)
def test_calibration_round_trips(model: str, D: list[float]) -> None:
    camera = Camera(640, 480, np.array([[500, 0, 320], [0, 510, 240], [0, 0, 1.0]]), model, np.array(D))
    info = conversions.to_camera_info(camera, "camera", 0)
    assert camera.same_as(conversions.camera_for_image(info, 640, 480))
    half = conversions.camera_for_image(info, 320, 240)
    assert half is not None and half.same_as(camera.resized(320, 240))
    with pytest.raises(CalibrationError, match="ratio"):
        conversions.camera_for_image(info, 320, 320)


def test_an_all_zero_calibration_means_uncalibrated() -> None:
    assert conversions.camera_for_image(CameraInfo(width=640, height=480), 640, 480) is None


def test_clouds_round_trip() -> None:
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(300_000, 3)), rng.integers(0, 256, (300_000, 3), dtype=np.uint8)
    confidence = rng.uniform(size=300_000)
    message = conversions.to_point_cloud(xyz, rgb, "map", 0, confidence)
    assert isinstance(message.data, array)
    fields = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    back, colours, trust = codec.unpack_points(fields, message.point_step, message.data)
    np.testing.assert_allclose(back, xyz, atol=1e-6)
    np.testing.assert_array_equal(colours, rgb)
    np.testing.assert_allclose(trust, confidence, atol=1e-7)
    assert message.row_step == len(message.data) and message.width == 300_000


def test_frustums_start_at_the_camera_and_open_along_its_axis() -> None:
    camera = Camera.pinhole(640, 480, 500, 500, 319.5, 239.5)
    markers = conversions.to_keyframe_markers([Keyframe("a", camera, POSE)] * 2, "map", 0).markers
    ends = np.array([[p.x, p.y, p.z] for p in markers[-1].points]).reshape(2, 8, 2, 3)
    np.testing.assert_allclose(ends[0, :4, 0], np.tile(POSE[:3, 3], (4, 1)))
    far = ends[0, :4, 1].mean(axis=0) - POSE[:3, 3]
    np.testing.assert_allclose(far, conversions.FRUSTUM_DEPTH_M * POSE[:3, 2], atol=1e-9)
    assert len(conversions.to_keyframe_markers([], "map", 0).markers) == 1
