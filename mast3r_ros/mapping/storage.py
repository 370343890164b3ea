"""The map on disk: a folder a person can read and repair.

    map.yaml            format version, frame id, cameras, provenance, length and checksum of keyframes.jsonl
    keyframes.jsonl     one keyframe per line: id, stamp, camera, pose, checksums
    keyframes.safetensors  the same as columns (:mod:`mast3r_ros.mapping.table`); a cache that may be deleted
    images/<id>.jpg     or .png
    depth/<id>.png      of a sensor: 16 bits, millimetres, 0 where unknown; .tiff with floats in metres where that
                        does not reach far enough, or rounds too much
    points/<id>.safetensors  triangulated: pixels xy (N, 2) and depth (N,) along the axis in metres, float32
    features/           what matchers know of the keyframes; a cache that may be deleted
    retrieval/          appearance indexes; a cache too

A map is written anew only where something in it changed; what is new is appended (:mod:`mast3r_ros.mapping.growing`),
and counts from the moment on that map.yaml says so. What a killed save has appended beyond that is not there.

Format 1 had no points (they were drawn into depth/<id>.png); it is read, and saved as format 2.

Every limit here is far beyond any real map; it keeps a damaged or hostile file from eating the memory.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mast3r_ros import __version__
from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera
from mast3r_ros.mapping import table
from mast3r_ros.mapping.atomic import link_or_copy, recover, replacing, write_synced
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.records import Entry, camera_from_dict, camera_to_dict, from_line, map_error, to_line
from mast3r_ros.plain_yaml import read_yaml

logger = logging.getLogger(__name__)

#: Version that is written and the newest that is read; bytes of map.yaml, beyond which it is damaged.
FORMAT_VERSION = 2
MAX_HEADER_BYTES = 16 * 2**20
MAX_LINE_BYTES = 16 * 2**10
MAX_KEYFRAMES = 2_000_000
#: What is said of lines that map.yaml does not count.
BEHIND = (
    "this line and those behind it are not the map's: a save was interrupted, or somebody has edited the file "
    "(`mast3r_ros map repair` takes them over)"
)
#: Of maps up to this size every file's size is compared when the map is read.
SIZES_CHECKED = 5000
#: What belongs to the format; anything else in the folder is the user's and is kept.
OWN_FILES = ("map.yaml", "keyframes.jsonl", table.NAME, "images", "depth", "points", "features", "retrieval")


@dataclass
class Header:
    """What map.yaml says.

    Attributes:
        frame_id: name of the map frame.
        provenance: where the map comes from: source, tool, created, as texts.
        cameras: by name.
        keyframes_sha256: checksum of keyframes.jsonl.
        keyframes_bytes: as much of it belongs to the map; None for all (earlier versions do not say).
        pose_noise: how well the keyframes' poses agree, where that was measured.
    """

    frame_id: str
    provenance: dict[str, str] = field(default_factory=dict)
    cameras: dict[str, Camera] = field(default_factory=dict)
    keyframes_sha256: str = ""
    keyframes_bytes: int | None = None
    pose_noise: PoseNoise | None = None


@dataclass(frozen=True)
class Written:
    """What a folder holds of a map, as it was read or written last.

    Attributes:
        header: its map.yaml.
        digest: hashlib's object, told of the lines that count.
        table: the table of the first keyframes, where there is one, and ``beyond`` those behind it.
    """

    header: Header
    digest: Any
    table: table.Table | None
    beyond: tuple[Entry, ...]

    @property
    def names(self) -> dict[int, str]:
        """Names of the cameras by the ``id`` of the object."""
        return {id(camera): name for name, camera in self.header.cameras.items()}

    def __len__(self) -> int:
        return len(self.beyond) + (len(self.table.ids) if self.table else 0)


@dataclass(frozen=True)
class BadLine:
    """A line of keyframes.jsonl that cannot be used."""

    number: int
    error: ValueError


def read_map(folder: Path) -> tuple[Header, list[Entry]]:
    """Every keyframe of a map. Raises as :func:`open_map`."""
    written, entries = open_map(folder)
    return written.header, list(entries.values())


def open_map(folder: Path) -> tuple[Written, table.Entries]:
    """Read a map; images stay on disk until asked for, but must be there, and in small maps of the right size.

    Raises:
        MapError: if there is no map, or it is damaged, changed by hand, or of a newer format.
    """
    header = read_header(folder)
    path = folder / "keyframes.jsonl"
    digest = hashlib.sha256()
    columns = table.read(folder, header.cameras)
    skipped = _skipped(path, columns, digest, header.keyframes_bytes)
    if columns is not None and not skipped:
        columns, digest = None, hashlib.sha256()
    entries = table.Entries(columns)
    for number, entry in read_lines(path, header.cameras, digest.update, header.keyframes_bytes, skipped):
        if isinstance(entry, BadLine):
            raise map_error(path, entry.error, number) from entry.error
        if entry.keyframe.id in entries:
            raise map_error(path, f"repeats the id '{entry.keyframe.id}'", number)
        entries[entry.keyframe.id] = entry
    if digest.hexdigest() != header.keyframes_sha256:
        raise MapError(
            f"{path}: changed since it was saved; if you edited it by hand, run `mast3r_ros map repair {folder}`"
        )
    beyond = tuple(entries[id] for id in islice(entries, len(columns.ids) if columns else 0, None))
    if columns is not None and len(entries) > SIZES_CHECKED:
        _check_names(folder, columns)
        _check_files(folder, beyond)
    else:
        _check_files(folder, entries.values())
    return Written(header, digest, columns, beyond), entries


def _skipped(path: Path, columns: table.Table | None, digest: Any, until: int | None) -> int:
    """Bytes of keyframes.jsonl that a table stands for, which the digest is told of; 0 where it stands for others."""
    if columns is None or (until is not None and columns.lines > until):  # a save may be going on
        return 0
    try:
        with path.open("rb") as file:
            left = columns.lines
            while left and (part := file.read(min(left, 2**20))):
                digest.update(part)
                left -= len(part)
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror}): restore the map from a copy") from error
    return columns.lines if digest.hexdigest() == columns.sha256 else 0


def read_header(folder: Path) -> Header:
    """Read map.yaml.

    Raises:
        MapError: if there is no map, or map.yaml is damaged or of a newer format.
    """
    recover(folder)
    path = folder / "map.yaml"
    if not folder.is_dir():
        raise MapError(f"{folder}: there is no map: make one with `mast3r_ros map build SOURCE -o {folder}`")
    if not path.is_file():
        raise MapError(f"{folder}: is not a map (it has no map.yaml): make one with `mast3r_ros map build`")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HEADER_BYTES + 1)
        if len(data) > MAX_HEADER_BYTES:
            raise ValueError(f"is larger than {MAX_HEADER_BYTES // 2**20} MiB")
        return _header(read_yaml(data), path)
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise MapError(f"{path}: {' '.join(str(error).split())}; restore it from a copy") from error


def read_lines(
    path: Path,
    cameras: dict[str, Camera],
    watch: Callable[[bytes], None] = lambda line: None,
    until: int | None = None,
    begin: int = 0,
) -> Iterator[tuple[int, Entry | BadLine]]:
    """The keyframes of a keyframes.jsonl by line number; ``watch`` sees every raw line.

    Args:
        until: bytes of the file that count; None for all.
        begin: bytes that are passed over, and not counted as lines.

    Raises:
        MapError: if the file cannot be read or is of absurd size.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
                if len(line) > MAX_LINE_BYTES or number > MAX_KEYFRAMES:
                    raise MapError(f"{path} line {number}: too long to be a map's; restore it from a copy")
                begin += len(line)
                if until is not None and begin > until:
                    logger.warning("%s line %d: %s", path, number, BEHIND)
                    return
                watch(line)
                try:
                    yield number, from_line(line, path.parent, cameras)
                except ValueError as error:
                    yield number, BadLine(number, error)
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror}): restore the map from a copy") from error


def write_map(
    folder: Path, header: Header, entries: Sequence[Entry], write_caches: Callable[[Path], None] = lambda fresh: None
) -> Written:
    """Save a map in one step: the folder holds all of it afterwards, or what it held before.

    Args:
        write_caches: adds features and retrieval to the new folder before it takes its place.

    Raises:
        MapError: if the place is taken by something else or the disk refuses; nothing is changed then.
    """
    if folder.exists() and not (folder / "map.yaml").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise MapError(f"{folder}: exists and is not a map: choose another place, or remove it first")
    try:
        with replacing(folder) as fresh:
            written = _write_files(fresh, folder, header, entries)
            write_caches(fresh)
            _carry_over(folder, fresh)
        return written
    except OSError as error:
        kept = "the map that was there is unchanged" if folder.exists() else "nothing was written"
        raise MapError(f"{folder}: the map could not be saved ({error.strerror or error}): {kept}") from error


def _write_files(fresh: Path, folder: Path, header: Header, entries: Sequence[Entry]) -> Written:
    names: dict[int, str] = {}
    lines = []
    (fresh / "images").mkdir()
    (fresh / "depth").mkdir()
    (fresh / "points").mkdir()
    for entry in entries:
        lines.append(to_line(entry, names.setdefault(id(entry.keyframe.camera), f"camera_{len(names)}")))
        for kind, blob in entry.blobs():
            target = fresh / kind / f"{entry.keyframe.id}.{blob.suffix}"
            if blob.path is None:
                target.write_bytes(blob.read())
            elif blob.path.parent == folder / kind and blob.path.stat().st_size == blob.size:
                link_or_copy(blob.path, target)  # the old folder is deleted, and with it the second link to the file
            else:
                target.write_bytes(blob.read())
    data = b"".join(lines)
    write_synced(fresh / "keyframes.jsonl", data)
    digest = hashlib.sha256(data)
    sha256 = digest.hexdigest()
    if entries:
        write_synced(fresh / table.NAME, table.pack(entries, names, len(data), sha256))
    cameras = {names[id(e.keyframe.camera)]: e.keyframe.camera for e in entries}
    whole = replace(header, cameras=cameras, keyframes_sha256=sha256, keyframes_bytes=len(data))
    write_synced(fresh / "map.yaml", header_bytes(whole, len(entries)))
    columns = table.read(fresh, cameras) if entries else None
    columns = columns and replace(columns, folder=folder)
    return Written(whole, digest, columns, () if columns else tuple(entry.stored(folder) for entry in entries))


def header_bytes(header: Header, count: int) -> bytes:
    """map.yaml of a map of so many keyframes."""
    document = {
        "format_version": FORMAT_VERSION,
        "frame_id": header.frame_id,
        "keyframes": count,
        "keyframes_bytes": header.keyframes_bytes,
        "keyframes_sha256": header.keyframes_sha256,
        "provenance": {**header.provenance, "tool": f"mast3r_ros {__version__}"},
        "cameras": {name: camera_to_dict(camera) for name, camera in header.cameras.items()},
    }
    if header.pose_noise is not None:
        document["pose_noise"] = asdict(header.pose_noise)
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None).encode()


def _carry_over(folder: Path, fresh: Path) -> None:
    """A person's own files in the old folder (notes, a licence) move into the new one."""
    for item in folder.iterdir() if folder.is_dir() else ():
        if item.name in OWN_FILES:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, fresh / item.name, symlinks=True, copy_function=link_or_copy)
        else:
            shutil.copy2(item, fresh / item.name, follow_symlinks=False)


def _header(document: Any, path: Path) -> Header:
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ValueError("is not a map description (it has no format_version)")
    if version > FORMAT_VERSION:
        raise MapError(
            f"{path}: the map has format version {version}, this program reads up to {FORMAT_VERSION}: "
            "update mast3r_ros, or build the map again"
        )
    frame_id, checksum, cameras = (document.get(key) for key in ("frame_id", "keyframes_sha256", "cameras"))
    if not isinstance(frame_id, str) or not frame_id:
        raise ValueError("has no frame_id")
    if not isinstance(checksum, str) or not isinstance(cameras, dict):
        raise ValueError("lacks keyframes_sha256 or cameras")
    parsed = {}
    for name, record in cameras.items():
        try:
            parsed[str(name)] = camera_from_dict(record)
        except ValueError as error:
            raise ValueError(f"camera '{name}' {error}") from error
    provenance = document.get("provenance")
    texts = {str(k): str(v) for k, v in provenance.items()} if isinstance(provenance, dict) else {}
    length = document.get("keyframes_bytes")
    if length is not None and (type(length) is not int or length < 0):
        raise ValueError("keyframes_bytes is no number of bytes")
    return Header(frame_id, texts, parsed, checksum, length, _pose_noise(document.get("pose_noise")))


def _pose_noise(record: Any) -> PoseNoise | None:
    if record is None:
        return None
    try:
        # Maps of earlier versions have fewer of them.
        noise = PoseNoise(**{**asdict(PoseNoise(math.nan, math.nan)), **record})
        fits = 0 <= noise.position_m < math.inf and 0 <= noise.rotation_rad < 4
        fits &= 0 < noise.match_scale < 1e4 and 0 <= noise.found_elsewhere <= 1 and noise.found >= 0
    except TypeError:
        raise ValueError(f"pose_noise needs numbers called {', '.join(PoseNoise.__annotations__)}") from None
    if not fits:
        raise ValueError(f"pose_noise {asdict(noise)} is impossible")
    return noise


def _check_names(folder: Path, columns: table.Table) -> None:
    """Every file of a large map is there; its size is compared when it is first read, too."""
    there: dict[str, set[str]] = {}
    for kind, name in columns.files():
        if kind not in there:
            there[kind] = set(os.listdir(folder / kind)) if (folder / kind).is_dir() else set()
        if name not in there[kind]:
            raise MapError(_missing(folder / kind / name, folder))


def _missing(path: Path, folder: Path) -> str:
    return f"{path}: is missing: restore it, or run `mast3r_ros map repair {folder}` to go on without it"


def _check_files(folder: Path, entries: Any) -> None:
    """Every image is there with its size; its checksum is compared when it is first read."""
    for entry in entries:
        for _, blob in entry.blobs():
            try:
                size = blob.path.stat().st_size
            except OSError:
                raise MapError(_missing(blob.path, folder)) from None
            if size != blob.size:
                raise MapError(
                    f"{blob.path}: has {size} bytes instead of {blob.size}: restore it, or run "
                    f"`mast3r_ros map repair {folder}` to accept it as it is"
                )
