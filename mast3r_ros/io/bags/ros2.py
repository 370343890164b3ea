"""Recorded messages as ROS 2 puts them on the wire (CDR), whatever ROS recorded them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES, generate_message_converter
from rosbags.typesys import get_typestore

from mast3r_ros.io.bags.definitions import DEFAULT_TYPES
from mast3r_ros.io.bags.reader import BagReader


@dataclass(frozen=True)
class Ros2Topic:
    """How a recorded topic is published in ROS 2.

    Attributes:
        type: ROS 2 message type, such as "tf2_msgs/msg/TFMessage".
        to_cdr: recorded bytes -> CDR.
    """

    type: str
    to_cdr: Callable[[bytes], bytes]


def as_ros2(bag: BagReader, topics: Iterable[str]) -> dict[str, Ros2Topic]:
    """The given topics of a bag in ROS 2 form; a ROS 1 type that ROS 2 does not have is left out."""
    form: dict[str, Ros2Topic] = {}
    for topic in topics:
        msgtype = bag.topics[topic].type
        if bag.is_ros2:
            form[topic] = Ros2Topic(msgtype, bytes)
        elif (converted := _from_ros1(bag, msgtype)) is not None:
            form[topic] = converted
    return form


def _from_ros1(bag: BagReader, msgtype: str) -> Ros2Topic | None:
    """Messages are compared field by field: same layout is copied, renamed fields are matched by type."""
    name = STATIC_MSGTYPE_RENAMES.get(msgtype, msgtype)
    source, target = bag.typestore(msgtype), get_typestore(DEFAULT_TYPES)
    if source is None or name not in target.fielddefs:
        return None
    convert = generate_message_converter(source, target, msgtype, name, {}, src_is2=False, dst_is2=True)
    return Ros2Topic(name, lambda data: bytes(convert(data)))
