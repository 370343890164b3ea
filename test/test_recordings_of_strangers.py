"""Recordings as other people's robots make them: what is used of them, and what is said about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command_line import separate_runner
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore

from mast3r_ros.cli.main import app
from mast3r_ros.errors import BagError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagReader, BagWriter, find_topics, open_bag
from mast3r_ros.io.datasets import open_source
from mast3r_ros.io.datasets.check import check_source

START, PERIOD = 1_700_000_000_000_000_000, 100_000_000
CAMERA = Camera.pinhole(64, 48, 60, 60, 32, 24)
OTHER = Camera.pinhole(64, 48, 40, 40, 32, 24)
DEPTH = np.full((48, 64), 2.0)
Each = Callable[[BagWriter, int], None]


def stamp(i: int) -> int:
    return START + i * PERIOD


def picture(i: int = 0) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def write(path: Path, *each: Each, count: int = 4) -> Path:
    with BagWriter(path) as bag:
        for i in range(count):
            for what in each:
                what(bag, i)
    return path


def image(topic: str, frame: str = "cam", encoding: str = "rgb8") -> Each:
    return lambda bag, i: bag.image(topic, picture(i), stamp(i), frame, encoding)


def info(topic: str, frame: str = "cam", camera: Camera = CAMERA) -> Each:
    return lambda bag, i: bag.camera_info(topic, camera, stamp(i), frame)


def depth(topic: str, frame: str = "cam", metres: np.ndarray = DEPTH, encoding: str = "16UC1") -> Each:
    return lambda bag, i: bag.depth(topic, metres, stamp(i), frame, encoding)


def tf(parent: str = "map", child: str = "cam", x: float = 0.0, topic: str = "/tf", late_ns: int = 0) -> Each:
    """A child that moves along x."""

    def each(bag: BagWriter, i: int) -> None:
        pose, at = se3.exp([x + 0.1 * i, 0, 0, 0, 0, 0]), stamp(i) + late_ns
        move = bag.make(
            "geometry_msgs/msg/Transform",
            translation=bag.make("geometry_msgs/msg/Vector3", x=float(pose[0, 3]), y=0.0, z=0.0),
            rotation=bag.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        )
        time = bag.make("builtin_interfaces/msg/Time", sec=at // 10**9, nanosec=at % 10**9)
        header = bag.make("std_msgs/msg/Header", stamp=time, frame_id=parent)
        stamped = bag.make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child, transform=move)
        bag.message(topic, "tf2_msgs/msg/TFMessage", at, transforms=[stamped])

    return each


def read(path: Path, **options: object) -> tuple[list, list[str]]:
    with open_bag(path) as bag:
        return list(bag.frames(**options)), bag.problems  # type: ignore[arg-type]


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


# Calibration of another camera, or of none


@pytest.mark.parametrize("topic", ["/camera/depth/camera_info", "/camera/color/camera_info"])
def test_the_calibration_of_another_frame_is_named_and_not_used(tmp_path: Path, topic: str) -> None:
    path = write(tmp_path / "bag", image("/camera/color/image_raw", "colour"), info(topic, "depth", OTHER))
    frames, problems = read(path)
    assert len(frames) == 4 and all(frame.camera is None for frame in frames)
    assert "'colour'" in only(problems) and "'depth'" in problems[0] and topic in problems[0]
    frames, problems = read(path, camera_info_topic=topic)
    assert frames[0].camera.fx == 40 and "because it was named" in only(problems)
    frames, problems = read(path, camera=CAMERA)
    assert frames[0].camera.fx == 60 and not problems


def test_the_calibration_of_the_images_frame_is_found_elsewhere(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bag",
        image("/decompressed", "colour"),
        info("/camera/color/camera_info", "colour"),
        info("/camera/depth/camera_info", "depth", OTHER),
    )
    frames, problems = read(path)
    assert frames[0].camera.fx == 60 and not problems


def test_a_calibration_without_frame_is_believed(tmp_path: Path) -> None:
    frames, problems = read(write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info", "")))
    assert frames[0].camera.fx == 60 and not problems


@pytest.mark.parametrize(
    ("K", "used", "said"),
    [
        ([1, 1, 0, 0], False, "placeholder"),
        ([2000, 2000, 32, 24], True, "31 image widths"),
        ([30, 30, 8, 8], True, "principal point"),
        ([60, 60, 32, 44], True, "principal point"),
    ],
)
def test_an_implausible_calibration_is_questioned(tmp_path: Path, K: list[float], used: bool, said: str) -> None:
    camera = Camera.pinhole(64, 48, *K)
    frames, problems = read(write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info", camera=camera)))
    assert (frames[0].camera is not None) == used
    assert said in only(problems) and "/cam/camera_info" in problems[0]


# TF is one tree per namespace, and history is history


def test_tf_is_that_of_the_images_namespace(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bag",
        tf(topic="/robot1/tf"),
        tf(topic="/robot2/tf", x=20, late_ns=10_000_000),
        tf(topic="/tf", x=40, late_ns=20_000_000),
        image("/robot1/camera/image_raw"),
        info("/robot1/camera/camera_info"),
    )
    poses = [posed.map_T_camera[0, 3] for posed in open_source(path)]
    np.testing.assert_allclose(poses, [0, 0.1, 0.2, 0.3], atol=1e-9)
    with open_bag(path) as bag:
        assert bag.transforms("/robot1/camera/image_raw").lookup("map", "cam", stamp(1))[0, 3] == pytest.approx(0.1)
        assert "/robot2/tf" in only(bag.problems)
        assert bag.transforms().lookup("map", "cam", stamp(1) + 20_000_000)[0, 3] == pytest.approx(40.1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (tf(x=20, late_ns=10_000_000), "to and fro"),
        (tf(parent="odom", late_ns=10_000_000), "parent changes"),
        (lambda bag, i: bag.transform("map", "cam", np.eye(4), stamp(i), static=True), "static and as moving"),
    ],
)
def test_two_publishers_of_one_frame_are_told(tmp_path: Path, other: Each, said: str) -> None:
    path = write(tmp_path / "bag", tf(), other, count=8)
    with open_bag(path) as bag:
        bag.transforms()
        assert said in only(bag.problems) and "'cam'" in bag.problems[0]


def test_a_shaking_or_turning_frame_has_one_publisher(tmp_path: Path) -> None:
    def shaking(bag: BagWriter, i: int) -> None:
        bag.transform("map", "cam", se3.exp(np.random.default_rng(i).normal(0, 0.01, 6)), stamp(i))

    with open_bag(write(tmp_path / "bag", shaking, count=200)) as bag:
        bag.transforms()
        assert not bag.problems


def test_a_static_sample_does_not_erase_a_moving_frames_history(tmp_path: Path) -> None:
    def once(bag: BagWriter, i: int) -> None:
        if i == 2:
            bag.transform("map", "cam", se3.exp([7, 0, 0, 0, 0, 0]), stamp(i), static=True)

    with open_bag(write(tmp_path / "bag", tf(), once)) as bag:
        buffer = bag.transforms()
    assert [buffer.lookup("map", "cam", stamp(i))[0, 3] for i in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])


# Depth decides over colour: encodings before names


@pytest.mark.parametrize(
    ("colour", "deep", "others"),
    [
        ("/rgb/image_raw", "/depth_to_rgb/image_raw", ["/rgb_to_depth/image_raw"]),  # Azure Kinect
        ("/depth_camera/image_raw", "/depth_camera/depth/image_raw", []),
        ("/depthai/rgb/image_raw", "/depthai/stereo/image_raw", []),
        ("/camera/image", "/camera/depth_image", []),  # Gazebo
    ],
)
def test_depth_is_what_holds_depth(tmp_path: Path, colour: str, deep: str, others: list[str]) -> None:
    path = write(tmp_path / "bag", image(colour), depth(deep), *(image(o, "depth_cam", "bgra8") for o in others))
    with open_bag(path) as bag:
        chosen = find_topics(bag.topics, str(path))
        assert (chosen.image, chosen.depth) == (colour, deep)
        assert all(frame.depth[0, 0] == 2 for frame in bag.frames())


def test_among_aligned_depth_that_of_the_images_frame_is_taken(tmp_path: Path) -> None:
    aligned = [f"/camera/aligned_depth_to_{name}/image_raw" for name in ("color", "infra1")]
    path = write(
        tmp_path / "bag",
        image("/camera/color/image_raw", "colour"),
        image("/camera/infra1/image_raw", "infra1", "mono8"),
        depth(aligned[1], "infra1"),
        depth(aligned[0], "colour"),
        depth("/camera/depth/image_rect_raw", "depth"),
    )
    with open_bag(path) as bag:
        assert find_topics(bag.topics, str(path)).depth == aligned[0]
        assert find_topics(bag.topics, str(path), image="/camera/infra1/image_raw").depth == aligned[1]


def test_a_camera_does_not_get_the_depth_of_its_twin(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bag", *(image(f"/{r}/color/image_raw") for r in ("a", "b")), depth("/b/aligned_depth/image_raw")
    )
    frames, problems = read(path, image_topic="/a/color/image_raw")
    assert all(frame.depth is None for frame in frames)
    assert any("/b/color/image_raw, another camera" in problem for problem in problems)
    assert read(path, image_topic="/b/color/image_raw")[0][0].depth is not None


def raw(topic: str, pixels: np.ndarray, encoding: str) -> Each:
    data = pixels.tobytes()
    return lambda bag, i: bag._image(topic, data, pixels.nbytes // 48, (48, 64), encoding, stamp(i), "cam")


@pytest.mark.parametrize("topic", ["/stereo/disparity", "/stereo/depth/disparity_image", "/zed/confidence/image"])
def test_disparity_and_confidence_are_not_depth(tmp_path: Path, topic: str) -> None:
    path = write(tmp_path / "bag", image("/stereo/image_rect"), raw(topic, DEPTH.astype("f4"), "32FC1"))
    frames, problems = read(path)
    assert len(frames) == 4 and all(frame.depth is None for frame in frames)
    assert any(topic in problem and "not depth" in problem for problem in problems)
    with pytest.raises(BagError, match="not depth"):
        read(path, depth_topic=topic)


def test_what_cannot_be_depth_is_refused_where_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", image("/depth/preview", encoding="mono8"), image("/color/image"), depth("/d/depth"))
    assert read(path)[0][0].depth is not None
    for options, said in (
        ({"depth_topic": "/depth/preview"}, "mono8 images, not depth"),
        ({"depth_topic": "/color/image", "image_topic": "/color/image"}, "name two topics"),
        ({"image_topic": "/depth/preview", "camera_info_topic": "/d/depth"}, "expected sensor_msgs"),
    ):
        with pytest.raises(BagError, match=said):
            read(path, **options)


MILLIMETRES = np.full((48, 64), 2000, np.uint16)


@pytest.mark.parametrize(
    ("format", "file", "readable"),
    [("png", ".png", True), ("16UC1; png compressed ", ".png", True), ("16UC1; jpeg compressed ", ".jpg", False)],
)
def test_depth_in_picture_files_costs_no_colour(tmp_path: Path, format: str, file: str, readable: bool) -> None:
    data = cv2.imencode(file, MILLIMETRES if readable else (MILLIMETRES >> 4).astype(np.uint8))[1].tobytes()

    def each(bag: BagWriter, i: int) -> None:
        bag.compressed("/cam/depth/image_raw/compressed", data, format, stamp(i), "cam")

    frames, problems = read(write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info"), each))
    assert len(frames) == 4 and all((frame.depth is not None) == readable for frame in frames)
    assert readable or "not depth" in only(problems)


def test_damaged_depth_costs_depth_alone_and_is_told_once(tmp_path: Path) -> None:
    def each(bag: BagWriter, i: int) -> None:
        data = MILLIMETRES.tobytes()[: -100 if i > 0 else None]
        bag._image("/cam/depth/image_raw", data, 128, (48, 64), "16UC1", stamp(i), "cam")

    frames, problems = read(write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info"), each))
    assert [frame.depth is not None for frame in frames] == [True, False, False, False]
    assert "truncated" in only(problems)


def test_depth_without_time_costs_depth_alone_and_is_told_once(tmp_path: Path) -> None:
    def each(bag: BagWriter, i: int) -> None:
        data = MILLIMETRES.tobytes()
        header = bag._header(0, "cam")
        fields = {"height": 48, "width": 64, "encoding": "16UC1", "is_bigendian": 0, "step": 128}
        pixels = np.frombuffer(data, np.uint8)
        bag.message("/cam/depth/image_raw", "sensor_msgs/msg/Image", stamp(i), header=header, data=pixels, **fields)

    path = write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info"), each)
    frames, problems = read(path)
    assert len(frames) == 4 and all(frame.depth is None for frame in frames)
    assert "has no time" in only(problems)
    with pytest.raises(BagError, match="has no time"):
        read(path, depth_topic="/cam/depth/image_raw")


def test_one_missing_transform_at_the_start_does_not_cost_all_depth(tmp_path: Path) -> None:
    def moving_mount(bag: BagWriter, i: int) -> None:
        if i:
            bag.transform("colour", "deep", se3.exp([0.05, 0, 0, 0, 0, 0]), stamp(i))

    path = write(
        tmp_path / "bag",
        *(image("/cam/color/image_raw", "colour"), info("/cam/color/camera_info", "colour")),
        *(depth("/cam/depth/image_raw", "deep"), info("/cam/depth/camera_info", "deep")),
        moving_mount,
    )
    frames, problems = read(path)
    assert [frame.depth is not None for frame in frames] == [False, True, True, True]
    assert "no transform to its image" in only(problems)


# Called damaged and are not


def text_bag(path: Path, mode: CompressionMode, storage: StoragePlugin) -> Path:
    """Fifty strings, compressed as rosbag2 does it."""
    types = get_typestore(Stores.ROS2_JAZZY)
    with_strings = Writer2(path, version=8, storage_plugin=storage)
    with_strings.set_compression(mode, CompressionFormat.ZSTD)
    with with_strings as bag:
        topic = bag.add_connection("/s", "std_msgs/msg/String", typestore=types)
        for n in range(50):
            message = types.types["std_msgs/msg/String"](data=f"hello {n} " * 5)
            bag.write(topic, START + n, types.serialize_cdr(message, "std_msgs/msg/String"))
    return path


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_recordings_are_read_with_and_without_metadata(
    tmp_path: Path, mode: CompressionMode, storage: StoragePlugin
) -> None:
    whole = text_bag(tmp_path / "whole", mode, storage)
    bare = shutil.copytree(whole, tmp_path / "bare")
    (bare / "metadata.yaml").unlink()
    for path in (whole, bare, next(bare.iterdir())):
        with open_bag(path, strict=True) as bag:
            assert [m.data.split()[1] for _, _, m in bag.messages(["/s"])] == [str(n) for n in range(50)]


def foreign_mcap(path: Path, profile: str = "") -> Path:
    """An .mcap by the format's own library: a ROS 1 image, a JSON and a protobuf channel."""
    types = get_typestore(Stores.ROS1_NOETIC)
    names = types.types
    time = names["builtin_interfaces/msg/Time"](sec=START // 10**9, nanosec=0)
    header = names["std_msgs/msg/Header"](seq=1, stamp=time, frame_id="cam")
    picture_of = names["sensor_msgs/msg/Image"](header, 48, 64, "rgb8", 0, 192, picture().reshape(-1))
    definition = types.generate_msgdef("sensor_msgs/msg/Image")[0].encode()
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile=profile)
        for topic, form, schema, encoding, data in (
            ("/image_raw", "ros1", ("sensor_msgs/Image", "ros1msg", definition), "ros1", None),
            ("/pose", "json", ("foxglove.PoseInFrame", "jsonschema", b"{}"), "json", b"{}"),
            ("/video", "protobuf", ("foxglove.CompressedVideo", "protobuf", b""), "protobuf", b"\x08\x01"),
        ):
            if profile == "" and form == "ros1":
                continue
            number = writer.register_channel(topic, encoding, writer.register_schema(*schema))
            content = data or bytes(types.serialize_ros1(picture_of, "sensor_msgs/msg/Image"))
            writer.add_message(number, START, content, START)
        writer.finish()
    return path


def test_an_mcap_of_ros1_is_read(tmp_path: Path) -> None:
    with open_bag(foreign_mcap(tmp_path / "a.mcap", "ros1"), strict=True) as bag:
        assert not bag.is_ros2
        np.testing.assert_array_equal(next(bag.frames()).image, picture())
        with pytest.raises(BagError, match=r"/pose \(foxglove.PoseInFrame, json\) cannot be read"):
            list(bag.messages(["/pose"]))


def test_channels_that_are_not_of_ros_are_named(tmp_path: Path) -> None:
    with open_bag(foreign_mcap(tmp_path / "a.mcap"), strict=True) as bag:
        assert list(bag.messages()) == []
        with pytest.raises(BagError, match=r"no camera images.*/pose .*json.*/video .*protobuf"):
            bag.frames()


# What is said before anything is built


def everything(path: Path) -> Path:
    return write(
        path,
        *(tf(), tf(topic="/robot2/tf", x=9), image("/cam/image_raw"), info("/cam/camera_info")),
        depth("/cam/depth/image_raw", encoding="32FC1", metres=DEPTH * 1000),
    )


def test_check_says_what_reading_does(tmp_path: Path) -> None:
    path = everything(tmp_path / "bag")
    check = check_source(path)
    assert check.facts["images"]["topic"] == "/cam/image_raw" and check.facts["images"]["size"] == [64, 48]
    assert check.facts["calibration"]["source"] == "/cam/camera_info" and check.facts["calibration"]["fx"] == 60
    assert check.facts["depth"]["unit_m"] == 1 and "as it is" in check.facts["depth"]["used"]
    assert check.facts["stamps"]["/cam/image_raw"] == {"count": 4, "rate_hz": 10.0, "longest_pause_s": 0.1}
    assert check.facts["poses"] == {
        **{"from": "TF", "frame": "map", "images": 4, "of": 4},
        "extent_m": [0.3, 0.0, 0.0],
    }
    assert check.tree == "map\n  cam (moving)"
    _, problems = read(path)
    assert set(problems) <= set(check.doubts) and any("whole numbers" in doubt for doubt in check.doubts)


def test_check_and_dry_run_print_the_same(tmp_path: Path) -> None:
    path = everything(tmp_path / "bag")
    command = separate_runner()
    printed = command.invoke(app, ["bag", "check", str(path)])
    assert printed.exit_code == 0 and "/cam/image_raw: 4 images 64x48" in printed.stdout
    assert "warning: TF on /robot2/tf is not used" in printed.stderr
    dry = command.invoke(app, ["map", "build", str(path), "--dry-run", "--json"])
    facts = command.invoke(app, ["bag", "check", str(path), "--json"])
    assert json.loads(dry.stdout) == json.loads(facts.stdout)
    assert list(tmp_path.iterdir()) == [path]


def test_check_of_a_recording_without_poses_says_what_it_is_good_for(tmp_path: Path) -> None:
    check = check_source(write(tmp_path / "bag", image("/cam/image_raw"), info("/cam/camera_info")))
    assert check.facts["poses"] is None and any("can be localized" in doubt for doubt in check.doubts)


def test_dry_run_of_a_folder_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), picture())
    (tmp_path / "poses.txt").write_text("a.png 1 0 0 0 0 0 0\nb.png 1 0 0 0 2 0 0\n")
    check = check_source(tmp_path)
    assert check.facts["source"]["frames"] == 2 and check.facts["poses"]["extent_m"] == [2, 0, 0]
    assert check.facts["calibration"] is None and "no calibration" in only(check.doubts)


def test_a_given_calibration_is_used_by_every_layout_that_has_none(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", tf(), image("/cam0/image_raw"))
    assert all(posed.frame.camera.fx == 60 for posed in open_source(bag, camera=CAMERA))
    scene = tmp_path / "scene"
    scene.mkdir()
    cv2.imwrite(str(scene / "frame-000000.color.png"), picture())
    cv2.imwrite(str(scene / "frame-000000.depth.png"), MILLIMETRES)
    np.savetxt(scene / "frame-000000.pose.txt", np.eye(4))
    posed = next(iter(open_source(scene, camera=CAMERA)))
    assert posed.frame.camera.fx == 60 and (posed.frame.depth == 2).all()
    np.testing.assert_array_equal(posed.map_T_camera, np.eye(4))


def test_a_layout_with_a_calibration_of_its_own_says_so(tmp_path: Path) -> None:
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match="has a calibration of its own: leave --intrinsics out"):
        open_source(tmp_path, camera=CAMERA)


def test_only_what_is_asked_of_a_reader_is_said(tmp_path: Path) -> None:
    """A bag that is merely opened, for instance to be played, says nothing about its cameras."""
    with BagReader(everything(tmp_path / "bag"), strict=True) as bag:
        assert not bag.problems and SimpleNamespace(**vars(bag.topics["/cam/image_raw"])).encoding == "rgb8"
