"""A reconstruction: cameras, points and observations of one component, in a frame and a unit of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.similarity import Similarity
from mast3r_ros.multiview.dense_view import DenseView

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Model:
    """Images that hang together.

    Attributes:
        cameras: by image number, focal lengths as they were found.
        world_T_camera: (4, 4) by image number, for the same images.
        points: (P, 3).
        error_px: (P,) root mean square reprojection error.
        point, image: (M,) of each observation.
        feature: (M,) row of the observation among the image's keypoints.
        xy: (M, 2) pixels of the image.
        dense: depth of every pixel by image number, made when asked for; None where no network knows it.
        unit: what depths of ``dense`` are multiplied with.
        metres: for each unit, as a metric network believes, and one standard deviation of its logarithm.
    """

    cameras: Mapping[int, Camera]
    world_T_camera: Mapping[int, Array]
    points: Array
    error_px: Array
    point: Index
    image: Index
    feature: Index
    xy: Array
    dense: Callable[[int], DenseView] | None = None
    unit: float = 1.0
    metres: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.world_T_camera)

    @property
    def images(self) -> list[int]:
        """Numbers of the registered images."""
        return sorted(self.world_T_camera)

    def moved(self, similarity: Similarity) -> Model:
        """The model in the coordinates that a similarity carries it to."""
        s = similarity.scale
        poses = {n: similarity.pose(pose) for n, pose in self.world_T_camera.items()}
        metres = None if self.metres is None else (self.metres[0] / s, self.metres[1])
        points = similarity.points(self.points)
        return replace(self, world_T_camera=poses, points=points, unit=s * self.unit, metres=metres)

    def depth_of(self, image: int) -> DenseView:
        """Depth of every pixel, in the model's unit. Needs ``dense``."""
        assert self.dense is not None
        return self.dense(image).scaled(self.unit)

    def seen(self, image: int) -> tuple[Array, Array]:
        """Pixels (K, 2) at which an image sees points, and their depth (K,) along its axis."""
        rows = np.flatnonzero(self.image == image)
        depth = se3.apply(se3.inverse(self.world_T_camera[image]), self.points[self.point[rows]])[:, 2]
        ahead = depth > 0
        return self.xy[rows[ahead]], depth[ahead]
