"""Stages of a network as ONNX graphs: run one after the other by another runtime they are the network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import separate_runner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import CheckpointError
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import NetworkConfig, onnx_export
from mast3r_ros.network.checkpoint import load_model, save_network
from mast3r_ros.network.shipped import shipped_checkpoint

#: The published architecture, DPT and MLP heads, and the same without confidences of descriptors.
OFFICIAL = NetworkConfig(32, 2, 2, 24, 10, 2, "catmlp+dpt", desc_dim=8, two_confs=True)
DUST3R = NetworkConfig(32, 2, 2, 24, 2, 2, "linear")


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Any:
    """ONNX Runtime, which the default environment has; robots' libraries are older than it."""
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    return pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of that architecture with random weights."""
    path = tmp_path_factory.mktemp("official") / "official.safetensors"
    save_network(random_network(OFFICIAL), path, torch.float32)
    return path


def chained(runtime: Any, folder: Path, images1: np.ndarray, images2: np.ndarray) -> list[np.ndarray]:
    """Points, confidence, descriptors and their confidence of both views, by the graphs alone."""
    record = json.loads((folder / "network.json").read_text())
    graphs = {Path(graph["file"]).stem: graph for graph in record["graphs"]}
    values: dict[str, np.ndarray] = {}

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        session = runtime.InferenceSession(str(folder / graphs[name]["file"]), providers=["CPUExecutionProvider"])
        return dict(zip(graphs[name]["outputs"], session.run(None, inputs), strict=True))

    values["tokens1"], values["tokens2"] = (run("encoder", images=x)["tokens"] for x in (images1, images2))
    values |= run("decoder", tokens1=values["tokens1"], tokens2=values["tokens2"])
    found = []
    for view in (1, 2):
        for name in (f"points{view}", f"descriptors{view}"):
            if name in graphs:
                found += run(name, **{key: values[key] for key in graphs[name]["inputs"]}).values()
    return found


def equals_pytorch(runtime: Any, folder: Path, checkpoint: Path, size: tuple[int, int]) -> None:
    """Batches of 1 and 4, neither of which was traced or checked by the command itself."""
    network = load_model(checkpoint)
    for batch in (1, 4):
        generator = torch.Generator().manual_seed(batch)
        images = [2 * torch.rand(batch, 3, *size, generator=generator) - 1 for _ in range(2)]
        expected = [maps for view in network(*images) for maps in view if maps is not None]
        found = chained(runtime, folder, *(x.numpy() for x in images))
        for one, other in zip(found, expected, strict=True):
            scale = float(other.abs().max())
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4 * scale, rtol=0)


def test_small_network_of_the_package(runtime: Any, tmp_path: Path) -> None:
    checkpoint = shipped_checkpoint()
    assert checkpoint is not None
    arguments = ["checkpoint", "export-onnx", "-o", str(tmp_path), "--width", "96", "--height", "64", "--json"]
    result = separate_runner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [graph["file"] for graph in told["graphs"]] == [
        *("encoder.onnx", "decoder.onnx", "points1.onnx", "descriptors1.onnx", "points2.onnx", "descriptors2.onnx"),
    ]
    assert told["image"] == {"width": 96, "height": 64, "colours": "RGB", "range": [-1, 1]}
    assert told["graphs"][0]["inputs"] == {"images": ["batch", 3, 64, 96]}
    assert max(graph["difference"] for graph in told["graphs"]) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["network.json", *(graph["file"] for graph in told["graphs"])]
    )
    equals_pytorch(runtime, tmp_path, checkpoint, (64, 96))


def test_network_of_the_published_layout(runtime: Any, tmp_path: Path, official: Path) -> None:
    written = onnx_export.export_onnx(load_model(official), tmp_path, (48, 32))
    reads = {graph["file"]: list(graph["inputs"]) for graph in written["graphs"]}
    assert reads["points2.onnx"] == ["tokens2", "layer5_view2", "layer7_view2", "layer10_view2"]
    assert reads["descriptors1.onnx"] == ["tokens1", "layer10_view1"]
    equals_pytorch(runtime, tmp_path, official, (48, 32))


def test_what_cannot_be_exported_leaves_nothing(
    tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(DUST3R).eval().requires_grad_(False)
    with pytest.raises(CheckpointError, match="100x64 cannot be encoded: sides must be multiples of 16"):
        onnx_export.export_onnx(network, tmp_path, (64, 100))
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with pytest.raises(CheckpointError, match="graph '.*' differs from PyTorch by"):
        onnx_export.export_onnx(network, tmp_path, (32, 48))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = separate_runner().invoke(app, ["checkpoint", "export-onnx", str(official), "-o", str(tmp_path)])
    assert isinstance(result.exception, CheckpointError)
    assert "onnx, which writes the graphs, is missing: pip install 'mast3r_ros[onnx]'" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_head_that_reads_one_layer(runtime: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "dust3r.safetensors"
    save_network(random_network(DUST3R), checkpoint, torch.float32)
    onnx_export.export_onnx(load_model(checkpoint), tmp_path / "onnx", (32, 48))
    equals_pytorch(runtime, tmp_path / "onnx", checkpoint, (32, 48))
