"""From topics to frames: which topics belong together, and which messages."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import BagError, CalibrationError, CodecError
from mast3r_ros.frames import Camera, Frame, register_depth
from mast3r_ros.io import codec
from mast3r_ros.transforms import TransformUnavailable

if TYPE_CHECKING:
    from mast3r_ros.io.bags.reader import BagReader, Topic

log = logging.getLogger(__name__)

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
#: Endings that image_transport appends to the name of the raw topic.
TRANSPORTS = ("/compressedDepth", "/compressed")
#: Words in a topic name that make it more or less likely to be the colour camera that is meant.
LIKELY = {"color": 4, "colour": 4, "rgb": 4, "left": 2, "front": 1, "infra": -2, "ir": -2, "right": -1, "debug": -8}
#: Topics of librealsense's own recorder: all have one frame id, so nothing says that its cameras differ.
LIBREALSENSE = re.compile(r"/device_\d+/sensor_\d+/\w+/image/data$")
#: How long, in recording time, a frame waits for its camera_info and depth.
PATIENCE_NS = 250_000_000
#: Intrinsics that differ by less than this share belong to the same camera.
SAME_INTRINSICS = 0.01


@dataclass(frozen=True)
class FrameTopics:
    """Topics that make up frames; None where there is none."""

    image: str
    camera_info: str | None = None
    depth: str | None = None
    depth_info: str | None = None

    @property
    def rectified(self) -> bool:
        """Whether the images are rectified, by image_proc's naming (image_rect, image_rect_color)."""
        return "rect" in base_name(self.image).rsplit("/", 1)[-1]


def base_name(topic: str) -> str:
    """Name of the raw image topic that a transport's topic belongs to."""
    for transport in TRANSPORTS:
        topic = topic.removesuffix(transport)
    return topic


def find_topics(
    topics: Mapping[str, Topic],
    where: str,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
    use_depth: bool = True,
) -> FrameTopics:
    """Choose what was not given: the colour camera, the camera_info beside it, and its depth.

    Raises:
        BagError: if a given topic is not there, or no single image topic can be chosen.
    """
    for name in (image, camera_info, depth):
        if name is not None and name not in topics:
            raise BagError(f"{where} has no topic {name}: it has {', '.join(sorted(topics)) or 'none'}")
    if image is None:
        image = _choose_image(topics, where)
    if camera_info is None:
        infos = [name for name, topic in topics.items() if topic.type == INFO and topic.count]
        camera_info = _info_beside(image, topics) or (infos[0] if len(infos) == 1 else None)
    if depth is None and use_depth:
        candidates = [name for name, topic in topics.items() if _is_image(topic) and _is_depth(name) and topic.count]
        depth = max(candidates, key=lambda name: _depth_rank(name, str(image)), default=None)
        if depth is not None and LIBREALSENSE.match(depth):
            log.warning(
                "%s is a recording of librealsense, whose depth %s is not registered to colour: it is not used "
                "(realsense-ros records aligned depth)",
                where,
                depth,
            )
            depth = None
    depth_info = _info_beside(depth, topics) if depth else None
    return FrameTopics(image, camera_info, depth, depth_info)


def _is_image(topic: Topic) -> bool:
    return topic.type in (IMAGE, COMPRESSED)


def _is_depth(name: str) -> bool:
    return "depth" in name.lower() or "disparity" in name.lower()


def _choose_image(topics: Mapping[str, Topic], where: str) -> str:
    names = [name for name, topic in topics.items() if _is_image(topic) and not _is_depth(name) and topic.count]
    if not names:
        raise BagError(f"{where} has no camera images: expected a topic of type {IMAGE} or {COMPRESSED}")
    words = {name: base_name(name).lower().replace("_", "/").split("/") for name in names}
    score = {name: sum(LIKELY.get(word.rstrip("0123456789"), 0) for word in words[name]) for name in names}
    best = [name for name in names if score[name] == max(score.values())]
    cameras = {base_name(name).rpartition("/")[0] for name in best}
    if len(cameras) > 1:
        raise BagError(f"{where} has several cameras: name the image topic, one of {', '.join(sorted(best))}")
    # The same camera in several forms: raw before compressed, unprocessed before processed.
    return min(best, key=lambda name: (topics[name].type != IMAGE, len(name), name))


def _info_beside(image: str, topics: Mapping[str, Topic]) -> str | None:
    folder = base_name(image).rpartition("/")[0]
    # librealsense's recorder (RealSense Viewer): .../Color_0/image/data and .../Color_0/info/camera_info.
    places = (folder + "/camera_info", folder.removesuffix("/image") + "/info/camera_info")
    return next((place for place in places if place in topics and topics[place].count), None)


def _depth_rank(name: str, image: str) -> tuple[int, int, int, str]:
    """Registered before not, the colour camera's own before another's, raw before compressed."""
    registered = any(word in name for word in ("aligned", "registered"))
    shared = len([1 for a, b in zip(name.split("/"), image.split("/"), strict=False) if a == b])
    return int(registered), shared, int(base_name(name) == name), name


class FrameReader:
    """Joins images with the camera_info and depth of the same moment while a bag is read once."""

    def __init__(self, bag: BagReader, topics: FrameTopics, max_delay_ns: int, depth_required: bool) -> None:
        self.bag, self.topics, self.max_delay_ns = bag, topics, max_delay_ns
        self._waiting: deque[tuple[int, Any]] = deque()
        self._infos: deque[Any] = deque(maxlen=200)
        self._depths: deque[Any] = deque(maxlen=300)
        self._camera: Camera | None = None
        self._eight_bits = codec.EightBits()
        self._depth = _DepthOf(bag, topics, depth_required) if topics.depth else None

    def __iter__(self) -> Iterator[Frame]:
        names = [self.topics.image, self.topics.camera_info, self.topics.depth]
        if self._depth:
            self._depth.prepare()
        if self.topics.camera_info and self.bag.topics[self.topics.camera_info].count:
            # Images recorded before the first camera_info came from the same camera.
            self._infos.append(self.bag.first(self.topics.camera_info))
        for topic, recorded_ns, message in self.bag.messages([name for name in names if name]):
            if topic == self.topics.image:
                self._waiting.append((recorded_ns, message))
            elif topic == self.topics.camera_info:
                self._infos.append(message)
            else:
                self._depths.append(message)
                self._forget_depths()
            while self._waiting and self._is_due(recorded_ns):
                yield from self._frame(*self._waiting.popleft())
        while self._waiting:
            yield from self._frame(*self._waiting.popleft())

    def _is_due(self, now_ns: int) -> bool:
        """Whether nothing better can still arrive for the oldest waiting image, or it has waited enough."""
        recorded_ns, image = self._waiting[0]
        if now_ns - recorded_ns > PATIENCE_NS + self.max_delay_ns:
            return True
        stamp = stamp_ns(image)
        has_depth = not self.topics.depth or (self._depths and stamp_ns(self._depths[-1]) >= stamp)
        has_info = not self.topics.camera_info or (self._infos and stamp_ns(self._infos[-1]) >= stamp)
        return bool(has_depth and has_info)

    def _forget_depths(self) -> None:
        """Drop the depth images that no waiting or coming image can need: there may be far more of them."""
        newest = stamp_ns(self._waiting[0][1]) if self._waiting else stamp_ns(self._depths[-1]) - PATIENCE_NS
        while stamp_ns(self._depths[0]) < min(newest, stamp_ns(self._depths[-1])) - self.max_delay_ns:
            self._depths.popleft()

    def _frame(self, recorded_ns: int, message: Any) -> Iterator[Frame]:
        """The frame of one image message; nothing if the image is damaged."""
        stamp = stamp_ns(message) or recorded_ns
        try:
            image = decode_colour(message, self._eight_bits)
            camera = self._camera_at(stamp, image.shape[1], image.shape[0])
            depth = self._depth_at(stamp, message, camera, image.shape[:2]) if self._depth else None
        except CodecError as error:
            self.bag.report(f"an image at {stamp / 1e9:.3f} s cannot be decoded ({error}): skipped")
            return
        yield Frame(image, camera, stamp, depth, name=str(stamp))

    def _camera_at(self, stamp: int, width: int, height: int) -> Camera | None:
        if not self._infos:
            return None
        info = min(self._infos, key=lambda info: abs(stamp_ns(info) - stamp))
        try:
            camera = codec.camera_from_info(info, self.topics.rectified, (width, height))
            camera = None if camera is None else codec.fit_camera_to_image(camera, width, height)
        except CalibrationError as error:
            raise CalibrationError(f"{self.bag.path}, {self.topics.camera_info}: {error}") from error
        if camera is None or self._camera is None or not camera.same_as(self._camera):
            self._camera = camera
        return self._camera  # one object for all frames, so that what it caches is shared

    def _depth_at(
        self, stamp: int, image: Any, camera: Camera | None, shape: tuple[int, ...]
    ) -> NDArray[np.float32] | None:
        nearest = min(self._depths, key=lambda depth: abs(stamp_ns(depth) - stamp), default=None)
        if nearest is None or abs(stamp_ns(nearest) - stamp) > self.max_delay_ns:
            return None
        assert self._depth is not None
        return self._depth.registered(nearest, image, camera, (int(shape[0]), int(shape[1])))


class _DepthOf:
    """Depth images as the colour camera would have measured them."""

    def __init__(self, bag: BagReader, topics: FrameTopics, required: bool) -> None:
        self.bag, self.topics, self.required = bag, topics, required
        self._info: Any = None
        self._camera: Camera | None = None
        self._refused = False

    def prepare(self) -> None:
        """Read what registration needs, before the images are read: one file has one reading position."""
        if self.topics.depth_info:
            self._info = self.bag.first(self.topics.depth_info)
        headers = [self.bag.first(topic).header for topic in (self.topics.image, self.topics.depth) if topic]
        if len({header.frame_id for header in headers}) > 1:
            self.bag.transforms()

    def registered(
        self, message: Any, image: Any, camera: Camera | None, shape: tuple[int, int]
    ) -> NDArray[np.float32] | None:
        """(H, W) float32 metres in the colour camera, or None where the depth cannot be used."""
        if self._refused:
            return None
        depth = decode_any_depth(message)
        depth_camera = self._depth_camera(depth.shape[1], depth.shape[0])
        ours, theirs = image.header.frame_id.lstrip("/"), message.header.frame_id.lstrip("/")
        if ours == theirs and depth.shape == shape and _same_view(depth_camera, camera):
            return depth
        what = f"depth on {self.topics.depth} is not registered to {self.topics.image}"
        if depth_camera is None or camera is None:
            missing = "the depth camera's camera_info" if depth_camera is None else "the colour camera's camera_info"
            self._refuse(f"{what}, and {missing} to register it with is not in the bag")
            return None
        try:
            colour_T_depth = np.eye(4) if ours == theirs else self._extrinsics(ours, theirs, stamp_ns(image))
        except TransformUnavailable as error:
            self._refuse(f"{what}, and TF has no way between their cameras ({error})")
            return None
        return register_depth(depth, depth_camera, camera, colour_T_depth)

    def _extrinsics(self, colour_frame: str, depth_frame: str, stamp: int) -> NDArray[np.float64]:
        return self.bag.transforms().lookup(colour_frame, depth_frame, stamp)

    def _depth_camera(self, width: int, height: int) -> Camera | None:
        """The depth camera's calibration, which does not change during a recording."""
        if self._camera is None and self._info is not None:
            rectified = FrameTopics(str(self.topics.depth)).rectified
            camera = codec.camera_from_info(self._info, rectified, (width, height))
            self._camera = None if camera is None else codec.fit_camera_to_image(camera, width, height)
        return self._camera

    def _refuse(self, why: str) -> None:
        if self.required:
            raise BagError(f"{self.bag.path}: {why}: record it, or do without depth")
        self._refused = True
        self.bag.report(f"{why}: the depth is not used")


def _same_view(depth_camera: Camera | None, camera: Camera | None) -> bool:
    """Whether depth with the colour camera's frame id has its intrinsics too, as far as is known."""
    if depth_camera is None or camera is None:
        return True
    return np.allclose(depth_camera.K, camera.K, rtol=SAME_INTRINSICS, atol=1.0)


def stamp_ns(message: Any) -> int:
    """Header stamp of a message in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def decode_colour(message: Any, eight_bits: codec.EightBits | None = None) -> NDArray[np.uint8]:
    """sensor_msgs/Image or CompressedImage -> (H, W, 3) uint8 RGB. Raises CodecError."""
    if hasattr(message, "format"):
        return codec.decode_compressed_image(message.data, message.format, eight_bits)
    return codec.decode_image(message.data, **_layout(message), eight_bits=eight_bits)


def decode_any_depth(message: Any) -> NDArray[np.float32]:
    """sensor_msgs/Image or compressedDepth CompressedImage -> (H, W) float32 metres. Raises CodecError."""
    if hasattr(message, "format"):
        return codec.decode_compressed_depth(message.data, message.format)
    return codec.decode_depth(message.data, **_layout(message))


def _layout(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ("encoding", "width", "height", "step", "is_bigendian")}
