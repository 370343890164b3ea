"""CUDA graphs of functions of tensors: recorded at the first call of each shape, replayed from then on.

A network's eager passes are bound by the launches of their thousand kernels; a graph launches all of them at once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

#: A function of tensors, all of which are inputs or live as long as the graph.
Function = Callable[..., Sequence[Tensor]]

#: Memory that graphs may hold: inputs, outputs and what they compute in between.
GRAPH_BYTES = 1 << 30
#: Calls before recording, in which libraries choose and load their kernels.
WARM_UP = 2


@dataclass(frozen=True, eq=False)
class Graph:
    """One recorded function.

    Attributes:
        inputs: what :attr:`replay` reads; callers copy their values into them.
        outputs: what it writes, valid until the next replay of any graph with the same pool.
        replay: computes outputs from inputs, queued on the current stream.
        nbytes: memory that came with it.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    nbytes: int


#: Records a function of these inputs in a pool of memory (None: its first graph makes one); gives graph and pool.
Recorder = Callable[[Function, tuple[Tensor, ...], Any], tuple[Graph, Any]]


class Graphs:
    """Graphs by stage and key, least recently used out first.

    Graphs of one stage share their memory: each call's outputs are valid until the next call of the same stage. One
    caller at a time may hold :attr:`lock`, from a call until what it gave has been read by the device.
    """

    def __init__(self, limit: int = GRAPH_BYTES, record: Recorder | None = None) -> None:
        self.lock = threading.RLock()
        self._limit = limit
        self._record = record or record_cuda
        self._graphs: OrderedDict[tuple[str, Hashable], Graph] = OrderedDict()
        self._pools: dict[str, Any] = {}
        self._failed: set[tuple[str, Hashable]] = set()

    def __len__(self) -> int:
        return len(self._graphs)

    def __reduce__(self) -> tuple[type[Graphs], tuple[int]]:
        """Another process records its own."""
        return Graphs, (self._limit,)

    @property
    def nbytes(self) -> int:
        """Memory of all graphs."""
        return sum(graph.nbytes for graph in self._graphs.values())

    def run(self, stage: str, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """``function(*inputs)`` by its graph.

        Args:
            stage: whose outputs are no longer needed.
            key: of everything that the recording depends on: shapes, types, and what the function closes over.
        """
        with self.lock:
            name = (stage, key)
            graph = self._graphs.get(name)
            if graph is None:
                graph = self._recorded(name, function, inputs)
                if graph is None:
                    return function(*inputs)
            self._graphs.move_to_end(name)
            for place, value in zip(graph.inputs, inputs, strict=True):
                place.copy_(value, non_blocking=True)
            graph.replay()
            return graph.outputs

    def clear(self) -> None:
        """Give all memory back."""
        with self.lock:
            self._graphs.clear()
            self._pools.clear()

    def _recorded(self, name: tuple[str, Hashable], function: Function, inputs: Sequence[Tensor]) -> Graph | None:
        """A new graph, or None where it cannot be recorded."""
        if name in self._failed:
            return None
        stage = name[0]
        try:
            static = tuple(value.clone(memory_format=torch.contiguous_format) for value in inputs)
            graph, self._pools[stage] = self._record(function, static, self._pools.get(stage))
        except RuntimeError as error:  # out of memory too
            self._failed.add(name)
            logger.warning("%s cannot be recorded as a CUDA graph and stays slower (%s)", stage, error)
            return None
        self._graphs[name] = graph
        while self.nbytes > self._limit and len(self._graphs) > 1:
            (dropped, _), _ = self._graphs.popitem(last=False)
            if all(kept != dropped for kept, _ in self._graphs):
                self._pools.pop(dropped, None)
        return graph


def record_cuda(function: Function, inputs: tuple[Tensor, ...], pool: Any) -> tuple[Graph, Any]:
    """Record a function on the inputs' GPU."""
    device = inputs[0].device
    for _ in range(WARM_UP):
        function(*inputs)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on allocating meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        outputs = tuple(function(*inputs))
    static = sum(tensor.nbytes for tensor in (*inputs, *outputs))
    grown = torch.cuda.memory_reserved(device) - before
    return Graph(inputs, outputs, graph.replay, max(static, grown)), graph.pool()


def record_plainly(function: Function, inputs: tuple[Tensor, ...], pool: Any) -> tuple[Graph, Any]:
    """The same bookkeeping without a GPU: a replay computes the function again. For tests."""
    outputs = tuple(value.clone() for value in function(*inputs))

    def replay() -> None:
        for place, value in zip(outputs, function(*inputs), strict=True):
            place.copy_(value)

    return Graph(inputs, outputs, replay, sum(tensor.nbytes for tensor in (*inputs, *outputs))), pool or object()
