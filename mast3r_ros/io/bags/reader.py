"""One reader for recordings of ROS 1 (.bag, .mcap) and ROS 2 (folder, .mcap, .db3), finished or cut short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.typesys.store import Typestore

from mast3r_ros.errors import BagError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.io.bags.definitions import typestore
from mast3r_ros.io.bags.frames import FrameReader
from mast3r_ros.io.bags.plan import Plan, plan_frames
from mast3r_ros.io.bags.recording import Finished, Recording, Unfinished
from mast3r_ros.io.bags.salvage import NO_DEFINITION, ZSTD, decompressed, has_write_ahead_log, is_whole_mcap
from mast3r_ros.io.bags.topics import COMPRESSED, IMAGE, INFO, READABLE, Topic, pixel_encoding, tf_topics, unreadable
from mast3r_ros.plain_yaml import read_yaml
from mast3r_ros.transforms import InvalidTransform, TransformBuffer

log = logging.getLogger(__name__)

#: More problems than this are counted but not remembered one by one.
MOST_PROBLEMS = 100
#: What rosbag2 says of the files in a folder.
METADATA = "metadata.yaml"
#: Endings of recordings; rosbag2 appends .zstd to files that it has compressed as a whole.
SUFFIXES = (".bag", ".bag.active", ".mcap", ".db3", ".mcap.zstd", ".db3.zstd")


class BagReader:
    """An open recording. Use :func:`open_bag`; close it, or use it in a ``with`` statement.

    What cannot be read is skipped, logged once and kept in ``problems``; with ``strict`` it raises.

    Attributes:
        path: what was opened.
        topics: name -> :class:`Topic`.
        start_ns, end_ns: stamps of the first and last message (time of recording).
        is_ros2: False for recordings of ROS 1, also in .mcap files.
        problems: sentences about what could not be read, and doubts about what is used.
    """

    def __init__(self, path: Path, strict: bool = False) -> None:
        self.path = path
        self.strict = strict
        self.problems: list[str] = []
        self._folders: list[TemporaryDirectory[str]] = []
        self._recordings = self._open(path)
        self.topics: dict[str, Topic] = {}
        for recording in self._recordings:
            for name, topic in recording.topics.items():
                known = self.topics.get(name, replace(topic, count=0))
                latched = known.latched or topic.latched
                self.topics[name] = replace(known, count=known.count + topic.count, latched=latched)
        self.is_ros2 = not any(topic.serialization == "ros1" for topic in self.topics.values())
        filled = [recording for recording in self._recordings if recording.end_ns]
        self.start_ns = min((recording.start_ns for recording in filled), default=0)
        self.end_ns = max((recording.end_ns for recording in filled), default=0)
        self._decoders: dict[tuple[str, str], Callable[[bytes], Any] | None] = {}
        self._transforms: dict[tuple[str, ...], TransformBuffer] = {}
        for name, topic in self.topics.items():
            if topic.type in (IMAGE, COMPRESSED, INFO) and topic.count:
                self.topics[name] = self._looked_into(name, topic)

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, stamp_ns of recording, message), in order of time within each file.

        Args:
            topics: which to read; None for all whose type is known.

        Raises:
            BagError: for a topic that is not there or has an unknown type; with ``strict`` also for damage.
        """
        wanted = self._checked(topics)
        for topic, stamp_ns, data in self.serialized(wanted):
            decode = self._decoder(topic)
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
        camera: Camera | None = None,
    ) -> Iterator[Frame]:
        """Camera frames with calibration and registered depth, stamped by their headers.

        Topics that are not given are found by what is in them and by name (:func:`mast3r_ros.io.bags.find_topics`).
        Depth and colour are paired by nearest stamp, at most ``max_delay_s`` apart. Depth of another camera is
        registered through its camera_info and TF; where that is not possible it is refused if it was asked for by
        name, and left out with a warning otherwise.

        Args:
            camera: calibration of the images, instead of the recorded one.

        Raises:
            BagError: without or with ambiguous image topics, and for depth that cannot be registered.
            CalibrationError: for a camera_info that cannot be used.
        """
        plan = self.plan(image_topic, camera_info_topic, depth_topic, use_depth, camera)
        return iter(FrameReader(self, plan, round(max_delay_s * 1e9)))

    def plan(
        self,
        image_topic: str | None = None,
        camera_info_topic: str | None = None,
        depth_topic: str | None = None,
        use_depth: bool = True,
        camera: Camera | None = None,
    ) -> Plan:
        """What :meth:`frames` would use, with every doubt about it. Arguments and errors as there."""
        return plan_frames(self, image_topic, camera_info_topic, depth_topic, use_depth, camera)

    def first(self, topic: str) -> Any:
        """The first message on a topic.

        Raises:
            BagError: if there is none.
        """
        for _, _, message in self.messages([topic]):
            return message
        raise BagError(f"{self.path}: topic {topic} has no readable message")

    def transforms(self, image_topic: str = "/") -> TransformBuffer:
        """All of TF, static and moving, over the whole recording (read once, then kept).

        Args:
            image_topic: whose namespace's TF is wanted (see :func:`mast3r_ros.io.bags.topics.tf_topics`).
        """
        topics, doubts = tf_topics(self.topics, image_topic)
        if topics not in self._transforms:
            buffer = self._transforms[topics] = TransformBuffer(cache_s=None)
            for doubt in doubts:
                self.warn(doubt)
            for topic, _, message in self.messages(topics):
                for transform in message.transforms:
                    try:
                        buffer.set_message(transform, static=topic.endswith("tf_static"))
                    except InvalidTransform as error:
                        self.report(f"{error} (on {topic}): skipped")
            for child, why in buffer.duplicates().items():
                self.warn(f"more than one node publishes the transform of '{child}' ({why}): record only one of them")
        return self._transforms[topics]

    def typestore(self, msgtype: str) -> Typestore | None:
        """A message type as the bag defines it (ROS 1 or 2), with what it is made of; None if nobody defines it."""
        definitions = (recording.definitions.get(msgtype) for recording in self._recordings)
        definition = next((d for d in definitions if d and d.format != MessageDefinitionFormat.NONE), NO_DEFINITION)
        return typestore(msgtype, definition)

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        while self._recordings:
            self._recordings.pop().close()
        while self._folders:
            self._folders.pop().cleanup()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: Path) -> list[Recording]:
        if path.is_file():
            return [self._open_file(path)]
        if (path / METADATA).exists():
            try:
                if not _compressed_files(path):
                    return [Finished(path)]
            except Exception as error:  # rosbags asserts, and damage can fail in any way
                self.report(f"cannot be read as a whole ({_short(error)}): its files are read one by one")
        files = sorted((file for file in path.iterdir() if file.name.endswith(SUFFIXES[2:])), key=_natural)
        if not files:
            raise BagError(f"{path} is no recording: expected metadata.yaml, *.mcap or *.db3 in it")
        return [self._open_file(file) for file in files]

    def _open_file(self, path: Path) -> Recording:
        if not path.name.endswith(SUFFIXES):
            raise BagError(f"{path} is no recording: expected a folder, or a .bag, .mcap or .db3 file")
        if path.suffix == ZSTD:
            self._folders.append(TemporaryDirectory(prefix="mast3r_ros_bag_"))
            path = decompressed(path, Path(self._folders[-1].name))
        if not path.name.endswith(".active") and not has_write_ahead_log(path):
            try:
                return Finished(path)
            except PermissionError as error:
                raise BagError(f"{path} cannot be opened: {error.strerror}") from error
            except Exception as error:  # rosbags asserts, and damage can fail in any way
                reason = _short(error)
        else:
            reason = "still open when recording stopped"
        recording = Unfinished(path)
        foreign = "Profile" in reason or any(topic.serialization != "cdr" for topic in recording.topics.values())
        if path.suffix == ".mcap" and foreign and is_whole_mcap(path):
            return recording  # nothing is wrong with it, rosbags reads the profile ros2 only
        count = sum(topic.count for topic in recording.topics.values())
        self.report(f"{path.name} was not closed or is damaged ({reason}): read what is there, {count} messages")
        return recording

    def _looked_into(self, name: str, topic: Topic) -> Topic:
        """A topic with what its first message says of it; damage is reported when it is read in earnest."""
        decode = self._decoder(name)
        if decode is None:
            return topic
        try:
            message = decode(next(data for r in self._recordings for _, _, data in r.read([name])))
            frame_id, stamp = str(message.header.frame_id), message.header.stamp
            encoding = None if topic.type == INFO else pixel_encoding(message)
        except Exception:  # damaged bytes can fail in any way
            return topic
        return replace(topic, frame_id=frame_id, encoding=encoding, stamped=bool(stamp.sec or stamp.nanosec))

    def report(self, what: str) -> None:
        """Remember and log something that could not be read; raise it as BagError if strict."""
        if self.strict:
            raise BagError(f"{self.path}: {what}")
        self.warn(what)

    def warn(self, what: str) -> None:
        """Remember and log what a person should know, though nothing is damaged."""
        if what not in self.problems and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what)
            log.warning("%s: %s", self.path, what)

    def _checked(self, topics: Iterable[str] | None) -> list[str]:
        if topics is None:
            return [name for name in self.topics if self._decoder(name) is not None]
        wanted = list(topics)
        for name in wanted:
            if name not in self.topics:
                raise BagError(f"{self.path} has no topic {name}: it has {', '.join(sorted(self.topics)) or 'none'}")
            if why := unreadable({name: self.topics[name]}):
                raise BagError(f"{self.path}: {why}")
            if self._decoder(name) is None:
                raise BagError(f"{self.path}: the type {self.topics[name].type} of {name} is not defined in the bag")
        return wanted

    def _decoder(self, topic: str) -> Callable[[bytes], Any] | None:
        """Function from bytes to message; None for a type that nobody has defined, and for messages not of ROS."""
        msgtype, form = self.topics[topic].type, self.topics[topic].serialization
        if (msgtype, form) not in self._decoders:
            store = self.typestore(msgtype) if form in READABLE else None
            if store is None:
                self._decoders[msgtype, form] = None
            elif form == "cdr":
                self._decoders[msgtype, form] = lambda data: store.deserialize_cdr(data, msgtype)
            else:
                self._decoders[msgtype, form] = lambda data: store.deserialize_ros1(data, msgtype)
        return self._decoders[msgtype, form]


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
        return (path / METADATA).exists() or any(file.name.endswith(SUFFIXES[2:]) for file in path.iterdir())
    return path.name.endswith(SUFFIXES)


def _compressed_files(folder: Path) -> bool:
    """Whether the files of a folder were compressed as a whole. Raises yaml.YAMLError where nobody can tell."""
    document = read_yaml((folder / METADATA).read_bytes())
    about = document.get("rosbag2_bagfile_information") if isinstance(document, dict) else None
    return isinstance(about, dict) and str(about.get("compression_mode")).lower() == "file"


def _natural(path: Path) -> tuple[int, str]:
    """Parts of a split recording end in _0, _1, ..., _10."""
    number = path.name.partition(".")[0].rpartition("_")[2]
    return (int(number) if number.isdigit() else -1), path.name


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
