"""The Rerun viewer's library, where it is installed, and what its recordings share."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3

#: Images in recordings are this wide at most.
IMAGE_WIDTH = 480


def rerun_sdk(wanted: object) -> Any:
    """The module ``rerun``.

    Args:
        wanted: what it is needed for, for the message.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise UserError(
            f"{wanted}: the Rerun SDK is missing. `pip install 'rerun-sdk>=0.27,<0.28'` brings it, and NumPy 2 with "
            "it, which Ubuntu 22.04's and 24.04's ROS packages do not work with: use another environment"
        ) from error
    return rerun


def frustum(map_T_camera: NDArray[np.float64], depth_m: float, aspect: float = 0.75) -> NDArray[np.float64]:
    """The edges (8, 2, 3) of a small pyramid that stands for a camera, in the map frame."""
    corners = depth_m * np.array([[x, y * aspect, 1.2] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    edges = np.concatenate(
        [np.stack([np.zeros((4, 3)), corners], axis=1), np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)]
    )
    return se3.apply(map_T_camera, edges)


def shrunk(frame: Frame) -> Frame:
    """A frame without its depth, no wider than recordings need."""
    width, height = IMAGE_WIDTH, round(frame.height * IMAGE_WIDTH / frame.width)
    if frame.width <= width:
        return Frame(frame.image, frame.camera, frame.stamp_ns)
    image = np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Frame(image, None if frame.camera is None else frame.camera.resized(width, height), frame.stamp_ns)
