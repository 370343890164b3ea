"""A camera frame as a network sees it, and the way back to the camera's own pixels.

Networks know pinhole cameras only. A frame of a distorting camera is rectified first, to a pinhole camera with the
same intrinsics: the middle keeps its resolution, and what the lens bends out of the frame at the corners is lost.
Matched pixels are bent back, so that everybody else sees pixels of the image as the camera gave it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.frames import Camera, Frame, lifted
from mast3r_ros.geometry import se3
from mast3r_ros.matching.base import Features
from mast3r_ros.matching.packed_camera import packed_camera, unpacked_camera
from mast3r_ros.network import preprocessing
from mast3r_ros.surface import surface_depth

Array = NDArray[np.float64]

#: Rays that do not come back from a distorted pixel to within this (at z = 1) have no pixel.
ROUND_TRIP = 1e-4


@dataclass(frozen=True, eq=False)
class NetworkView:
    """Where the pixels of a network image lie, and how far away what they show is.

    Attributes:
        size: (height, width) of the network image.
        original_T_input: (3, 3) from network pixels to pixels of the rectified frame, see ``NetworkImage``.
        camera: of the frame as the camera gave it; None where it is unknown.
        depth: (height, width) metres along the optical axis, 0 where unknown; (0, 0) without any depth. Float16 as
            it is kept, float32 of a frame that was just seen.
    """

    size: tuple[int, int]
    original_T_input: Array
    camera: Camera | None
    depth: NDArray[np.floating]

    @cached_property
    def known_share(self) -> float:
        """Share of the pixels whose depth was measured."""
        return float(np.count_nonzero(self.depth.view(f"i{self.depth.itemsize}")) / max(self.depth.size, 1))

    @property
    def pixel(self) -> float:
        """Side of a network pixel in pixels of the frame."""
        return float(np.sqrt(self.original_T_input[0, 0] * self.original_T_input[1, 1]))

    def to_rectified(self, xy: NDArray[Any]) -> Array:
        """Network pixels (N, 2), fractions too -> pixels of the rectified frame."""
        return preprocessing.moved_pixels(self.original_T_input, xy)

    def from_rectified(self, xy: NDArray[Any]) -> Array:
        """Pixels (N, 2) of the rectified frame -> network pixels: inverse of :meth:`to_rectified`."""
        return preprocessing.moved_pixels(np.linalg.inv(self.original_T_input), xy)

    def to_raw(self, xy: NDArray[Any]) -> Array:
        """Network pixels (N, 2) -> pixels of the frame as the camera gave it; NaN where it has none."""
        pixels = self.to_rectified(xy)
        if self.camera is None or not self.camera.is_distorted:
            return pixels
        return bent(self.camera, rectified_camera(self.camera).rays(pixels))

    def rays(self, xy: NDArray[Any]) -> Array:
        """Network pixels (N, 2) -> ideal image coordinates (N, 2) at z = 1. Needs a camera."""
        assert self.camera is not None
        return rectified_camera(self.camera).rays(self.to_rectified(xy))

    def grid(self, step: int = 1) -> NDArray[np.int64]:
        """Network pixels (N, 2) as x, y, row by row: all of them, or every ``step``-th from half a step on."""
        y, x = np.mgrid[step // 2 : self.size[0] : step, step // 2 : self.size[1] : step]
        return np.stack([x, y], axis=-1).reshape(-1, 2)

    def surface(self, step: int) -> Array:
        """Points (N, 3) of every ``step``-th pixel whose depth is known, in the camera's frame, metres."""
        if self.camera is None or not self.depth.size:
            return np.zeros((0, 3))
        xy = self.grid(step)
        depth = self.depth[xy[:, 1], xy[:, 0]].astype(np.float64)
        xy, depth = xy[depth > 0], depth[depth > 0]
        points = lifted(self.rays(xy), depth)
        return np.asarray(points[np.isfinite(points).all(axis=1)])

    def to_features(self) -> dict[str, NDArray[Any]]:
        """The arrays that :meth:`from_features` needs; depth (H, W) in half precision: one part in 2000."""
        return {
            "size": np.array(self.size, dtype=np.int32),
            "original_T_input": self.original_T_input,
            "camera": packed_camera(self.camera),
            "depth": self.depth.astype(np.float16),
        }

    @classmethod
    def from_features(cls, features: Features) -> NetworkView:
        """Inverse of :meth:`to_features`."""
        height, width = (int(side) for side in features["size"])
        camera = unpacked_camera(features["camera"])
        return cls((height, width), features["original_T_input"], camera, features["depth"])


def view_of(frame: Frame, size: int, device: torch.device | None = None) -> tuple[NetworkView, Tensor]:
    """A frame at network size.

    Args:
        size: longer side of the network image; 224 and 512 take exactly the resolutions of their training.
        device: where the image is made and wanted.

    Returns:
        the view, and its image (1, 3, H, W) in [-1, 1].

    Raises:
        CodecError: for images too long and thin for a network.
    """
    image = rectified(frame)
    if size in (224, 512):
        prepared = preprocessing.prepare_for_localization(image, size, device=device)
    else:
        prepared = preprocessing.prepare(image, size, device=device)
    view = NetworkView(prepared.size, prepared.original_T_input, frame.camera, np.zeros((0, 0), np.float32))
    if frame.depth is None or frame.camera is None:
        return view, prepared.tensor
    depth = np.nan_to_num(surface_depth(frame.depth, view.to_raw(view.grid()))).reshape(view.size)
    return NetworkView(view.size, view.original_T_input, frame.camera, depth), prepared.tensor


def rectified(frame: Frame) -> NDArray[np.uint8]:
    """The image (H, W, 3) as :func:`rectified_camera` would have taken it; black where nothing was seen."""
    if frame.camera is None or not frame.camera.is_distorted:
        return frame.image
    c = frame.camera
    x, y = _rectification(c.width, c.height, c.model, c.K.tobytes(), c.D.tobytes())
    return np.asarray(cv2.remap(frame.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)


def rectified_camera(camera: Camera) -> Camera:
    """The pinhole camera with the same size and intrinsics."""
    return camera if not camera.is_distorted else Camera(camera.width, camera.height, camera.K)


def bent(camera: Camera, rays: Array) -> Array:
    """Ideal coordinates (N, 2) -> pixels (N, 2) of a distorting camera; NaN where its model folds back."""
    pixels = camera.project(se3.homogeneous(rays))
    back = np.linalg.norm(camera.rays(pixels) - rays, axis=1)
    pixels[~(back < ROUND_TRIP)] = np.nan
    return pixels


@lru_cache(maxsize=8)
def _rectification(
    width: int, height: int, model: str, K: bytes, D: bytes
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where every pixel of the rectified image lies in the raw one: x and y (H, W)."""
    camera = Camera(width, height, np.frombuffer(K).reshape(3, 3), model, np.frombuffer(D))
    raw = bent(camera, rectified_camera(camera).pixel_rays.reshape(-1, 2)).reshape(height, width, 2)
    raw = np.where(np.isfinite(raw), raw, -1e4).astype(np.float32)  # far outside: black
    return np.ascontiguousarray(raw[..., 0]), np.ascontiguousarray(raw[..., 1])
