"""A network whose stages run as CUDA graphs; it has the methods of :class:`PointmapNetwork`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mast3r_ros.network.graphs import Function, Graphs
from mast3r_ros.network.heads import DescriptorHead, Descriptors, Pointmap
from mast3r_ros.network.model import PointmapNetwork, Tokens

#: Numbers of pairs that are recorded; a batch is padded to the next of them, larger batches are not recorded.
PAIRS = (1, 2, 3, 4, 5, 6, 8)
#: Pointmaps at once: more are hardly faster, and take half a gigabyte for every two of them in float32.
POINTMAPS = 2


class Stages(Protocol):
    """What a matcher asks of a network, see :class:`PointmapNetwork`."""

    def encode(self, images: Tensor) -> Tokens:
        """A batch of images (B, 3, H, W) in [-1, 1]."""

    def decode(self, tokens1: Tokens, tokens2: Tokens) -> tuple[list[Tensor], list[Tensor]]:
        """Layers (B, N, C) of both views of a batch of pairs."""

    def points(self, view: int, layers: Sequence[Tensor], tokens: Tokens) -> Pointmap:
        """Pointmap (B, H, W, 3) of view 1 or 2, in camera 1's frame."""

    def descriptors(self, view: int, layers: Sequence[Tensor], tokens: Tokens, unit: bool = True) -> Descriptors:
        """Descriptors (B, H, W, D) of view 1 or 2."""


class CapturedNetwork:
    """The stages of a network on a GPU, each recorded once for every image size and number of pairs.

    Outputs are valid until the same stage (and view) is called again; what reads them must be queued on the same
    stream before that. Layers that no head reads are empty tensors.
    """

    def __init__(self, network: PointmapNetwork, graphs: Graphs | None = None) -> None:
        self.network = network
        self.graphs = Graphs() if graphs is None else graphs
        self._read = sorted(network.head(1).layers_read - {0})

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tokens:
        """See :meth:`PointmapNetwork.encode`: images (B, 3, H, W). The tokens stay valid after the next call."""
        patch = self.network.config.patch_size
        size = (int(images.shape[2]), int(images.shape[3]))
        with self.graphs.lock:
            (features,) = self._run("encode", size, lambda x: (self.network.encode(x).features,), [images])
            return Tokens.upright(features.clone(), size, patch)

    @torch.inference_mode()
    def decode(self, tokens1: Tokens, tokens2: Tokens) -> tuple[list[Tensor], list[Tensor]]:
        """See :meth:`PointmapNetwork.decode`: layers (B, N, C), empty tensors where no head reads them."""
        patch = self.network.config.patch_size
        sizes = tokens1.size, tokens2.size

        def decoded(features1: Tensor, features2: Tensor) -> list[Tensor]:
            both = (Tokens.upright(f, size, patch) for f, size in zip((features1, features2), sizes))
            layers1, layers2 = self.network.decode(*both)
            return [layers[number] for layers in (layers1, layers2) for number in self._read]

        found = self._run("decode", sizes, decoded, [tokens1.features, tokens2.features])
        half = len(self._read)
        return self._listed(tokens1, found[:half]), self._listed(tokens2, found[half:])

    @torch.inference_mode()
    def points(self, view: int, layers: Sequence[Tensor], tokens: Tokens) -> Pointmap:
        """See :meth:`PointmapNetwork.points`: (B, H, W, 3) in camera 1's frame."""
        head = self.network.head(view)

        def predicted(*read: Tensor) -> Sequence[Tensor]:
            return head.points(_spread(read, head.point_layers, len(layers)), tokens.size)

        inputs = [layers[hook] for hook in head.point_layers]
        with self.graphs.lock:
            parts = [
                [maps.clone() for maps in self._run(f"points {view}", tokens.size, predicted, part)]
                for part in zip(*(layer.split(POINTMAPS) for layer in inputs))
            ]
        return Pointmap(*(torch.cat(maps) for maps in zip(*parts)))

    @torch.inference_mode()
    def descriptors(self, view: int, layers: Sequence[Tensor], tokens: Tokens, unit: bool = True) -> Descriptors:
        """See :meth:`PointmapNetwork.descriptors`: (B, H, W, D)."""
        head = self.network.head(view)
        if not isinstance(head, DescriptorHead):
            raise ValueError(f"a network with a '{self.network.config.head_type}' head has no descriptors")

        def predicted(*read: Tensor) -> Sequence[Tensor]:
            return head.descriptors(_spread(read, head.descriptor_layers, len(layers)), tokens.size, unit)

        inputs = [layers[hook] for hook in head.descriptor_layers]
        return Descriptors(*self._run(f"descriptors {view}", (tokens.size, unit), predicted, inputs))

    def _run(self, stage: str, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """By the graph of the next number of pairs that is recorded."""
        count = len(inputs[0])
        bucket = next((pairs for pairs in PAIRS if pairs >= count), None)
        if bucket is None:
            return function(*inputs)
        if bucket > count:
            inputs = [F.pad(x, (*[0] * (2 * x.dim() - 1), bucket - count)) for x in inputs]
        key = key, bucket, tuple(x.dtype for x in inputs)
        return [maps[:count] for maps in self.graphs.run(stage, key, function, inputs)]

    def _listed(self, tokens: Tokens, found: Sequence[Tensor]) -> list[Tensor]:
        """The list of layers that heads index."""
        layers = _spread(found, self._read, self.network.config.dec_depth + 1)
        layers[0] = tokens.features
        return layers


def _spread(read: Sequence[Tensor], hooks: Sequence[int], count: int) -> list[Tensor]:
    """Tensors at their places in a list of layers, empty ones elsewhere."""
    layers = [torch.empty(0)] * count
    for hook, tensor in zip(hooks, read, strict=True):
        layers[hook] = tensor
    return layers
