"""Descriptor maps to look for nearest neighbours in: every pixel, or first every n-th and then around the best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mast3r_ros.matching.neighbours import nearest


@dataclass(frozen=True, eq=False)
class Searched:
    """K descriptor maps of one image size; made by :meth:`of`.

    Attributes:
        flat: (K, H * W, D) all descriptors, by linear pixel index.
        thinned: (K, h * w, D) those that are searched first.
        size, thinned_size: (H, W) and (h, w).
        stride: rows and columns from one of the thinned map to the next; 1: the maps are the same, the search is exact.
    """

    flat: Tensor
    thinned: Tensor
    size: tuple[int, int]
    thinned_size: tuple[int, int]
    stride: int

    @classmethod
    def of(cls, maps: Tensor, stride: int = 1) -> Searched:
        """From maps (K, H, W, D). Raises ValueError for a stride below 1."""
        if stride < 1:
            raise ValueError(f"stride = {stride} must be at least 1")
        thinned = maps[:, ::stride, ::stride]
        sizes = [(m.shape[1], m.shape[2]) for m in (maps, thinned)]
        return cls(maps.flatten(1, 2), thinned.flatten(1, 2), sizes[0], sizes[1], stride)

    def __getitem__(self, k: int) -> Searched:
        """One map alone, not copied."""
        return Searched(self.flat[k : k + 1], self.thinned[k : k + 1], self.size, self.thinned_size, self.stride)

    def nearest(self, queries: Tensor, metric: str = "dot") -> Tensor:
        """Linear index (K, n) of the pixel nearest to each query (K, n, D)."""
        found = nearest(queries, self.thinned, metric)
        if self.stride == 1:
            return found
        columns = self.thinned_size[1]
        return self._around(queries, found // columns * self.stride, found % columns * self.stride, metric)

    def _around(self, queries: Tensor, y: Tensor, x: Tensor, metric: str) -> Tensor:
        """The nearest one among the pixels within ``stride`` of each (K, n)."""
        reach = torch.arange(-self.stride, self.stride + 1, device=y.device)
        rows = (y[..., None] + reach).clamp(0, self.size[0] - 1)
        columns = (x[..., None] + reach).clamp(0, self.size[1] - 1)
        window = (rows[..., :, None] * self.size[1] + columns[..., None, :]).flatten(-2)
        maps = torch.arange(len(self.flat), device=y.device)[:, None, None]
        near = self.flat[maps, window]
        if metric == "dot":
            closeness = (near @ queries[..., None])[..., 0]
        else:
            closeness = -(near - queries[..., None, :]).square().sum(dim=-1)
        return window.gather(-1, closeness.argmax(dim=-1, keepdim=True))[..., 0]
