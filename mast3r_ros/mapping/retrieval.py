"""Which keyframes look like a query: VLAD vectors of the map and the nearest of them.

The index grows with the map: a new keyframe costs one vector. Vocabulary and compression are learned
again only when the map has doubled since.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.mapping import tensor_file
from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.mapping.vlad import DESCRIPTORS_PER_WORD, WORDS, Compression, Vocabulary

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
#: Local descriptors (N, D) of one keyframe by its id.
Describe = Callable[[str], Array]
#: The rows of the nearest ``k`` vectors and their similarities, best first.
Search = Callable[[Array, int], list[tuple[int, float]]]

#: Descriptors a vocabulary is trained on, at most.
TRAINING_DESCRIPTORS = WORDS * 256
#: Keyframes that vocabulary and compression are learned from, at most.
TRAINING_KEYFRAMES = 1024
#: Frames whose vectors are compressed together.
BATCH = 256
#: Maps beyond this many keyframes are compressed to vectors of this length: what keeps a query below 10 ms.
COMPRESS_ABOVE, COMPRESSED = 1024, 512


class RetrievalIndex:
    """Appearance index of one map for the features of one matcher."""

    def __init__(self) -> None:
        self.vocabulary: Vocabulary | None = None
        self._compression: Compression | None = None
        self._trained_on = 0
        self._keys: dict[str, str] = {}  # id -> content key its vector was made of, in the order of the rows
        self._vectors: Array = np.zeros((0, 0), np.float32)
        self._search: tuple[list[str], Search] | None = None  # the ids that can be found, and how

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, keys: Mapping[str, str], describe: Describe) -> bool:
        """Bring the index in line with the map. Nothing is changed in place: a shallow copy of before stays as it was.

        Args:
            keys: content key by keyframe id, in the map's order.
            describe: gives the local descriptors of a keyframe.

        Returns:
            whether anything changed.
        """
        if list(self._keys.items()) == list(keys.items()):
            return False
        if self.vocabulary is None or len(keys) >= 2 * self._trained_on or 2 * len(keys) <= self._trained_on:
            self._train(list(keys), describe)
        if self.vocabulary is None:
            return False
        known = {id: row for row, (id, key) in enumerate(self._keys.items()) if key == keys.get(id)}
        missing = [id for id in keys if id not in known]
        fresh = dict(zip(missing, self._vectors_of(describe(id) for id in missing), strict=True))
        self._vectors = np.stack([self._vectors[known[id]] if id in known else fresh[id] for id in keys])
        self._keys = dict(keys)
        self._search = None
        return True

    def similarities(self, descriptors: Array) -> dict[str, float]:
        """Cosine similarity of a query's local descriptors (N, D) with every keyframe."""
        if self.vocabulary is None or len(descriptors) == 0:
            return {}
        scores = self._vectors @ self._vectors_of([descriptors])[0]
        return dict(zip(self._keys, scores.tolist(), strict=True))

    def search(self, descriptors: Array, k: int, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        """The ``k`` keyframes most like the query's local descriptors (N, D), best first, with similarities."""
        if self.vocabulary is None or len(descriptors) == 0 or k < 1:
            return []
        if self._search is None:
            described = np.any(self._vectors, axis=1)  # a blank image is similar to nothing
            ids = [id for row, id in enumerate(self._keys) if described[row]]
            self._search = ids, _searcher(np.ascontiguousarray(self._vectors[described]))
        ids, nearest = self._search
        found = nearest(self._vectors_of([descriptors])[0], min(len(ids), k + len(exclude)))
        return [(ids[row], score) for row, score in found if ids[row] not in exclude][:k]

    def _vectors_of(self, descriptors: Iterable[Array]) -> list[Array]:
        """Local descriptors of frames -> the unit vectors that are compared, zero for blank frames."""
        assert self.vocabulary is not None
        vectors: list[Array] = []
        source = iter(descriptors)
        while batch := [self.vocabulary.aggregate(local) for local in islice(source, BATCH)]:
            vectors.extend(batch if self._compression is None else self._compression.apply(np.stack(batch)))
        return vectors

    def _train(self, ids: list[str], describe: Describe) -> None:
        chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(len(ids), TRAINING_KEYFRAMES)).astype(int)]
        share = max(DESCRIPTORS_PER_WORD, TRAINING_DESCRIPTORS // max(1, len(chosen)))
        samples = [sample for sample in (_sampled(describe(id), share) for id in chosen) if len(sample)]
        self._compression, self._keys, self.vocabulary = None, {}, None
        if not samples:
            return
        self.vocabulary = Vocabulary.train(np.concatenate(samples).astype(np.float32, copy=False))
        self._trained_on = len(ids)
        if len(ids) > COMPRESS_ABOVE:
            vectors = np.stack([self.vocabulary.aggregate(describe(id)) for id in chosen])
            self._compression = Compression.train(vectors, COMPRESSED)

    def save(self, path: Path) -> None:
        """Write the index.

        Raises:
            OSError: if the disk refuses.
        """
        if self.vocabulary is None:
            return
        vocabulary, compression = self.vocabulary, self._compression
        tensors = {"mean": vocabulary.mean, "basis": vocabulary.basis, "words": vocabulary.words}
        tensors["vectors"] = self._vectors
        if compression is not None:
            tensors |= {"compression_mean": compression.mean, "compression_basis": compression.basis}
        metadata = {"keyframes": json.dumps(self._keys), "trained_on": str(self._trained_on)}
        write_replacing(path, tensor_file.pack(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> RetrievalIndex:
        """Read an index; an empty one where the file is missing or damaged (``update`` then builds it)."""
        index = cls()
        try:
            tensors, metadata = tensor_file.read(path)
            index.vocabulary = Vocabulary(tensors["mean"], tensors["basis"], tensors["words"])
            if "compression_mean" in tensors:
                index._compression = Compression(tensors["compression_mean"], tensors["compression_basis"])
            index._vectors, index._keys = tensors["vectors"], dict(json.loads(metadata["keyframes"]))
            index._trained_on = int(metadata["trained_on"])
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError) as error:
            logger.warning("%s: damaged, building it again (%s)", path, error)
            return cls()
        return index


def _sampled(descriptors: Array, count: int) -> Array:
    """At most ``count`` rows, evenly spread."""
    if len(descriptors) <= count:
        return descriptors
    chosen: NDArray[np.float32] = descriptors[np.linspace(0, len(descriptors) - 1, count).astype(int)]
    return chosen


def _searcher(vectors: Array) -> Search:
    """Exact nearest neighbours by inner product: faiss where it can be imported, torch elsewhere."""
    try:
        import faiss
    except ImportError:
        import torch

        rows = torch.from_numpy(vectors)

        def by_torch(query: Array, k: int) -> list[tuple[int, float]]:
            best = torch.topk(rows @ torch.from_numpy(query), k)
            return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

        return by_torch
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def by_faiss(query: Array, k: int) -> list[tuple[int, float]]:
        scores, found = index.search(query[None], k) if k else (np.zeros((1, 0)), np.zeros((1, 0)))
        return [(int(row), float(score)) for row, score in zip(found[0], scores[0], strict=True)]

    return by_faiss
