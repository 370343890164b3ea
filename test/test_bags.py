"""Recordings: written and read back, cut short, damaged, of ROS 1, and joined into frames."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mast3r_ros.errors import BagError, CalibrationError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io import codec
from mast3r_ros.io.bags import BagReader, BagWriter, open_bag

START, PERIOD = 1_700_000_000_000_000_000, 33_000_000
CAMERA = Camera(64, 48, np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), "plumb_bob", np.array([0.1, 0.01, 0, 0, 0]))
PINHOLE = Camera.pinhole(64, 48, 60, 60, 32, 24)
STORAGES = ("mcap", "sqlite3")


def picture(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def stamp(i: int) -> int:
    return START + i * PERIOD


def write(path: Path, count: int = 10, each: Callable[[BagWriter, int], None] | None = None, **options: str) -> Path:
    """A bag of ``count`` images with camera_info, or of what ``each`` writes."""
    with BagWriter(path, **options) as bag:  # type: ignore[arg-type]
        for i in range(count):
            if each is None:
                bag.camera_info("/camera/camera_info", CAMERA, stamp(i), "camera_optical")
                bag.image("/camera/image_raw", picture(i), stamp(i), "camera_optical")
                bag.transform("odom", "camera_optical", se3.exp([i, 0, 0, 0, 0, 0.1 * i]), stamp(i))
            else:
                each(bag, i)
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_every_kind_of_data_comes_back(tmp_path: Path, storage: str) -> None:
    pose, covariance = se3.exp([1, 2, 3, 0.1, 0.2, 0.3]), np.diag([1.0, 2, 3, 4, 5, 6])
    depth = np.full((48, 64), 1.5, np.float32)
    cloud = np.arange(9, dtype=np.float32).reshape(3, 3)
    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        bag.image("/image", picture(0), START, "cam", "bgr8")
        bag.compressed_image("/image/compressed", picture(0), START, "cam", "png")
        bag.depth("/depth", depth, START, "cam")
        bag.depth("/depth/compressedDepth", depth, START, "cam", compressed=True)
        bag.camera_info("/camera_info", CAMERA, START, "cam")
        bag.pose("/pose", pose, covariance, START, "map")
        bag.odometry("/odom", pose, START, covariance=covariance)
        bag.trajectory("/path", [(START, pose), (START + 1, pose)], START, "map")
        bag.points("/points", cloud, START, "map", np.full((3, 3), 7, np.uint8), np.ones(3))
        bag.transform("map", "odom", pose, START)
        bag.transform("base", "cam", pose, START, static=True)
    with open_bag(tmp_path / "bag", strict=True) as bag:
        got = {topic: message for topic, _, message in bag.messages()}
        assert bag.topics["/tf_static"].latched and not bag.topics["/tf"].latched
        assert (bag.start_ns, bag.end_ns) == (START, START)
        np.testing.assert_allclose(bag.transforms().lookup("map", "odom", START), pose, atol=1e-12)
        np.testing.assert_allclose(bag.transforms().lookup("base", "cam", 0), pose, atol=1e-12)
    image = got["/image"]
    fields = {name: getattr(image, name) for name in ("encoding", "width", "height", "step", "is_bigendian")}
    np.testing.assert_array_equal(codec.decode_image(image.data, **fields), picture(0))
    assert (image.header.frame_id, image.header.stamp.sec, image.header.stamp.nanosec) == ("cam", START // 10**9, 0)
    np.testing.assert_array_equal(codec.decode_compressed_image(got["/image/compressed"].data), picture(0))
    compressed = got["/depth/compressedDepth"]
    np.testing.assert_allclose(codec.decode_compressed_depth(compressed.data, compressed.format), depth, rtol=1e-6)
    camera = codec.camera_from_info(got["/camera_info"])
    assert camera is not None and camera.same_as(CAMERA)
    np.testing.assert_array_equal(got["/pose"].pose.covariance.reshape(6, 6), covariance)
    assert got["/odom"].child_frame_id == "base_link" and got["/odom"].pose.pose.position.z == 3
    assert [pose.header.stamp.nanosec for pose in got["/path"].poses] == [0, 1]
    points = got["/points"]
    layout = [(field.name, field.offset, field.datatype, field.count) for field in points.fields]
    xyz, rgb, confidence = codec.unpack_points(layout, points.point_step, points.data)
    np.testing.assert_array_equal(xyz, cloud)
    assert rgb is not None and (rgb == 7).all() and confidence is not None and (confidence == 1).all()


@pytest.mark.parametrize("name", ["one.mcap", "one.db3"])
def test_a_single_file_needs_no_metadata(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert path.is_file() and [entry.name for entry in tmp_path.iterdir()] == [name]
    with open_bag(path, strict=True) as bag:
        assert bag.topics["/camera/image_raw"].count == 10
        assert [frame.stamp_ns for frame in bag.frames()] == [stamp(i) for i in range(10)]


def test_static_transforms_are_offered_to_late_joiners_in_the_metadata(tmp_path: Path) -> None:
    write(tmp_path / "bag", 1, lambda bag, i: bag.transform("a", "b", np.eye(4), START, static=True))
    with Reader2(tmp_path / "bag") as reader:
        (connection,) = reader.connections
        assert [qos.durability.name for qos in connection.ext.offered_qos_profiles] == ["TRANSIENT_LOCAL"]


# Writing is all or nothing


def test_an_existing_recording_is_replaced_only_on_demand_and_only_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", 3)
    with pytest.raises(BagError, match="exists already"):
        BagWriter(path)
    with BagWriter(path, overwrite=True) as bag:
        bag.image("/camera/image_raw", picture(0), START, "cam")
        with open_bag(path) as old:
            assert old.topics["/camera/image_raw"].count == 3
    with open_bag(path) as new:
        assert new.topics["/camera/image_raw"].count == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("storage", STORAGES)
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, storage: str) -> None:
    path = write(tmp_path / "bag", 3, storage=storage)
    with pytest.raises(KeyboardInterrupt), BagWriter(path, storage=storage, overwrite=True) as bag:
        bag.image("/camera/image_raw", picture(0), START, "cam")
        raise KeyboardInterrupt
    with open_bag(path, strict=True) as old:
        assert old.topics["/camera/image_raw"].count == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]
    with pytest.raises(BagError, match="closed"):
        bag.image("/camera/image_raw", picture(0), START, "cam")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_is_named_and_the_old_recording_stays(tmp_path: Path, storage: str) -> None:
    """A file size limit of the process fails a write as a full disk does."""
    path = write(tmp_path / "bag", 3, storage=storage)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        with pytest.raises(BagError, match="cannot be written"), BagWriter(path, storage, overwrite=True) as bag:
            for i in range(20):
                bag.image("/camera/image_raw", noise, stamp(i), "cam")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with open_bag(path, strict=True) as old:
        assert old.topics["/camera/image_raw"].count == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_an_unknown_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="mcap or sqlite3"):
        BagWriter(tmp_path / "bag", storage="tape")


# Damage


def big_noise(bag: BagWriter, i: int) -> None:
    noise = np.random.default_rng(i).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    bag.image("/camera/image_raw", noise, stamp(i), "cam")
    bag.camera_info("/camera/camera_info", Camera.pinhole(320, 240, 300, 300, 160, 120), stamp(i), "cam")


def ros1_bag(path: Path, count: int, compression: Writer1.CompressionFormat | None = None) -> Path:
    """Noise images with camera_info and TF, as a ROS 1 robot records them."""
    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))

    def make(name: str, **fields: object) -> object:
        return types.types[name](**fields)

    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        names = {
            "/camera/image_raw": "sensor_msgs/msg/Image",
            "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
            "/tf": "tf2_msgs/msg/TFMessage",
        }
        topics = {topic: writer.add_connection(topic, name, typestore=types) for topic, name in names.items()}
        for i in range(count):
            when = make("builtin_interfaces/msg/Time", sec=stamp(i) // 10**9, nanosec=stamp(i) % 10**9)
            header = make("std_msgs/msg/Header", seq=i, stamp=when, frame_id="/camera_optical")
            odom = make("std_msgs/msg/Header", seq=i, stamp=when, frame_id="/odom")
            roi = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
            move = make(
                "geometry_msgs/msg/Transform",
                translation=make("geometry_msgs/msg/Vector3", x=float(i), y=0.0, z=0.0),
                rotation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=2.0),
            )
            stamped = make(
                "geometry_msgs/msg/TransformStamped", header=odom, child_frame_id="camera_optical", transform=move
            )
            messages = {
                "/camera/image_raw": make(
                    "sensor_msgs/msg/Image",
                    header=header,
                    height=48,
                    width=64,
                    encoding="rgb8",
                    is_bigendian=0,
                    step=192,
                    data=picture(i).reshape(-1),
                ),
                "/camera/camera_info": make(
                    "sensor_msgs/msg/CameraInfo",
                    header=header,
                    height=48,
                    width=64,
                    distortion_model="plumb_bob",
                    D=CAMERA.D,
                    K=CAMERA.K.reshape(-1),
                    R=np.eye(3).reshape(-1),
                    P=np.zeros(12),
                    binning_x=0,
                    binning_y=0,
                    roi=roi,
                ),
                "/tf": make("tf2_msgs/msg/TFMessage", transforms=[stamped]),
            }
            for topic, message in messages.items():
                writer.write(topics[topic], stamp(i), types.serialize_ros1(message, names[topic]))
    return path


def cut(path: Path, keep: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    return path


@pytest.mark.parametrize("name", ["cut.mcap", "cut.db3"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_the_readable_part_of_a_truncated_file_is_delivered(tmp_path: Path, name: str, keep: float) -> None:
    path = cut(write(tmp_path / name, 40, big_noise), keep)
    with open_bag(path) as bag:
        frames = list(bag.frames())
        assert any(name in problem and "not closed" in problem for problem in bag.problems)
    assert 40 * keep - 10 <= len(frames) <= 40 * keep + 1
    for i, frame in enumerate(frames):
        assert frame.stamp_ns == stamp(i)
        expected = np.random.default_rng(i).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        np.testing.assert_array_equal(frame.image, expected)
    with pytest.raises(BagError, match=name):
        open_bag(path, strict=True)


@pytest.mark.parametrize("compression", [None, Writer1.CompressionFormat.LZ4, Writer1.CompressionFormat.BZ2])
def test_a_truncated_ros1_bag(tmp_path: Path, compression: Writer1.CompressionFormat | None) -> None:
    path = cut(ros1_bag(tmp_path / "cut.bag", 300, compression), 0.7)
    with open_bag(path) as bag:
        frames = list(bag.frames())
        assert len(bag.problems) == 1
    assert 90 <= len(frames) <= 215
    np.testing.assert_array_equal(frames[50].image, picture(50))


@pytest.mark.parametrize("compression", [None, Writer1.CompressionFormat.LZ4, Writer1.CompressionFormat.BZ2])
def test_ros1_bags_read_like_ros2_bags(tmp_path: Path, compression: Writer1.CompressionFormat | None) -> None:
    with open_bag(ros1_bag(tmp_path / "old.bag", 10, compression), strict=True) as bag:
        assert not bag.is_ros2
        assert bag.topics["/camera/image_raw"].type == "sensor_msgs/msg/Image"
        frames = list(bag.frames())
        np.testing.assert_allclose(
            bag.transforms().lookup("odom", "camera_optical", stamp(3) + PERIOD // 2)[:3, 3], [3.5, 0, 0]
        )
    assert [frame.stamp_ns for frame in frames] == [stamp(i) for i in range(10)]
    assert frames[0].camera is not None and frames[0].camera.same_as(CAMERA)
    assert frames[9].camera is frames[0].camera
    np.testing.assert_array_equal(frames[7].image, picture(7))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_folder_whose_recorder_died_has_no_metadata(tmp_path: Path, storage: str) -> None:
    path = write(tmp_path / "bag", 40, big_noise, storage=storage)
    (path / "metadata.yaml").unlink()
    with open_bag(path) as bag:
        assert bag.topics["/camera/image_raw"].count == 40 and not bag.problems
    cut(next(path.glob("bag.*")), 0.8)
    with open_bag(path) as bag:
        assert 20 < len(list(bag.frames())) < 40


def test_a_damaged_metadata_file_does_not_hide_the_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "bag")
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [half a fi")
    with open_bag(path) as bag:
        assert len(list(bag.frames())) == 10
        assert "cannot be read as a whole" in bag.problems[0]


def test_messages_left_in_a_write_ahead_log_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "bag.db3", 3)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute(
        "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 1, data FROM messages"
    )
    database.commit()
    (tmp_path / "dead").mkdir()
    for file in tmp_path.glob("bag.db3*"):
        shutil.copy(file, tmp_path / "dead")
    database.close()
    with open_bag(tmp_path / "dead" / "bag.db3") as bag:
        assert bag.topics["/camera/image_raw"].count == 6


def test_one_damaged_message_costs_one_message(tmp_path: Path) -> None:
    path = write(tmp_path / "bag.db3", 5)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE messages SET data = substr(data, 1, 30) WHERE id = 5")
    with open_bag(path) as bag:
        assert [frame.stamp_ns for frame in bag.frames()] == [stamp(i) for i in (0, 2, 3, 4)]
        assert len(bag.problems) == 1 and "/camera/image_raw" in bag.problems[0]
    with open_bag(path, strict=True) as bag, pytest.raises(BagError, match=r"bag\.db3.*damaged"):
        list(bag.frames())


@pytest.mark.parametrize("name", ["hit.mcap", "hit.db3", "hit.bag"])
def test_random_damage_never_ends_in_anything_but_a_sentence(tmp_path: Path, name: str) -> None:
    path = ros1_bag(tmp_path / name, 10) if name.endswith(".bag") else write(tmp_path / name)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    read = 0
    for i in range(24):
        damaged = whole.copy()
        hits = rng.integers(0, len(whole) if i % 2 else 5000, 50)
        damaged[hits] = rng.integers(0, 256, len(hits))
        path.write_bytes(damaged[: len(whole) if i % 3 else rng.integers(1, len(whole))].tobytes())
        try:
            with open_bag(path) as bag:
                read += len(list(bag.frames()))
                bag.transforms()
        except (BagError, CalibrationError) as error:
            assert name in str(error)
    assert read > 20


def test_parts_of_a_split_recording_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    for part in (0, 2, 10):
        write(
            tmp_path / "split" / f"run_{part}.mcap",
            2,
            lambda bag, i, part=part: bag.image("/image", picture(i), stamp(part + i), "cam"),
        )
    with open_bag(tmp_path / "split", strict=True) as bag:
        assert [frame.stamp_ns for frame in bag.frames()] == [stamp(i) for i in (0, 1, 2, 3, 10, 11)]
        assert (bag.start_ns, bag.end_ns) == (stamp(0), stamp(11))


def test_a_ros1_recorder_that_died_leaves_an_active_file(tmp_path: Path) -> None:
    path = ros1_bag(tmp_path / "run.bag", 30).rename(tmp_path / "run.bag.active")
    with open_bag(path) as bag:
        assert len(list(bag.frames())) == 30 and "still open" in bag.problems[0]


def test_rclpy_reads_what_is_written(tmp_path: Path) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    messages = pytest.importorskip("sensor_msgs.msg")
    with BagWriter(tmp_path / "bag") as bag:
        bag.image("/image", picture(0), START, "cam")
        bag.camera_info("/camera_info", CAMERA, START, "cam")
        bag.points("/points", np.arange(9.0).reshape(3, 3), START, "map")
    with open_bag(tmp_path / "bag") as reader:
        data = {topic: bytes(raw) for topic, _, raw in reader.serialized()}
    image = serialization.deserialize_message(data["/image"], messages.Image)
    assert (image.encoding, image.step, image.header.frame_id) == ("rgb8", 192, "cam")
    np.testing.assert_array_equal(np.frombuffer(image.data, np.uint8).reshape(48, 64, 3), picture(0))
    camera = codec.camera_from_info(serialization.deserialize_message(data["/camera_info"], messages.CameraInfo))
    assert camera is not None and camera.same_as(CAMERA)
    cloud = serialization.deserialize_message(data["/points"], messages.PointCloud2)
    layout = [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields]
    np.testing.assert_array_equal(codec.unpack_points(layout, cloud.point_step, cloud.data)[0].ravel(), np.arange(9))


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    for name, match in (("nothing", "does not exist"), ("note.txt", "no recording"), ("empty.mcap", "no message")):
        path = tmp_path / name
        if name != "nothing":
            path.write_bytes(b"")
        with pytest.raises(BagError, match=f"{name}.*{match}"):
            open_bag(path)
    for name in ("rubbish.mcap", "rubbish.db3", "rubbish.bag"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(10_000))
        with pytest.raises(BagError, match=name):
            open_bag(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagError, match=r"folder.*metadata\.yaml"):
        open_bag(tmp_path / "folder")


# Types and topics


def test_unknown_types_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    """A recording of before Iron carries no definitions: what is not a standard type cannot be read."""
    path = write(tmp_path / "bag.db3", 2)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("DROP TABLE schema")
        database.execute("UPDATE topics SET type = 'my_robot/msg/Secret' WHERE name = '/tf'")
    with open_bag(path) as bag:
        assert {topic for topic, _, _ in bag.messages()} == {"/camera/image_raw", "/camera/camera_info"}
        with pytest.raises(BagError, match="my_robot/msg/Secret"):
            next(bag.messages(["/tf"]))
        with pytest.raises(BagError, match=r"/missing.*it has /camera/camera_info"):
            next(bag.messages(["/missing"]))


def test_serialized_messages_can_be_copied(tmp_path: Path) -> None:
    with open_bag(write(tmp_path / "a")) as bag, BagWriter(tmp_path / "b") as copy:
        for topic, when, data in bag.serialized():
            copy.serialized(topic, bag.topics[topic].type, when, data)
    with open_bag(tmp_path / "b") as bag:
        np.testing.assert_array_equal([frame.image for frame in bag.frames()], [picture(i) for i in range(10)])


# Frames


def frames_of(bag: BagReader, **options: object) -> list:
    return list(bag.frames(**options))  # type: ignore[arg-type]


def test_colour_depth_and_calibration_of_one_moment_meet(tmp_path: Path) -> None:
    """Depth comes 5 ms after colour and out of step; the third is missing."""

    def each(bag: BagWriter, i: int) -> None:
        bag.compressed_image("/cam/color/image_raw/compressed", picture(i), stamp(i), "colour", "png")
        bag.camera_info("/cam/color/camera_info", PINHOLE, stamp(i), "colour")
        bag.image("/cam/infra1/image_rect_raw", picture(i), stamp(i), "infra")
        if i != 3:
            depth = np.full((48, 64), 1.0 + i)
            topic = "/cam/aligned_depth_to_color/image_raw/compressedDepth"
            bag.depth(topic, depth, stamp(i) + 5_000_000, "colour", compressed=True)

    with open_bag(write(tmp_path / "bag", 8, each), strict=True) as bag:
        frames = frames_of(bag)
        assert len(frames_of(bag, max_delay_s=0.001)) == 8
        assert all(frame.depth is None for frame in bag.frames(max_delay_s=0.001))
        assert all(frame.depth is None for frame in bag.frames(use_depth=False))
    assert [None if f.depth is None else round(float(f.depth[0, 0])) for f in frames] == [1, 2, 3, None, 5, 6, 7, 8]
    np.testing.assert_array_equal([frame.image for frame in frames], [picture(i) for i in range(8)])
    assert all(frame.camera is frames[0].camera for frame in frames)


def test_images_before_the_first_camera_info_use_it_and_the_header_tells_the_time(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for i in range(30):
            bag.image("/camera/image_raw", picture(i), stamp(i), "cam")
        bag.camera_info("/camera/camera_info", CAMERA, stamp(29), "cam")
    with open_bag(tmp_path / "bag") as reader:
        assert all(frame.camera.same_as(CAMERA) for frame in reader.frames())


def test_rectified_images_are_not_undistorted_again(tmp_path: Path) -> None:
    def each(bag: BagWriter, i: int) -> None:
        bag.image("/camera/image_rect_color", picture(i), stamp(i), "cam")
        bag.camera_info("/camera/camera_info", CAMERA, stamp(i), "cam")

    with open_bag(write(tmp_path / "bag", 2, each)) as bag:
        assert all(not frame.camera.is_distorted for frame in bag.frames())


def test_several_cameras_must_be_told_apart(tmp_path: Path) -> None:
    def each(bag: BagWriter, i: int) -> None:
        for side in ("a", "b"):
            bag.image(f"/{side}/image_raw", picture(i), stamp(i), side)
            bag.camera_info(f"/{side}/camera_info", CAMERA, stamp(i), side)

    with open_bag(write(tmp_path / "bag", 2, each)) as bag:
        with pytest.raises(BagError, match="/a/image_raw, /b/image_raw"):
            bag.frames()
        assert len(frames_of(bag, image_topic="/b/image_raw")) == 2
        with pytest.raises(BagError, match=r"/c/image_raw"):
            bag.frames(image_topic="/c/image_raw")


def test_a_bag_without_images_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", 1, lambda bag, i: bag.odometry("/odom", np.eye(4), START))
    with open_bag(path) as bag, pytest.raises(BagError, match="no camera images"):
        bag.frames()


def unregistered(with_info: bool, with_tf: bool) -> Callable[[BagWriter, int], None]:
    """A wall 2 m away, seen by a depth camera 10 cm to the right of the colour camera."""

    def each(bag: BagWriter, i: int) -> None:
        bag.image("/cam/color/image_raw", picture(i), stamp(i), "colour")
        bag.camera_info("/cam/color/camera_info", PINHOLE, stamp(i), "colour")
        depth = np.full((96, 128), 2.0)
        depth[:, 64:] = 3.0
        bag.depth("/cam/depth/image_rect_raw", depth, stamp(i), "depth")
        if with_info:
            bag.camera_info("/cam/depth/camera_info", Camera.pinhole(128, 96, 120, 120, 64, 48), stamp(i), "depth")
        if with_tf and i == 0:
            bag.transform("colour", "depth", se3.exp([0.1, 0, 0, 0, 0, 0]), stamp(i), static=True)

    return each


def test_depth_of_another_camera_is_registered_through_tf(tmp_path: Path) -> None:
    with open_bag(write(tmp_path / "bag", 3, unregistered(True, True)), strict=True) as bag:
        frames = frames_of(bag)
    depth = frames[2].depth
    assert depth is not None and depth.shape == (48, 64)
    # The step at the depth camera's axis, 2 m away, appears 60 px * 0.1 m / 2 m = 3 px right of the centre.
    row = depth[24]
    assert np.allclose(row[10:34][row[10:34] > 0], 2) and np.allclose(row[36:60][row[36:60] > 0], 3)
    assert (row[10:60] > 0).mean() > 0.9


@pytest.mark.parametrize(("with_info", "missing"), [(True, "TF has no way"), (False, "camera_info to register")])
def test_depth_that_cannot_be_registered_is_never_used(tmp_path: Path, with_info: bool, missing: str) -> None:
    with open_bag(write(tmp_path / "bag", 3, unregistered(with_info, with_info is False))) as bag:
        assert all(frame.depth is None for frame in bag.frames())
        assert len(bag.problems) == 1 and missing in bag.problems[0]
        with pytest.raises(BagError, match=missing):
            frames_of(bag, depth_topic="/cam/depth/image_rect_raw")


def test_unusable_calibration_names_the_topic(tmp_path: Path) -> None:
    def each(bag: BagWriter, i: int) -> None:
        bag.image("/camera/image_raw", picture(i)[:40], stamp(i), "cam")
        bag.camera_info("/camera/camera_info", CAMERA, stamp(i), "cam")

    with (
        open_bag(write(tmp_path / "bag", 1, each)) as bag,
        pytest.raises(CalibrationError, match="/camera/camera_info"),
    ):
        frames_of(bag)


def test_invalid_transforms_in_a_bag_are_left_out(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        zero = bag.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=0.0)
        move = bag.make(
            "geometry_msgs/msg/Transform",
            translation=bag.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0),
            rotation=zero,
        )
        header = bag.make(
            "std_msgs/msg/Header", stamp=bag.make("builtin_interfaces/msg/Time", sec=1, nanosec=0), frame_id="map"
        )
        bad = bag.make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id="odom", transform=move)
        bag.message("/tf", "tf2_msgs/msg/TFMessage", START, transforms=[bad])
        bag.transform("odom", "base", np.eye(4), START)
    with open_bag(tmp_path / "bag") as reader:
        assert reader.transforms().frames == ["base", "odom"]
        assert "quaternion is zero" in reader.problems[0]
