"""Which keyframes look like a query: VLAD vectors of the map and the nearest of them.

The index grows with the map: a new keyframe costs one vector. Vocabulary and compression are learned
again only when the map has doubled since.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.mapping.vlad import DESCRIPTORS_PER_WORD, WORDS, Vocabulary, unit

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
#: Local descriptors (N, D) of one keyframe by its id.
Describe = Callable[[str], Array]

#: Descriptors a vocabulary is trained on, at most.
TRAINING_DESCRIPTORS = WORDS * 256
#: Keyframes that vocabulary and compression are learned from, at most.
TRAINING_KEYFRAMES = 1024
#: Maps beyond this many keyframes are compressed to vectors of this length: what keeps a query below 10 ms.
COMPRESS_ABOVE, COMPRESSED = 1024, 512


class RetrievalIndex:
    """Appearance index of one map for the features of one matcher."""

    def __init__(self) -> None:
        self.vocabulary: Vocabulary | None = None
        self._compression: tuple[Array, Array] | None = None  # mean (n,), basis (n, COMPRESSED)
        self._trained_on = 0
        self._rows: dict[str, int] = {}  # id -> row
        self._keys: dict[str, str] = {}  # id -> content key the row was made of
        self._vectors: Array = np.zeros((0, 0), np.float32)
        self._search: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, keys: Mapping[str, str], describe: Describe) -> bool:
        """Bring the index in line with the map.

        Args:
            keys: content key by keyframe id, in the map's order.
            describe: gives the local descriptors of a keyframe.

        Returns:
            whether anything changed.
        """
        if self._keys == dict(keys):
            return False
        if self.vocabulary is None or len(keys) >= 2 * self._trained_on or 2 * len(keys) <= self._trained_on:
            self._train(list(keys), describe)
        vocabulary = self.vocabulary
        if vocabulary is None:
            return False
        known = {id: row for id, row in self._rows.items() if self._keys[id] == keys.get(id)}
        vectors = [self._vectors[known[id]] if id in known else self._vector(describe(id)) for id in keys]
        self._vectors = np.stack(vectors)
        self._rows = {id: row for row, id in enumerate(keys)}
        self._keys = dict(keys)
        self._search = None
        return True

    def similarities(self, descriptors: Array) -> dict[str, float]:
        """Cosine similarity of a query's local descriptors (N, D) with every keyframe."""
        if self.vocabulary is None or len(descriptors) == 0:
            return {}
        scores = self._vectors @ self._vector(descriptors)
        return {id: float(scores[row]) for id, row in self._rows.items()}

    def search(self, descriptors: Array, k: int, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        """The ``k`` keyframes most like the query's local descriptors (N, D), best first, with similarities."""
        if self.vocabulary is None or len(descriptors) == 0 or k < 1:
            return []
        if self._search is None:
            self._search = _searcher(self._vectors)
        ids = list(self._rows)
        wanted = min(len(ids), k + len(exclude))
        found = self._search(self._vector(descriptors), wanted)
        return [(ids[row], score) for row, score in found if ids[row] not in exclude][:k]

    def _vector(self, descriptors: Array) -> Array:
        assert self.vocabulary is not None
        vector = self.vocabulary.aggregate(descriptors)
        if self._compression is None:
            return vector
        mean, basis = self._compression
        return (
            unit(((vector - mean) @ basis).astype(np.float32, copy=False))
            if vector.any()
            else np.zeros(basis.shape[1], np.float32)
        )

    def _train(self, ids: list[str], describe: Describe) -> None:
        chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(len(ids), TRAINING_KEYFRAMES)).astype(int)]
        share = max(DESCRIPTORS_PER_WORD, TRAINING_DESCRIPTORS // max(1, len(chosen)))
        samples = [_sampled(describe(id), share) for id in chosen]
        samples = [sample for sample in samples if len(sample)]
        self._compression, self._rows, self._keys, self.vocabulary = None, {}, {}, None
        if not samples:
            return
        self.vocabulary = Vocabulary.train(np.concatenate(samples).astype(np.float32, copy=False))
        self._trained_on = len(ids)
        if len(ids) > COMPRESS_ABOVE:
            self._compression = _principal(np.stack([self._vector(describe(id)) for id in chosen]), COMPRESSED)

    def save(self, path: Path) -> None:
        """Write the index.

        Raises:
            OSError: if the disk refuses.
        """
        if self.vocabulary is None:
            return
        tensors = {
            "mean": self.vocabulary.mean,
            "basis": self.vocabulary.basis,
            "words": self.vocabulary.words,
            "vectors": self._vectors,
        }
        if self._compression is not None:
            tensors["compression_mean"], tensors["compression_basis"] = self._compression
        metadata = {"keyframes": json.dumps(self._keys), "trained_on": str(self._trained_on)}
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        write_replacing(path, save(arrays, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> RetrievalIndex:
        """Read an index; an empty one where the file is missing or damaged (``update`` then builds it)."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            index = cls()
            index.vocabulary = Vocabulary(tensors["mean"], tensors["basis"], tensors["words"])
            if "compression_mean" in tensors:
                index._compression = (tensors["compression_mean"], tensors["compression_basis"])
            index._vectors, index._keys = tensors["vectors"], json.loads(metadata["keyframes"])
            index._trained_on = int(metadata["trained_on"])
            index._rows = {id: row for row, id in enumerate(index._keys)}
            index._check()
            return index
        except FileNotFoundError:
            return cls()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            logger.warning("%s: damaged, building it again (%s)", path, error)
            return cls()

    def _check(self) -> None:
        """Raise ValueError where the tensors of a file do not belong together."""
        assert self.vocabulary is not None
        mean, basis, words = self.vocabulary.mean, self.vocabulary.basis, self.vocabulary.words
        length = self.vocabulary.size
        if self._compression is not None:
            if self._compression[0].shape != (length,) or self._compression[1].shape[0] != length:
                raise ValueError("compression of a wrong shape")
            length = self._compression[1].shape[1]
        fits = (
            mean.ndim == 1
            and basis.shape == (len(mean), words.shape[1])
            and self._vectors.shape == (len(self._keys), length)
            and all(np.isfinite(array).all() for array in (mean, basis, words, self._vectors))
        )
        if not fits:
            raise ValueError("tensors of wrong shapes or with NaN")


def _sampled(descriptors: Array, count: int) -> Array:
    """At most ``count`` rows, evenly spread."""
    if len(descriptors) <= count:
        return descriptors
    return descriptors[np.linspace(0, len(descriptors) - 1, count).astype(int)]


def _principal(vectors: Array, count: int) -> tuple[Array, Array]:
    """Mean (n,) and the first ``count`` principal directions (n, count) of (N, n) vectors."""
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    values, left = np.linalg.eigh(centred.astype(np.float64) @ centred.T)
    strong = np.argsort(values)[::-1][:count]
    strong = strong[values[strong] > 1e-9 * max(float(values[-1]), 1e-30)]
    basis = centred.T @ left[:, strong] / np.sqrt(values[strong])
    return mean, basis.astype(np.float32)


def _searcher(vectors: Array) -> Callable[[Array, int], list[tuple[int, float]]]:
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
        scores, found = index.search(query[None], k)
        return [(int(row), float(score)) for row, score in zip(found[0], scores[0], strict=True) if row >= 0]

    return by_faiss
