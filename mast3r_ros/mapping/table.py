"""keyframes.jsonl as columns, keyframes.safetensors: a large map is opened by it without a line parsed.

A cache that may be deleted. It holds what the first lines say, and the checksum of these lines: where they are not what
it was made of, they are read themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.mapping import tensor_file
from mast3r_ros.mapping.blob import DEPTH_FORMATS, IMAGE_FORMATS, Blob
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.mapping.records import IDS_PATTERN, MAX_IMAGE_BYTES, Entry, rounded_pose

logger = logging.getLogger(__name__)

NAME = "keyframes.safetensors"
#: What a keyframe's distances come from: nothing, a depth image of each format, points.
SURFACES = ("", *DEPTH_FORMATS, "safetensors")


@dataclass(frozen=True, eq=False)
class Table:
    """The first N keyframes of a map.

    Attributes:
        ids: of the keyframes.
        cameras: by the numbers in ``camera``.
        lines: bytes of keyframes.jsonl that it stands for, and ``sha256`` their checksum.
        poses: (N, 4, 4) map_T_camera.
        depths: (N,) median of the known depth, metres; NaN where none is known.
        stamps, camera, formats, surfaces, sizes, checksums: (N, ...) what else a line says.
    """

    folder: Path
    ids: list[str]
    cameras: list[Camera]
    lines: int
    sha256: str
    poses: NDArray[np.float64]
    depths: NDArray[np.float64]
    stamps: NDArray[np.int64]
    camera: NDArray[np.int64]
    formats: NDArray[np.uint8]
    surfaces: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint8]

    def entry(self, row: int) -> Entry:
        """A keyframe as its line says."""
        id, surface = self.ids[row], SURFACES[self.surfaces[row]]
        keyframe = Keyframe(
            id, self.cameras[self.camera[row]], self.poses[row].copy(), int(self.stamps[row]), bool(surface)
        )
        image = self._blob(row, 0, "images", IMAGE_FORMATS[self.formats[row]])
        known = self._blob(row, 1, "points" if surface == "safetensors" else "depth", surface) if surface else None
        depth, points = (None, known) if surface == "safetensors" else (known, None)
        return Entry(keyframe, image, depth, float(self.depths[row]), points)

    def content_key(self, row: int) -> str:
        """See :attr:`Entry.content_key`."""
        image, known = (self.checksums[row, n, :10].tobytes().hex() for n in (0, 1))
        return f"{image}-{known if self.surfaces[row] else 'none'}"

    def files(self) -> Iterator[tuple[str, str]]:
        """Folder and name of every file that the keyframes have."""
        for id, form, surface in zip(self.ids, self.formats.tolist(), self.surfaces.tolist(), strict=True):
            yield "images", f"{id}.{IMAGE_FORMATS[form]}"
            if surface:
                yield "points" if SURFACES[surface] == "safetensors" else "depth", f"{id}.{SURFACES[surface]}"

    def _blob(self, row: int, which: int, folder: str, suffix: str) -> Blob:
        path = self.folder / folder / f"{self.ids[row]}.{suffix}"
        return Blob(suffix, int(self.sizes[row, which]), self.checksums[row, which].tobytes().hex(), path=path)


def pack(
    entries: Sequence[Entry], names: Mapping[int, str], lines: int, sha256: str, before: Table | None = None
) -> bytes:
    """The bytes of a table.

    Args:
        entries: what is in it, behind the rows of ``before``.
        names: of the cameras in map.yaml, by the ``id`` of the object.
        lines: bytes of keyframes.jsonl that say the same, and their checksum.
    """
    earlier = before.cameras if before else []
    known = list(dict.fromkeys(names[id(camera)] for camera in [*earlier, *(e.keyframe.camera for e in entries)]))
    number = {key: known.index(name) for key, name in names.items() if name in known}
    surfaces = [entry.depth or entry.points for entry in entries]
    blobs = [(entry.image, surface) for entry, surface in zip(entries, surfaces, strict=True)]
    nothing = bytes(32).hex()
    digests = "".join(blob.sha256 if blob else nothing for pair in blobs for blob in pair)
    columns = {
        "poses": np.array([rounded_pose(entry.keyframe.map_T_camera) for entry in entries]).reshape(-1, 4, 4),
        "depths": np.array([float(f"{entry.depth_median_m:.6g}") for entry in entries], np.float64),
        "stamps": np.array([entry.keyframe.stamp_ns for entry in entries], np.int64),
        "camera": np.array([number[id(entry.keyframe.camera)] for entry in entries], np.int64),
        "formats": np.array([IMAGE_FORMATS.index(entry.image.suffix) for entry in entries], np.uint8),
        "surfaces": np.array([SURFACES.index(s.suffix) if s else 0 for s in surfaces], np.uint8),
        "sizes": np.array([[b.size if b else 0 for b in pair] for pair in blobs], np.int64).reshape(-1, 2),
        "checksums": np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, 2, 32),
    }
    ids = [entry.keyframe.id for entry in entries]
    if before is not None:
        ids = before.ids + ids
        columns = {name: np.concatenate([getattr(before, name), column]) for name, column in columns.items()}
    about = {"ids": "\n".join(ids), "cameras": json.dumps(known), "lines": str(lines), "sha256": sha256}
    return tensor_file.pack(columns, about)


def read(folder: Path, cameras: dict[str, Camera]) -> Table | None:
    """The table of a map; None where there is none, or it is damaged or impossible."""
    try:
        columns, metadata = tensor_file.read(folder / NAME)
        ids = metadata["ids"].split("\n")
        known = [cameras[name] for name in json.loads(metadata["cameras"])]
        table = Table(folder, ids, known, int(metadata["lines"]), metadata["sha256"], **columns)
        _check(table)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: damaged, reading keyframes.jsonl instead (%s)", folder / NAME, error)
        return None
    return table


def _check(table: Table) -> None:
    """Raises ValueError for what no map can hold: a table comes from strangers as its map does."""
    count = len(table.ids)
    shapes = {"poses": (4, 4), "depths": (), "stamps": (), "camera": (), "formats": (), "surfaces": ()}
    for name, shape in {**shapes, "sizes": (2,), "checksums": (2, 32)}.items():
        if getattr(table, name).shape != (count, *shape):
            raise ValueError(f"{name} are of shape {getattr(table, name).shape}")
    if not IDS_PATTERN.fullmatch("\n".join(table.ids)) or len(set(table.ids)) != count:
        raise ValueError("has unusable ids, or one twice")
    R = table.poses[:, :3, :3]
    rigid = np.isfinite(table.poses).all() and np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(initial=0) < 1e-6
    numbers = (
        (table.camera >= 0).all() and (table.camera < len(table.cameras)).all(),
        (table.formats < len(IMAGE_FORMATS)).all() and (table.surfaces < len(SURFACES)).all(),
        (table.sizes[:, 0] > 0).all() and (table.sizes >= 0).all() and (table.sizes <= MAX_IMAGE_BYTES).all(),
    )
    if not rigid or not all(numbers):
        raise ValueError("holds impossible values")


class Entries(MutableMapping[str, Entry]):
    """Keyframes by id in the order of insertion; those of a table are made when they are asked for."""

    def __init__(self, table: Table | None = None) -> None:
        self._table = table
        #: id -> row of the table; -1 where it is not, or no longer, what stands there.
        self._rows: dict[str, int] = {} if table is None else {id: row for row, id in enumerate(table.ids)}
        self._made: dict[str, Entry] = {}

    def copy(self) -> Entries:
        """The same as it is now."""
        copied = Entries()
        copied._table, copied._rows, copied._made = self._table, dict(self._rows), dict(self._made)
        return copied

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._rows)

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def __getitem__(self, id: str) -> Entry:
        made = self._made.get(id)
        if made is None:
            row = self._rows[id]
            assert self._table is not None
            made = self._made[id] = self._table.entry(row)
        return made

    def __setitem__(self, id: str, entry: Entry) -> None:
        self._made[id] = entry
        self._rows[id] = -1

    def __delitem__(self, id: str) -> None:
        del self._rows[id]
        self._made.pop(id, None)

    def content_keys(self) -> dict[str, str]:
        """What caches are filed under, by id."""
        table = self._table
        return {
            id: self._made[id].content_key if row < 0 or table is None else table.content_key(row)
            for id, row in self._rows.items()
        }

    def poses_and_depths(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """map_T_camera (N, 4, 4) and the typical depth (N,) of all, metres, NaN where unknown."""
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        poses, depths = np.empty((len(rows), 4, 4)), np.empty(len(rows))
        stored = rows >= 0
        if self._table is not None:
            poses[stored], depths[stored] = self._table.poses[rows[stored]], self._table.depths[rows[stored]]
        for n, id in zip(np.flatnonzero(~stored).tolist(), [i for i, r in self._rows.items() if r < 0], strict=True):
            poses[n], depths[n] = self._made[id].keyframe.map_T_camera, self._made[id].depth_median_m
        return poses, depths

    def cameras(self) -> Iterator[Camera]:
        """Every camera that a keyframe has, some of them more than once."""
        if self._table is not None:
            rows = np.fromiter((row for row in self._rows.values() if row >= 0), np.int64)
            yield from (self._table.cameras[n] for n in np.unique(self._table.camera[rows]))
        yield from (self._made[id].keyframe.camera for id, row in self._rows.items() if row < 0)
