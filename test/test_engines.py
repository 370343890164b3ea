"""docs/engines.md: the worked example of an adapter runs, on a tiny random network of that interface."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mast3r_ros.lab.conformance import check_matcher
from mast3r_ros.lab.conformance.scene import make_scene

EXAMPLE = Path("docs/examples/pointmap_engine/pointmap_engine.py")


class TinyEngine(nn.Module):
    """Random weights: every view becomes points and a confidence, seen together with what both views have in common."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.GELU(), nn.Conv2d(8, 8, 5, padding=2))
        self.point = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        b, views = images.shape[:2]
        seen = self.look(images.flatten(0, 1)).unflatten(0, (b, views))
        seen = seen + seen.mean(dim=(1, 3, 4), keepdim=True)
        out = self.point(seen.flatten(0, 1)).unflatten(0, (b, views)).permute(0, 1, 3, 4, 2)
        out = torch.cat([out[..., :2], out[..., 2:3].exp(), out[..., 3:]], dim=-1)
        return {"world_points": out[..., :3], "world_points_conf": 1 + out[..., 3].exp()}


@pytest.fixture(scope="module")
def example(repository: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("pointmap_engine", repository / EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_adapter_keeps_the_contract(example: ModuleType) -> None:
    engine = TinyEngine().eval()
    matcher, other = (example.PointmapEngineMatcher(engine, "tiny", size) for size in ((60, 80), (48, 64)))
    assert [f.sentence for f in check_matcher(matcher, [other]) if not f.passed] == []


def test_points_are_metric_by_the_keyframes_depth_or_there_are_none(example: ModuleType) -> None:
    matcher = example.PointmapEngineMatcher(TinyEngine().eval(), "tiny", (96, 128))
    scene = make_scene()
    query = matcher.describe(scene.reference)
    found, nothing = matcher.match(query, [query, matcher.describe(replace(scene.reference, depth=None))])
    assert len(found) > 50 and np.allclose(found.query_xy, found.reference_xy)
    assert len(nothing) == 0 and "no metric scale" in nothing.note


def test_it_is_as_short_as_the_documentation_says(repository: Path) -> None:
    assert len((repository / EXAMPLE).read_text().splitlines()) <= 150
