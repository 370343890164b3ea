"""Data set readers: small sets written by the test in each layout, and real ones where they are present."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from mast3r_ros.errors import BagError, DatasetError
from mast3r_ros.frames import Camera, PosedFrame, valid_depth
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.io.codec import encode_compressed_image
from mast3r_ros.io.codec.depth import millimetres
from mast3r_ros.io.datasets import FrameList, Source, open_source
from mast3r_ros.io.datasets.sevenscenes import COLOUR_CAMERA, DEPTH_CAMERA

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
START, PERIOD = 1_700_000_000_000_000_000, 100_000_000


def picture(i: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_compressed_image(image, "png"))


def write_depth(path: Path, depth: np.ndarray, units: float = 1000.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), millimetres(depth * (units / 1000.0)))


def pose(i: int) -> np.ndarray:
    return se3.exp([0.1 * i, 0.2, -0.3, 0.1, 0.05 * i, -0.2])


def quaternion_line(T: np.ndarray) -> str:
    """tx ty tz qx qy qz qw"""
    return " ".join(f"{x:.12f}" for x in (*T[:3, 3], *se3.quaternion(T)))


def opened(path: Path, **options: object) -> FrameList:
    source = open_source(path, **options)  # type: ignore[arg-type]
    assert isinstance(source, FrameList)
    return source


# What every source promises


def test_unknown_layouts_paths_and_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist: expected one of"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no layout that is known: expected one of[\s\S]*COLMAP"):
        open_source(tmp_path)
    with pytest.raises(DatasetError, match="unknown layout 'kitti': use rosbag"):
        open_source(tmp_path, layout="kitti")
    seven = write_sevenscenes(tmp_path / "scene")
    with pytest.raises(DatasetError, match="no option speed: it has split"):
        open_source(seven, speed=3)


# 7-Scenes


def write_sevenscenes(root: Path) -> Path:
    """Two sequences with gaps in their numbers. The depth camera sees a wall 2 m away."""
    for sequence, frames in (("seq-01", (0, 7, 30)), ("seq-02", (5,))):
        for number in frames:
            stem = root / sequence / f"frame-{number:06d}"
            write_image(stem.with_name(stem.name + ".color.png"), picture(number, 640, 480))
            depth = np.full((480, 640), 2.0)
            depth[:10] = 0
            write_depth(stem.with_name(stem.name + ".depth.png"), depth)
            raw = cv2.imread(str(stem) + ".depth.png", cv2.IMREAD_UNCHANGED)
            raw[200:300, 300:400] = 65535
            cv2.imwrite(str(stem) + ".depth.png", raw)
            slightly_off = pose(number) + 1e-4 * np.sign(np.eye(4))
            slightly_off[3] = 0, 0, 0, 1
            np.savetxt(str(stem) + ".pose.txt", slightly_off)
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


def test_sevenscenes_lists_files_not_numbers(tmp_path: Path) -> None:
    root = write_sevenscenes(tmp_path / "scene")
    assert [frame.frame.name for frame in opened(root, split="train")] == [
        f"seq-01/frame-{number:06d}" for number in (0, 7, 30)
    ]
    assert len(opened(root)) == 4 and len(opened(root, split="test")) == len(opened(root / "seq-02")) == 1
    frame = opened(root / "seq-01")[2].frame
    assert frame.stamp_ns == 1_000_000_000 and frame.camera is not None and frame.camera.same_as(COLOUR_CAMERA)
    np.testing.assert_array_equal(frame.image, picture(30, 640, 480))


def test_sevenscenes_depth_is_registered_and_the_pose_is_the_colour_cameras(tmp_path: Path) -> None:
    posed = opened(write_sevenscenes(tmp_path / "scene"))[1]
    rotation = posed.map_T_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    # The colour camera sits 25 mm to the right of the depth camera.
    moved = se3.inverse(pose(7)) @ posed.map_T_camera
    np.testing.assert_allclose(moved[:3, 3], [0.025, 0, 0], atol=1e-3)
    depth = posed.frame.depth
    assert depth is not None
    # 65535 is a hole. Its left edge, column 300 of the depth camera, is seen where geometry says.
    edge = 525 * ((300 - 320) / 585 * 2 - 0.025) / 2 + 320
    row = depth[240]
    assert (row[int(edge) + 3 : int(edge) + 60] == 0).all()
    assert np.isclose(row[100 : int(edge) - 2].max(), 2.0) and (row[100 : int(edge) - 2] > 0).mean() > 0.95
    assert (depth > 0).mean() < (525 / 585) ** 2
    assert opened(tmp_path / "scene", use_depth=False)[0].frame.depth is None


def test_sevenscenes_names_what_is_missing_or_malformed(tmp_path: Path) -> None:
    root = write_sevenscenes(tmp_path / "scene")
    first = root / "seq-01" / "frame-000000.pose.txt"
    first.write_text("1 2 3")
    with pytest.raises(DatasetError, match=r"frame-000000\.pose\.txt: expected 16 finite numbers.*got 3"):
        opened(root)[0]
    first.write_text("1 0 0 0  0 1 0 0  0 0 nan 0  0 0 0 1")
    with pytest.raises(DatasetError, match=r"frame-000000\.pose\.txt"):
        opened(root)[0]
    first.unlink()
    with pytest.raises(DatasetError, match=r"frame-000000\.pose\.txt cannot be read"):
        opened(root)[0]
    picture_file = root / "seq-01" / "frame-000007.color.png"
    picture_file.write_bytes(picture_file.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"frame-000007\.color\.png.*truncated"):
        opened(root)[1]
    (root / "TestSplit.txt").write_text("sequence1\nsequence9\n")
    with pytest.raises(DatasetError, match=r"TestSplit\.txt, line 2.*seq-09"):
        opened(root, split="test")
    with pytest.raises(DatasetError, match=r"seq-01 has no TrainSplit\.txt"):
        opened(root / "seq-01", split="train")
    with pytest.raises(DatasetError, match="train or test"):
        opened(root, split="val")


real = pytest.mark.skipif(not (DATA / "sevenscenes_mini").exists(), reason="../shared/data is not there")


@real
def test_real_sevenscenes_counts() -> None:
    mini = DATA / "sevenscenes_mini"
    assert len(opened(mini, split="train")) == 84
    assert len(opened(mini, split="test")) == 80
    replay = opened(DATA / "sevenscenes_replay")
    assert len(replay) == 200
    assert replay[0].frame.stamp_ns == 532 * 10**9 // 30


def disagreement(a: PosedFrame, b: PosedFrame) -> float:
    """Median |depth of a seen from b - depth of b| in metres, over surfaces that both see."""
    assert a.frame.depth is not None and b.frame.depth is not None
    assert a.frame.camera is not None and b.frame.camera is not None
    points = a.frame.camera.backproject(a.frame.depth)[valid_depth(a.frame.depth)][::7]
    points = se3.apply(se3.inverse(b.map_T_camera) @ a.map_T_camera, points)
    xy = b.frame.camera.project(points)
    inside = np.isfinite(xy).all(axis=1) & (xy > 0).all(axis=1) & (xy < [639, 479]).all(axis=1)
    u, v = np.rint(xy[inside]).astype(int).T
    measured = b.frame.depth[v, u]
    return float(np.median(np.abs(measured - points[inside, 2])[measured > 0]))


def edge_agreement(posed: PosedFrame) -> float:
    """Share of depth edges that lie within 2 px of an edge of the colour image."""
    assert posed.frame.depth is not None
    depth = cv2.medianBlur(posed.frame.depth, 5)
    lowest = cv2.erode(np.where(depth > 0, depth, 99).astype(np.float32), np.ones((3, 3)))
    steps = (cv2.dilate(depth, np.ones((3, 3))) - lowest > 0.15) & (lowest < 90)
    grey = cv2.cvtColor(posed.frame.image, cv2.COLOR_RGB2GRAY)
    edges = cv2.dilate(cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.2), 40, 100), np.ones((5, 5), np.uint8)) > 0
    return float(edges[steps].mean())


@real
def test_real_sevenscenes_depth_lies_on_the_colour_image() -> None:
    mini = DATA / "sevenscenes_mini"
    registered, raw = (
        opened(mini, split="train"),
        opened(mini, split="train", depth_camera=COLOUR_CAMERA, colour_T_depth=np.eye(4)),
    )
    picks = range(0, 84, 12)
    with_registration = np.mean([edge_agreement(registered[i]) for i in picks])
    without = np.mean([edge_agreement(raw[i]) for i in picks])
    assert with_registration > 1.2 * without, (with_registration, without)


@real
def test_real_sevenscenes_neighbours_agree_on_the_surface() -> None:
    train = opened(DATA / "sevenscenes_mini", split="train")
    errors = [disagreement(train[i], train[i + 1]) for i in (0, 30, 60)]
    assert np.median(errors) < 0.02, errors


# TUM RGB-D


def write_tum(root: Path) -> Path:
    for i in range(5):
        write_image(root / "rgb" / f"{i}.png", picture(i, 640, 480))
        write_depth(root / "depth" / f"{i}.png", np.full((480, 640), 1.0 + i), 5000.0)
    stamps = [10.0 + 0.1 * i for i in range(5)]
    (root / "rgb.txt").write_text("# colour\n" + "".join(f"{t:.6f} rgb/{i}.png\n" for i, t in enumerate(stamps)))
    (root / "depth.txt").write_text(
        "# depth\n" + "".join(f"{t + 0.01:.6f} depth/{i}.png\n" for i, t in enumerate(stamps) if i != 2)
    )
    truth = [(10.05 + 0.1 * i, pose(i)) for i in range(4)]
    (root / "groundtruth.txt").write_text("# truth\n" + "".join(f"{t:.6f} {quaternion_line(T)}\n" for t, T in truth))
    return root


def test_tum_pairs_by_time_and_interpolates_the_truth(tmp_path: Path) -> None:
    source = opened(write_tum(tmp_path / "rgbd_dataset_freiburg2_desk"))
    # The first and the last image lie outside the ground truth.
    assert [posed.frame.name for posed in source] == ["rgb/1.png", "rgb/2.png", "rgb/3.png"]
    first, second, _ = source
    np.testing.assert_allclose(first.map_T_camera, se3.interpolate(pose(0), pose(1), 0.5), atol=1e-5)
    assert first.frame.depth is not None and np.allclose(first.frame.depth, 2.0)
    assert second.frame.depth is None
    camera = first.frame.camera
    assert camera is not None and camera.fx == 520.9 and camera.model == "plumb_bob"
    assert first.frame.stamp_ns == 10_100_000_000


def test_tum_names_what_is_wrong(tmp_path: Path) -> None:
    root = write_tum(tmp_path / "my_desk")
    with pytest.raises(DatasetError, match=r"give its calibration .--intrinsics"):
        open_source(root)
    camera = Camera.pinhole(640, 480, 500, 500, 320, 240)
    assert len(opened(root, camera=camera)) == 3
    truth = root / "groundtruth.txt"
    good = truth.read_text()
    truth.write_text(good + "1 2 3\n")
    with pytest.raises(DatasetError, match=r"groundtruth\.txt, line 6: expected 'timestamp tx"):
        open_source(root, camera=camera)
    truth.write_text(good + "11.0 0 0 0 0 0 0 0\n")
    with pytest.raises(DatasetError, match=r"line 6: quaternion is zero"):
        open_source(root, camera=camera)
    truth.write_text(good.replace("10.", "99."))
    with pytest.raises(DatasetError, match="none of 5 images"):
        open_source(root, camera=camera)
    truth.unlink()
    with pytest.raises(DatasetError, match=r"groundtruth\.txt cannot be read"):
        open_source(root, camera=camera)


# COLMAP

MODEL_CAMERA = Camera(
    64,
    48,
    np.array([[60.0, 0, 31.5], [0, 62.0, 23.5], [0, 0, 1]]),
    "plumb_bob",
    np.array([0.05, -0.01, 0.001, 0.002, 0]),
)


def colmap_scene() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """World points, camera_T_world of two images, and their exact observations in COLMAP's pixels."""
    points = np.array([[0.1, 0.2, 3.0], [-0.4, 0.1, 2.0], [0.6, -0.3, 4.0]])
    poses = [se3.exp([0, 0, 0, 0, 0, 0]), se3.exp([0.1, 0, 0.2, 0.02, -0.03, 0.1])]
    return points, poses, [MODEL_CAMERA.project(se3.apply(T, points)) + 0.5 for T in poses]


def write_colmap(root: Path, binary: bool) -> Path:
    points, poses, observed = colmap_scene()
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    parameters = [60.0, 62.0, 32.0, 24.0, 0.05, -0.01, 0.001, 0.002]
    rows = [(se3.quaternion(T)[[3, 0, 1, 2]], T[:3, 3]) for T in poses]
    if binary:
        (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ8d", 1, 7, 4, 64, 48, *parameters))
        data = struct.pack("<Q", 2)
        for i, (q, t) in enumerate(rows):
            data += struct.pack("<i7di", i + 1, *q, *t, 7) + f"a/{i}.png".encode() + b"\0" + struct.pack("<Q", 4)
            for number, xy in enumerate(observed[i]):
                data += struct.pack("<ddq", *xy, 100 + number)
            data += struct.pack("<ddq", 5.0, 5.0, -1)
        (model / "images.bin").write_bytes(data)
        data = struct.pack("<Q", 3)
        for number, xyz in enumerate(points):
            data += struct.pack("<Q3d3BdQ4i", 100 + number, *xyz, 1, 2, 3, 0.5, 2, 1, 0, 2, 0)
        (model / "points3D.bin").write_bytes(data)
    else:
        words = " ".join(map(str, parameters))
        (model / "cameras.txt").write_text(f"# cameras\n7 OPENCV 64 48 {words}\n")
        text = "# images\n"
        for i, (q, t) in enumerate(rows):
            text += f"{i + 1} {' '.join(map(repr, map(float, (*q, *t))))} 7 a/{i}.png\n"
            text += "".join(f"{x} {y} {100 + number} " for number, (x, y) in enumerate(observed[i])) + "5 5 -1\n"
        (model / "images.txt").write_text(text)
        (model / "points3D.txt").write_text(
            "# points\n" + "".join(f"{100 + i} {x} {y} {z} 1 2 3 0.5 1 0 2 0\n" for i, (x, y, z) in enumerate(points))
        )
    for i in range(2):
        write_image(root / "images" / "a" / f"{i}.png", picture(i))
    return root


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_models_in_this_packages_conventions(tmp_path: Path, binary: bool) -> None:
    source = opened(write_colmap(tmp_path / "model", binary))
    points, poses, _ = colmap_scene()
    assert [posed.frame.name for posed in source] == ["a/0.png", "a/1.png"]
    for i, posed in enumerate(source):
        np.testing.assert_allclose(posed.map_T_camera, se3.inverse(poses[i]), atol=1e-9)
        camera, depth = posed.frame.camera, posed.frame.depth
        assert camera is not None and camera.same_as(MODEL_CAMERA) and depth is not None
        np.testing.assert_array_equal(posed.frame.image, picture(i))
        in_camera = se3.apply(poses[i], points)
        assert (depth > 0).sum() == 27
        for (u, v), z in zip(np.rint(camera.project(in_camera)).astype(int), in_camera[:, 2], strict=True):
            np.testing.assert_allclose(depth[v - 1 : v + 2, u - 1 : u + 2], z, rtol=1e-6)


def test_colmap_scale_and_resized_images(tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "model", binary=False)
    write_image(root / "images" / "a" / "1.png", picture(1, 128, 96))
    posed = opened(root, scale=2.0)[1]
    points, poses, _ = colmap_scene()
    np.testing.assert_allclose(posed.map_T_camera[:3, 3], 2 * se3.inverse(poses[1])[:3, 3], atol=1e-9)
    assert posed.frame.camera is not None and posed.frame.depth is not None
    u, v = np.rint(posed.frame.camera.project(se3.apply(poses[1], points))[0]).astype(int)
    np.testing.assert_allclose(posed.frame.depth[v, u], 2 * se3.apply(poses[1], points)[0, 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7 SIMPLE_PINHOLE 64 48 60 32 24", ("none", [])),
        ("7 PINHOLE 64 48 60 62 32 24", ("none", [])),
        ("7 SIMPLE_RADIAL 64 48 60 32 24 0.1", ("plumb_bob", [0.1, 0, 0, 0, 0])),
        ("7 RADIAL 64 48 60 32 24 0.1 0.2", ("plumb_bob", [0.1, 0.2, 0, 0, 0])),
        ("7 OPENCV_FISHEYE 64 48 60 62 32 24 .1 .2 .3 .4", ("equidistant", [0.1, 0.2, 0.3, 0.4])),
        ("7 FULL_OPENCV 64 48 60 62 32 24 1 2 3 4 5 6 7 8", ("rational_polynomial", [1, 2, 3, 4, 5, 6, 7, 8])),
    ],
)
def test_colmap_camera_models(tmp_path: Path, line: str, expected: tuple[str, list[float]]) -> None:
    root = write_colmap(tmp_path / "model", binary=False)
    (root / "sparse" / "0" / "cameras.txt").write_text(line)
    camera = opened(root, use_depth=False)[0].frame.camera
    assert camera is not None and (camera.model, camera.D.tolist()) == expected
    assert (camera.fx, camera.cx, camera.cy) == (60, 31.5, 23.5)


def test_colmap_names_what_is_wrong(tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "text", binary=False)
    model = root / "sparse" / "0"
    cameras = (model / "cameras.txt").read_text()
    for text, match in (
        ("7 FOV 64 48 1 2 3 4 5", "line 1: camera model FOV"),
        ("7 OPENCV 64 48 1 2", "line 1: OPENCV has parameters"),
        ("7 OPENCV", "line 1: expected 'id model"),
        (cameras.replace("60.0", "-60.0"), "line 2: focal"),
        (cameras.replace("\n7", "\n8"), "camera 7, which is not in cameras"),
    ):
        (model / "cameras.txt").write_text(text)
        with pytest.raises(DatasetError, match=match):
            open_source(root)
    (model / "cameras.txt").write_text(cameras)
    (root / "images" / "a" / "0.png").unlink()
    with pytest.raises(DatasetError, match=r"a/0\.png cannot be read"):
        opened(root)[0]
    (model / "points3D.txt").unlink()
    with pytest.raises(DatasetError, match=r"points3D\.txt cannot be read"):
        open_source(root)
    binary = write_colmap(tmp_path / "binary", binary=True)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        file = binary / "sparse" / "0" / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) - 30])
        with pytest.raises(DatasetError, match=rf"{name} is truncated"):
            open_source(binary)
        file.write_bytes(whole)


# Images and poses


def test_posed_images_by_name_with_depth(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / "images" / f"view {i}.png".replace(" ", "_"), picture(i))
    write_depth(tmp_path / "depth" / "view_1.png", np.full((48, 64), 1.25))
    lines = [
        f"view_{i}.png " + " ".join(map(str, (*se3.quaternion(pose(i))[[3, 0, 1, 2]], *pose(i)[:3, 3])))
        for i in range(2)
    ]
    (tmp_path / "poses.txt").write_text("# name qw qx qy qz tx ty tz\n" + "\n".join(lines))
    (tmp_path / "intrinsics.txt").write_text("64 48 60 61 32 24\n")
    source = opened(tmp_path)
    for i, posed in enumerate(source):
        np.testing.assert_allclose(posed.map_T_camera, pose(i), atol=1e-9)
        np.testing.assert_array_equal(posed.frame.image, picture(i))
        assert posed.frame.camera is not None and posed.frame.camera.fy == 61
    assert source[0].frame.depth is None
    np.testing.assert_array_equal(source[1].frame.depth, np.full((48, 64), 1.25, np.float32))
    inverse = opened(tmp_path, world_to_camera=True)
    np.testing.assert_allclose(inverse[1].map_T_camera, se3.inverse(pose(1)), atol=1e-9)


def test_posed_images_by_stamp_with_ros_calibration(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "12.500000.png", picture(0))
    (tmp_path / "poses.txt").write_text(f"12.500000 {quaternion_line(pose(3))}\n")
    (tmp_path / "camera.yaml").write_text(
        "image_width: 64\nimage_height: 48\ncamera_name: c\ncamera_matrix: {rows: 3, cols: 3, data: "
        "[60, 0, 32, 0, 61, 24, 0, 0, 1]}\ndistortion_model: equidistant\n"
        "distortion_coefficients: {rows: 1, cols: 4, data: [0.1, 0.2, 0.3, 0.4]}\n"
    )
    (posed,) = opened(tmp_path)
    assert posed.frame.stamp_ns == 12_500_000_000
    np.testing.assert_allclose(posed.map_T_camera, pose(3), atol=1e-9)
    assert posed.frame.camera is not None and posed.frame.camera.model == "equidistant"


def test_posed_images_with_intrinsics_for_each(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / "seq0" / f"{i}.png", picture(i))
    (tmp_path / "poses.txt").write_text("".join(f"seq0/{i}.png 1 0 0 0 0 0 {i}\n" for i in range(2)))
    (tmp_path / "intrinsics.txt").write_text("seq0/0.png 60 60 32 24 64 48\nseq0/1.png 70 70 32 24 64 48\n")
    assert [posed.frame.camera.fx for posed in opened(tmp_path) if posed.frame.camera] == [60, 70]


def test_posed_images_names_what_is_wrong(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "0.png", picture(0))
    poses, intrinsics = tmp_path / "poses.txt", tmp_path / "intrinsics.txt"
    for text, match in (
        ("# nothing\n", r"poses\.txt is empty"),
        ("\n0.png 1 0 0\n", "line 2: expected 'name qw"),
        ("9.png 1 0 0 0 0 0 0\n", r"line 1: there is no image '9\.png'"),
        ("0.png 0 0 0 0 0 0 0\n", "line 1: quaternion is zero"),
        ("0.png 1 0 0 0 0 0 nan\n", "line 1: .*NaN"),
        ("0.png 1 0 0 0 0 0 far\n", "line 1: .*far"),
    ):
        poses.write_text(text)
        with pytest.raises(DatasetError, match=match):
            open_source(tmp_path)
    poses.write_text("0.png 1 0 0 0 0 0 0\n")
    assert opened(tmp_path)[0].frame.camera is None
    for text, match in (
        ("64 48 60\n", "line 1"),
        ("64 48 -60 60 32 24", "line 1: focal"),
        ("1.png 6 6 3 2 64 48", "0.png"),
    ):
        intrinsics.write_text(text)
        with pytest.raises(DatasetError, match=match):
            opened(tmp_path)[0]
    (tmp_path / "camera.yaml").write_text("image_width: 64\n")
    with pytest.raises(DatasetError, match=r"camera\.yaml is no ROS camera calibration"):
        open_source(tmp_path)


# Rosbags


def write_bag(path: Path, count: int = 10, topic: bool = False) -> Path:
    """A camera on a robot: map -> odom -> base -> camera; images run on after the last pose."""
    camera = Camera.pinhole(64, 48, 60, 60, 32, 24)
    mount = se3.exp([0.2, 0, 0.5, -1.2, 1.2, -1.2])
    with BagWriter(path) as bag:
        bag.transform("base", "camera", mount, START, static=True)
        for i in range(count):
            now = START + i * PERIOD
            bag.image("/camera/image_raw", picture(i), now + PERIOD // 2, "camera")
            bag.camera_info("/camera/camera_info", camera, now + PERIOD // 2, "camera")
            if topic:
                bag.odometry("/truth", pose(i), now, "world", "base")
            else:
                bag.transform("map", "odom", pose(1), now)
                bag.transform("odom", "base", se3.inverse(pose(1)) @ pose(i), now)
    return path


@pytest.mark.parametrize("topic", [False, True])
def test_rosbag_poses_come_from_tf_or_a_topic(tmp_path: Path, topic: bool) -> None:
    mount = se3.exp([0.2, 0, 0.5, -1.2, 1.2, -1.2])
    path = write_bag(tmp_path / "bag", topic=topic)
    source: Source = open_source(path, pose_topic="/truth") if topic else open_source(path)
    frames = list(source)
    assert [posed.frame.stamp_ns for posed in frames] == [START + i * PERIOD + PERIOD // 2 for i in range(9)]
    for i, posed in enumerate(frames):
        between = se3.interpolate(pose(i), pose(i + 1), 0.5) @ mount
        translation, rotation = se3.pose_error(posed.map_T_camera, between)
        assert translation < 1e-3 and rotation < 0.01
        np.testing.assert_array_equal(posed.frame.image, picture(i))
    assert len(list(source)) == 9


def test_rosbag_without_usable_poses_says_so(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", topic=True)
    with pytest.raises(DatasetError, match=r"TF \(it has base, camera\).*give map_frame"):
        open_source(path)
    with pytest.raises(DatasetError, match="none of 10 images has a pose in 'mars'.*'mars' is not in the"):
        list(open_source(path, map_frame="mars"))
    with pytest.raises(DatasetError, match="are in 'world', not in 'mars'"):
        open_source(path, pose_topic="/truth", map_frame="mars")
    with pytest.raises(DatasetError, match="sensor_msgs/msg/Image: use one of geometry_msgs"):
        open_source(path, pose_topic="/camera/image_raw")
    with pytest.raises(BagError, match="/nowhere"):
        open_source(path, pose_topic="/nowhere")


def test_rosbag_does_not_invent_poses_across_a_gap(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for i in range(20):
            now = START + i * PERIOD
            bag.image("/camera/image_raw", picture(i), now, "camera")
            if not 5 < i < 15:
                bag.transform("map", "camera", pose(i), now)
    taken = [(posed.frame.stamp_ns - START) // PERIOD for posed in open_source(tmp_path / "bag")]
    assert taken == [*range(6), *range(15, 20)]
    assert len(list(open_source(tmp_path / "bag", longest_gap_s=2.0))) == 20


@real
def test_real_sevenscenes_through_a_bag_is_the_same(tmp_path: Path) -> None:
    """What the live replay does: frames to a bag and back, exact but for JPEG and millimetres."""
    replay = opened(DATA / "sevenscenes_replay")
    with BagWriter(tmp_path / "replay.mcap") as bag:
        for i in range(0, 30, 10):
            posed = replay[i]
            assert posed.frame.camera is not None and posed.frame.depth is not None
            now = posed.frame.stamp_ns
            bag.transform("map", "camera", posed.map_T_camera, now)
            bag.camera_info("/camera/camera_info", posed.frame.camera, now, "camera")
            bag.image("/camera/image_raw", posed.frame.image, now, "camera")
            bag.depth("/camera/depth", posed.frame.depth, now, "camera")
    back = list(open_source(tmp_path / "replay.mcap"))
    assert len(back) == 3
    for i, posed in enumerate(back):
        original = replay[10 * i]
        np.testing.assert_allclose(posed.map_T_camera, original.map_T_camera, atol=1e-9)
        np.testing.assert_array_equal(posed.frame.image, original.frame.image)
        np.testing.assert_allclose(posed.frame.depth, original.frame.depth, atol=0.00051)
        assert posed.frame.camera is not None and posed.frame.camera.same_as(COLOUR_CAMERA)
    assert not DEPTH_CAMERA.same_as(COLOUR_CAMERA)
