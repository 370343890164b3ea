"""Where a map's keyframes stand, how far they see, and with which cameras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.mapping.overlap import assumed_depth, view_overlap
from mast3r_ros.mapping.table import Entries

#: Views further apart than this many depths overlap by less than the smallest number, see :func:`view_overlap`.
REACH = 39.0


@dataclass(frozen=True, eq=False)
class KeyframeViews:
    """The views of N keyframes.

    Attributes:
        poses: (N, 4, 4) map_T_camera.
        depths: (N,) typical distance of what each sees, metres: its own, else the map's, else told by their spacing.
        scene_depth_m: the map's; NaN where no depth is known.
        cameras: every calibration, once.
    """

    ids: list[str]
    poses: NDArray[np.float64]
    depths: NDArray[np.float64]
    scene_depth_m: float
    cameras: tuple[Camera, ...]

    @classmethod
    def of(cls, entries: Entries) -> KeyframeViews:
        """The views of a map."""
        poses, depths = entries.poses_and_depths()
        known = depths[np.isfinite(depths)]
        scene = float(np.median(known)) if len(known) else float("nan")
        depths = np.where(np.isfinite(depths), depths, scene if len(known) else assumed_depth(poses))
        return cls(list(entries), poses, depths, scene, _distinct(entries.cameras()))

    def overlaps(self, map_T_camera: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) plausible overlap with the view of a camera at that pose, see :func:`overlap.view_overlap`."""
        camera, overlaps = np.asarray(map_T_camera, dtype=np.float64), np.zeros(len(self.poses))
        near = np.linalg.norm(self.poses[:, :3, 3] - camera[:3, 3], axis=1) < REACH * self.depths
        overlaps[near] = view_overlap(camera, self.poses[near], self.depths[near])
        return overlaps


def _distinct(cameras: Iterable[Camera]) -> tuple[Camera, ...]:
    distinct: list[Camera] = []
    for camera in {id(camera): camera for camera in cameras}.values():
        if not any(camera.same_as(other) for other in distinct):
            distinct.append(camera)
    return tuple(distinct)
