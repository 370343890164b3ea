"""One recorded file: with an index, read by rosbags, or without, read by walking its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rosbags.interfaces import ConnectionExtRosbag1, MessageDefinition, QosDurability
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2

from mast3r_ros.errors import BagError
from mast3r_ros.io.bags.salvage import RawMessage, scan, unpacked
from mast3r_ros.io.bags.topics import Topic


class Recording:
    """One file (or one folder that rosbags can read as a whole)."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.definitions: dict[str, MessageDefinition] = {}
        self.start_ns = self.end_ns = 0

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        """(topic, stamp_ns, serialized message) of the given topics."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""


class Finished(Recording):
    """A recording with an index, read by rosbags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._reader: Reader1 | Reader2 = Reader1(path) if path.suffix == ".bag" else Reader2(path)
        self._reader.open()
        if isinstance(self._reader, Reader2) and path.is_dir():  # messages that are compressed are unpacked below
            self._reader.storage.metadata = self._reader.storage.metadata._replace(compression_mode=None)
        for connection in self._reader.connections:
            known = self.topics.get(connection.topic, Topic(connection.msgtype, 0))
            latched = known.latched or _is_latched(connection.ext) or connection.topic.endswith("tf_static")
            count, form = known.count + connection.msgcount, _serialization(connection.ext)
            self.topics[connection.topic] = Topic(connection.msgtype, count, latched, form)
            self.definitions[connection.msgtype] = connection.msgdef
        if self._reader.message_count:
            self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time - 1

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        """See :meth:`Recording.read`."""
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        if wanted:  # rosbags reads no filter as "everything"
            for connection, stamp_ns, data in self._reader.messages(wanted):
                # What was compressed message by message says so in metadata.yaml only, and that may be lost.
                yield connection.topic, stamp_ns, unpacked(data)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class Unfinished(Recording):
    """A recording without an index that can be used, read by walking its records."""

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
            known = Topic(message.msgtype, 0, message.topic.endswith("tf_static"), message.serialization)
        self.topics[message.topic] = replace(known, count=known.count + 1)
        self.start_ns = min(self.start_ns or message.stamp_ns, message.stamp_ns)
        self.end_ns = max(self.end_ns, message.stamp_ns)

    def read(self, topics: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
        """See :meth:`Recording.read`."""
        for message in scan(self._path):
            if message.topic in topics:
                yield message.topic, message.stamp_ns, unpacked(message.data)


def _serialization(ext: Any) -> str:
    """How messages are written: cdr, ros1, or what else a recorder of .mcap files chose."""
    return "ros1" if isinstance(ext, ConnectionExtRosbag1) else str(ext.serialization_format) or "cdr"


def _is_latched(ext: Any) -> bool:
    if isinstance(ext, ConnectionExtRosbag1):
        return bool(ext.latching)
    return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in ext.offered_qos_profiles)
