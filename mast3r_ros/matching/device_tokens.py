"""Keyframe tokens kept on a GPU, so that it is not fed the same megabytes with every query."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict

import torch
from numpy.typing import NDArray
from torch import Tensor

#: Memory of the device that tokens may take: 700 keyframes of ViT-L at 512 x 384.
KEPT_BYTES = 1 << 30


class DeviceTokens:
    """Arrays as tensors on a device, least recently used out first; an array is known by its identity."""

    def __init__(self, device: torch.device, dtype: torch.dtype, kept_bytes: int = KEPT_BYTES) -> None:
        self._device, self._dtype, self._limit = device, dtype, kept_bytes
        self._kept: OrderedDict[int, tuple[weakref.ref[NDArray], Tensor]] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[DeviceTokens], tuple[torch.device, torch.dtype, int]]:
        """Another process keeps its own."""
        return DeviceTokens, (self._device, self._dtype, self._limit)

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, array: NDArray) -> Tensor:
        """The array on the device; it must not be written to any more. Threads may ask at the same time."""
        with self._lock:
            return self._found(array)

    def _found(self, array: NDArray) -> Tensor:
        found = self._kept.get(id(array))
        if found is not None and found[0]() is array:  # else another array of that identity has died
            self._kept.move_to_end(id(array))
            return found[1]
        if found is not None:
            self._drop(id(array))
        tensor = torch.from_numpy(array).to(self._device, self._dtype)
        self._kept[id(array)] = weakref.ref(array), tensor
        self._used += tensor.nbytes
        while self._used > self._limit and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
        return tensor

    def _drop(self, key: int) -> None:
        self._used -= self._kept.pop(key)[1].nbytes
