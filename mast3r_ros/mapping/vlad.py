"""VLAD: one vector per image from its local descriptors, with a vocabulary trained on the map itself.

Jegou et al., "Aggregating local descriptors into a compact image representation" (CVPR 2010);
intra-normalisation after Arandjelovic and Zisserman, "All about VLAD" (CVPR 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

Array = NDArray[np.float32]

#: Words of the vocabulary, and the dimension descriptors are reduced to: 64 x 64 values per image.
WORDS, DIMENSION = 64, 64
#: A word needs about this many training descriptors to be more than noise.
DESCRIPTORS_PER_WORD = 30
SEED = 20


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What turns descriptors into a VLAD vector.

    Attributes:
        mean: (D,) of the training descriptors.
        basis: (D, d) principal directions, d <= D.
        words: (K, d) cluster centres of the reduced descriptors.
    """

    mean: Array
    basis: Array
    words: Array

    @classmethod
    def train(cls, descriptors: Array) -> Vocabulary:
        """Learn from (N, D) descriptors, N >= 1; deterministic, and fewer words where there are few descriptors."""
        mean = descriptors.mean(axis=0)
        centred = descriptors - mean
        _, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        basis = np.ascontiguousarray(vectors[:, ::-1][:, :DIMENSION], dtype=np.float32)
        words = max(1, min(WORDS, len(descriptors) // DESCRIPTORS_PER_WORD))
        return cls(mean, basis, _cluster(centred @ basis, words))

    @property
    def size(self) -> int:
        """Length of a VLAD vector."""
        return int(self.words.size)

    @cached_property
    def _scores(self) -> tuple[Array, Array]:
        """Directions (D, K) and offsets (K,): descriptors x directions - offsets is largest for the nearest word."""
        directions = self.basis @ self.words.T
        return np.ascontiguousarray(directions), (self.words**2).sum(axis=1) / 2 + self.mean @ directions

    def aggregate(self, descriptors: Array) -> Array:
        """(N, D) descriptors -> (size,) unit VLAD vector; all zero without descriptors."""
        if len(descriptors) == 0:
            return np.zeros(self.size, np.float32)
        descriptors = descriptors.astype(np.float32, copy=False)
        directions, offsets = self._scores
        nearest = np.argmax(descriptors @ directions - offsets, axis=1)
        # Not each descriptor is reduced, but the sum of each word's descriptors.
        count, rows = len(descriptors), np.arange(len(descriptors) + 1, dtype=np.int32)
        member = csc_matrix((np.ones(count, np.float32), nearest, rows), shape=(len(self.words), count))
        numbers = np.bincount(nearest, minlength=len(self.words)).astype(np.float32)[:, None]
        residuals = (member @ descriptors - numbers * self.mean) @ self.basis - numbers * self.words
        residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-9)
        vector = np.sign(residuals) * np.sqrt(np.abs(residuals))
        length = float(np.linalg.norm(vector))
        if length < 1e-9:
            # In a map of one image, of which the words are means, residuals cancel: it can still be found.
            return np.full(self.size, self.size**-0.5, np.float32)
        unit: Array = vector.reshape(-1) / length
        return unit


@dataclass(frozen=True, eq=False)
class Compression:
    """Principal directions of the VLAD vectors of a large map.

    Attributes:
        mean: (n,) of the training vectors.
        basis: (n, m) strongest directions.
    """

    mean: Array
    basis: Array

    @classmethod
    def train(cls, vectors: Array, length: int) -> Compression:
        """Learn at most ``length`` directions from (N, n) vectors."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        values, left = np.linalg.eigh(centred.astype(np.float64) @ centred.T)
        strong = np.argsort(values)[::-1][:length]
        strong = strong[values[strong] > 1e-9 * max(float(values[-1]), 1e-30)]
        basis = centred.T @ left[:, strong] / np.sqrt(values[strong])
        return cls(mean, np.ascontiguousarray(basis, dtype=np.float32))

    def apply(self, vectors: Array) -> Array:
        """(N, n) vectors -> (N, m) unit vectors; zero stays zero."""
        reduced = (vectors - self.mean) @ self.basis
        reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
        return np.where(vectors.any(axis=1, keepdims=True), reduced, np.float32(0))


def _cluster(points: Array, count: int) -> Array:
    """K-means with a fixed seed: (N, d) -> (count, d)."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    centres: Array
    if count == 1:
        centres = points.mean(axis=0, keepdims=True)
        return centres
    try:
        import faiss
    except ImportError:
        from scipy.cluster.vq import kmeans2

        centres = kmeans2(points, count, iter=20, minit="++", seed=SEED)[0].astype(np.float32)
        return centres
    kmeans = faiss.Kmeans(points.shape[1], count, niter=20, seed=SEED, min_points_per_centroid=1)
    kmeans.train(points)
    centres = kmeans.centroids
    return centres
