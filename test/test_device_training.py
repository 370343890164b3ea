"""Pairs that are made on the device that trains: the same pairs, the same truth, and a training that goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_training import ROOMS, TINY, figures

from mast3r_ros.errors import UserError
from mast3r_ros.lab.training import correspondences
from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.data import TrainingData
from mast3r_ros.lab.training.device_colours import photographed
from mast3r_ros.lab.training.device_pairs import DeviceBatches, Views, sample
from mast3r_ros.lab.training.loop import train
from mast3r_ros.lab.training.pairs import PairBatches, PairSettings
from mast3r_ros.lab.training.rooms import RenderedRooms
from mast3r_ros.network.checkpoint import inspect_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(rooms_cache: Path) -> TrainConfig:
    """Small, without colours and mirrors: then pairs are those of the other way."""
    return TrainConfig(
        TINY,
        pairs=32,
        batch=4,
        rooms=ROOMS,
        count=2,
        first_rooms=2,
        validate_every=16,
        validation_rooms=1,
        validation_pairs=4,
        log_every=2,
        save_every_s=0.0,
        renderers=0,
        workers=0,
        on_device=True,
        cache=str(rooms_cache),
        pair=PairSettings(correspondences=128, colours=0.0, mirror=False),
    )


def both(config: TrainConfig) -> tuple[PairBatches, DeviceBatches]:
    data = TrainingData.rendered(config)
    device = data.batches(0, 1, CPU)
    plain = TrainingData.rendered(replace(config, on_device=False)).batches(0, 1, CPU)
    assert isinstance(plain, PairBatches) and isinstance(device, DeviceBatches)
    return plain, device


def test_pairs_are_those_of_the_other_way(config: TrainConfig) -> None:
    plain, device = both(config)
    for step in (0, 7):
        expected, found = plain[step], device[step]
        assert expected.keys() == found.keys()
        for name in ("image1", "image2", "valid1", "valid2"):
            assert torch.equal(expected[name], found[name]), name
        for name in ("points1", "points2"):
            assert torch.allclose(expected[name], found[name], atol=2e-3), name
        for name in ("xy1", "xy2", "true"):
            assert expected[name].shape == found[name].shape and expected[name].dtype == found[name].dtype, name
        assert abs(expected["true"].sum(dim=1) - found["true"].sum(dim=1)).max() <= 2  # of rounding


def test_true_correspondences_show_the_same_points(config: TrainConfig) -> None:
    mirrored = replace(config, pair=replace(config.pair, mirror=True))
    batch = both(mirrored)[1][3]
    assert torch.equal(batch["xy1"], both(mirrored)[1][3]["xy1"]), "the same step is the same batch"
    rows = torch.arange(config.batch)[:, None]
    at1, at2 = (batch[f"points{k}"][rows, batch[f"xy{k}"][..., 1], batch[f"xy{k}"][..., 0]] for k in (1, 2))
    off = (at1 - at2).norm(dim=-1) / at1[..., 2].clamp(min=0.1)
    assert batch["true"].sum() > 100 and off[batch["true"]].median() < 0.01
    assert off[batch["true"]].quantile(0.9) < 0.06 < off[~batch["true"]].median()


def test_samples_are_true_ones_neighbours_and_false_ones() -> None:
    """A wall of 32 x 48 pixels, shifted by ten: 38 columns correspond."""
    column = torch.arange(32 * 48) % 48
    there = torch.where(column >= 10, torch.arange(32 * 48) - 10, -1)[None]
    back = torch.where(column < 38, torch.arange(32 * 48) + 10, -1)[None]
    settings = PairSettings(100, negative_share=0.4, clustered_share=0.5)
    xy1, xy2, true = (x[0].numpy() for x in sample(there, back, 48, settings, torch.Generator().manual_seed(0)))
    assert true.sum() == 60 and (xy1[true] - xy2[true] == [10, 0]).all()
    assert len(np.unique(xy1[true], axis=0)) == 60
    assert (xy1[~true, 0] < 10).all() and (xy2[~true, 0] >= 38).all()
    near = np.abs(xy1[true][30:, None] - xy1[true][None, :3]).max(axis=2).min(axis=1)
    assert (near <= correspondences.NEIGHBOURHOOD).mean() > 0.9, "the other half are neighbours of the first ones"
    there[:, 5 * 48 :] = -1
    few = sample(there[:, :], back, 48, PairSettings(400), torch.Generator().manual_seed(0))
    assert few[2].sum() == 5 * 38 and few[0].shape == (1, 400, 2)


def test_colours_change_and_geometry_does_not() -> None:
    image = torch.randint(0, 256, (16, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    changed = photographed(image, 0.6, torch.Generator().manual_seed(0))
    assert changed.shape == image.shape and changed.dtype == torch.uint8
    difference = (changed.float() - image.float()).abs().mean(dim=(1, 2, 3))
    assert (difference > 0.5).all() and difference.std() > 1
    assert torch.equal(changed, photographed(image, 0.6, torch.Generator().manual_seed(0)))
    views = Views(image, torch.rand(16, 24, 32) + 1, torch.eye(4).repeat(16, 1, 1), torch.eye(3).repeat(16, 1, 1))
    twice = views.mirrored(torch.ones(16, dtype=torch.bool)).mirrored(torch.ones(16, dtype=torch.bool))
    assert torch.equal(twice.image, image) and torch.allclose(twice.K, views.K)


def test_a_training_in_slices_is_the_training_at_once(config: TrainConfig, tmp_path: Path) -> None:
    whole, sliced = tmp_path / "whole", tmp_path / "sliced"
    train(config, whole)
    train(config, sliced, stop_after=4)
    assert train(config, sliced) == sliced / "model.safetensors"
    assert figures(sliced / "metrics.csv") == figures(whole / "metrics.csv")


def test_minutes_end_a_slice_with_what_was_learned(config: TrainConfig, tmp_path: Path) -> None:
    checkpoint = train(config, tmp_path, minutes=0)
    assert inspect_checkpoint(checkpoint).intact
    assert figures(tmp_path / "metrics.csv")[-1]["pairs"] == config.log_every * config.batch, "one row, then it is over"
    train(config, tmp_path)
    assert figures(tmp_path / "metrics.csv")[-1]["pairs"] == config.pairs


def test_rooms_are_rendered_as_far_as_steps_need_them(config: TrainConfig, tmp_path: Path) -> None:
    """Also between two rows of metrics: the last of 28 rooms is made when it is near, and the first row is the last."""
    growing = replace(
        config, seed=26, pairs=32, batch=16, count=28, pairs_per_room=1, log_every=99, validate_every=99, renderers=1
    )
    growing = replace(growing, cache=str(tmp_path / "rooms"), validation_pairs=1)
    data, made = TrainingData.rendered(growing), TrainingData.rendered(config).training
    assert isinstance(made, RenderedRooms)
    assert isinstance(data.training, RenderedRooms) and isinstance(data.validation, RenderedRooms)
    made.ensure(0)
    data.training.folder.mkdir(parents=True)
    for path in (data.validation.path(0), *map(data.training.path, range(27))):
        path.symlink_to(made.path(0))
    train(growing, tmp_path / "out", data, minutes=5)
    assert figures(tmp_path / "out" / "metrics.csv")[-1]["pairs"] == growing.pairs
    assert data.training.path(27).exists()


def test_waiting_for_rooms_ends(config: TrainConfig, tmp_path: Path) -> None:
    waiting = replace(config, renderers=1, cache=str(tmp_path / "rooms"))
    with pytest.raises(UserError, match="no step was made in 0 minutes: the first 2 rooms were not ready"):
        train(waiting, tmp_path / "late", minutes=0)
    nowhere = replace(waiting, rooms=replace(config.rooms, families=("nowhere",)))
    with pytest.raises(UserError, match=r"room process 0 of 1 ended with exit code 1 while \d+.safetensors was waited"):
        train(nowhere, tmp_path / "dead")


def test_recordings_are_read_the_other_way(config: TrainConfig) -> None:
    data = replace(TrainingData.rendered(config), training=[])
    with pytest.raises(UserError, match="leave it out for recordings"):
        data.batches(0, 1, CPU)


def test_the_gpu_s_config_trains_the_same_network(repository: Path) -> None:
    small, gpu = (TrainConfig.load(repository / "config" / "train" / name) for name in ("small.yaml", "small_gpu.yaml"))
    assert gpu.on_device and gpu.network == small.network and gpu.rooms == small.rooms


def test_the_script_runs_on_a_machine_without_a_gpu(config: TrainConfig, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config.to_json()))))
    environment = {**os.environ, "PYTHON": sys.executable, "CONFIG": str(tmp_path / "tiny.yaml"), "SPLIT_MB": "1"}
    command = ["bash", str(repository / "scripts" / "gpu_train.sh"), str(tmp_path / "out"), "0.01"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {"model.json", "metrics.csv", "join.sh"} <= {path.name for path in out.iterdir()}
    assert not (out / "model.safetensors").exists() and not (out / "state.safetensors").exists()
    assert all(path.stat().st_size <= 1 << 20 for path in out.glob("*.part-*"))
    subprocess.run(["bash", str(out / "join.sh")], check=True)
    assert inspect_checkpoint(out / "model.safetensors").intact
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert figures(out / "metrics.csv")[-1]["pairs"] > config.log_every * config.batch
