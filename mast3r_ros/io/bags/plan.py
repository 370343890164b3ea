"""What would be used of a recording, and every doubt about it, before its images are read.

Reading (:class:`mast3r_ros.io.bags.frames.FrameReader`), building maps and ``mast3r_ros bag check`` share this plan, so
that a check cannot say anything else than what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mast3r_ros.errors import BagError, CalibrationError, CodecError
from mast3r_ros.frames import Camera
from mast3r_ros.io import codec
from mast3r_ros.io.bags.depth import GIVEN, DepthOf, DepthUse
from mast3r_ros.io.bags.messages import decode_colour, frame_of
from mast3r_ros.io.bags.readable import Readable
from mast3r_ros.io.bags.topics import FrameTopics, find_topics


@dataclass(frozen=True, eq=False)
class Plan:
    """What :meth:`BagReader.frames` uses.

    Attributes:
        topics: the chosen topics.
        image_frame: frame_id of the images.
        size: (width, height) of the first image; None where it cannot be decoded.
        camera: calibration of the first image; None where it is unknown.
        camera_source: where it is from: a topic, "given", or empty.
        camera_given: the calibration that was given, at its own size; None: camera_info is read.
        depth: how depth is used; None where there is none.
        depth_of: what turns depth messages into depth of the colour camera; None where none is used.
        doubts: what a person should know before the result is believed, a sentence each.
    """

    topics: FrameTopics
    image_frame: str
    size: tuple[int, int] | None
    camera: Camera | None
    camera_source: str
    camera_given: Camera | None
    depth: DepthUse | None
    depth_of: DepthOf | None
    doubts: tuple[str, ...]


def plan_frames(
    bag: Readable,
    image_topic: str | None,
    camera_info_topic: str | None,
    depth_topic: str | None,
    use_depth: bool,
    camera: Camera | None,
) -> Plan:
    """Choose topics and look at their first messages. Arguments and errors as :meth:`BagReader.frames`."""
    if camera is not None and camera_info_topic is not None:
        raise BagError(f"{bag.path}: the calibration is given twice, as a camera and as topic {camera_info_topic}")
    topics = find_topics(
        bag.topics, str(bag.path), image_topic, camera_info_topic, depth_topic, use_depth, camera is not None
    )
    first = _first(bag, topics.image)
    size = None if first is None else _size_of(first)
    doubts = list(topics.doubts)
    known, source, more = _calibration(bag, topics, camera, size)
    doubts += more
    if not bag.topics[topics.image].stamped:
        doubts.append(f"images on {topics.image} have no time (their stamps are 0): the time of recording is taken")
    depth_of, use = None, None
    if topics.depth:
        depth_of = DepthOf(bag, topics, required=depth_topic is not None)
        use = depth_of.look(None if first is None or size is None else (first, known, size))
        doubts += use.doubts
        depth_of = depth_of if use.how else None
    frame = "" if first is None else frame_of(first)
    return Plan(topics, frame, size, known, source, camera, use, depth_of, tuple(doubts))


def usable_camera(bag: Readable, topics: FrameTopics, info: Any, size: tuple[int, int]) -> Camera | None:
    """Calibration of images of a size (width, height) by a camera_info message; None where it holds none.

    Raises:
        CalibrationError: naming the topic.
    """
    try:
        camera = codec.camera_from_info(info, topics.rectified, size)
        camera = None if camera is None else codec.fit_camera_to_image(camera, *size)
    except CalibrationError as error:
        raise CalibrationError(f"{bag.path}, {topics.camera_info}: {error}") from error
    return None if camera is None or codec.is_placeholder(camera) else camera


def _calibration(
    bag: Readable, topics: FrameTopics, camera: Camera | None, size: tuple[int, int] | None
) -> tuple[Camera | None, str, list[str]]:
    """The first image's camera, where it is from, and what is doubtful about it."""
    if camera is not None:
        return (camera if size is None else codec.fit_camera_to_image(camera, *size)), GIVEN, []
    info = None if topics.camera_info is None else _first(bag, topics.camera_info)
    if topics.camera_info is None or info is None or size is None:
        return None, "", []
    doubts = _named_frames(bag, topics)
    used = usable_camera(bag, topics, info, size)
    if used is None and codec.camera_from_info(info, topics.rectified, size) is None:
        doubts.append(f"{topics.camera_info} is not calibrated (K is zero): the calibration is unknown")
    elif used is None or codec.doubt_about(used):
        believed = used or codec.camera_from_info(info, topics.rectified, size)
        assert believed is not None
        doubts.append(f"{topics.camera_info} {codec.doubt_about(codec.fit_camera_to_image(believed, *size))}")
    return used, topics.camera_info, doubts


def _named_frames(bag: Readable, topics: FrameTopics) -> list[str]:
    """A camera_info that was named is used; that it is of another frame is said all the same."""
    ours, theirs = (bag.topics[str(name)].frame_id or "" for name in (topics.image, topics.camera_info))
    if not ours or not theirs or ours.lstrip("/") == theirs.lstrip("/"):
        return []
    return [f"{topics.camera_info} is of frame '{theirs}', the images of '{ours}': used because it was named"]


def _first(bag: Readable, topic: str) -> Any:
    """The first message that can be read; None where there is none."""
    try:
        return bag.first(topic)
    except BagError:
        return None


def _size_of(message: Any) -> tuple[int, int] | None:
    try:
        height, width = decode_colour(message).shape[:2]
    except CodecError:
        return None
    return width, height
