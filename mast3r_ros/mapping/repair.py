"""Accept a map folder as it is now: what a person edited is taken over, what is lost is dropped and named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mast3r_ros.errors import MapError
from mast3r_ros.mapping.blob import Blob, decode_depth, decode_image, decode_points
from mast3r_ros.mapping.feature_cache import FeatureCache
from mast3r_ros.mapping.records import Entry
from mast3r_ros.mapping.storage import BadLine, read_header, read_lines, write_map


@dataclass
class RepairReport:
    """What a repair did.

    Attributes:
        kept: keyframes the map has now.
        updated: ids whose image or depth had changed; the new pixels were accepted.
        without_depth: ids whose depth image was lost; they stay, without depth.
        dropped: what was removed (a line number or an id) and why.
    """

    kept: int = 0
    updated: list[str] = field(default_factory=list)
    without_depth: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def repair(path: str | Path) -> RepairReport:
    """Make a map loadable again after it was edited or damaged.

    Lines that cannot be used and keyframes whose image is gone or cannot be decoded are dropped; edited
    poses and images are accepted with new checksums. The folder is replaced in one step, as by a save.

    Raises:
        MapError: if there is no map, or map.yaml itself is damaged (it holds the cameras), or nothing is left.
    """
    folder = Path(path).expanduser().resolve()
    header = read_header(folder)
    report = RepairReport()
    entries: dict[str, Entry] = {}
    for number, item in read_lines(folder / "keyframes.jsonl", header.cameras):
        if isinstance(item, BadLine):
            report.dropped[f"line {number}"] = str(item.error)
        elif item.keyframe.id in entries:
            report.dropped[f"line {number}"] = f"repeats the id '{item.keyframe.id}'"
        else:
            mended = _mended(item, report)
            if mended is not None:
                entries[item.keyframe.id] = mended
    if report.dropped and not entries:
        raise MapError(f"{folder}: no keyframe can be saved by a repair: nothing was changed; build the map again")
    cache = FeatureCache()
    cache.folder = folder
    write_map(folder, header, list(entries.values()), lambda fresh: cache.copy_to(fresh, entries))
    report.kept = len(entries)
    return report


def _mended(entry: Entry, report: RepairReport) -> Entry | None:
    id, camera = entry.keyframe.id, entry.keyframe.camera
    try:
        image = _as_it_is(entry.image)
        decode_image(image, camera)
    except MapError as error:
        report.dropped[id] = str(error)
        return None
    depth = _mended_surface(entry.depth, lambda blob: decode_depth(blob, camera))
    points = _mended_surface(entry.points, decode_points)
    known = depth is not None or points is not None
    mended = replace(entry, keyframe=replace(entry.keyframe, has_depth=known), image=image, depth=depth, points=points)
    if entry.keyframe.has_depth and not known:
        report.without_depth.append(id)
        return replace(mended, depth_median_m=float("nan"))
    if mended.content_key != entry.content_key:
        report.updated.append(id)
    return mended


def _mended_surface(blob: Blob | None, decode: Callable[[Blob], object]) -> Blob | None:
    if blob is None:
        return None
    try:
        mended = _as_it_is(blob)
        decode(mended)
    except MapError:
        return None
    return mended


def _as_it_is(blob: Blob) -> Blob:
    """The same file with the size and checksum it has now."""
    assert blob.path is not None
    try:
        data = blob.path.read_bytes()
    except OSError as error:
        raise MapError(f"{blob.path}: {error.strerror}") from error
    return replace(blob, size=len(data), sha256=hashlib.sha256(data).hexdigest())
