"""What the map says should be seen from a pose, and how much of it was found.

Doors, chairs and shelves exist in many copies. A pose found at the wrong copy explains the copy, and nothing of what
stands around it: most places of the image where the map knows something then show something else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.cells import CELLS, cells_of
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher, landmarks

Array = NDArray[np.float64]

#: A cell of the image in which the map has fewer landmarks is not counted.
LANDMARKS = 3
#: With fewer such cells there is too little to judge by.
FEWEST_CELLS = 6
#: Keyframes whose landmarks are kept, the last ones asked for.
REMEMBERED = 300


class MapLandmarks:
    """Points of keyframes that the matcher would look for elsewhere; those asked for last are kept."""

    def __init__(self, keyframe_map: KeyframeMap, matcher: Matcher) -> None:
        self._map, self._matcher = keyframe_map, matcher
        self._known: OrderedDict[str, tuple[Keyframe, Array]] = OrderedDict()

    def of(self, ids: Iterable[str]) -> Array:
        """Landmarks (M, 3) of these keyframes, metres."""
        found = [self._of(self._map[id]) for id in ids]
        return np.concatenate(found) if found else np.zeros((0, 3))

    def _of(self, keyframe: Keyframe) -> Array:
        known = self._known.pop(keyframe.id, None)
        if known is None or known[0] is not keyframe:  # its depth may have been replaced
            features = self._map.features(self._matcher, keyframe.id)
            known = keyframe, se3.apply(keyframe.map_T_camera, landmarks(self._matcher, features))
        self._known[keyframe.id] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known[1]


def explained(found_xy: Array, camera_T_map: Array, focal_px: float, frame: Frame, landmarks: Array) -> float:
    """Of the image's cells in which the map has landmarks, the share in which something of it was found.

    Args:
        found_xy: (N, 2) pixels of the query that the pose explains.
        camera_T_map: (4, 4) the pose.
        focal_px: focal length, where the frame has no calibration.
        landmarks: (M, 3) map points that the matcher knows from the keyframes which support the pose, metres.

    Returns:
        NaN where the map has landmarks in too few cells.
    """
    promised = np.bincount(_seen_in(landmarks, camera_T_map, focal_px, frame), minlength=CELLS) >= LANDMARKS
    if promised.sum() < FEWEST_CELLS:
        return float("nan")
    found = np.bincount(cells_of(found_xy, frame.width, frame.height), minlength=CELLS) > 0
    return float((found & promised).sum() / promised.sum())


def _seen_in(landmarks: Array, camera_T_map: Array, focal_px: float, frame: Frame) -> NDArray[np.int64]:
    """Cells that landmarks before the camera fall into."""
    points = se3.apply(camera_T_map, landmarks)
    width, height = frame.width, frame.height
    camera = frame.camera or Camera.pinhole(width, height, focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
    xy, inside = camera.seen(points)
    return cells_of(xy[inside], width, height)
