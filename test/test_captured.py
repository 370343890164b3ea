"""Captured stages against the plain network: here with recordings that compute again, on a GPU with CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from kernels import record_plainly

from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import NetworkConfig, PointmapNetwork, Tokens
from mast3r_ros.network.captured import CapturedNetwork
from mast3r_ros.network.graphs import Graphs

MAST3R = NetworkConfig(
    enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=48, dec_depth=10, dec_num_heads=3,
    head_type="catmlp+dpt", desc_dim=8, two_confs=True,
)  # fmt: skip
CONFIGS = {
    "mast3r": MAST3R,
    "lent confidence": replace(MAST3R, two_confs=False),
    "dust3r": replace(MAST3R, head_type="linear", desc_dim=0, two_confs=False),
    "small": replace(MAST3R, dec_depth=2, head_type="catskip", stem_dim=8),
}
NEEDS_CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")]
)


def captured(network: PointmapNetwork, device: str) -> CapturedNetwork:
    return CapturedNetwork(network, Graphs() if device == "cuda" else Graphs(record=record_plainly))


def everything(stages: CapturedNetwork | PointmapNetwork, images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """All that a matcher asks of one query (the last image) and its references, copied out as it comes."""
    tokens = [stages.encode(image[None]) for image in images]
    first = replace(tokens[0], features=torch.cat([t.features for t in tokens[:count]]))
    second = replace(tokens[-1], features=tokens[-1].features.expand(count, -1, -1))
    layers1, layers2 = stages.decode(first, second)
    found = [t.features for t in tokens]
    has_descriptors = (stages.network if isinstance(stages, CapturedNetwork) else stages).config.has_descriptors
    for view, layers, tokens in ((1, layers1, first), (2, layers2, second)):
        found += [m.clone() for m in stages.points(view, layers, tokens)]
        if has_descriptors:
            found += [m.clone() for m in stages.descriptors(view, layers, tokens)]
    return found


@pytest.mark.parametrize("device", ["cpu", NEEDS_CUDA])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_captured_stages_give_what_the_plain_network_gives(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded, replayed with other images, with other numbers of pairs (7 are filled up to 8), and recorded again."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by which other numbers of pairs differ
    network = random_network(CONFIGS[name], seed=1).eval().to(device)
    stages = captured(network, device)
    generator = torch.Generator().manual_seed(0)
    for count in (2, 1, 2, 7, 9, 7):
        images = torch.rand(count + 1, 3, 48, 64, generator=generator).to(device) * 2 - 1
        for got, expected in zip(everything(stages, images, count), everything(network, images, count), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


class TestGraphs:
    def run(self, graphs: Graphs, stage: str, key: int, length: int = 256) -> torch.Tensor:
        (out,) = graphs.run(stage, (key, length), lambda x: (x * key,), [torch.ones(length)])
        return out

    def test_each_shape_is_recorded_once(self) -> None:
        recorded: list[int] = []

        def record(function, inputs, outputs, memory):
            recorded.append(len(inputs[0]))
            return record_plainly(function, inputs, outputs, memory)

        graphs = Graphs(record=record)
        values = [float(self.run(graphs, "decode", key, 256 * key)[-1]) for key in (2, 3, 2, 3)]
        assert values == [2, 3, 2, 3] and recorded == [512, 768]

    def test_least_recently_used_goes_first(self) -> None:
        graphs = Graphs(most=2, record=record_plainly)
        for key in (1, 2, 1, 3):
            assert float(self.run(graphs, "decode", key)[0]) == key
        assert [key for _, (key, _) in graphs._graphs] == [1, 3]

    def test_graphs_of_a_stage_share_their_memory_and_stages_do_not(self) -> None:
        graphs = Graphs(record=record_plainly)
        for key in range(1, 9):
            self.run(graphs, "decode", key, 1000 - key)
        assert graphs.memory.nbytes == 2 * 4 * 999
        decoded, described = self.run(graphs, "decode", 3, 997), self.run(graphs, "heads", 5)
        assert float(decoded[0]) == 3 and float(described[0]) == 5
        assert graphs.memory.nbytes == 2 * 4 * (999 + 256)
        large = self.run(graphs, "decode", 7, 2000)  # a larger image: what was recorded before keeps its places
        assert float(self.run(graphs, "decode", 3, 997)[-1]) == 3 and float(large[-1]) == 7

    def test_what_cannot_be_recorded_is_computed_and_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        def record(function, inputs, outputs, memory) -> Callable[[], None]:
            raise RuntimeError("operation not permitted when stream is capturing")

        graphs = Graphs(record=record)
        assert [float(self.run(graphs, "decode", 2)[0]) for _ in range(3)] == [2, 2, 2]
        assert [r.getMessage() for r in caplog.records] == [
            "decode cannot be recorded as a CUDA graph and stays slower "
            "(operation not permitted when stream is capturing)"
        ]


def test_layers_that_no_head_reads_are_not_kept() -> None:
    network = random_network(MAST3R, seed=1).eval()
    with torch.inference_mode():
        tokens = network.encode(torch.zeros(1, 3, 32, 32))
        layers, _ = captured(network, "cpu").decode(tokens, Tokens.upright(tokens.features, (32, 32), 16))
    assert [number for number, layer in enumerate(layers) if layer.numel()] == [0, 5, 7, 10]
