"""Retrieval alone among as many keyframes as one likes: vectors that nobody described, in clusters of alike ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.mapping.retrieval import COMPRESSED, RetrievalIndex
from mast3r_ros.mapping.vlad import Vocabulary
from mast3r_ros.memory import peak_mib, resident_mib

Array = NDArray[np.float32]

#: Keyframes that look alike, and how much: the cosine between two of them is about 1 / (1 + NOISE^2).
ALIKE, NOISE = 20, 0.7
#: Vectors that are made at once; nearest ones that are counted.
BATCH, NEAREST = 20_000, 10
SEED = 7


def benchmark_retrieval(
    count: int, queries: int, progress: Callable[[str, int, int], None] = lambda stage, done, total: None
) -> dict[str, Any]:
    """Time an index of ``count`` keyframes, read by a process of its own, and hold it against the exact search."""
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        path = Path(folder) / "alone.safetensors"
        progress("making vectors", 0, count)
        index = _vectors_without_lists(count)
        progress("building the index", 0, count)
        began, computed = time.perf_counter(), time.process_time()
        index._sort_into_lists()
        built, built_cpu = time.perf_counter() - began, time.process_time() - computed
        index.save(path)
        del index
        progress("loading and asking", 0, queries)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            asked = fresh.submit(_load_and_ask, path, count, queries).result()
    return {
        "benchmark": "retrieval",
        "map_keyframes": count,
        "queries": queries,
        "build_index_s": built,
        "build_index_processor_s": built_cpu,
        **asked,
        "machine": machine(),
        "versions": versions(),
    }


def _vectors(count: int) -> Iterator[Array]:
    for begin in range(0, count, BATCH):
        rng = np.random.default_rng((SEED, begin))
        size = min(BATCH, count - begin)
        places = rng.normal(size=(-(-size // ALIKE), COMPRESSED))
        yield _alike(np.repeat(places, ALIKE, axis=0)[:size], rng)


def _alike(places: NDArray[np.float64], rng: np.random.Generator) -> Array:
    vectors = (places + NOISE * rng.normal(size=places.shape)).astype(np.float32)
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _vectors_without_lists(count: int) -> RetrievalIndex:
    index = RetrievalIndex()
    index.vocabulary = Vocabulary(np.zeros(1, np.float32), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    for vectors in _vectors(count):
        ids = [f"{len(index._ids) + n:07d}" for n in range(len(vectors))]
        index._append(ids, vectors)
        index._keys.update(dict.fromkeys(ids, "made"))
    return index


def _load_and_ask(path: Path, count: int, queries: int) -> dict[str, Any]:
    import torch  # noqa: F401  # which maps files: a robot's process has it

    memory, began = resident_mib(), time.perf_counter()
    index = RetrievalIndex.load(path)
    load_s = time.perf_counter() - began
    rng = np.random.default_rng(SEED + 1)
    chosen = np.linspace(0, count - 1, queries + 1).astype(int)
    asked = _alike(np.sqrt(COMPRESSED) * np.stack([index._vector(int(row)) for row in chosen]).astype(np.float64), rng)
    began = time.perf_counter()
    index._nearest(asked[0], NEAREST)
    first_s = time.perf_counter() - began
    walls, computed, hits, best = list[float](), list[float](), 0, 0
    for query in asked[1:]:
        wall, cpu = time.perf_counter(), time.process_time()
        rows, _, _ = index._nearest(query, NEAREST)
        walls.append(1e3 * (time.perf_counter() - wall))
        computed.append(1e3 * (time.process_time() - cpu))
        exact = np.argsort(-np.concatenate([block @ query for block in index._blocks]), kind="stable")[:NEAREST]
        hits += len(np.intersect1d(rows, exact))
        best += int(rows[0] == exact[0])
    return {
        "load_s": load_s,
        "first_query_s": first_s,
        "retrieval_ms": metrics.percentiles(walls, (50, 95)),
        "retrieval_processor_ms": metrics.percentiles(computed, (50, 95)),
        "recall": hits / (min(NEAREST, count) * queries),
        "nearest_found": best / queries,
        "memory_mib": resident_mib() - memory,
        "peak_memory_mib": peak_mib(),
    }
