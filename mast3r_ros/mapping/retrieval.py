"""Which keyframes look like a query: VLAD vectors of the map and the nearest of them.

The index grows with the map: a new keyframe costs one vector, in memory and on disk. Vocabulary and compression are
learned again only when the map has doubled since. Vectors stand in blocks, each of which is a file: a new block
swallows those before it that are not larger than itself, so that there are few and each vector is rarely written again.

    retrieval/<matcher>.safetensors                    vocabulary and compression, and the tag of what belongs to them
    retrieval/<matcher>.rows/<tag>-<first>-<end>.*     blocks: vectors, and the keyframes that they are of
    retrieval/<matcher>.rows/<tag>-lists-<end>.*       the first vectors sorted into lists, see :mod:`nearest`
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.mapping import tensor_file
from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.mapping.nearest import Coarse
from mast3r_ros.mapping.vlad import DESCRIPTORS_PER_WORD, WORDS, Compression, Vocabulary

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
#: Local descriptors (N, D) of one keyframe by its id.
Describe = Callable[[str], Array]

#: Descriptors a vocabulary is trained on, at most.
TRAINING_DESCRIPTORS = WORDS * 256
#: Keyframes that vocabulary and compression are learned from, at most.
TRAINING_KEYFRAMES = 1024
#: Frames whose vectors a thread makes together, and kept together while a large index is built.
BATCH, KEPT = 64, 4096
#: Maps beyond this many keyframes are compressed to vectors of this length.
COMPRESS_ABOVE, COMPRESSED = 1024, 512
#: Up to so many vectors are compared one by one; beyond, lists find so many times the wanted number of candidates.
EXACT, CANDIDATES = 10_000, 8
#: Threads that aggregate descriptors.
THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class RetrievalIndex:
    """Appearance index of one map for the features of one matcher.

    Args:
        rewrite: files that are there are not to be trusted by their names.
    """

    def __init__(self, rewrite: bool = False) -> None:
        self._rewrite = rewrite
        self.vocabulary: Vocabulary | None = None
        self._compression: Compression | None = None
        self._trained_on = 0
        self._keys: dict[str, str] = {}  # id -> content key its vector was made of, in the map's order
        self._rows: dict[str, int] = {}  # id -> row of its vector
        self._ids: list[str] = []  # of every row; a row that its id does not name is of the past
        self._blocks: tuple[Array, ...] = ()
        self._coarse: Coarse | None = None
        self._tag = ""  # of the vocabulary and the numbering of rows

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, keys: Mapping[str, str], describe: Describe, keep: Callable[[], None] = lambda: None) -> bool:
        """Bring the index in line with the map. Nothing is changed in place: a shallow copy of before stays as it was.

        Args:
            keys: content key by keyframe id, in the map's order.
            describe: gives the local descriptors of a keyframe; several threads ask.
            keep: called now and then while many are missing, so that what is done is not lost.

        Returns:
            whether anything changed.
        """
        if self._keys == keys and list(self._keys) == list(keys):
            return False
        if self.vocabulary is None or len(keys) >= 2 * self._trained_on or 2 * len(keys) <= self._trained_on:
            self._train(list(keys), describe)
        if self.vocabulary is None:
            return False
        known = {id for id, key in self._keys.items() if key == keys.get(id)}
        changed = len(known) < max(len(keys), len(self._keys))
        self._rows = {id: row for id, row in self._rows.items() if id in known}
        if len(self._ids) > 2 * max(len(self._rows), EXACT // 10):
            self._compact()
        missing = [id for id in keys if id not in known]
        for begin in range(0, len(missing), KEPT):
            part = missing[begin : begin + KEPT]
            self._append(part, self._vectors_of(part, describe))
            done = known.union(missing[: begin + KEPT])
            self._keys = {id: key for id, key in keys.items() if id in done}
            if begin + KEPT < len(missing):
                keep()
        self._keys = dict(keys)
        self._sort_into_lists()
        return changed

    def grow(self, keys: Mapping[str, str], describe: Describe, keep: Callable[[], None] = lambda: None) -> bool:
        """The same where only these keyframes are new or have other pixels, by what these cost."""
        keys = {id: key for id, key in keys.items() if self._keys.get(id) != key}
        if not keys:
            return False
        if self.vocabulary is None or keys.keys() & self._rows or len(self) + len(keys) >= 2 * self._trained_on:
            return self.update({**self._keys, **keys}, describe, keep)
        self._append(list(keys), self._vectors_of(list(keys), describe))
        self._keys = {**self._keys, **keys}
        self._sort_into_lists()
        return True

    def similarities(self, descriptors: Array) -> dict[str, float]:
        """Cosine similarity of a query's local descriptors (N, D) with every keyframe."""
        if self.vocabulary is None or len(descriptors) == 0:
            return {}
        query = self._vector_of(descriptors)
        scores = np.concatenate([block @ query for block in self._blocks])
        return dict(zip(self._keys, scores[[self._rows[id] for id in self._keys]].tolist(), strict=True))

    def search(self, descriptors: Array, k: int, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        """The ``k`` keyframes most like the query's local descriptors (N, D), best first, with similarities.

        Among up to EXACT keyframes these are the most similar ones; in larger maps nearly always (docs/benchmarks.md).
        """
        if self.vocabulary is None or len(descriptors) == 0 or k < 1:
            return []
        query, excluded = self._vector_of(descriptors), set(exclude)
        wanted = k + len(excluded)
        while True:
            rows, scores, everything = self._nearest(query, wanted)
            found = [
                (self._ids[row], score)
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
                if self._rows.get(self._ids[row]) == row and self._ids[row] not in excluded
            ][:k]
            if len(found) == k or everything:
                return found
            wanted *= 4

    def _nearest(self, query: Array, count: int) -> tuple[NDArray[np.int64], Array, bool]:
        """Rows and similarities of about the nearest ``count`` rows, best first; whether these are all there are."""
        covered, first = (
            (len(self._coarse), self._coarse.candidates(query, CANDIDATES * count)) if self._coarse else (0, None)
        )
        rows, scores = [], []
        begin = 0
        for block in self._blocks:
            end = begin + len(block)
            if first is not None and begin < covered:
                inside = np.sort(first[(first >= begin) & (first < end)])
                rows += [inside, np.arange(max(begin, covered), end)]
                scores += [block[inside - begin] @ query, block[max(0, covered - begin) :] @ query]
            else:
                rows.append(np.arange(begin, end))
                scores.append(block @ query)
            begin = end
        row, score = np.concatenate(rows), np.concatenate(scores)
        blank = [n for n in np.flatnonzero(score == 0) if not self._vector(int(row[n])).any()]  # similar to nothing
        row, score = np.delete(row, blank), np.delete(score, blank)
        best = np.argsort(-score, kind="stable")[:count]
        return row[best], score[best], count >= len(self._ids)

    def _vector(self, row: int) -> Array:
        for block in self._blocks:
            if row < len(block):
                vector: Array = block[row]
                return vector
            row -= len(block)
        raise IndexError(row)

    def _append(self, ids: list[str], vectors: Array) -> None:
        self._rows = {**self._rows, **{id: len(self._ids) + n for n, id in enumerate(ids)}}
        self._ids = [*self._ids, *ids]
        blocks = list(self._blocks)
        while blocks and len(blocks[-1]) <= len(vectors):
            vectors = np.concatenate([blocks.pop(), vectors])
        self._blocks = (*blocks, vectors)

    def _compact(self) -> None:
        """Forget the rows of the past."""
        begins = np.cumsum([0, *map(len, self._blocks)])
        kept = sorted(self._rows.values())
        parts = [
            block[[row - begin for row in kept if begin <= row < begin + len(block)]]
            for begin, block in zip(begins[:-1].tolist(), self._blocks, strict=True)
        ]
        self._ids = [self._ids[row] for row in kept]
        self._rows = {id: row for row, id in enumerate(self._ids)}
        self._blocks = (np.concatenate(parts),) if self._ids else ()
        self._coarse, self._tag, self._rewrite = None, _tag(self._tag, *self._ids), True

    def _sort_into_lists(self) -> None:
        """Once there are many vectors, and again when half as many have come."""
        covered = len(self._coarse) if self._coarse is not None else 0
        if len(self._ids) - covered > max(EXACT, covered // 2):
            self._coarse = Coarse.train(list(self._blocks))

    def _vectors_of(self, ids: Sequence[str], describe: Describe) -> Array:
        """Unit vectors (N, D) that are compared, of keyframes; zero for blank ones. Several threads make them."""

        def some(begin: int) -> Array:
            assert self.vocabulary is not None
            vectors = np.stack([self.vocabulary.aggregate(describe(id)) for id in ids[begin : begin + BATCH]])
            return vectors if self._compression is None else self._compression.apply(vectors)

        if len(ids) <= BATCH:
            return some(0)
        with ThreadPoolExecutor(THREADS) as pool:
            return np.concatenate(list(pool.map(some, range(0, len(ids), BATCH))))

    def _vector_of(self, descriptors: Array) -> Array:
        vector: Array = self._vectors_of(("query",), lambda _: descriptors)[0]
        return vector

    def _train(self, ids: list[str], describe: Describe) -> None:
        chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(len(ids), TRAINING_KEYFRAMES)).astype(int)]
        share = max(DESCRIPTORS_PER_WORD, TRAINING_DESCRIPTORS // max(1, len(chosen)))
        samples = [sample for sample in (_sampled(describe(id), share) for id in chosen) if len(sample)]
        self._compression = self._coarse = self.vocabulary = None
        self._rewrite = True
        self._keys, self._rows, self._ids, self._blocks = {}, {}, [], ()
        if not samples:
            return
        self.vocabulary = Vocabulary.train(np.concatenate(samples).astype(np.float32, copy=False))
        self._tag = _tag(self.vocabulary.words.tobytes().hex(), *ids)
        self._trained_on = len(ids)
        if len(ids) > COMPRESS_ABOVE:
            vectors = np.stack([self.vocabulary.aggregate(describe(id)) for id in chosen])
            self._compression = Compression.train(vectors, COMPRESSED)

    def save(self, path: Path) -> None:
        """Write what is not there yet.

        Raises:
            OSError: if the disk refuses.
        """
        if self.vocabulary is None:
            return
        rows = _rows_folder(path)
        rows.mkdir(parents=True, exist_ok=True)
        wanted, begin = set(), 0
        for block in self._blocks:
            end = begin + len(block)
            name = f"{self._tag}-{begin:09d}-{end:09d}.safetensors"
            wanted.add(name)
            if self._rewrite or not (rows / name).exists():
                ids = self._ids[begin:end]
                kept = [self._keys[id] if self._rows.get(id) == begin + n else "" for n, id in enumerate(ids)]
                metadata = {"ids": json.dumps(ids), "keys": json.dumps(kept)}
                write_replacing(rows / name, tensor_file.pack({"vectors": block}, metadata))
            begin = end
        if (coarse := self._coarse) is not None:
            name = f"{self._tag}-lists-{len(coarse):09d}.safetensors"
            wanted.add(name)
            if self._rewrite or not (rows / name).exists():
                numbers = {n: getattr(coarse, n) for n in ("centres", "sizes", "rows", "codes", "ranges")}
                write_replacing(rows / name, tensor_file.pack(numbers, {}))
        self._save_vocabulary(path)
        self._rewrite = False
        for left in rows.iterdir():
            if left.name not in wanted:
                with suppress(OSError):
                    left.unlink()

    def _save_vocabulary(self, path: Path) -> None:
        assert self.vocabulary is not None
        vocabulary, compression = self.vocabulary, self._compression
        tensors = {"mean": vocabulary.mean, "basis": vocabulary.basis, "words": vocabulary.words}
        if compression is not None:
            tensors |= {"compression_mean": compression.mean, "compression_basis": compression.basis}
        # Rows whose keyframe got other pixels, or is gone, and what the map's order is, the map itself tells.
        write_replacing(path, tensor_file.pack(tensors, {"tag": self._tag, "trained_on": str(self._trained_on)}))

    @classmethod
    def load(cls, path: Path) -> RetrievalIndex:
        """Read an index; an empty one where the file is missing or damaged (``update`` then builds it)."""
        index = cls()
        try:
            tensors, metadata = _read(path)
            index.vocabulary = Vocabulary(tensors["mean"], tensors["basis"], tensors["words"])
            if "compression_mean" in tensors:
                index._compression = Compression(tensors["compression_mean"], tensors["compression_basis"])
            index._trained_on, index._tag = int(metadata["trained_on"]), metadata["tag"]
            index._read_rows(_rows_folder(path))
        except FileNotFoundError:
            return cls()
        except _Damaged as error:
            logger.warning("%s: damaged, building it again", error)
            return cls(rewrite=True)
        except (ValueError, KeyError) as error:
            logger.warning("%s: damaged, building it again (%s)", path, error)
            return cls(rewrite=True)
        return index

    def _read_rows(self, folder: Path) -> None:
        """Blocks as far as they follow each other; what a killed save left beside them is not used."""
        found: dict[int, list[int]] = {}
        for file in folder.glob(f"{self._tag}-*-*.safetensors"):
            _, first, end = file.stem.rsplit("-", 2)
            if first.isdigit() and end.isdigit():
                found.setdefault(int(first), []).append(int(end))
        blocks: list[Array] = []
        while ends := found.get(len(self._ids)):
            first, end = len(self._ids), max(ends)
            file = folder / f"{self._tag}-{first:09d}-{end:09d}.safetensors"
            tensors, metadata = _read(file)
            ids, keys, vectors = json.loads(metadata["ids"]), json.loads(metadata["keys"]), tensors["vectors"]
            if not (len(ids) == len(keys) == len(vectors) == end - first > 0) or vectors.dtype != np.float32:
                raise _Damaged(f"{file}: its rows do not fit its keyframes")
            for n, (id, key) in enumerate(zip(ids, keys, strict=True)):
                self._rows[id], self._keys[id] = first + n, key
            self._ids += ids
            blocks.append(vectors)
        self._blocks = tuple(blocks)
        self._read_lists(folder)

    def _read_lists(self, folder: Path) -> None:
        files = sorted(folder.glob(f"{self._tag}-lists-*.safetensors"))
        if not files or not self._blocks:
            return
        numbers = _read(files[-1])[0]
        if len(numbers["rows"]) <= len(self._ids) and numbers["centres"].shape[1] == self._blocks[0].shape[1]:
            self._coarse = Coarse.of(*(numbers[n] for n in ("centres", "sizes", "rows", "codes", "ranges")))


class _Damaged(ValueError):
    """Says which file is damaged, and why."""


def _read(path: Path) -> tuple[tensor_file.Tensors, dict[str, str]]:
    try:
        return tensor_file.read(path)
    except ValueError as error:
        raise _Damaged(f"{path} ({error})") from error


def _tag(*made_of: str) -> str:
    """A name for what was made of this: the same for the same."""
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]


def _rows_folder(path: Path) -> Path:
    return path.with_suffix(".rows")


def _sampled(descriptors: Array, count: int) -> Array:
    """At most ``count`` rows, evenly spread."""
    if len(descriptors) <= count:
        return descriptors
    chosen: NDArray[np.float32] = descriptors[np.linspace(0, len(descriptors) - 1, count).astype(int)]
    return chosen
