"""Calibration files as other tools write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.io.datasets.camera_file import read_camera

K = np.array([[500.0, 0, 321], [0, 501, 242], [0, 0, 1]])
D = [-0.1, 0.02, 0.001, -0.002, 0.01]
FISHEYE = [0.1, 0.02, 0.003, 0.0004]

ECHO_ROS2 = """header:
  stamp: {sec: 1, nanosec: 2}
  frame_id: cam
height: 480
width: 640
distortion_model: plumb_bob
d:
- -0.1
- 0.02
- 0.001
- -0.002
- 0.01
k: [500.0, 0.0, 321.0, 0.0, 501.0, 242.0, 0.0, 0.0, 1.0]
r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
p: [500.0, 0.0, 321.0, 0.0, 0.0, 501.0, 242.0, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
"""
ECHO_ROS1 = ECHO_ROS2.replace("\nd:", "\nD:").replace("\nk:", "\nK:").replace("\nr:", "\nR:").replace("\np:", "\nP:")
ROS_FILE = """image_width: 640
image_height: 480
camera_name: cam
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 321, 0, 501, 242, 0, 0, 1]}
MODEL
distortion_coefficients: {rows: 1, cols: 5, data: COEFFICIENTS}
"""
KALIBR = """cam0:
  camera_model: pinhole
  distortion_coeffs: [-0.1, 0.02, 0.001, -0.002]
  distortion_model: radtan
  intrinsics: [500, 501, 321, 242]
  resolution: [640, 480]
  rostopic: /left/image_raw
cam1:
  T_cn_cnm1: [[1, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
  camera_model: pinhole
  distortion_coeffs: [0.1, 0.02, 0.003, 0.0004]
  distortion_model: equidistant
  intrinsics: [400, 401, 320, 240]
  resolution: [640, 480]
  rostopic: /right/image_raw
"""
EUROC = """sensor_type: camera
rate_hz: 20
resolution: [640, 480]
camera_model: pinhole
intrinsics: [500, 501, 321, 242]
distortion_model: radial-tangential
distortion_coefficients: [-0.1, 0.02, 0.001, -0.002]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "camera.yaml"
    file.write_text(text)
    return file


def ros_file(model: str, coefficients: object) -> str:
    return ROS_FILE.replace("MODEL", model).replace("COEFFICIENTS", str(coefficients))


@pytest.mark.parametrize(
    ("text", "model", "coefficients"),
    [
        (ECHO_ROS2, "plumb_bob", D),
        (ECHO_ROS1, "plumb_bob", D),
        ("\ufeff" + ECHO_ROS2, "plumb_bob", D),
        (ros_file("distortion_model: plumb_bob", D), "plumb_bob", D),
        (ros_file("camera_model: fisheye", FISHEYE), "equidistant", FISHEYE),
        (ros_file("camera_model: plumb_bob", D), "plumb_bob", D),
        (ros_file("distortion_model: equidistant", [*FISHEYE, 0]), "equidistant", FISHEYE),
        (ros_file("distortion_model: equidistant", []), "equidistant", [0] * 4),
        (EUROC, "plumb_bob", D[:4]),
        (KALIBR.split("cam1:")[0], "plumb_bob", D[:4]),
    ],
)
def test_files_of_ros_and_kalibr(tmp_path: Path, text: str, model: str, coefficients: list[float]) -> None:
    camera = read_camera(written(tmp_path, text))
    np.testing.assert_array_equal(camera.K, K)
    assert (camera.width, camera.height, camera.model) == (640, 480, model)
    np.testing.assert_array_equal(camera.D, coefficients)


def opencv_file(file: Path, fields: dict[str, object]) -> Path:
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    for name, value in fields.items():
        if isinstance(value, list):
            storage.startWriteStruct(name, cv2.FileNode_SEQ)
            for number in value:
                storage.write("", number)
            storage.endWriteStruct()
        else:
            storage.write(name, value)
    storage.release()
    return file


@pytest.mark.parametrize("ending", ["yml", "xml", "json"])
@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"image_width": 640, "image_height": 480, "camera_matrix": K, "distortion_coefficients": D}, "plumb_bob"),
        ({"imageSize": [640, 480], "cameraMatrix": K, "distCoeffs": D}, "plumb_bob"),
        ({"image_Width": 640, "image_Height": 480, "Camera_Matrix": K, "Distortion_Coefficients": D}, "plumb_bob"),
        (
            {"image_width": 640, "image_height": 480, "fisheye_model": 1, "camera_matrix": K, "D": FISHEYE},
            "equidistant",
        ),
    ],
)
def test_files_that_opencv_writes(tmp_path: Path, ending: str, fields: dict[str, object], model: str) -> None:
    matrices = {
        name: np.array([value]) if isinstance(value, list) and len(value) > 2 else value
        for name, value in fields.items()
    }
    camera = read_camera(opencv_file(tmp_path / f"out.{ending}", matrices))
    np.testing.assert_array_equal(camera.K, K)
    assert (camera.width, camera.height, camera.model) == (640, 480, model)
    np.testing.assert_array_equal(camera.D, D if model == "plumb_bob" else FISHEYE)


def test_one_camera_of_several_is_named_or_known_by_its_topic(tmp_path: Path) -> None:
    file = written(tmp_path, KALIBR)
    assert read_camera(Path(f"{file}#cam1")).model == "equidistant"
    assert read_camera(file, topic="/left/image_raw").fx == 500
    with pytest.raises(DatasetError, match="cam0, cam1: name one as FILE#cam0"):
        read_camera(file)
    with pytest.raises(DatasetError, match="cam0, cam1, not cam7"):
        read_camera(Path(f"{file}#cam7"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "it has a"),
        ("", "it has no keys"),
        ("- 1\n- 2\n", "it has no keys"),
        (KALIBR.split("cam1:")[0].replace("pinhole", "omni"), "camera_model omni is not supported"),
        (ECHO_ROS2.replace("500.0", "0.0").replace("501.0", "0.0"), "focal lengths"),
        (ros_file("distortion_model: equidistant", [0.1, 0, 0, 0, 0.2]), "needs 4 coefficients"),
        (ros_file("distortion_model: plumb_bob", "[oops"), "no ROS camera calibration"),
        (ECHO_ROS2.replace("500.0", "1.0").replace("501.0", "1.0"), "placeholder"),
    ],
)
def test_what_is_no_calibration_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said) as error:
        read_camera(written(tmp_path, text))
    assert "camera.yaml" in str(error.value)


def test_an_opencv_file_without_a_size_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="add the lines image_width"):
        read_camera(opencv_file(tmp_path / "a.yml", {"camera_matrix": K}))
    with pytest.raises(DatasetError, match="it has M1, no camera matrix"):
        read_camera(opencv_file(tmp_path / "b.yml", {"M1": K}))


@pytest.mark.parametrize("coefficients", [[], [0.0] * 4, [0.0] * 5])
def test_a_fisheye_without_coefficients_is_a_fisheye(coefficients: list[float]) -> None:
    camera = Camera(640, 480, K, "equidistant", np.array(coefficients))
    point = np.array([[1.0, 0.5, 1.0]])
    expected = cv2.fisheye.projectPoints(point[None], np.zeros(3), np.zeros(3), K, np.zeros(4))[0].ravel()
    np.testing.assert_allclose(camera.project(point)[0], expected, atol=1e-9)
    np.testing.assert_allclose(camera.rays(camera.project(point))[0], [1, 0.5], atol=1e-6)


@pytest.mark.parametrize("make", [lambda: [0.1] * 3, lambda: [0.1] * 5])
def test_other_numbers_of_fisheye_coefficients_are_refused(make: Callable[[], list[float]]) -> None:
    with pytest.raises(CalibrationError, match="equidistant needs 4"):
        Camera(640, 480, K, "equidistant", np.array(make()))
