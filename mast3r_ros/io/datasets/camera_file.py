"""Calibration files as tools write them.

ROS's camera_calibration (camera_calibration_parsers' YAML), a camera_info message as ``ros2 topic echo`` or
``rostopic echo`` prints it, OpenCV's FileStorage (YAML, XML, JSON), Kalibr's camchain.yaml, EuRoC's sensor.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import yaml

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.io import codec
from mast3r_ros.io.datasets.base import read_text
from mast3r_ros.plain_yaml import read_documents

EXPECTED = (
    "expected the file of ROS's camera_calibration, the output of ros2 topic echo --once .../camera_info, OpenCV's "
    "(camera_matrix, distortion_coefficients, image_width, image_height), or Kalibr's camchain.yaml"
)
#: Names under which OpenCV programs keep K, D and the image size; case and underscores do not count.
_OPENCV_K = ("cameramatrix", "k", "intrinsicmatrix", "intrinsics")
_OPENCV_D = ("distortioncoefficients", "distcoeffs", "distcoeff", "distortion", "d")
_OPENCV_SIZE = (("imagewidth", "width"), ("imageheight", "height"), ("imagesize", "size"))

UNKNOWN = "is no ROS camera calibration, nor one of OpenCV or Kalibr"

Fields = Mapping[str, Any]


#: OpenCV's parser calls itself for every level, and tens of thousands end the process; its own files have a handful.
#: Each level has one of these characters, or begins further to the right.
LEVEL, MOST_LEVELS = re.compile(r"[\[{<]|- |\n +"), 10_000
#: How what is no calibration fails: by infinite numbers, nests too deep, and OpenCV's parser by SystemError.
UNREADABLE = (
    *(yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError),
    *(cv2.error, SystemError),
)


class _UnknownFile(CalibrationError):
    """A file of which nobody knows what it is."""


def read_camera(file: Path, topic: str = "") -> Camera:
    """The one camera of a calibration file.

    Args:
        file: ``camchain.yaml#cam1`` names one camera of a file with several.
        topic: the images' topic; picks the camera of a Kalibr file that was calibrated with it.

    Raises:
        DatasetError: if the file cannot be read, is something else, or holds several cameras of which none is named.
    """
    path, _, name = (str(file), "", "") if file.exists() else str(file).rpartition("#")
    path, name = (path, name) if path else (str(file), "")
    text = read_text(Path(path)).lstrip("\ufeff")
    try:
        if "opencv-matrix" in text or "opencv_storage" in text:
            camera = _opencv(text)
        else:
            camera = _of_fields(_first_document(text), name, topic)
    except UNREADABLE as error:
        raise DatasetError(f"{path} {UNKNOWN} ({type(error).__name__} {error}): {EXPECTED}") from error
    except _UnknownFile as error:
        raise DatasetError(f"{path} {UNKNOWN} ({error}): {EXPECTED}") from error
    except CalibrationError as error:
        raise DatasetError(f"{path}: {error}") from error
    if camera is None or codec.is_placeholder(camera):
        raise DatasetError(f"{path}: the camera is not calibrated (its matrix is zero or a placeholder)")
    return camera


def _first_document(text: str) -> Fields:
    """``topic echo`` ends every message with ---."""
    document = next((found for found in read_documents(text) if found is not None), None)
    if not isinstance(document, Mapping):
        raise _UnknownFile("it has no keys")
    return document


def _of_fields(fields: Fields, name: str, topic: str) -> Camera | None:
    """By the keys that only one kind of file has."""
    if "camera_matrix" in fields:
        return _ros_file(fields)
    if "k" in fields or "K" in fields:
        return _message(fields)
    if "intrinsics" in fields:
        return _kalibr(fields)
    cameras = {key: value for key, value in fields.items() if isinstance(value, Mapping) and "intrinsics" in value}
    if not cameras:
        raise _UnknownFile(f"it has {', '.join(map(str, fields)) or 'nothing'}")
    return _kalibr(cameras[_named(cameras, name, topic)])


def _named(cameras: Mapping[str, Fields], name: str, topic: str) -> str:
    """Key of the camera that is meant."""
    of_topic = [key for key, camera in cameras.items() if topic and camera.get("rostopic") == topic]
    key = name or (of_topic[0] if len(of_topic) == 1 else "") or (next(iter(cameras)) if len(cameras) == 1 else "")
    if key not in cameras:
        has = f"holds the cameras {', '.join(cameras)}"
        raise CalibrationError(f"{has}, not {key}" if key else f"{has}: name one as FILE#{next(iter(cameras))}")
    return key


def _ros_file(fields: Fields) -> Camera | None:
    # ROS 1's camera_calibration wrote the distortion model as camera_model for a while.
    model = fields.get("distortion_model") or fields.get("camera_model") or "plumb_bob"
    return codec.camera_from_info(
        SimpleNamespace(
            width=fields["image_width"],
            height=fields["image_height"],
            distortion_model="plumb_bob" if model == "pinhole" else model,
            d=fields["distortion_coefficients"]["data"],
            k=fields["camera_matrix"]["data"],
            p=fields.get("projection_matrix", {}).get("data", [0.0] * 12),
        )
    )


def _message(fields: Fields) -> Camera | None:
    """A camera_info message, of ROS 2 (k, d, p) or ROS 1 (K, D, P)."""
    lower = {str(key).lower(): value for key, value in fields.items()}
    roi = lower.get("roi")
    return codec.camera_from_info(
        SimpleNamespace(
            width=lower["width"],
            height=lower["height"],
            distortion_model=lower.get("distortion_model", ""),
            d=lower.get("d") or [],
            k=lower["k"],
            p=lower.get("p") or [0.0] * 12,
            binning_x=lower.get("binning_x", 0),
            binning_y=lower.get("binning_y", 0),
            roi=None if roi is None else SimpleNamespace(**roi),
        )
    )


def _kalibr(fields: Fields) -> Camera:
    """One camera of Kalibr (distortion_coeffs) or EuRoC (distortion_coefficients)."""
    kind = fields.get("camera_model", "pinhole")
    if kind != "pinhole":
        raise CalibrationError(f"camera_model {kind} is not supported: calibrate with Kalibr's pinhole models")
    model = str(fields.get("distortion_model", "none"))
    model = {"radial-tangential": "plumb_bob", "equi": "equidistant"}.get(model, model)
    D = fields.get("distortion_coeffs", fields.get("distortion_coefficients")) or []
    width, height = fields["resolution"]
    fx, fy, cx, cy = fields["intrinsics"]
    return Camera(int(width), int(height), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), model, np.array(D, float))


def _two_numbers(node: Any) -> list[int]:
    """A size as a sequence or as a matrix."""
    values = node.mat().reshape(-1) if node.isMap() else [node.at(i).real() for i in range(node.size())]
    return [int(value) for value in values]


def _check_levels(text: str) -> None:
    marks = LEVEL.findall(text)
    deepest = sum(mark[0] != "\n" for mark in marks) + max((len(mark) for mark in marks), default=0)
    if deepest > MOST_LEVELS:
        raise _UnknownFile(f"it may be nested {deepest} levels deep")


def _opencv(text: str) -> Camera | None:
    _check_levels(text)
    storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    keys = storage.root().keys()
    nodes = {key.lower().replace("_", ""): storage.getNode(key) for key in keys}

    def first(names: tuple[str, ...], read: Callable[[Any], Any]) -> Any:
        return next((read(nodes[name]) for name in names if name in nodes), None)

    K, D = first(_OPENCV_K, lambda node: node.mat()), first(_OPENCV_D, lambda node: node.mat())
    if K is None or np.size(K) != 9:
        raise _UnknownFile(f"it has {', '.join(keys)}, no camera matrix")
    width, height = (first(names, lambda node: int(node.real())) for names in _OPENCV_SIZE[:2])
    size = first(_OPENCV_SIZE[2], _two_numbers)
    if width is None and size and len(size) == 2:
        width, height = size
    if not width or not height:
        raise CalibrationError("it does not say the image's size: add the lines image_width: W and image_height: H")
    fisheye = bool(first(("fisheyemodel", "fisheye"), lambda node: node.real()))
    coefficients = np.zeros(0) if D is None else np.asarray(D, dtype=np.float64).reshape(-1)
    return Camera(width, height, np.asarray(K), "equidistant" if fisheye else "plumb_bob", coefficients)
