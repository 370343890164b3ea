"""A camera as an array, so that features can hold it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry.distortion import COEFFICIENTS

#: Distortion models by the number that stands for them.
MODELS = tuple(COEFFICIENTS)


def packed_camera(camera: Camera | None) -> NDArray[np.float64]:
    """(12 + coefficients,): width, height, number of the distortion model, K by rows, D; (0,) where it is unknown."""
    if camera is None:
        return np.zeros(0)
    values = [camera.width, camera.height, MODELS.index(camera.model), *camera.K.ravel(), *camera.D]
    return np.array(values, dtype=np.float64)


def unpacked_camera(values: NDArray[np.float64] | None) -> Camera | None:
    """The camera of (12 + coefficients,) values of :func:`packed_camera`; None of none and of (0,)."""
    if values is None or not values.size:
        return None
    return Camera(int(values[0]), int(values[1]), values[3:12].reshape(3, 3), MODELS[int(values[2])], values[12:])
