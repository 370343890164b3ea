"""Files as other people and other programs write them: tables, poses, sparse models, pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import BagWriter, open_bag
from mast3r_ros.io.codec import EightBits, decode_compressed_image, decode_image
from mast3r_ros.io.codec.image_files import ImageFiles, load_image
from mast3r_ros.io.datasets import open_source
from mast3r_ros.io.datasets.base import read_pose
from mast3r_ros.io.datasets.trajectory_file import read_trajectory
from mast3r_ros.lab.datasets.query_list import QueryList, read_poses

POSE = se3.exp([1.0, -2.0, 0.5, 0.3, -0.7, 1.1])
SECOND = 10**9


def photo(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture without symmetry."""
    v, u = np.mgrid[:height, :width]
    return np.stack([u * 255 // width, v * 255 // height, (u + 2 * v) % 256], axis=-1).astype(np.uint8)


def tum_line(stamp: str, pose: np.ndarray = POSE, separator: str = " ") -> str:
    return separator.join([stamp, *(f"{x:.12f}" for x in (*pose[:3, 3], *se3.quaternion(pose)))])


# Trajectories


@pytest.mark.parametrize(
    "text",
    [
        tum_line("1.5") + "\r\n" + tum_line("2.5") + "\r\n",
        "\ufeff# a mark first\n" + tum_line("1.5") + "\n" + tum_line("2.5"),
        tum_line("1.5", separator=",") + "\n" + tum_line("2.5", separator=", "),
        tum_line("1.5", separator=";") + "\n" + tum_line("2.5", separator="\t"),
        "% MATLAB\ntimestamp tx ty tz qx qy qz qw\n" + tum_line("2.5") + "\n" + tum_line("1.5") + "\n\n\n",
    ],
)
def test_trajectories_with_other_separators_marks_and_ends(tmp_path: Path, text: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t.txt").write_text(text, encoding=encoding)
        got = read_trajectory(tmp_path / "t.txt")
        assert [stamp for stamp, _ in got] == [3 * SECOND // 2, 5 * SECOND // 2]
        np.testing.assert_allclose(got[0][1], POSE, atol=1e-9)


def test_a_header_says_the_order_of_the_columns(tmp_path: Path) -> None:
    """EuRoC's ground truth has w first, and velocities behind the pose."""
    x, y, z, w = se3.quaternion(POSE)
    values = ",".join(f"{v:.12f}" for v in (*POSE[:3, 3], w, x, y, z, 0.1, 0.2, 0.3))
    header = (
        "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], "
        "v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1]"
    )
    (tmp_path / "data.csv").write_text(f"{header}\n1403636580838555648,{values}\n1403636580843555328,{values}\n")
    got = read_trajectory(tmp_path / "data.csv")
    assert [stamp for stamp, _ in got] == [1403636580838555648, 1403636580843555328]
    np.testing.assert_allclose(got[0][1], POSE, atol=1e-9)


@pytest.mark.parametrize(
    ("stamps", "expected_ns"),
    [
        (("1305031102.175304", "1305031102.275304"), 1305031102175304000),
        (("1305031102175304000", "1305031102275304000"), 1305031102175304000),
        (("1305031102175304", "1305031102275304"), 1305031102175304000),
        (("1305031102175", "1305031102275"), 1305031102175000000),
        (("1.305031102175304000e+18", "1.305031102275304000e+18"), 1305031102175304000),
        (("100500000000", "101500000000"), 100_500_000_000),
        (("0", "1"), 0),
        (("30", "60"), 30 * SECOND),
    ],
)
def test_stamps_in_any_unit(tmp_path: Path, stamps: tuple[str, str], expected_ns: int) -> None:
    (tmp_path / "t.txt").write_text("\n".join(map(tum_line, stamps)))
    first, second = (stamp for stamp, _ in read_trajectory(tmp_path / "t.txt"))
    assert first == expected_ns and second > first


# Poses that contradict themselves


def test_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    t, (x, y, z, w) = POSE[:3, 3], se3.quaternion(POSE)
    (tmp_path / "t.txt").write_text(" ".join(map(str, (1.0, x, y, z, w, *t))))
    with pytest.raises(DatasetError, match="norm of the quaternion.*'timestamp tx ty tz qx qy qz qw'"):
        read_trajectory(tmp_path / "t.txt")
    (tmp_path / "p.txt").write_text(" ".join(map(str, ("a.jpg", *t, w, x, y, z))))
    with pytest.raises(DatasetError, match="norm of the quaternion.*'name qw qx qy qz tx ty tz'"):
        read_poses(tmp_path / "p.txt")
    # Two digits are rounded, not wrong.
    (tmp_path / "p.txt").write_text(" ".join(["a.jpg", *(f"{v:.2f}" for v in (w, x, y, z, *t))]))
    assert set(read_poses(tmp_path / "p.txt")) == {"a.jpg"}


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (POSE.T, "transposed"),
        (POSE @ np.diag([1.0, 1, -1, 1]), "mirrored"),
        (POSE @ np.diag([2.0, 2, 2, 1]), "no rotation"),
    ],
)
def test_matrices_that_are_no_motion_are_refused(tmp_path: Path, matrix: np.ndarray, match: str) -> None:
    np.savetxt(tmp_path / "pose.txt", matrix)
    with pytest.raises(DatasetError, match=match):
        read_pose(tmp_path / "pose.txt")


def test_librealsenses_names_of_distortions() -> None:
    K = np.array([[300.0, 0, 420], [0, 300, 400], [0, 0, 1]])
    assert Camera(848, 800, K, "Kannala Brandt4", np.array([0.1, 0, 0, 0])).model == "equidistant"
    assert Camera(848, 800, K, "Inverse Brown Conrady", np.array([0.1, 0, 0, 0, 0])).model == "plumb_bob"


def test_a_negative_fy_is_explained() -> None:
    with pytest.raises(CalibrationError, match=r"fy = -480 is negative.*ICL-NUIM"):
        Camera.pinhole(640, 480, 481.2, -480.0, 319.5, 239.5)


def test_icl_nuim_is_mirrored_back(tmp_path: Path) -> None:
    """The same pixels see the same points as with the data set's own fy of -480."""
    root = tmp_path / "living_room_traj2_frei_png"
    root.mkdir()
    cv2.imwrite(str(root / "1.png"), np.zeros((480, 640, 3), np.uint8))
    (root / "rgb.txt").write_text("1 1.png\n")
    (root / "groundtruth.txt").write_text(tum_line("1"))
    posed = open_source(root)[0]  # type: ignore[index]
    point = POSE @ np.array([0.2, 0.3, 2.0, 1.0])  # in the data set's mirrored world
    u, v = 481.2 * 0.1 + 319.5, -480.0 * 0.15 + 239.5
    mirrored = (point * [1, -1, 1, 1])[None, :3]
    np.testing.assert_allclose(
        posed.frame.camera.project(se3.apply(se3.inverse(posed.map_T_camera), mirrored)), [[u, v]]
    )


# Lists and names


def test_blanks_in_names(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(cv2.imencode(".jpg", photo())[1].tobytes())
    (tmp_path / "q.txt").write_text("a b.jpg PINHOLE 40 24 30 30 20 12\n")
    assert [query.name for query in QueryList(tmp_path / "q.txt", tmp_path).queries] == ["a b.jpg"]
    x, y, z, w = se3.quaternion(POSE)
    (tmp_path / "p.txt").write_text(f"a b.jpg {w} {x} {y} {z} 1 2 3\n")
    assert set(read_poses(tmp_path / "p.txt")) == {"a b.jpg"}


def test_two_images_of_one_name_have_depth_of_their_own(tmp_path: Path) -> None:
    lines = []
    for number, camera in enumerate(("cam0", "cam1")):
        (tmp_path / "images" / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / camera / "0001.png"), photo())
        (tmp_path / "depth" / camera).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "depth" / camera / "0001.png"), np.full((24, 40), 1000 + number, np.uint16))
        lines.append(f"{camera}/0001.png 1 0 0 0 {number} 0 0\n")
    (tmp_path / "poses.txt").write_text("".join(lines))
    (tmp_path / "intrinsics.txt").write_text("40 24 30 30 20 12\n")
    assert [float(posed.frame.depth[0, 0]) for posed in open_source(tmp_path)] == pytest.approx([1.0, 1.001])
    (tmp_path / "depth" / "cam1" / "0001.png").rename(tmp_path / "depth" / "0001.png")
    with pytest.raises(DatasetError, match=r"several images named 0001: put the depth of cam1/0001\.png at"):
        list(open_source(tmp_path))


def test_the_realsense_viewers_topics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Calibration lies in a folder beside the images'; depth of the other camera is not taken for registered."""
    camera = Camera.pinhole(40, 24, 30, 31, 20, 12)
    with BagWriter(tmp_path / "viewer.mcap") as bag:
        for stamp in (SECOND, 2 * SECOND):
            bag.camera_info("/device_0/sensor_1/Color_0/info/camera_info", camera, stamp, "0")
            bag.camera_info("/device_0/sensor_0/Depth_0/info/camera_info", camera, stamp, "0")
            bag.depth("/device_0/sensor_0/Depth_0/image/data", np.ones((24, 40), np.float32), stamp, "0")
            bag.image("/device_0/sensor_1/Color_0/image/data", photo(), stamp, "0")
    with open_bag(tmp_path / "viewer.mcap") as bag, caplog.at_level(logging.WARNING):
        frames = list(bag.frames())
    assert len(frames) == 2 and frames[0].camera is not None and frames[0].camera.fy == 31
    assert frames[0].depth is None and "not registered to colour" in caplog.text


# COLMAP, by COLMAP


def colmap_model(folder: Path, images: int, model: str = "SIMPLE_RADIAL") -> None:
    pycolmap = pytest.importorskip("pycolmap")
    folder.mkdir(parents=True)
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, model, 30.0, 40, 24)
    unused = pycolmap.Camera.create_from_model_name(2, "FOV", 30.0, 40, 24)
    for one in (camera, unused):
        reconstruction.add_camera_with_trivial_rig(one)
    for number in range(1, images + 1):
        image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.eye(4)[:3]))
    reconstruction.write_binary(folder)


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "FISHEYE", "SIMPLE_FISHEYE"])
def test_the_largest_of_colmaps_models_and_cameras_nobody_uses(
    tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    colmap_model(tmp_path / "sparse" / "0", 2, model)
    colmap_model(tmp_path / "sparse" / "1", 5, model)
    (tmp_path / "input").mkdir()
    for number in range(1, 6):
        cv2.imwrite(str(tmp_path / "input" / f"{number}.jpg"), photo())
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(tmp_path))
    assert len(frames) == 5 and "taken is 1 with 5 images, left out 0 with 2" in caplog.text
    camera = frames[0].frame.camera
    assert camera.model == ("equidistant" if "FISHEYE" in model else "none") and not camera.D.any()


def test_blank_lines_in_colmaps_text(tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.jpg"), photo())
    model = tmp_path / "sparse" / "0"
    (model / "cameras.txt").write_text("1 FOV 40 24 30 30 20 12 0.5\n2 PINHOLE 40 24 30 30 20 12\n")
    line = "{0} 1 0 0 0 {0} 0 0 2 {0}.jpg\n"
    text = "# images\n" + line.format(0) + "\n" + line.format(1) + "5 5 -1\n\n" + line.format(2) + "\n\n\n"
    (model / "images.txt").write_text(text)
    (model / "points3D.txt").write_text("")
    assert [posed.frame.name for posed in open_source(tmp_path)] == ["0.jpg", "1.jpg", "2.jpg"]


# Pictures


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed_everywhere_alike(tmp_path: Path, orientation: int) -> None:
    """Pillow is the witness; a calibration of the stored pixels keeps them as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), expected)
    stored, camera = ImageFiles().read(tmp_path / "a.png", Camera.pinhole(80, 48, 60, 60, 40, 24))
    np.testing.assert_array_equal(stored, photo())
    assert camera is not None and (camera.width, camera.fx) == (40, 30)
    if orientation > 4:
        turned, camera = ImageFiles().read(tmp_path / "a.png", Camera.pinhole(24, 40, 30, 30, 12, 20))
        np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_fewer_bits_than_sixteen(tmp_path: Path, bits: int) -> None:
    grey = photo()[..., 2]
    raw = grey.astype(np.uint16) << (bits - 8)
    got = decode_image(raw.tobytes(), encoding="mono16", width=40, height=24, step=80)
    np.testing.assert_array_equal(got[..., 0], grey)
    cv2.imwrite(str(tmp_path / "a.png"), raw)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png")[..., 1], grey)


def test_sixteen_bits_become_eight_in_one_way_for_a_recording(caplog: pytest.LogCaptureFixture) -> None:
    eight_bits = EightBits()
    bright = photo()[..., 2].astype(np.uint16) << 4
    first = eight_bits(bright)
    np.testing.assert_array_equal(eight_bits(bright // 4), first // 4)  # a darker image stays darker
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(eight_bits(bright << 4), first)
    assert "became brighter" in caplog.text


def test_thermal_images_are_spread_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """A room of 20 to 24 degrees in centikelvins lies in one of 256 steps of 16 bits."""
    celsius = 20 + 4 * photo()[..., 0] / 255
    raw = np.rint((celsius + 273.15) * 100).astype(np.uint16)
    eight_bits = EightBits()
    with caplog.at_level(logging.WARNING):
        got = eight_bits(raw)
    assert np.ptp(got.astype(int)) > 100 and "thermal" in caplog.text
    with caplog.at_level(logging.WARNING):
        warmer = eight_bits(raw + 20)
    assert caplog.text.count("thermal") == 1  # no new range for 0.2 degrees more, which stay visible
    np.testing.assert_allclose(warmer.astype(int) - got, 20 * 256 / 198, atol=1)


def test_what_image_transport_put_into_compressed_images() -> None:
    jpeg = cv2.imencode(".png", photo()[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_compressed_image(jpeg, "rgb8; png compressed bgr8"), photo())
    np.testing.assert_array_equal(decode_compressed_image(jpeg, "png"), photo())
    exchanged = cv2.imencode(".png", photo())[1].tobytes()  # RGB handed to a writer of BGR
    np.testing.assert_array_equal(decode_compressed_image(exchanged, "rgb8; png compressed "), photo())
    for bits in (8, 16):
        mosaic = np.empty((24, 40), np.uint8)
        mosaic[0::2, 0::2], mosaic[1::2, 1::2] = photo()[0::2, 0::2, 0], photo()[1::2, 1::2, 2]
        mosaic[0::2, 1::2], mosaic[1::2, 0::2] = photo()[0::2, 1::2, 1], photo()[1::2, 0::2, 1]
        raw = mosaic.astype(f"<u{bits // 8}") << (bits - 8)
        png = cv2.imencode(".png", raw)[1].tobytes()
        step = 40 * bits // 8
        plain = decode_image(raw.tobytes(), encoding=f"bayer_rggb{bits}", width=40, height=24, step=step)
        np.testing.assert_array_equal(decode_compressed_image(png, f"bayer_rggb{bits}; png compressed "), plain)
    colour = decode_compressed_image(jpeg, "bayer_rggb8; jpeg compressed bgr8")  # demosaiced before it was compressed
    np.testing.assert_array_equal(colour, photo())
