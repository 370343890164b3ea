"""The cameras that a map was taken with."""

from __future__ import annotations

from mast3r_ros.frames import Camera
from mast3r_ros.mapping.keyframe_map import KeyframeMap


def distinct_cameras(keyframe_map: KeyframeMap) -> list[Camera]:
    """Every calibration of the map's keyframes, once."""
    distinct: list[Camera] = []
    for camera in {id(keyframe.camera): keyframe.camera for keyframe in keyframe_map.keyframes}.values():
        if not any(camera.same_as(other) for other in distinct):
            distinct.append(camera)
    return distinct


def camera_of_size(keyframe_map: KeyframeMap, width: int, height: int) -> Camera | None:
    """The map's camera, where it has only one and that takes images of this size; else None."""
    cameras = distinct_cameras(keyframe_map)
    fits = len(cameras) == 1 and (cameras[0].width, cameras[0].height) == (width, height)
    return cameras[0] if fits else None
