"""Tokens on a GPU: a query's stay where the encoder wrote them, a keyframe's are fetched once and kept."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.base import Features, KeyframeFeatures

#: Name of the tokens among the features.
TOKENS = "tokens"


class EncodedFeatures(Mapping[str, NDArray[Any]]):
    """Features of a frame that has just been encoded: its tokens are copied to the host when somebody reads them.

    Attributes:
        on_device: (N, C) float16, on the GPU.
    """

    def __init__(self, on_device: Tensor, others: Mapping[str, NDArray[Any]]) -> None:
        self.on_device = on_device
        self._arrays: dict[str, NDArray[Any]] = dict(others)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name == TOKENS and name not in self._arrays:
            self._arrays[name] = self.on_device.cpu().numpy()
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((TOKENS, *self._arrays)))

    def __len__(self) -> int:
        return len(self._arrays.keys() | {TOKENS})

    def __reduce__(self) -> tuple[type[dict[str, NDArray[Any]]], tuple[dict[str, NDArray[Any]]]]:
        """Another process gets arrays."""
        return dict, (dict(self),)


class DeviceTokens:
    """Tokens of keyframes on a device, by the keys of their maps, least recently used out first.

    A copy lives no longer than the features it was made of: what a map drops from its memory is dropped here. Where
    the tokens of a map do not fit, those on the host move to pinned memory, from where they are fetched without a wait.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, kept_bytes: int) -> None:
        self._device, self._dtype, self._limit = device, dtype, kept_bytes
        self._kept: OrderedDict[Hashable, tuple[weakref.ref[KeyframeFeatures], Tensor]] = OrderedDict()
        self._used = 0
        # Reentrant: features may be collected while one of their keys is looked up, and their callback takes it too.
        self._lock = threading.RLock()
        self._fits = True
        #: Copies run beside the network, which waits for them when it needs them.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __reduce__(self) -> tuple[type[DeviceTokens], tuple[torch.device, torch.dtype, int]]:
        """Another process keeps its own."""
        return DeviceTokens, (self._device, self._dtype, self._limit)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory of the device that is taken."""
        return self._used

    def stacked(self, features: Sequence[Features]) -> Tensor:
        """The tokens (K, N, C) of frames or keyframes of one size, on the device. Threads may ask at the same time."""
        tokens = [self._found(one) for one in features]
        if self._copies is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._copies)
            for tensor in tokens:  # their memory is not for other copies until the current stream has read them
                tensor.record_stream(current)
        return torch.stack(tokens)

    def fetch(self, references: Sequence[Features]) -> None:
        """Begin to bring tokens to the device that will be asked for soon; those that cannot be kept are not."""
        for features in references:
            if isinstance(features, KeyframeFeatures) and self._limit:
                self._found(features)

    def _found(self, features: Features) -> Tensor:
        if isinstance(features, EncodedFeatures):
            return features.on_device.to(self._device, self._dtype)
        if not isinstance(features, KeyframeFeatures) or self._limit == 0:
            return self._moved(features[TOKENS])
        with self._lock:
            found = self._kept.get(features.key)
            if found is None:
                found = self._fetched(features)
            self._kept.move_to_end(features.key)
            return found[1]

    def _fetched(self, features: KeyframeFeatures) -> tuple[weakref.ref[KeyframeFeatures], Tensor]:
        """Newly kept tokens."""
        if self._device.type == "cuda" and not self._fits:
            features[TOKENS] = _pinned(features[TOKENS])
        key, tensor = features.key, self._moved(features[TOKENS])

        def forgotten(reference: weakref.ref[KeyframeFeatures]) -> None:
            with self._lock:
                if key in self._kept and self._kept[key][0] is reference:
                    self._drop(key)

        entry = self._kept[key] = weakref.ref(features, forgotten), tensor
        self._used += tensor.nbytes
        while self._used > self._limit and len(self._kept) > 1:
            self._fits = False
            self._drop(next(iter(self._kept)))
        return entry

    def _moved(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        with torch.cuda.stream(self._copies):
            # Converted over there: on the host that takes longer than the copy, which nobody waits for if it is pinned.
            return tensor.to(self._device, non_blocking=True).to(self._dtype)

    def _drop(self, key: Hashable) -> None:
        self._used -= self._kept.pop(key)[1].nbytes


def _pinned(array: NDArray[Any]) -> NDArray[Any]:
    """The array in memory that a GPU reads by itself."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return array if tensor.is_pinned() else tensor.pin_memory().numpy()
