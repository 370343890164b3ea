"""How far a query is from what the map has seen, and which map that is."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.overlap import view_overlap

Array = NDArray[np.float64]


class Viewpoint(NamedTuple):
    """From where a query looks, beside its nearest keyframe; NaN where unknown.

    Attributes:
        metres, degrees: between the camera centres, and between the rotations.
        overlap: how plausibly both see the same, 0 to 1: the share of the view where depth tells, else
            :func:`~mast3r_ros.mapping.overlap.view_overlap` of the poses.
    """

    metres: float = math.nan
    degrees: float = math.nan
    overlap: float = math.nan


class Viewpoints:
    """The keyframes of a map as places to look from.

    Args:
        keyframe_map: read once; keyframes added later are not seen.
    """

    def __init__(self, keyframe_map: KeyframeMap) -> None:
        keyframes = keyframe_map.keyframes
        self._poses = np.array([k.map_T_camera for k in keyframes]).reshape(-1, 4, 4)
        self._depth_m = keyframe_map.view_depth_m
        self._ids = [keyframe.id for keyframe in keyframes]

    def nearest(self, map_T_camera: Array | None) -> Viewpoint:
        """How a pose looks beside its nearest keyframe.

        A keyframe right here that faces away shows nothing of what is seen from here, so the nearest one is that
        with the largest plausible overlap of views (:func:`view_overlap`); where no view overlaps, that with the
        nearest centre. NaN without a pose or without keyframes.
        """
        if map_T_camera is None or not len(self._poses):
            return Viewpoint()
        overlap = view_overlap(map_T_camera, self._poses, self._depth_m)
        distance = np.linalg.norm(self._poses[:, :3, 3] - map_T_camera[:3, 3], axis=1)
        best = int(np.argmax(overlap) if overlap.any() else np.argmin(distance))
        return Viewpoint(*se3.pose_error(map_T_camera, self._poses[best]), float(overlap[best]))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits, the same for maps with the same keyframes at the same poses (to 1e-6)."""
        digest = hashlib.sha256(" ".join(self._ids).encode())
        digest.update(np.round(self._poses * 1e6).astype(np.int64).tobytes())
        return digest.hexdigest()[:16]
