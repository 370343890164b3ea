"""A map that has only grown is saved by what is new: files beside its files, lines behind its lines.

What is appended counts from the moment on that map.yaml, which is replaced in one step, says so. A killed save leaves
files and lines that nobody counts, and the next one writes over them. Nothing that counts is ever written over, so that
copies made of hard links stay what they are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera
from mast3r_ros.mapping import table
from mast3r_ros.mapping.atomic import SYNCING_THREADS, locked, sync, tidy, write_replacing, write_synced
from mast3r_ros.mapping.blob import Blob
from mast3r_ros.mapping.records import Entry, to_line
from mast3r_ros.mapping.storage import Header, Written, header_bytes, read_header

logger = logging.getLogger(__name__)

#: The table is made anew when so many lines, and this share of it, have come since: it is read without parsing a line.
TABLE_AGAIN, TABLE_SHARE = 1000, 1 / 8


def append(folder: Path, known: Written, header: Header, entries: Sequence[Entry]) -> Written | None:
    """Save keyframes that a map has not had, and what map.yaml says, in one step.

    Args:
        known: the map as this process has read or written it.
        header: frame, provenance and noise of the map now.
        entries: the new keyframes.

    Returns:
        the map as it is afterwards; None, and nothing is changed, where the folder no longer holds what is known.

    Raises:
        MapError: if the disk refuses; nothing is changed then.
    """
    try:
        with locked(folder):
            tidy(folder)
            if not _as_known(folder, known):
                return None
            return _with_table(folder, _append(folder, known, header, entries))
    except OSError as error:
        text = f"the map could not be saved ({error.strerror or error}): the map that was there is unchanged"
        raise MapError(f"{folder}: {text}") from error


def _as_known(folder: Path, known: Written) -> bool:
    lines = folder / "keyframes.jsonl"
    try:
        there, status = read_header(folder), lines.stat()
    except (MapError, OSError):
        return False
    same = there.keyframes_sha256 == known.header.keyframes_sha256
    length = known.header.keyframes_bytes
    return same and there.keyframes_bytes == length and status.st_size >= (length or 0) and status.st_nlink == 1


def _append(folder: Path, known: Written, header: Header, entries: Sequence[Entry]) -> Written:
    cameras = _cameras(known.header.cameras, entries)
    header = replace(header, cameras=cameras, keyframes_bytes=known.header.keyframes_bytes)
    after = Written(header, known.digest.copy(), known.table, (*known.beyond, *(e.stored(folder) for e in entries)))
    names = after.names
    data = b"".join(to_line(entry, names[id(entry.keyframe.camera)]) for entry in entries)
    after.digest.update(data)
    begin = known.header.keyframes_bytes or 0
    header.keyframes_bytes, header.keyframes_sha256 = begin + len(data), after.digest.hexdigest()
    described = header_bytes(header, len(after))
    fresh = folder / ".map.yaml.saving"
    files = [(folder / kind / f"{e.keyframe.id}.{blob.suffix}", blob) for e in entries for kind, blob in e.blobs()]
    try:
        _write_files(files)
        if data:
            _write_behind(folder / "keyframes.jsonl", begin, data)
        write_synced(fresh, described)
        os.replace(fresh, folder / "map.yaml")
    except BaseException:
        if (folder / "map.yaml").read_bytes() != described:  # else it has been saved
            _take_back([fresh, *(file for file, _ in files)], folder / "keyframes.jsonl", begin)
        raise
    sync(folder)
    return after


def _cameras(known: dict[str, Camera], entries: Sequence[Entry]) -> dict[str, Camera]:
    """All cameras by name, those that are new behind the others."""
    there = {id(camera) for camera in known.values()}
    new = {id(e.keyframe.camera): e.keyframe.camera for e in entries if id(e.keyframe.camera) not in there}
    free = (name for n in count() if (name := f"camera_{n}") not in known)
    return {**known, **dict(zip(free, new.values(), strict=False))}


def _write_files(files: Sequence[tuple[Path, Blob]]) -> None:
    for file, blob in files:
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)  # a killed save's
        file.write_bytes(blob.read())
    with ThreadPoolExecutor(SYNCING_THREADS) as pool:
        list(pool.map(sync, [file for file, _ in files]))
        list(pool.map(sync, {file.parent for file, _ in files}))


def _write_behind(path: Path, begin: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate(begin)
        file.seek(begin)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _take_back(files: Sequence[Path], lines: Path, begin: int) -> None:
    with suppress(OSError):
        os.truncate(lines, begin)
    for file in files:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _with_table(folder: Path, after: Written) -> Written:
    """The same with a new table, once many keyframes have come since the last."""
    if len(after.beyond) <= max(TABLE_AGAIN, TABLE_SHARE * len(after)):
        return after
    header = after.header
    try:
        lines, sha256 = header.keyframes_bytes or 0, header.keyframes_sha256
        write_replacing(folder / table.NAME, table.pack(after.beyond, after.names, lines, sha256, after.table))
    except OSError as error:
        logger.warning("%s: the table of the keyframes could not be written (%s)", folder, error)
        return after
    made = table.read(folder, header.cameras)
    return after if made is None else replace(after, table=made, beyond=())
