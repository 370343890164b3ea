"""COLMAP's camera models as cameras of ROS."""

from __future__ import annotations

import numpy as np

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera

#: Model name by COLMAP's number, with its parameters and the ROS model that they fit; "" where none fits.
MODELS = {
    0: ("SIMPLE_PINHOLE", "f cx cy", "none"),
    1: ("PINHOLE", "fx fy cx cy", "none"),
    2: ("SIMPLE_RADIAL", "f cx cy k1", "plumb_bob"),
    3: ("RADIAL", "f cx cy k1 k2", "plumb_bob"),
    4: ("OPENCV", "fx fy cx cy k1 k2 p1 p2", "plumb_bob"),
    5: ("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4", "equidistant"),
    6: ("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6", "rational_polynomial"),
    7: ("FOV", "fx fy cx cy omega", ""),
    8: ("SIMPLE_RADIAL_FISHEYE", "f cx cy k1", "equidistant"),
    9: ("RADIAL_FISHEYE", "f cx cy k1 k2", "equidistant"),
    10: ("THIN_PRISM_FISHEYE", "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1", ""),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3", ""),
    12: ("SIMPLE_DIVISION", "f cx cy k", ""),
    13: ("DIVISION", "fx fy cx cy k", ""),
    14: ("SIMPLE_FISHEYE", "f cx cy", "equidistant"),
    15: ("FISHEYE", "fx fy cx cy", "equidistant"),
    16: ("EUCM", "fx fy cx cy alpha beta", ""),
    17: ("EQUIRECTANGULAR", "w h", ""),
}
#: OpenCV's order of coefficients for the ROS models.
_ORDER = {
    "none": "",
    "plumb_bob": "k1 k2 p1 p2 k3",
    "equidistant": "k1 k2 k3 k4",
    "rational_polynomial": "k1 k2 p1 p2 k3 k4 k5 k6",
}
_BY_NAME = {name: (parameters.split(), ros_model) for name, parameters, ros_model in MODELS.values()}


def camera_of_model(where: str, model: str, width: int, height: int, parameters: list[float]) -> Camera:
    """A camera from the name and parameters of COLMAP's model; ``where`` names the file and line in errors.

    Raises:
        DatasetError: for a model that ROS has no name for, or wrong parameters.
    """
    names, ros_model = _BY_NAME.get(model, ([], ""))
    if not ros_model:
        raise DatasetError(f"{where}: camera model {model} has no ROS counterpart; undistort the images, or use OPENCV")
    if len(parameters) != len(names):
        raise DatasetError(f"{where}: {model} has parameters '{' '.join(names)}', got {len(parameters)} values")
    value = dict(zip(names, parameters, strict=True))
    fx, fy = value.get("fx", value.get("f", 0.0)), value.get("fy", value.get("f", 0.0))
    K = np.array([[fx, 0, value["cx"] - 0.5], [0, fy, value["cy"] - 0.5], [0, 0, 1]])
    D = np.array([value.get(name, 0.0) for name in _ORDER[ros_model].split()])
    try:
        return Camera(width, height, K, ros_model, D)
    except CalibrationError as error:
        raise DatasetError(f"{where}: {error}") from error
