"""What a camera gives: an image, its calibration, its time, and depth where there is any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CalibrationError
from mast3r_ros.geometry import distortion

Array = NDArray[np.float64]

#: Larger images are refused: no robot camera makes them, and a small damaged file can claim to be one.
MOST_PIXELS = 200_000_000


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with one of the ROS distortion models (sensor_msgs/CameraInfo, REP 104).

    Attributes:
        width, height: image size in pixels.
        K: (3, 3) intrinsics in pixels; integer coordinates are pixel centres (OpenCV convention).
        model: ``none``, ``plumb_bob``, ``rational_polynomial`` or ``equidistant``.
        D: distortion coefficients of that model, in OpenCV's order.

    Raises:
        CalibrationError: for sizes, intrinsics or distortion that cannot describe a camera.
    """

    width: int
    height: int
    K: Array
    model: str = "none"
    D: Array = None  # type: ignore[assignment]  # replaced in __post_init__

    def __post_init__(self) -> None:
        K = np.asarray(self.K, dtype=np.float64).reshape(3, 3)
        D = np.zeros(0) if self.D is None else np.asarray(self.D, dtype=np.float64).reshape(-1)
        if self.width < 1 or self.height < 1:
            raise CalibrationError(f"camera size {self.width}x{self.height} is empty")
        if self.width * self.height > MOST_PIXELS:
            raise CalibrationError(
                f"camera size {self.width}x{self.height} is more than the {MOST_PIXELS // 10**6} million pixels "
                "that an image may have: give the size of the images"
            )
        if not (np.isfinite(K).all() and np.isfinite(D).all()):
            raise CalibrationError("camera intrinsics contain NaN or infinity: calibrate the camera")
        if K[0, 0] > 0 > K[1, 1]:
            raise CalibrationError(
                f"fy = {K[1, 1]:g} is negative: the y axes of camera and world are mirrored, as ICL-NUIM has them. "
                f"Give fy as {-K[1, 1]:g} and mirror the poses (diag(1, -1, 1, 1) before and behind each); for "
                "ICL-NUIM, known by its folder's name (living_room_traj2...), that is done when it is read"
            )
        if K[0, 0] <= 0 or K[1, 1] <= 0:
            raise CalibrationError(
                f"focal lengths fx = {K[0, 0]:g}, fy = {K[1, 1]:g} must be positive: calibrate the camera"
            )
        model, D = distortion.canonical(self.model, D)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "D", D)

    @classmethod
    def pinhole(cls, width: int, height: int, fx: float, fy: float, cx: float, cy: float) -> Camera:
        """An undistorted camera from its four intrinsics in pixels."""
        return cls(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))

    @property
    def fx(self) -> float:
        """Horizontal focal length in pixels."""
        return float(self.K[0, 0])

    @property
    def fy(self) -> float:
        """Vertical focal length in pixels."""
        return float(self.K[1, 1])

    @property
    def cx(self) -> float:
        """Column of the principal point in pixels."""
        return float(self.K[0, 2])

    @property
    def cy(self) -> float:
        """Row of the principal point in pixels."""
        return float(self.K[1, 2])

    @property
    def focal(self) -> float:
        """Geometric mean of the two focal lengths, in pixels."""
        return float(np.sqrt(self.fx * self.fy))

    @property
    def is_distorted(self) -> bool:
        """Whether straight lines are bent in the image."""
        return self.model != "none"

    def rays(self, xy: NDArray[np.floating]) -> Array:
        """Image pixels (N, 2) -> ideal image coordinates (N, 2) at z = 1; NaN where no ray exists."""
        xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        distorted = np.stack(
            [
                (xy[:, 0] - self.cx - self.K[0, 1] * (xy[:, 1] - self.cy) / self.fy) / self.fx,
                (xy[:, 1] - self.cy) / self.fy,
            ],
            axis=-1,
        )
        return distortion.undistort(distorted, self.model, self.D)

    def enlargement(self, ideal: Array) -> Array:
        """Sides (N,), in pixels of the ideal image of the same focal length, of what the lens shows in one pixel there.

        Geometric means of both directions at ideal image coordinates (N, 2). The edge of a wide lens's picture is
        enlarged several times, and the noise of what is found in it as well.
        """
        step = 1e-6
        bent = distortion.distort(ideal, self.model, self.D)
        x, y = ((distortion.distort(ideal + step * axis, self.model, self.D) - bent) / step for axis in np.eye(2))
        area: Array = np.abs(x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0])
        sides: Array = 1 / np.sqrt(np.maximum(area, step))
        return sides

    def project(self, points: NDArray[np.floating]) -> Array:
        """Points (N, 3) in the camera frame -> pixels (N, 2); NaN where the lens does not see them.

        That is behind the camera, and beside it where the distortion model folds back (:func:`distortion.widest`).
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        z = points[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            ideal = np.where((z > 0)[:, None], points[:, :2] / z[:, None], np.nan)
        bent = distortion.distort(ideal, self.model, self.D)
        return bent @ self.K[:2, :2].T + self.K[:2, 2]

    def seen(self, points: NDArray[np.floating]) -> tuple[Array, NDArray[np.bool_]]:
        """Pixels (N, 2) of points (N, 3) in the camera frame, and which (N,) lie in the image.

        A pixel reaches half its side beyond its centre; points behind the camera are NaN and not in the image.
        """
        xy = self.project(points)
        with np.errstate(invalid="ignore"):  # NaN compares false
            inside = (xy >= -0.5) & (xy <= np.array([self.width, self.height]) - 0.5)
        return xy, np.asarray(inside.all(axis=1))

    def points(self, xy: NDArray[np.floating], depth: NDArray[np.floating]) -> Array:
        """Surface points (N, 3) in the camera frame: pixels (N, 2) and their depth (N,) along the optical axis."""
        return lifted(self.rays(xy), depth)

    def backproject(self, depth: NDArray[np.floating]) -> Array:
        """Depth (H, W) in metres along z -> points (H, W, 3) in the camera frame; NaN where depth is invalid."""
        z = np.where(valid_depth(depth), depth, np.nan).astype(np.float64)
        return lifted(self.pixel_rays, z)

    @cached_property
    def pixel_rays(self) -> Array:
        """Ideal image coordinates (H, W, 2) of every pixel centre."""
        v, u = np.mgrid[: self.height, : self.width]
        return self.rays(np.stack([u, v], axis=-1).reshape(-1, 2)).reshape(self.height, self.width, 2)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera at another resolution; pixel centres stay at integers (half-pixel exact)."""
        sx, sy = width / self.width, height / self.height
        K = self.K.copy()
        K[:2, 2] += 0.5
        K[0] *= sx
        K[1] *= sy
        K[:2, 2] -= 0.5
        return replace(self, width=width, height=height, K=K)

    @property
    def can_turn(self) -> bool:
        """Whether a calibration describes its image after a quarter turn: no skewed pixels, no tilted sensor."""
        return not self.K[0, 1] and not self.D[12:].any()

    def turned(self, quarters: int) -> Camera:
        """The camera whose image is this one's, turned counter-clockwise by so many quarter turns (numpy.rot90).

        Raises:
            CalibrationError: for one that cannot turn.
        """
        quarters %= 4
        if quarters and not self.can_turn:
            raise CalibrationError("a camera with skewed pixels or a tilted sensor cannot be turned")
        camera = self
        for _ in range(quarters):
            right = camera.width - 1
            K = np.array([[camera.fy, 0, camera.cy], [0, camera.fx, right - camera.cx], [0, 0, 1.0]])
            D = distortion.turned(camera.model, camera.D)
            camera = Camera(camera.height, camera.width, K, camera.model, D)
        return camera

    def same_as(self, other: Camera) -> bool:
        """Whether both describe the same camera, to a thousandth of a pixel."""
        return (
            (self.width, self.height, self.model) == (other.width, other.height, other.model)
            and np.allclose(self.K, other.K, atol=1e-3)
            and np.allclose(self.D, other.D, atol=1e-9)
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera frame.

    Attributes:
        image: (H, W, 3) uint8 RGB, as the camera gave it (distorted where the camera distorts).
        camera: calibration of ``image``, or None where it is unknown.
        stamp_ns: time of exposure, nanoseconds.
        depth: (H, W) float32 metres along the optical axis, registered to ``image``; 0 or NaN is invalid.
        name: what a person calls it: a file name, a topic, a number.
        camera_name: what tells cameras apart where ``camera`` is unknown: a frame_id, a topic.
    """

    image: NDArray[np.uint8]
    camera: Camera | None = None
    stamp_ns: int = 0
    depth: NDArray[np.float32] | None = None
    name: str = ""
    camera_name: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {self.image.shape} {self.image.dtype}")
        if self.camera is not None and (self.camera.width, self.camera.height) != (self.width, self.height):
            raise CalibrationError(
                f"{self.name or 'frame'}: the image is {self.width}x{self.height} but the camera is calibrated "
                f"for {self.camera.width}x{self.camera.height}: use Camera.resized, or the matching camera_info"
            )
        if self.depth is not None and self.depth.shape != self.image.shape[:2]:
            raise CalibrationError(
                f"{self.name or 'frame'}: depth is {self.depth.shape[1]}x{self.depth.shape[0]}, the image is "
                f"{self.width}x{self.height}: depth must be registered to the colour image"
            )

    @property
    def width(self) -> int:
        """Columns of the image."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Rows of the image."""
        return int(self.image.shape[0])

    def turned(self, quarters: int) -> Frame:
        """What the camera would have seen if it had been held otherwise: turned counter-clockwise (numpy.rot90).

        Raises:
            CalibrationError: for a camera that cannot be turned, see :meth:`Camera.turned`.
        """
        image = np.ascontiguousarray(np.rot90(self.image, quarters))
        depth = None if self.depth is None else np.ascontiguousarray(np.rot90(self.depth, quarters))
        camera = None if self.camera is None else self.camera.turned(quarters)
        return replace(self, image=image, camera=camera, depth=depth)


def turned_T_camera(quarters: int) -> Array:
    """(4, 4) rotation about the optical axis from a camera to the one that :meth:`Camera.turned` makes of it."""
    quarter = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # x right becomes y up
    turn: Array = np.linalg.matrix_power(quarter, quarters % 4)
    return turn


def turned_back(xy: Array, quarters: int, width: int, height: int) -> Array:
    """Pixels (N, 2) of an image turned by :meth:`Frame.turned` -> pixels as they were, of ``width`` x ``height``."""
    x, y = xy.T
    columns, rows = ((x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x))[quarters % 4]
    return np.stack([columns, rows], axis=1)


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """A frame whose camera pose is known: what maps are built from and evaluations compare with.

    Attributes:
        frame: the camera frame.
        map_T_camera: (4, 4) camera optical frame -> map frame, metres.
    """

    frame: Frame
    map_T_camera: Array


def lifted(rays: NDArray[np.floating], depth: NDArray[np.floating]) -> Array:
    """Ideal image coordinates (..., 2) at z = 1 and depths (...) along z -> points (..., 3) in the camera frame."""
    z = np.asarray(depth, dtype=np.float64)[..., None]
    return np.concatenate([rays * z, z], axis=-1)


def valid_depth(depth: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where a depth image (H, W) in metres holds a measurement: finite and positive."""
    valid: NDArray[np.bool_] = np.isfinite(depth) & (depth > 0)
    return valid
