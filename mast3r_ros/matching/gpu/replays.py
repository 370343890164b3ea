"""CUDA graphs of functions that are called with the same memory again and again: nothing is copied into them.

A recorded network leaves its outputs where it left them before. What follows can then be recorded on these very
tensors: a replay reads what is there now.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

from mast3r_ros.network.graphs import Graph, Memory, Recorder, record_cuda

logger = logging.getLogger(__name__)

#: Graphs and sightings that are remembered: memory and sizes that were not used lately are forgotten.
MOST = 16


class Replays:
    """Graphs by where their inputs lie in memory. All share one pool: outputs are valid until the next call."""

    def __init__(self, record: Recorder = record_cuda) -> None:
        self._record = record
        self._graphs: OrderedDict[Hashable, Graph | None] = OrderedDict()
        self._memory = Memory()
        self._works = True
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return sum(graph is not None for graph in self._graphs.values())

    def run(
        self,
        key: Hashable,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        read: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """``read(function(*inputs))``, recorded when it is asked for the second time.

        Args:
            key: of everything that ``function`` closes over.
            read: copies the output out, before anybody else may overwrite it.
        """
        key = key, tuple((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in inputs)
        with self._lock:
            graph = self._graphs.get(key)
            if graph is None:
                found = function(*inputs)
                output = read(found)
                if self._works:
                    self._note(key, function, tuple(inputs), found)
                return output
            self._graphs.move_to_end(key)
            graph.replay()
            return read(graph.outputs[0])

    def _note(self, key: Hashable, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], found: Tensor) -> None:
        """Remember a sighting; record at the second one."""
        if key not in self._graphs:
            self._graphs[key] = None
            while len(self._graphs) > MOST:
                self._graphs.popitem(last=False)
            return
        try:
            outputs = self._memory.like("found", "out", [found])
            replay = self._record(lambda *tensors: [function(*tensors)], inputs, outputs, self._memory)
        except RuntimeError as error:  # out of memory too
            self._works = False
            logger.warning("matching cannot be recorded as a CUDA graph and stays slower (%s)", error)
            return
        # The memory stays its owner's: once that lets go, nobody calls with it again.
        self._graphs[key] = Graph((), outputs, replay)
