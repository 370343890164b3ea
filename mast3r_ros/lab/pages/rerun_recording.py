"""A run as a recording for the Rerun viewer: map, keyframes, and the camera's way as it was found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import open_bag
from mast3r_ros.io.codec import encode_compressed_image
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.replay import Replay
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap

#: Camera images in the recording: at most this often, and this wide; together they stay below about 10 MB a minute.
IMAGE_HZ, IMAGE_WIDTH = 4.0, 480
MAP_VOXEL_M, MAP_POINTS = 0.02, 400_000
TRUTH, FOUND, KEYFRAME = (224, 160, 48), (0, 160, 180), (90, 130, 190)


def write_rerun(path: Path, keyframe_map: KeyframeMap, replay: Replay, bag: Path) -> None:
    """Write the recording (.rrd); open it with ``rerun PATH``.

    Raises:
        UserError: if the Rerun SDK is not installed.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise UserError(
            f"{path} is not written: the Rerun SDK is missing. `pip install 'rerun-sdk>=0.27,<0.28'` brings it, and "
            "NumPy 2 with it, which Ubuntu 22.04's and 24.04's ROS packages do not work with: use another environment"
        ) from error
    recording = rr.RecordingStream("mast3r_ros")
    path.parent.mkdir(parents=True, exist_ok=True)
    recording.save(path, default_blueprint=_blueprint())
    recording.log("/", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    points, colours = map_cloud(keyframe_map, MAP_VOXEL_M, MAP_POINTS)
    recording.log("/map/points", rr.Points3D(points, colors=colours, radii=MAP_VOXEL_M / 2), static=True)
    lines = np.concatenate([frustum(k.map_T_camera, 0.12) for k in keyframe_map.keyframes])
    recording.log("/map/keyframes", rr.LineStrips3D(lines, colors=KEYFRAME, radii=0.003), static=True)
    records = replay.evaluation.records
    truth = [record.truth[:3, 3] for record in records if record.truth is not None]
    if truth:
        recording.log("/truth", rr.LineStrips3D([np.array(truth)], colors=TRUTH, radii=0.008), static=True)
    _log_records(recording, records)
    _log_images(recording, records, replay, bag)
    recording.flush()
    recording.disconnect()


def frustum(map_T_camera: NDArray[np.float64], depth_m: float, aspect: float = 0.75) -> NDArray[np.float64]:
    """The edges (8, 2, 3) of a small pyramid that stands for a camera, in the map frame."""
    corners = depth_m * np.array([[x, y * aspect, 1.2] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    edges = np.concatenate(
        [np.stack([np.zeros((4, 3)), corners], axis=1), np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)]
    )
    return se3.apply(map_T_camera, edges)


def _blueprint():  # type: ignore[no-untyped-def]  # a type of a library that may be missing
    import rerun.blueprint as rrb

    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="/", name="Map"),
            rrb.Vertical(
                rrb.Spatial2DView(origin="/camera/image", name="Camera"),
                rrb.TimeSeriesView(origin="/error", name="Error"),
                rrb.TextLogView(origin="/verdict", name="Verdicts"),
            ),
            column_shares=[3, 2],
        ),
        collapse_panels=True,
    )


def _log_records(recording, records: list[Record]) -> None:  # type: ignore[no-untyped-def]
    """Every verdict at its time; the way found so far grows with it."""
    import rerun as rr

    way: list[NDArray[np.float64]] = []
    start_ns = records[0].stamp_ns if records else 0
    for record in records:
        recording.set_time("time", duration=(record.stamp_ns - start_ns) * 1e-9)
        if not record.accepted or record.map_T_camera is None:
            recording.log("/verdict", rr.TextLog(f"{record.reason}: {record.detail}", level="WARN"))
            continue
        way.append(record.map_T_camera[:3, 3])
        recording.log("/found", rr.Points3D(np.array(way), colors=FOUND, radii=0.018))
        pose = record.map_T_camera
        recording.log("/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        metres, degrees = record.error
        if np.isfinite(metres):
            recording.log("/error/cm", rr.Scalars(100 * metres))
            recording.log("/error/deg", rr.Scalars(degrees))


def _log_images(recording, records: list[Record], replay: Replay, bag: Path) -> None:  # type: ignore[no-untyped-def]
    """What the camera saw, at a low rate, on the frustum of the camera."""
    import rerun as rr

    start_ns = records[0].stamp_ns if records else 0
    next_ns = start_ns
    with open_bag(bag) as reader:
        for frame in reader.frames(image_topic=replay.evaluation.settings.get("image"), use_depth=False):
            if frame.stamp_ns < next_ns:
                continue
            next_ns = frame.stamp_ns + round(1e9 / IMAGE_HZ)
            recording.set_time("time", duration=(frame.stamp_ns - start_ns) * 1e-9)
            small = _shrunk(frame)
            if small.camera is not None:
                lens = rr.Pinhole(
                    image_from_camera=small.camera.K,
                    resolution=[small.width, small.height],
                    image_plane_distance=0.35,
                )
                recording.log("/camera/image", lens)
            data = encode_compressed_image(small.image, "jpeg", 80)
            recording.log("/camera/image", rr.EncodedImage(contents=data, media_type="image/jpeg"))


def _shrunk(frame: Frame) -> Frame:
    if frame.width <= IMAGE_WIDTH:
        return frame
    width, height = IMAGE_WIDTH, round(frame.height * IMAGE_WIDTH / frame.width)
    image = np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    camera = None if frame.camera is None else frame.camera.resized(width, height)
    return Frame(image, camera, frame.stamp_ns)
