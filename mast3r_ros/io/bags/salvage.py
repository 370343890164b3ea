"""Reading recordings that were never closed, as after a power failure.

An index is written last, so an unfinished file has none. Each scanner here walks the records from
the start of the file and ends where they are no longer valid.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag1.reader import Header, ReaderError, RecordType, decompressors, normalize, read_bytes, read_uint32
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS
from rosbags.typesys.msg import normalize_msgtype

from mast3r_ros.io.bags.bounded import unpack_file, unpack_zstd

NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")
_FORMATS = {
    **{"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL},
    "ros1msg": MessageDefinitionFormat.MSG,
}
#: Ending of files that rosbag2 compressed as a whole, and how Zstandard data begin; no serialized message does.
ZSTD, _ZSTD_MAGIC = ".zstd", b"\x28\xb5\x2f\xfd"
_MCAP_MAGIC = b"\x89MCAP0\r\n"


class RawMessage(NamedTuple):
    """One message as it was recorded."""

    topic: str
    msgtype: str
    definition: MessageDefinition
    stamp_ns: int
    data: bytes
    serialization: str = "cdr"


def unpacked(data: bytes) -> bytes:
    """A message as it was before rosbag2 compressed it by itself with Zstandard; others as they are."""
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    return unpack_zstd(bytes(data))


def decompressed(path: Path, folder: Path) -> Path:
    """The recording in a file that was compressed as a whole, written to a folder; of a damaged one what is there."""
    target = folder / path.name.removesuffix(ZSTD)
    unpack_file(path, target)
    return target


def is_whole_mcap(path: Path) -> bool:
    """Whether an .mcap file was closed: it ends as it begins."""
    with path.open("rb") as file:
        head = file.read(len(_MCAP_MAGIC))
        return file.seek(0, 2) > 2 * len(_MCAP_MAGIC) and _tail(file) == head == _MCAP_MAGIC


def _tail(file: BinaryIO) -> bytes:
    file.seek(-len(_MCAP_MAGIC), 2)
    return file.read()


def scan(path: Path) -> Iterator[RawMessage]:
    """All messages that can still be read from a .mcap, .db3, .bag or .bag.active file, in file order."""
    scanner = {".mcap": _scan_mcap, ".db3": _scan_sqlite}.get(path.suffix, _scan_ros1)
    try:
        yield from scanner(path)
    except Exception:
        return  # damaged records can fail in any way; what came before them was whole


# ROS 2, mcap: opcode (1 byte), length (8 bytes), content


def _scan_mcap(path: Path) -> Iterator[RawMessage]:
    schemas: dict[int, tuple[str, MessageDefinition]] = {}
    channels: dict[int, tuple[str, str, MessageDefinition, str]] = {}
    with path.open("rb") as file:
        file.seek(8)
        for opcode, content in _mcap_records(file):
            if opcode == 0x03:
                number, name, encoding, text = _fields(content, "H", 3)
                schemas[number] = name, MessageDefinition(_FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)
            elif opcode == 0x04:
                number, schema, topic, form = _fields(content, "HH", 2)
                msgtype, definition = schemas.get(schema, ("", NO_DEFINITION))
                # ROS 1 has no /msg/ in the names of types; everything here is called as in ROS 2.
                msgtype = normalize_msgtype(msgtype) if form == "ros1" else msgtype
                channels[number] = topic, msgtype, definition, form
            elif opcode == 0x05 and len(content) >= 22:
                number, _, stamp_ns, _ = struct.unpack_from("<HIQQ", content)
                if number in channels:
                    topic, msgtype, definition, form = channels[number]
                    yield RawMessage(topic, msgtype, definition, stamp_ns, content[22:], form)


def _mcap_records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of every whole record; chunks are opened, damaged ones skipped."""
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    while len(head := file.read(9)) == 9:
        opcode, length = head[0], int.from_bytes(head[1:], "little")
        if length > end - file.tell() or opcode in (0x02, 0x0F):  # cut short; footer; end of data
            return
        content = file.read(length)
        if opcode != 0x06:
            yield opcode, content
            continue
        try:
            records = _mcap_chunk(content)
        except Exception:
            continue  # three decompressors, each with errors of its own
        yield from _mcap_records(BytesIO(records))


def _mcap_chunk(content: bytes) -> bytes:
    _, _, size, _, name_length = struct.unpack_from("<QQQII", content)
    compression = content[32 : 32 + name_length].decode()
    records: bytes = DECOMPRESSORS[compression](content[32 + name_length + 8 :], size)
    return records


def _fields(content: bytes, numbers: str, strings: int) -> list:  # type: ignore[type-arg]  # mixed by design
    """Leading numbers (struct codes), then length-prefixed strings."""
    values: list[int | str] = list(struct.unpack_from("<" + numbers, content))
    at = struct.calcsize("<" + numbers)
    for _ in range(strings):
        (length,) = struct.unpack_from("<I", content, at)
        values.append(content[at + 4 : at + 4 + length].decode(errors="replace"))
        at += 4 + length
    return values


# ROS 2, sqlite3


def _scan_sqlite(path: Path) -> Iterator[RawMessage]:
    """Rows in the order they were written: the index on time may be what is missing."""
    # A write-ahead log next to the file holds its newest messages; immutable=1 would ignore it.
    how = "mode=ro" if has_write_ahead_log(path) else "immutable=1"
    connection = sqlite3.connect(f"file:{path}?{how}", uri=True)
    try:
        # Otherwise SQLite refuses a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema=ON")
        topics = {row[0]: row[1:] for row in connection.execute("SELECT id, name, type FROM topics")}
        definitions = _sqlite_definitions(connection)
        # Of a page that was cut, SQLite reads the missing part as zeros: whoever ends there is not whole.
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        newest: RawMessage | None = None
        for topic_id, stamp_ns, data in connection.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED"
        ):
            if topic_id in topics and isinstance(data, bytes):
                if newest is not None:
                    yield newest
                name, msgtype = topics[topic_id]
                newest = RawMessage(name, msgtype, definitions.get(msgtype, NO_DEFINITION), stamp_ns, data)
        if newest is not None and path.stat().st_size % page_size == 0:
            yield newest
    finally:
        connection.close()


def _sqlite_definitions(connection: sqlite3.Connection) -> dict[str, MessageDefinition]:
    query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
    try:
        return {name: MessageDefinition(_FORMATS[encoding], text) for name, encoding, text in connection.execute(query)}
    except (sqlite3.DatabaseError, KeyError):  # bags before Iron carry no definitions
        return {}


def has_write_ahead_log(path: Path) -> bool:
    """Whether a .db3 was left with messages that are not in the file itself yet."""
    log = path.with_name(path.name + "-wal")
    return path.suffix == ".db3" and log.exists() and log.stat().st_size > 0


# ROS 1: header length, header, data length, data


def _scan_ros1(path: Path) -> Iterator[RawMessage]:
    connections: dict[int, tuple[str, str, MessageDefinition]] = {}
    with path.open("rb") as file:
        file.readline()
        for header, data in _ros1_records(file):
            number = header.get_uint32("conn")
            if header.get_uint8("op") == RecordType.CONNECTION:
                fields = Header.read(BytesIO(len(data).to_bytes(4, "little") + data))
                definition = MessageDefinition(MessageDefinitionFormat.MSG, fields.get_string("message_definition"))
                msgtype = normalize_msgtype(fields.get_string("type"))
                connections[number] = normalize(header.get_string("topic")), msgtype, definition
            elif number in connections:
                topic, msgtype, definition = connections[number]
                yield RawMessage(topic, msgtype, definition, header.get_time("time"), data, "ros1")


def _ros1_records(file: BinaryIO) -> Iterator[tuple[Header, bytes]]:
    """Connection and message records; chunks are opened, damaged ones skipped."""
    while True:
        try:
            header = Header.read(file)
            data = read_bytes(file, read_uint32(file))
            kind = header.get_uint8("op")
        except (ReaderError, UnicodeDecodeError):
            return
        if kind in (RecordType.CONNECTION, RecordType.MSGDATA):
            yield header, data
        elif kind == RecordType.CHUNK:
            try:
                records = decompressors[header.get_string("compression")](data)
            except Exception:
                continue  # three decompressors, each with errors of its own
            yield from _ros1_records(BytesIO(records))
