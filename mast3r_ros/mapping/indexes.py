"""The appearance indexes of one map, one for the features of each matcher: in memory, and as files that are a cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from pathlib import Path

from mast3r_ros.mapping.retrieval import Describe, RetrievalIndex

#: Content keys of the keyframes put since a number of puts (None: of all), and the number of puts now.
Keys = Callable[[int | None], tuple[int, dict[str, str]]]


class Indexes:
    """Indexes by signature; one that was given out never changes.

    Args:
        refused: told of a place where they cannot be written.
    """

    def __init__(self, refused: Callable[[Path, OSError], None]) -> None:
        self._refused = refused
        self._known: dict[str, tuple[int, RetrievalIndex]] = {}  # with the number of puts it knows of
        self._making = threading.Lock()  # held while a vocabulary is trained; adding and saving go on meanwhile

    def get(self, signature: str, folder: Path | None, keys: Keys, describe: Describe) -> RetrievalIndex:
        """The index of the keyframes of now, read from the map's folder or made, and written there."""
        with self._making:
            seen, known = self._known.get(signature, (None, None))
            now, changed = keys(seen)
            if known is not None and now == seen:
                return known
            if known is None:
                index = RetrievalIndex.load(_file(folder, signature)) if folder else RetrievalIndex()
                into_line = index.update
            else:
                index = copy(known)
                into_line = index.grow
            has_changed = into_line(changed, describe, lambda: self._keep(index, folder, signature))
            self._known[signature] = (now, index)
        if has_changed:
            self._keep(index, folder, signature)
        return index

    def save(self, folder: Path) -> None:
        """Write all of them to a map's folder. Raises OSError."""
        for signature, (_, index) in list(self._known.items()):
            index.save(_file(folder, signature))

    def _keep(self, index: RetrievalIndex, folder: Path | None, signature: str) -> None:
        if folder is not None:
            try:
                index.save(_file(folder, signature))
            except OSError as error:
                self._refused(folder, error)


def _file(folder: Path, signature: str) -> Path:
    return folder / "retrieval" / f"{signature}.safetensors"
