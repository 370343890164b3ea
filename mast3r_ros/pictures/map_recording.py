"""A map to walk through in the Rerun viewer: surface, keyframes with their images, coverage, and pairs that are wrong.

/map/cloud              the surface, in its colours
/map/keyframes          every keyframe; red where a check found it elsewhere or its pose wrong
/map/coverage           what is seen, by how many keyframes: red one, yellow two, green three or more
/map/found_elsewhere    from a keyframe to those that it was mistaken for
/map/rejected_pairs     pairs of images that a reconstruction rejected
/keyframe               one after the other, on the timeline `keyframe`: its image in its place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.geometry import se3
from mast3r_ros.io.codec import encode_compressed_image
from mast3r_ros.mapping.cloud import VOXEL, map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.plan_view import plan_rotation
from mast3r_ros.pictures.rerun_sdk import frustum, rerun_sdk, shrunk

Array = NDArray[np.float64]

#: Points of the cloud, and of the coverage.
CLOUD_POINTS, COVERAGE_POINTS = 500_000, 40_000
#: A frustum's depth and the radius of a line, in scene depths; how far along its axis an image stands.
FRUSTUM, LINE, PLANE = 0.05, 0.0012, 0.14
GOOD, ODD, PAIR = (90, 130, 190), (220, 50, 60), (240, 150, 40)
#: Seen by one keyframe, by two, by more.
SEEN_BY = np.array([(220, 60, 60), (235, 190, 60), (70, 170, 90)], np.uint8)


@dataclass(frozen=True)
class Wrong:
    """What is known to be wrong with a map.

    Attributes:
        keyframes: ids to mark.
        mistaken: pairs of ids: a keyframe and one that it was mistaken for.
        rejected: pairs of ids whose images were matched and contradicted.
    """

    keyframes: frozenset[str] = frozenset()
    mistaken: Sequence[tuple[str, str]] = field(default_factory=tuple)
    rejected: Sequence[tuple[str, str]] = field(default_factory=tuple)


def record_map(keyframe_map: KeyframeMap, path: Path | None, wrong: Wrong = Wrong(), title: str = "map") -> None:
    """Write a recording (.rrd) of a map, or show it in the viewer at once.

    Args:
        path: file to write; None opens the viewer.

    Raises:
        UserError: if the Rerun SDK is not installed.
        MapError: if the map is empty, or the file cannot be written.
    """
    if len(keyframe_map) == 0:
        raise MapError("the map is empty: there is nothing to show")
    rr = rerun_sdk("the map cannot be shown")
    recording = rr.RecordingStream(f"mast3r_ros {title}")
    if path is None:
        recording.spawn()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            recording.save(path)
        except OSError as error:
            raise MapError(f"{path}: cannot be written ({error})") from error
    up = plan_rotation(keyframe_map)[2]
    recording.log("/", rr.ViewCoordinates.RIGHT_HAND_Z_UP if up[2] > 0.5 else rr.ViewCoordinates.RIGHT_HAND_Y_DOWN)
    _log_cloud(rr, recording, keyframe_map)
    _log_keyframes(rr, recording, keyframe_map, wrong)
    _log_images(rr, recording, keyframe_map)
    recording.flush()
    recording.disconnect()


def seen_by(keyframe_map: KeyframeMap, points: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many keyframes look at each of the points (N, 3) of the map and nothing nearer, as far as depth tells."""
    count = np.zeros(len(points), np.int64)
    for keyframe in keyframe_map.keyframes:
        if not keyframe.has_depth:
            continue
        depth = keyframe_map.frame(keyframe.id).depth
        there = se3.apply(se3.inverse(keyframe.map_T_camera), points)
        xy, inside = keyframe.camera.seen(there)
        inside &= there[:, 2] > 0
        x, y = np.rint(xy[inside]).astype(int).T
        assert depth is not None
        measured = depth[y.clip(0, depth.shape[0] - 1), x.clip(0, depth.shape[1] - 1)]
        count[inside] += np.abs(there[inside, 2] - measured) < 0.05 * measured
    return count


def _log_cloud(rr: Any, recording: Any, keyframe_map: KeyframeMap) -> None:
    points, colours = map_cloud(keyframe_map, max_points=CLOUD_POINTS)
    if len(points) == 0:
        return
    radius = VOXEL * keyframe_map.view_depth_m / 2
    recording.log("/map/cloud", rr.Points3D(points, colors=colours, radii=radius), static=True)
    thinned = points[:: max(1, len(points) // COVERAGE_POINTS)]
    level = (seen_by(keyframe_map, thinned) - 1).clip(0, len(SEEN_BY) - 1)
    recording.log("/map/coverage", rr.Points3D(thinned, colors=SEEN_BY[level], radii=2 * radius), static=True)


def _log_keyframes(rr: Any, recording: Any, keyframe_map: KeyframeMap, wrong: Wrong) -> None:
    size = keyframe_map.view_depth_m
    strips = {
        k.id: frustum(k.map_T_camera, FRUSTUM * size, k.camera.height / k.camera.width) for k in keyframe_map.keyframes
    }
    colours = np.repeat([ODD if id in wrong.keyframes else GOOD for id in strips], 8, axis=0)
    edges = np.concatenate(list(strips.values()))
    recording.log("/map/keyframes", rr.LineStrips3D(edges, colors=colours, radii=LINE * size), static=True)
    for name, pairs, colour in (("found_elsewhere", wrong.mistaken, ODD), ("rejected_pairs", wrong.rejected, PAIR)):
        ends = [
            [keyframe_map[id].map_T_camera[:3, 3] for id in pair]
            for pair in pairs
            if all(id in keyframe_map for id in pair)
        ]
        if ends:
            lines = rr.LineStrips3D(np.array(ends), colors=colour, radii=LINE * size)
            recording.log(f"/map/{name}", lines, static=True)


def _log_images(rr: Any, recording: Any, keyframe_map: KeyframeMap) -> None:
    plane = PLANE * keyframe_map.view_depth_m
    for number, keyframe in enumerate(keyframe_map.keyframes):
        recording.set_time("keyframe", sequence=number)
        small = shrunk(keyframe_map.frame(keyframe.id))
        assert small.camera is not None
        pose = keyframe.map_T_camera
        recording.log("/keyframe", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        lens = rr.Pinhole(
            image_from_camera=small.camera.K, resolution=[small.width, small.height], image_plane_distance=plane
        )
        recording.log("/keyframe/image", lens)
        data = encode_compressed_image(small.image, "jpeg", 80)
        recording.log("/keyframe/image", rr.EncodedImage(contents=data, media_type="image/jpeg"))
        recording.log("/keyframe/name", rr.TextLog(keyframe.id))
