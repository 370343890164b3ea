"""A run as a recording for the Rerun viewer: map, keyframes, and the camera's way as it was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.io.bags import open_bag
from mast3r_ros.io.codec import encode_compressed_image
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.replay import Replay
from mast3r_ros.mapping.cloud import map_cloud
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.rerun_sdk import frustum, rerun_sdk, shrunk

#: Camera images in the recording: at most this often; small as they are, they stay below about 10 MB a minute.
IMAGE_HZ = 4.0
MAP_VOXEL_M, MAP_POINTS = 0.02, 400_000
TRUTH, FOUND, KEYFRAME = (224, 160, 48), (0, 160, 180), (90, 130, 190)


def write_rerun(path: Path, keyframe_map: KeyframeMap, replay: Replay, bag: Path) -> None:
    """Write the recording (.rrd); open it with ``rerun PATH``.

    Raises:
        UserError: if the Rerun SDK is not installed.
    """
    rr = rerun_sdk(f"{path} is not written")
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
            small = shrunk(frame)
            if small.camera is not None:
                lens = rr.Pinhole(
                    image_from_camera=small.camera.K,
                    resolution=[small.width, small.height],
                    image_plane_distance=0.35,
                )
                recording.log("/camera/image", lens)
            data = encode_compressed_image(small.image, "jpeg", 80)
            recording.log("/camera/image", rr.EncodedImage(contents=data, media_type="image/jpeg"))
