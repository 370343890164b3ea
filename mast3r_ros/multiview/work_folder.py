"""What is known of images and of pairs, on disk: memory stays small, and an interrupted reconstruction goes on.

Files are named by the content of the images and the matcher's signature, so whatever is found is right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mast3r_ros.mapping import tensor_file
from mast3r_ros.matching.base import Features

#: Features held in memory, bytes.
MEMORY = 512 * 2**20

Tensors = Mapping[str, NDArray[Any]]


class WorkFolder:
    """Named arrays by key.

    Args:
        folder: made when something is kept.
        signature: of what makes the arrays; keys of another one are others.
    """

    def __init__(self, folder: Path, signature: str) -> None:
        self._folder, self._signature = folder, signature

    def find(self, *key: str) -> Tensors | None:
        """What was kept, mapped from disk; None where nothing was, or a damaged file."""
        try:
            return tensor_file.read(self._file(key))[0]
        except (FileNotFoundError, ValueError):
            return None

    def keep(self, tensors: Tensors, *key: str) -> None:
        """Write so that a crash leaves either nothing or all of it."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(tensor_file.pack(tensors, {}))
        fresh.replace(file)

    def holds(self, *key: str) -> bool:
        """Whether a file is there, unread."""
        return self._file(key).exists()

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, key: tuple[str, ...]) -> Path:
        digest = hashlib.sha256("\0".join([self._signature, *key]).encode()).hexdigest()[:40]
        return self._folder / digest[:2] / f"{digest}.safetensors"


class DescribedImages:
    """Features by image number, on disk; the last used ones stay in memory."""

    def __init__(self, work: WorkFolder, memory: int = MEMORY) -> None:
        self._work, self._memory = work, memory
        self._digests: dict[int, str] = {}
        self._kept: OrderedDict[int, Features] = OrderedDict()
        self._bytes = 0

    def known(self, number: int, digest: str) -> bool:
        """Whether the image was described before, which is then believed for its number."""
        self._digests[number] = digest
        return self._work.find("features", digest) is not None

    def put(self, number: int, digest: str, features: Features) -> None:
        """Keep what a matcher knows of an image."""
        self._digests[number] = digest
        self._work.keep(dict(features), "features", digest)
        self._remember(number, features)

    def digest(self, number: int) -> str:
        """Names the content of an image."""
        return self._digests[number]

    def __getitem__(self, number: int) -> Features:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        features = self._work.find("features", self._digests[number])
        if features is None:
            raise KeyError(f"features of image {number}")
        self._remember(number, features)
        return features

    def _remember(self, number: int, features: Features) -> None:
        self._kept[number] = features
        self._bytes += _size(features)
        while self._bytes > self._memory and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(features: Features) -> int:
    return sum(array.nbytes for array in features.values())
