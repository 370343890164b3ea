"""The network of the package: who takes it, when `auto` does, its card, and the demo's comparison."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
import walls
from oracle import TINY, keyframe_poses, see
from typer.testing import CliRunner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import CheckpointError
from mast3r_ros.lab.runs.shipped_measurements import Measurement, QueryCounts, measurements, save_measurements
from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.matching import create, from_settings
from mast3r_ros.network import shipped
from mast3r_ros.network.checkpoint import save_network
from mast3r_ros.settings import MatcherSettings


@pytest.fixture()
def weights(no_shipped_network: Path) -> Path:
    """A tiny random network where the shipped one is looked for, with the record of a training."""
    config = TrainConfig(replace(TINY, img_size=(96, 128)))
    record = {"training": config.to_json() | {"steps": 12, "seconds": 90}}
    path = no_shipped_network / "small.safetensors"
    save_network(random_network(config.network), path, torch.float16, record)
    return path


def measured(good: tuple[int, int], wrong: tuple[int, int] = (0, 0), **changes: object) -> Measurement:
    """A hundred real queries by both matchers: the network's figure, then sift's."""
    outcomes = [QueryCounts(100, g, w) for g, w in zip(good, wrong, strict=True)]
    found = Measurement("a kitchen", True, "within 10 cm", "2026-01-01", "x", shipped.weights_digest(), *outcomes)
    return replace(found, **changes)


def test_mast3r_without_a_checkpoint_takes_it_and_says_so(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mast3r_ros.matching"):
        matcher = create("mast3r", device="cpu", dtype="float32", size=128)
    assert matcher.network.config == TrainConfig.from_json({"network": matcher.network.config.to_json()}).network
    assert str(weights) in caplog.text and "no checkpoint is given" in caplog.text
    assert (
        len(matcher.match(matcher.describe(see(keyframe_poses()[0])), [matcher.describe(see(keyframe_poses()[1]))]))
        == 1
    )
    assert next(matcher.network.parameters()).dtype is torch.float32, "half precision is for the disk"


def test_the_nodes_parameter_and_the_command_line_take_it_too(weights: Path, tmp_path: Path) -> None:
    settings = MatcherSettings(matcher="mast3r", device="cpu")
    assert settings.checkpoint == "" and from_settings(settings).network.config.desc_dim == TINY.desc_dim
    for k in range(2):
        cv2.imwrite(str(tmp_path / f"{k}.png"), walls.image(k)[..., ::-1])
    images = [str(tmp_path / f"{k}.png") for k in range(2)]
    for arguments in (
        ["match", *images, "--matcher", "mast3r", "-o", str(tmp_path / "m.png"), "--size", "128", "--json"],
        ["predict", *images, "-o", str(tmp_path / "p.npz"), "--size", "128", "--json"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "p.npz")["desc_1"].shape[-1] == TINY.desc_dim


def test_a_damaged_record_of_measurements_is_named(weights: Path) -> None:
    (weights.parent / "measured.json").write_text('[{"name": 1}]')
    with pytest.raises(CheckpointError, match="model_card.py"):
        measurements()


def test_the_card_says_what_was_measured(weights: Path, repository: Path) -> None:
    script = load_script(repository / "scripts" / "model_card.py")
    row = {
        "queries": 100,
        "wrong_accepted": 2,
        "median_rotation_error_deg": 1.234,
        "median_translation_error_m": None,
        "latency_ms": {"p50": 56.0},
        "recall": {"0.10m_5deg": 0.37},
        "recall_interval": {"0.10m_5deg": [0.28, 0.47]},
    }
    save_measurements([measured((37, 70), figures={"mast3r": row, "sift": row})])
    card = script.card()
    stored = f"{weights.stat().st_size / 1e6:.1f} MB as float16"
    for words in (stored, "12 steps of 16 pairs", "37.0% (28.0% to 47.0%) | 2", "1.23 deg", "unknown"):
        assert words in card, words
    assert "`auto` does not take it: " in card
    assert "settings in `small.json`" in card, "these are not the settings of config/train/small.yaml"
    assert str(json.loads(weights.with_suffix(".json").read_text())["weights_sha256"]) in card


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
