"""One reader for ROS 1 (.bag) and ROS 2 (folder, .mcap, .db3) recordings, finished or cut short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import ConnectionExtRosbag1, MessageDefinition, MessageDefinitionFormat, QosDurability
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mast3r_ros.errors import BagError
from mast3r_ros.frames import Frame
from mast3r_ros.io.bags.frames import FrameReader, find_topics
from mast3r_ros.io.bags.salvage import NO_DEFINITION, RawMessage, has_write_ahead_log, scan
from mast3r_ros.transforms import InvalidTransform, TransformBuffer

log = logging.getLogger(__name__)

#: Definitions for bags that carry none (ROS 2 before Iron); those of standard messages have not changed since.
DEFAULT_TYPES = Stores.ROS2_JAZZY
#: More problems than this are counted but not remembered one by one.
MOST_PROBLEMS = 100

TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")


@dataclass(frozen=True)
class Topic:
    """One topic of a recording: its type ("sensor_msgs/msg/Image" also in ROS 1 bags), number of messages,
    and whether its publisher offered them to late joiners (transient local, latched)."""

    type: str
    count: int
    latched: bool = False


class _Recording:
    """One file (or one folder that rosbags can read as a whole)."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.definitions: dict[str, MessageDefinition] = {}
        self.start_ns = self.end_ns = 0

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        """(topic, stamp_ns, serialized message) of the given topics."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""


class _Finished(_Recording):
    """A recording with an index, read by rosbags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._reader: Reader1 | Reader2 = Reader1(path) if path.suffix == ".bag" else Reader2(path)
        self._reader.open()
        for connection in self._reader.connections:
            known = self.topics.get(connection.topic, Topic(connection.msgtype, 0))
            latched = known.latched or _is_latched(connection.ext) or connection.topic.endswith("tf_static")
            self.topics[connection.topic] = Topic(connection.msgtype, known.count + connection.msgcount, latched)
            self.definitions[connection.msgtype] = connection.msgdef
        if self._reader.message_count:
            self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time - 1

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        if wanted:  # rosbags reads no filter as "everything"
            for connection, stamp_ns, data in self._reader.messages(wanted):
                yield connection.topic, stamp_ns, data

    def close(self) -> None:
        self._reader.close()


class _Unfinished(_Recording):
    """A recording that was never closed, read by walking its records."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for message in scan(path):
            self._count(message)
        if not self.topics:
            raise BagError(f"{path}: no message can be read: the file is empty, damaged or no recording")

    def _count(self, message: RawMessage) -> None:
        known = self.topics.get(message.topic)
        if known is None:
            self.definitions[message.msgtype] = message.definition
            known = Topic(message.msgtype, 0, message.topic.endswith("tf_static"))
        self.topics[message.topic] = Topic(known.type, known.count + 1, known.latched)
        self.start_ns = min(self.start_ns or message.stamp_ns, message.stamp_ns)
        self.end_ns = max(self.end_ns, message.stamp_ns)

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        for message in scan(self._path):
            if message.topic in topics:
                yield message.topic, message.stamp_ns, message.data


class BagReader:
    """An open recording. Use :func:`open_bag`; close it, or use it in a ``with`` statement.

    What cannot be read is skipped, logged once and kept in ``problems``; with ``strict`` it raises.

    Attributes:
        path: what was opened.
        topics: name -> :class:`Topic`.
        start_ns, end_ns: stamps of the first and last message (time of recording).
        is_ros2: False for .bag files.
        problems: sentences about what could not be read.
    """

    def __init__(self, path: Path, strict: bool = False) -> None:
        self.path = path
        self.strict = strict
        self.problems: list[str] = []
        self.is_ros2 = not path.name.endswith((".bag", ".bag.active"))
        self._recordings = self._open(path)
        self.topics: dict[str, Topic] = {}
        for recording in self._recordings:
            for name, topic in recording.topics.items():
                known = self.topics.get(name, Topic(topic.type, 0))
                self.topics[name] = Topic(topic.type, known.count + topic.count, known.latched or topic.latched)
        filled = [recording for recording in self._recordings if recording.end_ns]
        self.start_ns = min((recording.start_ns for recording in filled), default=0)
        self.end_ns = max((recording.end_ns for recording in filled), default=0)
        self._decoders: dict[str, Callable[[bytes], Any] | None] = {}
        self._transforms: TransformBuffer | None = None

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, stamp_ns of recording, message), in order of time within each file.

        Args:
            topics: which to read; None for all whose type is known.

        Raises:
            BagError: for a topic that is not there or has an unknown type; with ``strict`` also for damage.
        """
        wanted = self._checked(topics)
        for topic, stamp_ns, data in self.serialized(wanted):
            decode = self._decoder(self.topics[topic].type)
            assert decode is not None  # _checked left only those
            try:
                message = decode(data)
            except Exception as error:  # damaged bytes can fail in any way
                self.report(f"a message on {topic} at {stamp_ns / 1e9:.3f} s is damaged ({_short(error)}): skipped")
                continue
            yield topic, stamp_ns, message

    def serialized(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """(topic, stamp_ns, bytes) as recorded: CDR in ROS 2, ROS 1 serialization in .bag files."""
        wanted = set(self.topics if topics is None else topics)
        for recording in self._recordings:
            try:
                yield from recording.read(wanted)
            except BagError:
                raise
            except Exception as error:  # rosbags asserts, and damage can fail in any way
                self.report(f"reading stops early: the file is damaged ({_short(error)})")

    def frames(
        self,
        image_topic: str | None = None,
        camera_info_topic: str | None = None,
        depth_topic: str | None = None,
        max_delay_s: float = 0.02,
        use_depth: bool = True,
    ) -> Iterator[Frame]:
        """Camera frames with calibration and registered depth, stamped by their headers.

        Topics that are not given are found by type and name (:func:`mast3r_ros.io.bags.find_topics`). Depth and
        colour are paired by nearest stamp, at most ``max_delay_s`` apart. Depth of another camera is registered
        through its camera_info and TF; where that is not possible it is refused if it was asked for by name, and
        left out with a warning otherwise.

        Raises:
            BagError: without or with ambiguous image topics, and for depth that cannot be registered.
            CalibrationError: for a camera_info that cannot be used.
        """
        topics = find_topics(self.topics, str(self.path), image_topic, camera_info_topic, depth_topic, use_depth)
        return iter(FrameReader(self, topics, round(max_delay_s * 1e9), depth_required=depth_topic is not None))

    def first(self, topic: str) -> Any:
        """The first message on a topic.

        Raises:
            BagError: if there is none.
        """
        for _, _, message in self.messages([topic]):
            return message
        raise BagError(f"{self.path}: topic {topic} has no readable message")

    def transforms(self) -> TransformBuffer:
        """All of TF, static and moving, over the whole recording (read once, then kept)."""
        if self._transforms is None:
            buffer = TransformBuffer(cache_s=None)
            topics = [name for name, topic in self.topics.items() if topic.type in TF_TYPES]
            for topic, _, message in self.messages(topics):
                for transform in message.transforms:
                    try:
                        buffer.set_message(transform, static=topic.endswith("tf_static"))
                    except InvalidTransform as error:
                        self.report(f"{error} (on {topic}): skipped")
            self._transforms = buffer
        return self._transforms

    def typestore(self, msgtype: str) -> Typestore | None:
        """A message type as the bag defines it (ROS 1 or 2), with what it is made of; None if nobody defines it."""
        definitions = (recording.definitions.get(msgtype) for recording in self._recordings)
        definition = next((d for d in definitions if d and d.format != MessageDefinitionFormat.NONE), NO_DEFINITION)
        return _typestore(msgtype, definition)

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        while self._recordings:
            self._recordings.pop().close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: Path) -> list[_Recording]:
        if path.is_file():
            return [self._open_file(path)]
        if (path / "metadata.yaml").exists():
            try:
                return [_Finished(path)]
            except Exception as error:  # rosbags asserts, and damage can fail in any way
                self.report(f"cannot be read as a whole ({_short(error)}): its files are read one by one")
        files = sorted([*path.glob("*.mcap"), *path.glob("*.db3")], key=_natural)
        if not files:
            raise BagError(f"{path} is no recording: expected metadata.yaml, *.mcap or *.db3 in it")
        return [self._open_file(file) for file in files]

    def _open_file(self, path: Path) -> _Recording:
        if not path.name.endswith((".bag", ".bag.active", ".mcap", ".db3")):
            raise BagError(f"{path} is no recording: expected a folder, or a .bag, .mcap or .db3 file")
        if not path.name.endswith(".active") and not has_write_ahead_log(path):
            try:
                return _Finished(path)
            except PermissionError as error:
                raise BagError(f"{path} cannot be opened: {error.strerror}") from error
            except Exception as error:  # rosbags asserts, and damage can fail in any way
                reason = _short(error)
        else:
            reason = "still open when recording stopped"
        recording = _Unfinished(path)
        count = sum(topic.count for topic in recording.topics.values())
        self.report(f"{path.name} was not closed or is damaged ({reason}): read what is there, {count} messages")
        return recording

    def report(self, what: str) -> None:
        """Remember and log something that could not be read; raise it as BagError if strict."""
        if self.strict:
            raise BagError(f"{self.path}: {what}")
        if what not in self.problems and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what)
            log.warning("%s: %s", self.path, what)

    def _checked(self, topics: Iterable[str] | None) -> list[str]:
        if topics is None:
            return [name for name, topic in self.topics.items() if self._decoder(topic.type) is not None]
        wanted = list(topics)
        for name in wanted:
            if name not in self.topics:
                raise BagError(f"{self.path} has no topic {name}: it has {', '.join(sorted(self.topics)) or 'none'}")
            if self._decoder(self.topics[name].type) is None:
                raise BagError(f"{self.path}: the type {self.topics[name].type} of {name} is not defined in the bag")
        return wanted

    def _decoder(self, msgtype: str) -> Callable[[bytes], Any] | None:
        """Function from bytes to message, or None for a type that nobody has defined."""
        if msgtype not in self._decoders:
            store = self.typestore(msgtype)
            if store is None:
                self._decoders[msgtype] = None
            elif self.is_ros2:
                self._decoders[msgtype] = lambda data: store.deserialize_cdr(data, msgtype)
            else:
                self._decoders[msgtype] = lambda data: store.deserialize_ros1(data, msgtype)
        return self._decoders[msgtype]


def open_bag(path: Path | str, strict: bool = False) -> BagReader:
    """Open a recording: a ROS 2 folder, a .mcap or .db3 file with or without metadata, or a ROS 1 .bag.

    Args:
        strict: raise on damage instead of reading what is there.

    Raises:
        BagError: if nothing is there, it is no recording, or no message can be read.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f"{path} does not exist: expected a rosbag folder or a .bag, .mcap or .db3 file")
    return BagReader(path, strict)


def is_bag(path: Path) -> bool:
    """Whether a path looks like a recording, by its name and files."""
    if path.is_dir():
        return any(next(path.glob(pattern), None) for pattern in ("metadata.yaml", "*.mcap", "*.db3"))
    return path.name.endswith((".bag", ".bag.active", ".mcap", ".db3"))


def _typestore(msgtype: str, definition: MessageDefinition) -> Typestore | None:
    """Types as the bag defines them (a message may have changed since), or the standard ones."""
    try:
        if definition.format == MessageDefinitionFormat.NONE:
            return _known(get_typestore(DEFAULT_TYPES), msgtype)
        store = get_typestore(Stores.EMPTY)
        if definition.data.startswith("=" * 80 + "\nIDL: "):
            for part in definition.data.split("=" * 80 + "\n")[1:]:
                store.register(get_types_from_idl(part.split("\n", 1)[1]))
        else:
            store.register(get_types_from_msg(definition.data, msgtype))
        return _known(store, msgtype)
    except (TypesysError, KeyError, IndexError):
        return _known(get_typestore(DEFAULT_TYPES), msgtype)


def _known(store: Typestore, msgtype: str) -> Typestore | None:
    return store if msgtype in store.fielddefs else None


def _is_latched(ext: Any) -> bool:
    if isinstance(ext, ConnectionExtRosbag1):
        return bool(ext.latching)
    return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in ext.offered_qos_profiles)


def _natural(path: Path) -> tuple[int, str]:
    """Parts of a split recording end in _0, _1, ..., _10."""
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdigit() else -1), path.name


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
