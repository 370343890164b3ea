"""What a matcher knows of each keyframe: kept in bounded memory and as files next to the map.

The files are a cache. One that is damaged, or was made of other pixels, is taken for missing; where the
folder cannot be written to, one warning is logged and only memory is used.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from mast3r_ros.mapping import tensor_file
from mast3r_ros.mapping.atomic import link_or_copy, write_replacing
from mast3r_ros.mapping.records import Entry
from mast3r_ros.matching.base import Features, KeyframeFeatures

logger = logging.getLogger(__name__)

#: Default bound of the features kept in memory, bytes.
MEMORY_BYTES = 512 * 2**20


class FeatureCache:
    """Features by matcher signature and keyframe, least recently used out first."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes
        self.folder: Path | None = None
        self._of = object()  # no other map's
        self._used = 0
        self._memory: OrderedDict[tuple[str, str], tuple[str, Features, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._warned = self._damage_told = False

    @property
    def used_bytes(self) -> int:
        """Memory the cached features take."""
        return self._used

    def get(self, signature: str, entry: Entry) -> Features | None:
        """The features of a keyframe as it is now, or None."""
        with self._lock:
            found = self._memory.get((signature, entry.keyframe.id))
            if found is not None and found[0] == entry.content_key:
                self._memory.move_to_end((signature, entry.keyframe.id))
                return found[1]
        if self.folder is None:
            return None
        features = self._read(_file(self.folder, signature, entry.keyframe.id), entry.content_key)
        return None if features is None else self._remember(signature, entry, features)

    def put(self, signature: str, entry: Entry, features: Features) -> Features:
        """Keep features in memory, and on disk where that is possible; gives those that are kept."""
        kept = self._remember(signature, entry, features)
        if self.folder is None:
            return kept
        try:
            write_replacing(_file(self.folder, signature, entry.keyframe.id), _pack(kept, entry.content_key))
        except OSError as error:
            self.warn_once(self.folder, error)
        return kept

    def missing(self, signature: str, entries: Mapping[str, Entry]) -> set[str]:
        """Ids of those for which :meth:`get` would probably find nothing; does not open files."""
        there: set[str] = set()
        if self.folder is not None and (self.folder / "features" / signature).is_dir():
            there = {name.rpartition(".")[0] for name in os.listdir(self.folder / "features" / signature)}
        with self._lock:
            kept = {id: found[0] for (name, id), found in self._memory.items() if name == signature and id in entries}
        there.update(kept)
        there -= {id for id, key in kept.items() if key != entries[id].content_key}
        return entries.keys() - there

    def copy_to(self, folder: Path, entries: Mapping[str, Entry]) -> None:
        """Put everything known of ``entries`` into a new map folder (links where the files exist)."""
        old = self.folder / "features" if self.folder is not None else None
        for signature in old.iterdir() if old is not None and old.is_dir() else ():
            (folder / "features" / signature.name).mkdir(parents=True, exist_ok=True)
            for file in signature.glob("*.safetensors"):
                if file.stem in entries and not file.name.startswith("."):
                    link_or_copy(file, folder / "features" / signature.name / file.name)
        with self._lock:
            kept = list(self._memory.items())
        for (name, id), (key, features, _) in kept:
            target = _file(folder, name, id)
            if id in entries and key == entries[id].content_key and not target.exists():
                write_replacing(target, _pack(features, key))

    def warn_once(self, folder: Path, error: OSError) -> None:
        """Say that the cache cannot be written, the first time only."""
        if not self._warned:
            self._warned = True
            reason = error.strerror or error
            logger.warning("%s: features cannot be cached there (%s); they stay in memory", folder, reason)

    def _remember(self, signature: str, entry: Entry, features: Features) -> Features:
        name = (signature, entry.keyframe.id)
        features = KeyframeFeatures(features, (self._of, *name, entry.content_key))
        size = sum(array.nbytes for array in features.values())
        with self._lock:
            self._used += size - self._memory.pop(name, ("", {}, 0))[2]
            self._memory[name] = (entry.content_key, features, size)
            while self._used > self.memory_bytes and len(self._memory) > 1:
                self._used -= self._memory.popitem(last=False)[1][2]
        return features

    def _read(self, path: Path, content_key: str) -> Features | None:
        try:
            features, metadata = tensor_file.read(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.log(
                logging.DEBUG if self._damage_told else logging.WARNING,
                "%s: damaged, computing it again (%s); the same goes for any others there",
                path,
                error,
            )
            self._damage_told = True
            return None
        return features if metadata.get("content") == content_key else None  # made of other pixels: out of date


def _file(folder: Path, signature: str, id: str) -> Path:
    return folder / "features" / signature / f"{id}.safetensors"


def _pack(features: Features, content_key: str) -> bytes:
    return tensor_file.pack(features, {"content": content_key})
