"""Descriptor maps to look for nearest neighbours in: every pixel, or first every n-th and then around the best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mast3r_ros.matching.neighbours import METRICS, nearest, roughly_nearest


@dataclass(frozen=True, eq=False)
class Searched:
    """K descriptor maps of one image size; made by :meth:`of`.

    Attributes:
        flat: (K, H * W, D) all descriptors, by linear pixel index.
        thinned: (K, h * w, D) float32, those that are searched first.
        size, thinned_size: (H, W) and (h, w).
        stride: rows and columns from one of the thinned map to the next; 1: the maps are the same, the search is exact.
        metric: ``dot`` or ``l2``, see :func:`~mast3r_ros.matching.neighbours.nearest`.
    """

    flat: Tensor
    thinned: Tensor
    size: tuple[int, int]
    thinned_size: tuple[int, int]
    stride: int
    metric: str

    @classmethod
    def of(cls, maps: Tensor, stride: int = 1, metric: str = "dot") -> Searched:
        """From maps (K, H, W, D): float32, of unit length where they are compared by ``dot``.

        Maps of a stride above 1 may be of any length and type: few of their descriptors are looked at, and those
        are made float32 of unit length then.

        Raises:
            ValueError: for a stride below 1, or an unknown metric.
        """
        if stride < 1:
            raise ValueError(f"stride = {stride} must be at least 1")
        if metric not in METRICS:
            raise ValueError(f"metric '{metric}' is not one of {', '.join(METRICS)}")
        thinned = maps[:, ::stride, ::stride]
        sizes = [(m.shape[1], m.shape[2]) for m in (maps, thinned)]
        if stride > 1:
            thinned = _comparable(thinned, metric)
        return cls(maps.flatten(1, 2), thinned.flatten(1, 2), sizes[0], sizes[1], stride, metric)

    def __getitem__(self, k: int) -> Searched:
        """One map alone, not copied."""
        one = slice(k, k + 1)
        return Searched(self.flat[one], self.thinned[one], self.size, self.thinned_size, self.stride, self.metric)

    def at(self, pixels: Tensor) -> Tensor:
        """Descriptors (K, ..., D) of pixels (K, ...) by linear index, ready to be compared."""
        # Rows of a matrix: on a CPU four times faster than any other way of indexing.
        rows = [flat.index_select(0, index.flatten()) for flat, index in zip(self.flat, pixels)]
        picked = torch.stack(rows).unflatten(1, pixels.shape[1:])
        return picked if self.stride == 1 else _comparable(picked, self.metric)

    def nearest(self, queries: Tensor) -> Tensor:
        """Linear index (K, n) of the pixel nearest to each query (K, n, D)."""
        exact = self.stride == 1 or queries.is_cuda
        found = nearest(queries, self.thinned, self.metric) if exact else roughly_nearest(queries, self.thinned)
        if self.stride == 1:
            return found
        columns = self.thinned_size[1]
        return self._around(queries, found // columns * self.stride, found % columns * self.stride)

    def _around(self, queries: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """The nearest one among the pixels within ``stride`` of each (K, n)."""
        reach = torch.arange(-self.stride, self.stride + 1, device=y.device)
        rows = (y[..., None] + reach).clamp(0, self.size[0] - 1)
        columns = (x[..., None] + reach).clamp(0, self.size[1] - 1)
        window = (rows[..., :, None] * self.size[1] + columns[..., None, :]).flatten(-2)
        near, queries = self.at(window), queries[..., None, :]
        closeness = near * queries if self.metric == "dot" else -(near - queries).square()
        return window.gather(-1, closeness.sum(dim=-1).argmax(dim=-1, keepdim=True))[..., 0]


def _comparable(descriptors: Tensor, metric: str) -> Tensor:
    """Float32, of unit length where that matters."""
    return F.normalize(descriptors.float(), dim=-1) if metric == "dot" else descriptors.float()
