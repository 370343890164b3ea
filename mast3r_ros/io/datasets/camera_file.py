"""The calibration file that ROS's camera_calibration writes (camera_calibration_parsers' YAML)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import yaml

from mast3r_ros.errors import CalibrationError, DatasetError
from mast3r_ros.frames import Camera
from mast3r_ros.io.codec import camera_from_info
from mast3r_ros.io.datasets.base import read_text


def read_camera(file: Path) -> Camera:
    """The camera of a file with image_width, image_height, camera_matrix.data, distortion_model and
    distortion_coefficients.data.

    Raises:
        DatasetError: if the file cannot be read or is something else.
    """
    try:
        content = yaml.safe_load(read_text(file))
        camera = camera_from_info(
            SimpleNamespace(
                width=content["image_width"],
                height=content["image_height"],
                distortion_model=content.get("distortion_model", "plumb_bob"),
                d=content["distortion_coefficients"]["data"],
                k=content["camera_matrix"]["data"],
                p=content.get("projection_matrix", {}).get("data", [0.0] * 12),
            )
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, CalibrationError) as error:
        raise DatasetError(f"{file} is no ROS camera calibration: {type(error).__name__} {error}") from error
    if camera is None:
        raise DatasetError(f"{file}: the camera is not calibrated (its matrix is zero)")
    return camera
