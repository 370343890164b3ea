"""Any data set as a recording, so that it can be played to a live node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.io.bags import BagWriter

IMAGE, INFO, DEPTH = "/camera/image_raw", "/camera/camera_info", "/camera/depth/image_raw"
TRUTH = "/ground_truth"
#: Recordings begin here if the data set's own clock begins at zero, which ROS reads as "no time".
EARLIEST_NS = 1_000_000_000


def write_bag(
    source: Iterable[PosedFrame],
    path: Path,
    *,
    map_frame: str = "map",
    camera_frame: str = "camera_optical_frame",
    jpeg_quality: int | None = 95,
    rate_hz: float | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write images, calibration, depth and true camera poses (``/ground_truth``, nav_msgs/Odometry).

    Args:
        jpeg_quality: of compressed images; None writes them raw.
        rate_hz: replaces the stamps of the source by this rate.
        progress: called with the number of frames written.

    Returns:
        the number of frames.

    Raises:
        DatasetError: if the source has no frames, or stamps that do not increase.
        BagError: if the recording cannot be written.
    """
    count, last_ns, shift_ns = 0, 0, None
    with BagWriter(path, overwrite=overwrite) as bag:
        for posed in source:
            stamp_ns = posed.frame.stamp_ns if rate_hz is None else round(count / rate_hz * 1e9)
            if shift_ns is None:
                shift_ns = max(0, EARLIEST_NS - stamp_ns)
            stamp_ns += shift_ns
            if stamp_ns <= last_ns:
                raise DatasetError(
                    f"frame {posed.frame.name}: its stamp does not increase: give the rate of the camera"
                )
            _write_frame(bag, posed, stamp_ns, map_frame, camera_frame, jpeg_quality)
            count, last_ns = count + 1, stamp_ns
            if progress is not None:
                progress(count)
        if not count:
            raise DatasetError("the source has no frames: there is nothing to write")
    return count


def _write_frame(
    bag: BagWriter, posed: PosedFrame, stamp_ns: int, map_frame: str, camera_frame: str, jpeg_quality: int | None
) -> None:
    """The image last: whoever gets it has what belongs to it."""
    frame = posed.frame
    bag.odometry(TRUTH, posed.map_T_camera, stamp_ns, map_frame, camera_frame)
    if frame.camera is not None:
        bag.camera_info(INFO, frame.camera, stamp_ns, camera_frame)
    if frame.depth is not None:
        bag.depth(DEPTH, frame.depth, stamp_ns, camera_frame)
    if jpeg_quality is None:
        bag.image(IMAGE, frame.image, stamp_ns, camera_frame)
    else:
        bag.compressed_image(f"{IMAGE}/compressed", frame.image, stamp_ns, camera_frame, quality=jpeg_quality)
