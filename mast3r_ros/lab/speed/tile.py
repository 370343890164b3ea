"""Large maps for measurements: a saved map repeated side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mast3r_ros.errors import MapError
from mast3r_ros.mapping.atomic import link_or_copy
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.records import Entry
from mast3r_ros.mapping.storage import read_map, write_map


def tile_map(path: str | Path, target: str | Path, count: int, spacing_m: float = 10.0) -> KeyframeMap:
    """Save a map of ``count`` keyframes that repeats another one on a square grid, features included.

    Args:
        path: a saved map; prepare it first, so that the features need not be computed ``count`` times.
        target: where the large map goes.
        count: its number of keyframes.
        spacing_m: distance between neighbouring copies along x and y, metres.

    Raises:
        MapError: if the map is empty or damaged, or the large one cannot be written.
    """
    source, folder = Path(path).expanduser().resolve(), Path(target).expanduser().resolve()
    header, originals = read_map(source)
    if not originals:
        raise MapError(f"{source}: an empty map cannot be repeated")
    side = int(np.ceil(np.sqrt(np.ceil(count / len(originals)))))
    entries: list[Entry] = []
    origin: dict[str, str] = {}
    for number in range(count):
        tile, original = number // len(originals), originals[number % len(originals)]
        pose = original.keyframe.map_T_camera.copy()
        pose[:2, 3] += spacing_m * np.array([tile % side, tile // side])
        id = f"{number:06d}"
        origin[id] = original.keyframe.id
        entries.append(replace(original, keyframe=replace(original.keyframe, id=id, map_T_camera=pose)))

    def link_features(fresh: Path) -> None:
        for signature in (source / "features").iterdir() if (source / "features").is_dir() else ():
            (fresh / "features" / signature.name).mkdir(parents=True)
            for id, original_id in origin.items():
                file = signature / f"{original_id}.safetensors"
                if file.exists():
                    link_or_copy(file, fresh / "features" / signature.name / f"{id}.safetensors")

    header.provenance["source"] = f"{source}, repeated"
    write_map(folder, header, [])
    for entry in entries:
        for kind, blob in entry.blobs():  # else every picture would be written as often as it is repeated
            link_or_copy(blob.path or Path(), folder / kind / f"{entry.keyframe.id}.{blob.suffix}")
    write_map(folder, header, [entry.stored(folder) for entry in entries], link_features)
    return KeyframeMap.load(folder)
