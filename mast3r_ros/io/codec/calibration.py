"""sensor_msgs/CameraInfo -> Camera, for ROS 2 (k, d, r, p) and ROS 1 (K, D, R, P) messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError
from mast3r_ros.frames import Camera

#: An image whose aspect ratio differs from the calibration's by more than this was cropped, not resized.
SAME_ASPECT = 0.01
#: Focal lengths of real lenses in image widths: 0.1 would see 157 degrees without bending a line, 20 less than 3.
SHORTEST_FOCAL, LONGEST_FOCAL = 0.1, 20.0
#: Corners may lie where a polynomial of distortion folds back, but no more of the image than this; pixels tried a side.
MOST_WITHOUT_RAY, SAMPLED = 0.25, 8


def camera_from_info(info: Any, rectified: bool = False, image_size: tuple[int, int] | None = None) -> Camera | None:
    """Calibration of the images that a CameraInfo goes with, after its region of interest and binning.

    Args:
        info: a CameraInfo message of ROS 1 or 2, or any object with its fields.
        rectified: the images are rectified: use the intrinsics of P and no distortion.
        image_size: width and height of the image, used where the message leaves its own size 0.

    Returns:
        None if the camera is not calibrated (K is all zero, as the message's definition says).

    Raises:
        CalibrationError: for NaN, an unknown distortion model, wrong lengths, or a missing size.
    """
    K = _matrix(info, "k", (3, 3))
    P = _matrix(info, "p", (3, 4))
    if not K.any() and not (rectified and P.any()):
        return None
    width, height = int(info.width), int(info.height)
    if width < 1 or height < 1:
        if image_size is None:
            raise CalibrationError(f"camera_info has size {width}x{height}: fill in width and height")
        width, height = image_size
    if rectified:
        camera = Camera(width, height, P[:, :3] if P.any() else K)
    else:
        D = np.asarray(_field(info, "d"), dtype=np.float64).reshape(-1)
        camera = Camera(width, height, K, str(info.distortion_model), D)
    return _binned(_cropped(camera, info), info)


def fit_camera_to_image(camera: Camera, width: int, height: int) -> Camera:
    """The calibration for an image of this size: itself, or rescaled where the image was resized.

    Raises:
        CalibrationError: if the aspect ratio differs by more than 1 %: the image was cropped, and nobody knows where.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    stretch = (width / camera.width) / (height / camera.height)
    if abs(stretch - 1.0) > SAME_ASPECT:
        raise CalibrationError(
            f"the image is {width}x{height} but camera_info describes {camera.width}x{camera.height}, another aspect "
            "ratio: publish the camera_info that belongs to this image"
        )
    return camera.resized(width, height)


def is_placeholder(camera: Camera) -> bool:
    """Whether K cannot be a lens's, such as the identity that drivers publish before a camera is calibrated."""
    return camera.fx < SHORTEST_FOCAL * camera.width


def doubt_about(camera: Camera) -> str:
    """What is hard to believe about a calibration, as a sentence without its subject; empty if nothing is."""
    if is_placeholder(camera):
        return f"holds a placeholder, no calibration (fx {camera.fx:g} px for {camera.width} px wide images): not used"
    if camera.fx > LONGEST_FOCAL * camera.width:
        return (
            f"has a focal length of {camera.fx / camera.width:.0f} image widths (fx {camera.fx:g} px): is it in pixels?"
        )
    off = abs(camera.cx / camera.width - 0.5), abs(camera.cy / camera.height - 0.5)
    if max(off) > 0.25:
        return (
            f"has its principal point ({camera.cx:.0f}, {camera.cy:.0f}) far from the middle of the "
            f"{camera.width}x{camera.height} image: is K scaled or cropped already, and binning, region of interest or "
            "image size counted twice?"
        )
    if camera.model != "equidistant":  # a fisheye's picture may be round
        across, down = np.linspace(0, camera.width - 1, SAMPLED), np.linspace(0, camera.height - 1, SAMPLED)
        rays = camera.rays(np.stack(np.meshgrid(across, down), axis=-1))
        without = 1 - float(np.isfinite(rays).all(axis=1).mean())
        if without > MOST_WITHOUT_RAY:
            return (
                f"has a distortion by which {without:.0%} of the image shows nothing that a lens could: are D's right?"
            )
    return ""


def _field(info: Any, name: str) -> Any:
    return getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())


def _matrix(info: Any, name: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    values = np.asarray(_field(info, name), dtype=np.float64).reshape(-1)
    if values.size != shape[0] * shape[1]:
        raise CalibrationError(f"camera_info {name.upper()} has {values.size} numbers, expected {shape[0] * shape[1]}")
    if not np.isfinite(values).all():
        raise CalibrationError(f"camera_info {name.upper()} contains NaN or infinity: calibrate the camera")
    return values.reshape(shape)


def _cropped(camera: Camera, info: Any) -> Camera:
    """After the region of interest, which is given in full-resolution pixels; all zero means everything."""
    roi = getattr(info, "roi", None)
    if roi is None or not (roi.width and roi.height):
        return camera
    if roi.x_offset + roi.width > camera.width or roi.y_offset + roi.height > camera.height:
        raise CalibrationError(
            f"camera_info's region of interest ({roi.width}x{roi.height} at {roi.x_offset}, {roi.y_offset}) "
            f"leaves the {camera.width}x{camera.height} sensor"
        )
    K = camera.K.copy()
    K[:2, 2] -= (roi.x_offset, roi.y_offset)
    return Camera(int(roi.width), int(roi.height), K, camera.model, camera.D)


def _binned(camera: Camera, info: Any) -> Camera:
    """After binning; 0 means 1, as the message's definition says."""
    across, down = max(int(getattr(info, "binning_x", 0)), 1), max(int(getattr(info, "binning_y", 0)), 1)
    if (across, down) == (1, 1):
        return camera
    return camera.resized(camera.width // across, camera.height // down)
