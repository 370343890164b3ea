"""Which topics of a recording belong to one camera, by what their messages hold first and by their names then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mast3r_ros.errors import BagError
from mast3r_ros.io.codec.depth import DEPTH_ENCODINGS

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
#: Endings that image_transport appends to the name of the raw topic.
TRANSPORTS = ("/compressedDepth", "/compressed")
#: Words in a topic name that make it more or less likely to be the colour camera that is meant.
LIKELY = {
    **{"color": 4, "colour": 4, "rgb": 4, "left": 2, "front": 1, "right": -1, "infra": -2, "ir": -2},
    **{"depth": -3, "debug": -8},  # a colour image in the depth camera's view (Azure Kinect's rgb_to_depth), a picture
}
#: Words of float images that are no depth, and of 16-bit ones.
NOT_DEPTH_WORDS = {"disparity": "disparity in pixels", "disp": "disparity in pixels", "confidence": "confidence"}
GREY_WORDS = {"ir", "infra", "infrared", "thermal", "amplitude", "intensity", "left", "right"}
#: Depth that the driver has put into the colour camera's view; of X_to_Y the image of X as Y sees it.
REGISTERED = ("aligned", "registered", "to_rgb", "to_color", "to_colour")
#: Topics of librealsense's own recorder: all have one frame id, so nothing says that its cameras differ.
LIBREALSENSE = re.compile(r"/device_\d+/sensor_\d+/\w+/image/data$")
#: Serialization of messages that can be read.
READABLE = ("cdr", "ros1")


@dataclass(frozen=True)
class Topic:
    """One topic of a recording.

    Attributes:
        type: such as "sensor_msgs/msg/Image", also in ROS 1 bags.
        count: number of messages.
        latched: whether its publisher offered them to late joiners (transient local).
        serialization: "cdr", "ros1", or what else a recorder wrote (json, protobuf), which is not read.
        frame_id, encoding: of the first message, for images and camera_info; None where it cannot be read.
            A compressed image's encoding is that of the pixels in it ("jpeg" for 8 bits of any kind).
        stamped: whether that message's header has a time.
    """

    type: str
    count: int
    latched: bool = False
    serialization: str = "cdr"
    frame_id: str | None = None
    encoding: str | None = None
    stamped: bool = True

    @property
    def is_image(self) -> bool:
        """Whether it holds sensor_msgs images, colour or depth."""
        return self.type in (IMAGE, COMPRESSED) and self.count > 0 and self.serialization in READABLE


@dataclass(frozen=True)
class FrameTopics:
    """Topics that make up frames; None where there is none.

    Attributes:
        doubts: sentences about what was not chosen, and why.
    """

    image: str
    camera_info: str | None = None
    depth: str | None = None
    depth_info: str | None = None
    doubts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def rectified(self) -> bool:
        """Whether the images are rectified, by image_proc's naming (image_rect, image_rect_color)."""
        return "rect" in base_name(self.image).rsplit("/", 1)[-1]

    @property
    def names(self) -> dict[str, str | None]:
        """The four topics by their role."""
        return {
            "image": self.image,
            "camera_info": self.camera_info,
            "depth": self.depth,
            "depth_info": self.depth_info,
        }


Topics = Mapping[str, Topic]


def find_topics(
    topics: Topics,
    where: str,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
    use_depth: bool = True,
    calibrated: bool = False,
) -> FrameTopics:
    """Choose what was not given: the colour camera, its camera_info, and its depth.

    Args:
        calibrated: the calibration is known otherwise: no camera_info is looked for.

    Raises:
        BagError: if a given topic is not there or holds something else, or no single image topic can be chosen.
    """
    _check_given(topics, where, image, camera_info, depth)
    image = image or _choose_image(topics, where)
    doubts: list[str] = []
    if camera_info is None and not calibrated:
        camera_info, doubt = _choose_info(image, topics)
        doubts += doubt
    if depth is None and use_depth:
        depth, doubt = _choose_depth(image, topics)
        doubts += doubt
    depth_info = _info_of_depth(depth, image, topics) if depth else None
    return FrameTopics(image, camera_info, depth, depth_info, tuple(doubts))


def base_name(topic: str) -> str:
    """Name of the raw image topic that a transport's topic belongs to."""
    for transport in TRANSPORTS:
        topic = topic.removesuffix(transport)
    return topic


def pixel_encoding(message: Any) -> str:
    """What the pixels of an Image or CompressedImage are: the encoding, or "jpeg" for 8 bits in a compressed file."""
    if not hasattr(message, "format"):
        return str(message.encoding).strip().lower()
    claimed = message.format.split(";")[0].strip().lower()
    if "compresseddepth" in message.format.lower():
        return claimed if claimed in DEPTH_ENCODINGS else "16uc1"
    head = bytes(message.data[:26])
    if head.startswith(b"\x89PNG") and head[24:26] == b"\x10\x00":  # 16 bits, grey
        return "16uc1" if claimed not in DEPTH_ENCODINGS else claimed
    return f"jpeg of {claimed}" if claimed in ("16uc1", "32fc1", "64fc1") else "jpeg"


def is_depth(name: str, topic: Topic) -> bool:
    """Whether images are depth that can be read: what the pixels are decides before the name does."""
    words = _words(name)
    if words & set(NOT_DEPTH_WORDS):
        return False
    if topic.encoding is None:
        return "depth" in words or name.endswith("/compressedDepth")
    return topic.encoding in DEPTH_ENCODINGS and _says_depth(name)


def _says_depth(name: str) -> bool:
    """Whether a name is one of depth, by the last part that tells: /depth/ir is infrared, depthai says stereo."""
    for part in reversed(base_name(name).lower().split("/")):
        if "depth" in part.removeprefix("depthai") or part == "stereo":
            return True
        if _words(part) & GREY_WORDS:
            return False
    return False


def is_colour(name: str, topic: Topic) -> bool:
    """Whether images are a camera's pictures, colour or grey."""
    if topic.encoding is None:
        return not is_depth(name, topic) and not _words(name) & set(NOT_DEPTH_WORDS)
    floats = topic.encoding in ("32fc1", "64fc1", "32fc2", "32fc3") or topic.encoding.startswith("jpeg of")
    return not floats and not is_depth(name, topic)


def tf_topics(topics: Topics, image: str = "/") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """TF is one tree per namespace: the topics of the image's namespace, else /tf and /tf_static, else the only ones.

    Returns:
        the topics, and sentences about what is doubtful in that choice.
    """
    known = [name for name, topic in topics.items() if topic.type in TF_TYPES and topic.serialization in READABLE]
    chosen, doubts = [], []
    for kind in ("tf", "tf_static"):
        spaces = {name.rpartition("/")[0]: name for name in known if name.rpartition("/")[2] == kind}
        around = [space for space in spaces if f"{image}/".startswith(f"{space}/")]
        if around:
            chosen.append(spaces[max(around, key=len)])
        elif len(spaces) == 1:
            chosen += spaces.values()
            doubts.append(f"TF is taken from {chosen[-1]}, the only one, although {image} is in another namespace")
    if others := sorted(set(known) - set(chosen)):
        used = f"{', '.join(chosen)} is" if chosen else "none"
        doubts.append(f"TF on {', '.join(others)} is not used: {used} in the namespace of {image}")
    return tuple(chosen), tuple(doubts)


def _check_given(topics: Topics, where: str, image: str | None, camera_info: str | None, depth: str | None) -> None:
    for name in (image, camera_info, depth):
        if name is not None and name not in topics:
            raise BagError(f"{where} has no topic {name}: it has {', '.join(sorted(topics)) or 'none'}")
        if name is not None and topics[name].serialization not in READABLE:
            raise BagError(f"{where}: {unreadable({name: topics[name]})}")
    for name in (image, depth):
        if name is not None and topics[name].type not in (IMAGE, COMPRESSED):
            raise BagError(f"{where}: {name} holds {topics[name].type}, no images")
    if camera_info is not None and topics[camera_info].type != INFO:
        raise BagError(f"{where}: {camera_info} holds {topics[camera_info].type}, expected {INFO}")
    if image is not None and image == depth:
        raise BagError(f"{where}: {image} is named for colour and for depth: name two topics")
    if depth is not None and (why := _why_no_depth(depth, topics[depth])):
        raise BagError(f"{where}: {depth} holds {why}, not depth: name another topic, or do without depth")
    encoding = topics[image].encoding if image is not None else None
    if encoding in ("32fc1", "64fc1") or str(encoding).startswith("jpeg of"):
        raise BagError(f"{where}: {image} holds {encoding}, no camera image: name the topic of the colour images")


def unreadable(topics: Topics) -> str:
    """Names the channels whose messages are not ROS's; empty if there are none."""
    foreign = [f"{name} ({topic.type}, {topic.serialization})" for name, topic in topics.items()]
    foreign = [
        text for text, topic in zip(foreign, topics.values(), strict=True) if topic.serialization not in READABLE
    ]
    if not foreign:
        return ""
    return (
        f"{', '.join(foreign)} cannot be read: only ROS messages (cdr, ros1) are; record or convert to ROS 2 messages"
    )


def _why_no_depth(name: str, topic: Topic) -> str:
    """Why images cannot be depth whatever they are called; empty if they can."""
    for word in _words(name):
        if word in NOT_DEPTH_WORDS:
            return NOT_DEPTH_WORDS[word]
    if topic.encoding is None or topic.encoding in DEPTH_ENCODINGS:
        return ""
    if topic.encoding == "jpeg":
        return "8-bit images"
    return f"{topic.encoding} images".replace("jpeg of ", "JPEG-compressed ")


def _words(name: str) -> set[str]:
    return {word.rstrip("0123456789") for word in base_name(name).lower().replace("_", "/").split("/")}


def _likelihood(name: str) -> int:
    words = [word.rstrip("0123456789") for word in base_name(name).lower().replace("_", "/").split("/")]
    return sum(LIKELY.get(word, 0) for word in words)


def _choose_image(topics: Topics, where: str) -> str:
    names = [name for name, topic in topics.items() if topic.is_image and is_colour(name, topic)]
    if not names:
        foreign = unreadable(topics)
        more = f"; {foreign}" if foreign else ""
        raise BagError(f"{where} has no camera images: expected a topic of type {IMAGE} or {COMPRESSED}{more}")
    score = {name: _likelihood(name) for name in names}
    best = [name for name in names if score[name] == max(score.values())]
    cameras = {base_name(name).rpartition("/")[0] for name in best}
    if len(cameras) > 1:
        raise BagError(f"{where} has several cameras: name the image topic, one of {', '.join(sorted(best))}")
    # The same camera in several forms: raw before compressed, unprocessed before processed.
    return min(best, key=lambda name: (topics[name].type != IMAGE, len(name), name))


def _frame(topic: Topic) -> str:
    """frame_id without ROS 1's leading slash; empty where nobody knows."""
    return (topic.frame_id or "").lstrip("/")


def _same_frame(one: Topic, other: Topic) -> bool:
    """Whether two topics are of one camera as far as their frame ids say."""
    return not _frame(one) or not _frame(other) or _frame(one) == _frame(other)


def _shared(one: str, other: str) -> int:
    """How many leading parts two names have in common."""
    pairs = zip(base_name(one).split("/"), base_name(other).split("/"), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/")))


def _twins(one: str, other: str) -> bool:
    """Whether two topics are the same of two robots or cameras: their names differ in one part."""
    a, b = base_name(one).split("/"), base_name(other).split("/")
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1


def _info_beside(image: str, topics: Topics) -> str | None:
    folder = base_name(image).rpartition("/")[0]
    # librealsense's recorder (RealSense Viewer): .../Color_0/image/data and .../Color_0/info/camera_info.
    places = (folder + "/camera_info", folder.removesuffix("/image") + "/info/camera_info")
    return next((p for p in places if p in topics and topics[p].type == INFO and topics[p].count), None)


def _choose_info(image: str, topics: Topics) -> tuple[str | None, list[str]]:
    """The calibration beside the image, or the one of its frame; never one that says it is another camera's."""
    beside = _info_beside(image, topics)
    if beside and _same_frame(topics[beside], topics[image]):
        return beside, []
    infos = [name for name, topic in topics.items() if topic.type == INFO and topic.count]
    siblings = {
        _info_beside(name, topics) for name, topic in topics.items() if topic.is_image and is_colour(name, topic)
    }
    same = [name for name in infos if _frame(topics[name]) and _frame(topics[name]) == _frame(topics[image])]
    same = [name for name in same if name not in siblings] or ([] if len(same) > 1 else same)
    if same:
        return max(same, key=lambda name: (_shared(name, image), name)), []
    if len(infos) == 1 and _same_frame(topics[infos[0]], topics[image]) and infos[0] not in siblings:
        return infos[0], []
    if not infos:
        return None, [f"there is no camera_info for {image}: give the calibration; without it no map can be built"]
    said = ", ".join(f"{name} (frame '{_frame(topics[name])}')" for name in ([beside] if beside else sorted(infos)))
    return None, [
        f"no camera_info is of the camera of {image} (frame '{_frame(topics[image])}'): {said} is not used; name it as "
        "the camera_info topic if it is that camera's, or give the calibration"
    ]


def _choose_depth(image: str, topics: Topics) -> tuple[str | None, list[str]]:
    """Depth in the image's frame before other depth, registered before not, the camera's own before another's."""
    doubts = [
        f"{name} holds {_why_no_depth(name, topic)}, not depth: not used"
        for name, topic in topics.items()
        if topic.is_image and name != image and not is_colour(name, topic) and _why_no_depth(name, topic)
    ]
    candidates = [name for name, topic in topics.items() if topic.is_image and name != image and is_depth(name, topic)]
    if foreign := sorted(filter(LIBREALSENSE.match, candidates)):
        candidates = [name for name in candidates if name not in foreign]
        doubts.append(
            f"{', '.join(foreign)} is of librealsense's own recorder, not registered to colour: not used "
            "(realsense-ros records aligned depth)"
        )
    twins = [
        name for name, topic in topics.items() if topic.is_image and is_colour(name, topic) and _twins(name, image)
    ]
    own = [d for d in candidates if all(_shared(d, image) >= _shared(d, twin) for twin in twins)]
    if candidates and not own:
        doubts.append(
            f"depth on {', '.join(sorted(candidates))} is beside {', '.join(twins)}, another camera: not used"
        )

    def rank(name: str) -> tuple[bool, bool, int, bool, str]:
        topic = topics[name]
        same = bool(_frame(topic)) and _frame(topic) == _frame(topics[image])
        registered = any(word in name.lower() for word in REGISTERED)
        return same, registered, _shared(name, image), base_name(name) == name, name

    return max(own, key=rank, default=None), doubts


def _info_of_depth(depth: str, image: str, topics: Topics) -> str | None:
    """Calibration of depth images: beside them, or elsewhere in their frame where that is not the image's."""
    beside = _info_beside(depth, topics)
    if beside and _same_frame(topics[beside], topics[depth]):
        return beside
    frame = _frame(topics[depth])
    if not frame or frame == _frame(topics[image]):
        return None
    same = [name for name, topic in topics.items() if topic.type == INFO and topic.count and _frame(topic) == frame]
    return max(same, key=lambda name: (_shared(name, depth), name), default=None)
