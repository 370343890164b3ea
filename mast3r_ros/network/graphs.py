"""CUDA graphs of functions of tensors: recorded at the first call of each shape, replayed from then on.

A network's eager passes are bound by the launches of their thousand kernels; a graph launches all of them at once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

#: A function of tensors, all of which are inputs or live as long as the graph.
Function = Callable[..., Sequence[Tensor]]
#: Copies inputs into their places, computes, and leaves the outputs in theirs; queued on the current stream.
GraphReplay = Callable[[], None]

#: Graphs that are kept: more than one size of image and all numbers of pairs need.
GRAPHS = 64
#: Calls before recording, in which libraries choose and load their kernels.
WARM_UP = 2


@dataclass(frozen=True, eq=False)
class Graph:
    """A recorded function: what :attr:`replay` reads, and what it writes."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: GraphReplay


@dataclass(eq=False)
class Memory:
    """Memory that all graphs share: they are replayed one after the other, so more graphs take no more of it.

    Attributes:
        places: inputs and outputs, by stage, kind and position; a larger one takes the place of a smaller one.
        pool: of everything in between, once a graph was recorded.
        pool_bytes: its size.
    """

    places: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    pool: Any = None
    pool_bytes: int = 0

    def like(self, stage: str, kind: str, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Contiguous tensors of the same shapes and types, for the next call of that stage."""
        found = []
        for position, tensor in enumerate(tensors):
            key, needed = (stage, kind, position), tensor.numel() * tensor.element_size()
            if key not in self.places or len(self.places[key]) < needed:
                self.places[key] = torch.empty(needed, dtype=torch.uint8, device=tensor.device)
            found.append(self.places[key][:needed].view(tensor.dtype).view(tensor.shape))
        return tuple(found)

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.pool_bytes + sum(len(place) for place in self.places.values())


#: Records a function of these inputs to write these outputs.
Recorder = Callable[[Function, tuple[Tensor, ...], tuple[Tensor, ...], Memory], GraphReplay]


class Graphs:
    """Graphs by stage and key, least recently used out first.

    Each call's outputs are valid until the next call of the same stage. One caller at a time may hold :attr:`lock`,
    from a call until what reads its outputs is queued.
    """

    def __init__(self, most: int = GRAPHS, record: Recorder | None = None) -> None:
        self.lock = threading.RLock()
        self.memory = Memory()
        self._most = most
        self._record = record or record_cuda
        self._graphs: OrderedDict[tuple[str, Hashable], Graph] = OrderedDict()
        self._failed: set[tuple[str, Hashable]] = set()

    def __len__(self) -> int:
        return len(self._graphs)

    def __reduce__(self) -> tuple[type[Graphs], tuple[int]]:
        """Another process records its own."""
        return Graphs, (self._most,)

    def run(self, stage: str, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """``function(*inputs)`` by its graph, which is recorded at the first call.

        Args:
            stage: name of what is computed; outputs of an earlier call of the stage are overwritten.
            key: of everything that the recording depends on: shapes, types, and what the function closes over.

        Returns:
            tensors of the shapes and types that the function gives, valid until the next call of the stage.
        """
        with self.lock:
            name = (stage, key)
            if name not in self._graphs and not self._recorded(name, function, inputs):
                return function(*inputs)
            self._graphs.move_to_end(name)
            graph = self._graphs[name]
            for place, value in zip(graph.inputs, inputs, strict=True):
                place.copy_(value, non_blocking=True)
            graph.replay()
            return graph.outputs

    def _recorded(self, name: tuple[str, Hashable], function: Function, inputs: Sequence[Tensor]) -> bool:
        """Add a graph, where that can be."""
        if name in self._failed:
            return False
        stage = name[0]
        try:
            places = self.memory.like(stage, "in", inputs)
            for place, value in zip(places, inputs, strict=True):
                place.copy_(value)
            for _ in range(WARM_UP):
                examples = function(*places)
            outputs = self.memory.like(stage, "out", examples)
            del examples
            self._graphs[name] = Graph(places, outputs, self._record(function, places, outputs, self.memory))
        except RuntimeError as error:  # out of memory too
            self._failed.add(name)
            logger.warning("%s cannot be recorded as a CUDA graph and stays slower (%s)", stage, error)
            return False
        while len(self._graphs) > self._most:
            self._graphs.popitem(last=False)
        return True


def record_cuda(
    function: Function, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], memory: Memory
) -> GraphReplay:
    """Record a function on the inputs' GPU; each replay reads ``inputs`` and writes ``outputs``, of fixed shapes.

    Raises:
        RuntimeError: where the function cannot be recorded, or memory does not suffice.
    """
    device = inputs[0].device
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on allocating meanwhile.
    with torch.cuda.graph(graph, pool=memory.pool, capture_error_mode="thread_local"):
        _write(outputs, function(*inputs))
    memory.pool = graph.pool()
    memory.pool_bytes += max(0, torch.cuda.memory_reserved(device) - before)
    return graph.replay


def _write(places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
