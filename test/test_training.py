"""Training: it learns to match, goes on after a kill as if nothing had been, and what it writes is a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mast3r_ros.errors import CheckpointError, UserError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.matching.mast3r import Mast3rMatcher
from mast3r_ros.network import NetworkConfig
from mast3r_ros.network.initialise import random_network
from mast3r_ros.training import correspondences
from mast3r_ros.training.augmentation import mirrored
from mast3r_ros.training.config import OptimiserSettings, TrainConfig
from mast3r_ros.training.data import TrainingData
from mast3r_ros.training.loop import train
from mast3r_ros.training.metrics import read_metrics
from mast3r_ros.training.pairs import PairSettings
from mast3r_ros.training.rooms import RoomsConfig, render_room
from mast3r_ros.training.views import View, axis_gaps, overlaps

TINY = NetworkConfig(
    enc_embed_dim=64,
    enc_depth=1,
    enc_num_heads=1,
    dec_embed_dim=64,
    dec_depth=2,
    dec_num_heads=1,
    head_type="catskip",
    desc_dim=16,
    stem_dim=32,
    two_confs=True,
    img_size=(64, 96),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """A training small enough for a test; its rooms are rendered once."""
    return TrainConfig(
        TINY,
        pairs=48,
        batch=4,
        rooms=RoomsConfig(families=("living",), views=20, width=96, height=64),
        count=2,
        first_rooms=2,
        validate_every=24,
        validation_rooms=1,
        validation_pairs=6,
        log_every=2,
        save_every_s=0.0,
        renderers=0,
        workers=0,
        cache=str(tmp_path_factory.mktemp("rooms")),
        pair=PairSettings(correspondences=128),
    )


def figures(path) -> list[dict[str, float]]:
    """Metrics without those of time."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "pairs_per_s", "waiting")}
        for row in read_metrics(path)
    ]


def test_learns_to_match(config, tmp_path):
    config = replace(
        config, pairs=1200, validate_every=1200, log_every=50, optimiser=OptimiserSettings(lr=2e-3, ema=0.97)
    )
    data = TrainingData.rendered(config)
    train(replace(config, pairs=4), tmp_path / "before", data)
    train(config, tmp_path / "after", data)
    before, after = (read_metrics(tmp_path / name / "metrics.csv")[-1] for name in ("before", "after"))
    print(before, after)
    assert after["matching"] < before["matching"] - 2
    assert after["val_precision_3px"] > 0.15 > 4 * before["val_precision_3px"]


def test_goes_on_after_a_kill(config, tmp_path):
    """Killed between two steps or while it writes: the curve and the weights are those of an unbroken run."""
    TrainingData.rendered(config).training[1]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(config.to_json()))))
    command = [sys.executable, "-m", "mast3r_ros.cli.main", "train", str(file), "--threads", "1", "--json"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([*command, "-o", str(killed)], stdout=subprocess.DEVNULL)
    while not (killed / "state.safetensors").exists():
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = len(figures(killed / "metrics.csv"))
    assert reached < config.steps / config.log_every
    outputs = [
        subprocess.run([*command, "-o", str(f)], check=True, capture_output=True).stdout for f in (killed, whole)
    ]
    assert json.loads(outputs[0])["checkpoint"] == str(killed / "model.safetensors")
    assert figures(killed / "metrics.csv") == figures(whole / "metrics.csv")
    assert len(figures(whole / "metrics.csv")) == config.steps / config.log_every
    first, second = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(UserError, match="other settings"):
        train(replace(config, seed=1), whole)
