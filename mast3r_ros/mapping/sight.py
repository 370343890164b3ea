"""How far away what a frame of known pose sees is: by its depth, or by how corners moved since the last keyframe."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, PosedFrame, valid_depth
from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: Corners followed from one frame to the next, at this width; fewer that arrive say nothing.
CORNERS, FEWEST, WIDTH = 150, 12, 320
#: Corners that moved less than this, after the turn of the camera is taken off, are as good as infinitely far away:
#: what is known then is only how far they are at least. Radians.
STILL = 0.003
#: Window of the search, and how exactly a corner must return to where it came from when it is followed back; pixels.
WINDOW, RETURNED_PX = (21, 21), 1.0
#: What is followed from one known pose to another stays in its epipolar plane, to within this many radians.
ASIDE = 0.01


class Sight:
    """Typical distance of what the frames of one recording see, as it goes on."""

    def __init__(self) -> None:
        self._reference: tuple[NDArray[np.uint8], Array, Camera, Array] | None = None  # grey, corners, camera, pose
        self._last = np.inf

    def keep(self, posed: PosedFrame) -> None:
        """A frame that later ones are compared with."""
        if posed.frame.depth is not None or posed.frame.camera is None:
            return
        grey, scale = _small(posed.frame.image)
        corners = cv2.goodFeaturesToTrack(grey, CORNERS, 0.01, 5)
        if corners is not None:
            self._reference = grey, corners.reshape(-1, 2) / scale, posed.frame.camera, posed.map_T_camera

    def distance(self, posed: PosedFrame) -> float:
        """Metres; 0 where it sees other things than the last keyframe, infinite while nothing was ever seen."""
        frame = posed.frame
        if frame.depth is not None:
            known = frame.depth[valid_depth(frame.depth)]
            if len(known):
                self._last = float(np.median(known))
        elif self._reference is not None and frame.camera is not None:
            before, now = self._followed(posed)
            if len(now) < FEWEST:
                return 0.0 if _shows_something(frame.image) else self._last
            moved = posed.map_T_camera[:3, 3] - self._reference[3][:3, 3]
            self._last = _depth_of(before, now, moved) or self._last
        return self._last

    def _followed(self, posed: PosedFrame) -> tuple[Array, Array]:
        """Unit rays (N, 3) in the map to corners of the last keyframe, from there and from here."""
        assert self._reference is not None and posed.frame.camera is not None
        before, corners, camera, map_T_before = self._reference
        grey, scale = _small(posed.frame.image)
        if grey.shape != before.shape:
            return np.zeros((0, 3)), np.zeros((0, 3))
        start = (corners * scale).astype(np.float32)[:, None]
        moved, there, _ = cv2.calcOpticalFlowPyrLK(before, grey, start, None, winSize=WINDOW, maxLevel=4)
        again, back, _ = cv2.calcOpticalFlowPyrLK(grey, before, moved, None, winSize=WINDOW, maxLevel=4)
        good = (there & back).ravel() == 1
        good &= np.linalg.norm((again - start)[:, 0], axis=1) < RETURNED_PX
        rays = _directions(camera, corners[good], map_T_before)
        now = _directions(posed.frame.camera, moved.reshape(-1, 2)[good] / scale, posed.map_T_camera)
        moved_by = posed.map_T_camera[:3, 3] - map_T_before[:3, 3]
        # NaN, where there is no ray, compares false.
        kept = np.abs(_off_plane(rays, now, moved_by)) < ASIDE
        return rays[kept], now[kept]


def _off_plane(rays: Array, now: Array, baseline: Array) -> Array:
    """Angles (N,) between unit rays (N, 3) now and the plane of the earlier ray and the baseline (3,), radians.

    Where the camera has not moved, between the rays themselves.
    """
    normals = np.cross(rays, baseline)
    length = np.linalg.norm(normals, axis=1)
    if not np.linalg.norm(baseline) > 0:
        return np.asarray(np.linalg.norm(rays - now, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(length > 0, (normals * now).sum(axis=1) / length, 0.0))


def _shows_something(image: NDArray[np.uint8]) -> bool:
    corners = cv2.goodFeaturesToTrack(_small(image)[0], CORNERS, 0.01, 5)
    return corners is not None and len(corners) >= 2 * FEWEST


def _depth_of(rays: Array, now: Array, baseline: Array) -> float | None:
    """Median distance of points seen along unit rays (N, 3) before and now, from two places a baseline (3,) apart.

    None where nothing moves however near it is.
    """
    length = float(np.linalg.norm(baseline))
    if length == 0:
        return None
    # Sine rule in the triangle of both places and the point.
    parallax = np.linalg.norm(np.cross(rays, now), axis=1)
    across = np.linalg.norm(np.cross(rays, baseline / length), axis=1)
    if np.median(parallax) < STILL and np.median(across) < STILL:
        return None
    return float(np.median(length * across / np.maximum(parallax, STILL)))


def _directions(camera: Camera, xy: Array, map_T_camera: Array) -> Array:
    """Unit vectors (N, 3) in the map through pixels (N, 2)."""
    ideal = camera.rays(xy)
    rays = se3.homogeneous(ideal) @ se3.orthonormalised(map_T_camera)[:3, :3].T
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _small(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Grey image of a common width and its share of the original's; pixel centres shift by less than is seen."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, WIDTH / grey.shape[1])
    if scale < 1:
        size = (WIDTH, max(1, round(grey.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8), scale
