"""A network as ONNX graphs, one for each stage, for runtimes other than PyTorch: ONNX Runtime, TensorRT.

Stages are those of :class:`PointmapNetwork`: an image is encoded once, pairs are decoded, and only the heads that a
task needs run. Graphs compute in float32, for one image size and any number of images or pairs. They are traced by the
exporter that every PyTorch from the floor on has; each is run by ONNX Runtime, and held against PyTorch, before it is
kept.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.heads import DescriptorHead
from mast3r_ros.network.model import PointmapNetwork, Tokens

#: Version of ONNX's operators: the first that has all of these, so that older runtimes read the graphs too.
OPSET = 17
#: Images or pairs that a graph is traced with, and that it is then asked for: any number must do.
TRACED, ASKED = 2, 3
#: Largest difference from PyTorch as a share of the largest output: what the order of sums makes in float32.
TOLERANCE = 1e-3
#: Describes the graphs; written last.
RECORD = "network.json"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Stage:
    """One graph.

    Attributes:
        name: of the file, without its ending.
        inputs, outputs: names, in order; the first dimension of all of them is the batch.
        function: from inputs to outputs.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Sequence[Tensor]]


def export_onnx(
    network: PointmapNetwork,
    folder: Path,
    size: tuple[int, int],
    record: dict[str, Any] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Write ``encoder.onnx``, ``decoder.onnx``, ``points1.onnx``, ``descriptors1.onnx``, ... and ``network.json``.

    Args:
        network: in float32 on the CPU.
        folder: made where it is missing; graphs of the same names are replaced when all are right.
        size: (height, width) of both images, multiples of the patch size.
        record: goes into ``network.json`` too.

    Returns:
        what ``network.json`` holds: input, graphs with their names, and how far each is from PyTorch.

    Raises:
        CheckpointError: without ONNX Runtime, for an impossible size, or a graph that gives something else.
    """
    for module, purpose in (("onnx", "writes"), ("onnxruntime", "checks")):
        if importlib.util.find_spec(module) is None:
            raise CheckpointError(f"{module}, which {purpose} the graphs, is missing: pip install 'mast3r_ros[onnx]'")
    patch = network.config.patch_size
    if min(size) < patch or any(side % patch for side in size):
        raise CheckpointError(f"an image of {size[1]}x{size[0]} cannot be encoded: sides must be multiples of {patch}")
    folder.mkdir(parents=True, exist_ok=True)
    listed = stages(network, size)
    known = {"images": 2 * torch.rand(ASKED, 3, *size, generator=torch.Generator().manual_seed(0)) - 1}
    graphs = []
    with TemporaryDirectory(dir=folder, prefix=".partial") as partial, torch.inference_mode():
        for number, stage in enumerate(listed):
            progress(f"exporting {stage.name}", number, len(listed))
            graphs.append(_exported(network, stage, known, Path(partial)))
        for graph in graphs:
            os.replace(Path(partial) / graph["file"], folder / graph["file"])
        about = {
            "image": {"width": size[1], "height": size[0], "colours": "RGB", "range": [-1, 1]},
            "opset": OPSET,
            "graphs": graphs,
            "config": network.config.to_json(),
            **(record or {}),
        }
        written = Path(partial) / RECORD
        written.write_text(json.dumps(about, indent=1, allow_nan=False) + "\n")
        os.replace(written, folder / RECORD)
    return about


def stages(network: PointmapNetwork, size: tuple[int, int]) -> list[Stage]:
    """The graphs of a network, in the order in which one needs what others give.

    Tokens of view v are ``tokens<v>``, the outputs of its decoder ``layer<n>_view<v>``.
    """
    patch = network.config.patch_size

    def named(view: int, layers: Sequence[int]) -> tuple[str, ...]:
        return tuple(f"layer{n}_view{view}" if n else f"tokens{view}" for n in layers)

    def decoded(tokens1: Tensor, tokens2: Tensor) -> list[Tensor]:
        both = network.decode(Tokens.upright(tokens1, size, patch), Tokens.upright(tokens2, size, patch))
        return [layers[n] for layers in both for n in read]

    read = sorted(network.head(1).layers_read - {0})
    layers = (*named(1, read), *named(2, read))
    found = [
        Stage("encoder", ("images",), ("tokens",), lambda images: [network.encode(images).features]),
        Stage("decoder", ("tokens1", "tokens2"), layers, decoded),
    ]
    for view in (1, 2):
        head = network.head(view)
        points = _reading(head.point_layers, head.points, size)
        found.append(Stage(f"points{view}", named(view, head.point_layers), ("points", "confidence"), points))
        if isinstance(head, DescriptorHead):
            names, outputs = named(view, head.descriptor_layers), ("descriptors", "confidence")
            found.append(
                Stage(f"descriptors{view}", names, outputs, _reading(head.descriptor_layers, head.descriptors, size))
            )
    return found


def _reading(
    hooks: Sequence[int],
    predict: Callable[[Sequence[Tensor], tuple[int, int]], Sequence[Tensor]],
    size: tuple[int, int],
) -> Callable[..., Sequence[Tensor]]:
    """A head that is given only those layers that it reads; it asks for the last one by -1."""

    def predicted(*read: Tensor) -> Sequence[Tensor]:
        layers = [read[-1]] * (hooks[-1] + 1)
        for hook, layer in zip(hooks, read, strict=True):
            layers[hook] = layer
        return predict(layers, size)

    return predicted


class _Traced(nn.Module):
    """A stage with the weights that it reads."""

    def __init__(self, network: PointmapNetwork, stage: Stage) -> None:
        super().__init__()
        self.network, self.stage = network, stage

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.stage.function(*inputs))


def _exported(network: PointmapNetwork, stage: Stage, known: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    """Trace a stage, run it elsewhere, and say how it went; ``known`` values get what the stage gives."""
    inputs = tuple(known[name] for name in stage.inputs)
    # Also lets PyTorch remember positions of the grid, which are constants of the graph then.
    expected = [tensor.contiguous() for tensor in stage.function(*inputs)]
    path = folder / f"{stage.name}.onnx"
    with warnings.catch_warnings(), _expm1():
        warnings.simplefilter("ignore")  # sides are constants, and this exporter is not PyTorch's first choice now
        torch.onnx.export(
            _Traced(network, stage).eval(),
            tuple(x[:TRACED] for x in inputs),
            str(path),
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_axes={name: {0: "batch"} for name in (*stage.inputs, *stage.outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    difference = _difference(path, dict(zip(stage.inputs, inputs)), expected)
    if not difference <= TOLERANCE:
        raise CheckpointError(f"the graph '{stage.name}' differs from PyTorch by {difference:.2g} of its outputs")
    known |= dict(zip(stage.outputs, expected))
    if stage.name == "encoder":  # images against each other in another order
        known |= {"tokens1": expected[0], "tokens2": expected[0].flip(0)}
    shapes = {n: ["batch", *t.shape[1:]] for n, t in zip((*stage.inputs, *stage.outputs), (*inputs, *expected))}
    return {
        "file": path.name,
        "inputs": {name: shapes[name] for name in stage.inputs},
        "outputs": {name: shapes[name] for name in stage.outputs},
        "difference": difference,
    }


@contextmanager
def _expm1() -> Iterator[None]:
    """ONNX has no ``expm1``: within 1e-7 of a metre, a point at a distance of d is at exp(d) - 1 as well."""
    one = torch.ones(())
    torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
        "aten::expm1", lambda g, x: g.op("Sub", g.op("Exp", x), g.op("Constant", value_t=one)), OPSET
    )
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::expm1", OPSET)  # type: ignore[attr-defined]


def _difference(path: Path, inputs: dict[str, Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of a graph's outputs on this machine's CPU, as a share of the largest value of each."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    worst = 0.0
    for output, tensor in zip(found, expected, strict=True):
        if output.shape != tuple(tensor.shape):
            return float("inf")
        worst = max(worst, float(np.abs(output - tensor.numpy()).max() / max(float(tensor.abs().max()), 1e-12)))
    return worst
