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
from command_line import separate_runner
from safetensors.torch import load_file

from mast3r_ros.cli.main import app
from mast3r_ros.errors import CheckpointError, UserError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.training import correspondences
from mast3r_ros.lab.training.augmentation import mirrored
from mast3r_ros.lab.training.config import OptimiserSettings, TrainConfig, fine_tuning
from mast3r_ros.lab.training.criterion import LossSettings, every
from mast3r_ros.lab.training.data import TrainingData
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.lab.training.loop import half_precision, start, train
from mast3r_ros.lab.training.metrics import read_metrics
from mast3r_ros.lab.training.pairs import PairSettings
from mast3r_ros.lab.training.rooms import RoomsConfig
from mast3r_ros.lab.training.views import View, axis_gaps, overlaps
from mast3r_ros.matching.mast3r import Mast3rMatcher
from mast3r_ros.network import NetworkConfig

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
#: Rooms of every small training: whoever asks first renders them.
ROOMS = RoomsConfig(families=("living",), views=20, width=96, height=64, noise=False)


@pytest.fixture(scope="module")
def config(rooms_cache) -> TrainConfig:
    """A training small enough for a test; its rooms are rendered once."""
    return TrainConfig(
        TINY,
        pairs=48,
        batch=4,
        rooms=ROOMS,
        count=2,
        first_rooms=2,
        validate_every=24,
        validation_rooms=1,
        validation_pairs=6,
        log_every=2,
        save_every_s=0.0,
        renderers=0,
        workers=0,
        cache=str(rooms_cache),
        pair=PairSettings(correspondences=128),
    )


def first_room(config: TrainConfig) -> list[View]:
    """The views of the first room that the training sees."""
    room = TrainingData.rendered(config).training[0]
    return [room[number] for number in range(len(room))]


def figures(path) -> list[dict[str, float]]:
    """Metrics without those of time."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "pairs_per_s", "waiting")}
        for row in read_metrics(path)
    ]


def test_learns_to_match(config, tmp_path):
    """Far from done after 400 pairs, but reciprocal matches on an unseen room are right far more often than by chance.

    A longer training, which has to get further: MAST3R_ROS_LONG_TESTS=1.
    """
    long = bool(os.environ.get("MAST3R_ROS_LONG_TESTS"))
    pairs = 8000 if long else 400
    config = replace(
        config,
        pairs=pairs,
        count=60 if long else 2,
        first_rooms=2,
        validate_every=pairs,
        validation_pairs=12,
        log_every=20,
        pair=PairSettings(correspondences=128, colours=0.0, mirror=False, wide_share=0.0),
        optimiser=OptimiserSettings(lr=3e-3, warmup_pairs=80, ema=0.95),
    )
    train(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    # A match is right by chance when it falls into a disc of 3 pixels' radius.
    chance = np.pi * 3**2 / (96 * 64)
    assert rows[-1]["val_precision_3px"] > (30 if long else 8) * chance
    assert rows[-1]["matching"] < rows[0]["matching"] - 1
    assert rows[-1]["attention"] < rows[0]["attention"] - 0.3


def test_goes_on_after_a_kill(config, tmp_path):
    """Killed between two steps or while it writes: the curve and the weights are those of an unbroken run."""
    TrainingData.rendered(config).training[1]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(config.to_json()))))
    words = ["train", str(file), "--threads", "1", "--json"]
    command = [sys.executable, "-m", "mast3r_ros.cli.main", *words]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([*command, "-o", str(killed)], stdout=subprocess.DEVNULL)
    while not (killed / "state.safetensors").exists():
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = len(figures(killed / "metrics.csv"))
    assert reached < config.steps / config.log_every
    runner, threads = separate_runner(), torch.get_num_threads()
    results = [runner.invoke(app, [*words, "-o", str(f)], catch_exceptions=False) for f in (killed, whole)]
    torch.set_num_threads(threads)
    assert json.loads(results[0].stdout)["checkpoint"] == str(killed / "model.safetensors")
    assert figures(killed / "metrics.csv") == figures(whole / "metrics.csv")
    assert len(figures(whole / "metrics.csv")) == config.steps / config.log_every
    first, second = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(UserError, match="other settings"):
        train(replace(config, seed=1), whole)


@pytest.mark.parametrize("hardware", [True, False])
def test_half_precision_is_not_emulated(hardware, config, monkeypatch):
    """A CPU without units for bfloat16 took minutes for the first row of a training that needs seconds."""
    monkeypatch.setattr("mast3r_ros.matching.hardware.multiplies_bfloat16", lambda: hardware)
    cpu = torch.device("cpu")
    assert half_precision(config, cpu) == (torch.bfloat16 if hardware else None)
    assert half_precision(replace(config, amp=False), cpu) is None


def test_two_processes_train_as_one(config, tmp_path):
    """Gradients, losses and the decision to write a row are shared, also where validation falls between rows."""
    exact = replace(config, amp=False, log_every=4, pairs=40, loss=LossSettings(attention=0.0))
    train(exact, tmp_path / "one")
    settings = tmp_path / "exact.yaml"
    settings.write_text(yaml.safe_dump(json.loads(json.dumps(exact.to_json()))))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "mast3r_ros.cli.main", "train", str(settings), "-o", str(tmp_path / "two"), "--threads", "1"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=600)
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == [row["step"] for row in one] == [4, 6, 8, 10]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=2e-2)


def test_regression_looks_at_every_position_of_a_patch():
    """Positions of a patch have weights of their own: one that is never looked at predicts anything at all."""
    pixels = torch.arange(16 * 12).view(1, 16, 12).expand(8, -1, -1)
    seen = every(pixels, stride=2, first=5)
    assert seen.shape == (8, 8, 6)
    assert sorted(seen[:4].flatten().tolist()) == list(range(16 * 12)), "four images look at all pixels"
    assert every(pixels[:, :15, :11], stride=2, first=0).shape == (8, 7, 5), "sides that the stride does not divide"


def test_trains_only_what_it_is_told_to(config, tmp_path):
    """A frozen backbone stays as it is, bit for bit, while the heads learn."""
    frozen = replace(config, pairs=8, train_only=("downstream_head",))
    train(frozen, tmp_path)
    before = random_network(config.network, config.seed).state_dict()
    after = load_file(tmp_path / "state.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(after[f"network.{name}"], value)}
    assert changed
    assert all(name.startswith("downstream_head") for name in changed)


def test_a_network_without_descriptors_is_validated_by_its_points(config, tmp_path):
    """Pointmaps alone give matches as well: pixels whose points are each other's nearest."""
    plain = replace(config, pairs=8, loss=LossSettings(matching=0.0), validate_every=8)
    train(plain, tmp_path)
    assert 0 <= read_metrics(tmp_path / "metrics.csv")[-1]["val_precision_3px"] <= 1


def test_written_checkpoint_is_a_matcher(config, tmp_path):
    """What training exports is loaded by the ordinary matcher, in its own image size."""
    written = train(replace(config, pairs=8), tmp_path)
    matcher = Mast3rMatcher(written, dtype="float32", min_confidence=0.0)
    room = first_room(config)
    camera = Camera(96, 64, room[0].K)
    first, second = (matcher.describe(Frame(v.image, camera, depth=v.depth)) for v in room[:2])
    assert first["tokens"].shape == (24, TINY.enc_embed_dim + 16 * TINY.stem_dim)
    assert matcher.local_descriptors(first).shape == (6, TINY.enc_embed_dim)
    (matches,) = matcher.match(second, [first])
    assert len(matches) > 0 and np.isfinite(matches.points).all()


def test_fine_tunes_on_a_recording(shared_dir, config, tmp_path):
    """Real frames with depth and poses, from a checkpoint and without a config."""
    written = train(replace(config, pairs=8), tmp_path / "begin")
    recording = shared_dir / "data" / "sevenscenes_mini"
    settings = replace(fine_tuning(written), pairs=16, batch=4, workers=0, renderers=0, validation_pairs=4)
    data = TrainingData.recorded(replace(settings, cache=str(tmp_path)), [recording])
    tuned = train(settings, tmp_path / "tuned", data, init=written)
    row = read_metrics(tmp_path / "tuned" / "metrics.csv")[-1]
    assert np.isfinite(row["val_precision_3px"]) and row["pairs"] == 16
    before, after = load_file(written), load_file(tuned)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05
    larger = replace(settings, network=replace(TINY, img_size=(96, 128)), rooms=RoomsConfig(width=128, height=96))
    given = start(larger, torch.device("cpu"), written).network.state_dict()
    assert all(torch.equal(given[name], before[name].float()) for name in before), (
        "no weight depends on an image's size"
    )
    other = replace(settings, network=replace(TINY, enc_depth=2))
    with pytest.raises(CheckpointError, match="another architecture"):
        train(other, tmp_path / "other", data, init=written)


def test_refuses_wrong_settings(tmp_path):
    file = tmp_path / "config.yaml"
    for text, message in (
        ("pears: 3", "unknown setting pears"),
        ("network: {enc_embed_dim: 64}\npairs: many", "pairs = 'many'"),
        ("optimiser: fast", "settings of its own"),
        ("[1, 2]", "holds no settings"),
        ("network: {enc_depth: 1000}", "enc_depth = 1000"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            TrainConfig.load(file)
    with pytest.raises(UserError, match="cannot be read"):
        TrainConfig.load(tmp_path / "missing.yaml")


def test_shipped_config_is_of_the_promised_size(repository):
    config = TrainConfig.load(repository / "config" / "train" / "small.yaml")
    parameters = sum(p.numel() for p in random_network(config.network).parameters())
    assert parameters * 2 <= 25e6
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_learning_rate(config):
    rising = replace(config, pairs=4000, optimiser=OptimiserSettings(lr=1.0, least_lr=0.1, warmup_pairs=400, decay=0.5))
    rates = [rising.learning_rate(step) for step in range(rising.steps)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == pytest.approx(1.0)
    assert (
        rates[499] == 1.0 and rates[750] == pytest.approx(0.55, abs=0.01) and rates[-1] == pytest.approx(0.1, abs=1e-3)
    )


# -- data ------------------------------------------------------------------------------------------


def wall(shift: float) -> View:
    """A camera in front of a wall 2 m away, moved to the right."""
    K = np.array([[50.0, 0, 23.5], [0, 50, 15.5], [0, 0, 1]])
    image = np.zeros((32, 48, 3), np.uint8)
    return View(image, np.full((32, 48), 2.0, np.float32), se3.make(np.eye(3), [shift, 0, 0]), K)


def test_reciprocal_pixels_of_a_wall():
    """0.4 m to the side of a wall 2 m away are 10 pixels; 38 of the 48 columns are seen by both."""
    first, second = correspondences.reciprocal_pixels(wall(0.0), wall(0.4))
    assert len(first) == 32 * 38
    assert (first - second == 10).all()


def test_occluded_and_unknown_pixels_correspond_to_nothing():
    near, far = wall(0.0), wall(0.4)
    near.depth[:, 20:28] = 1.0
    far.depth[:16] = 0
    first, _ = correspondences.reciprocal_pixels(near, far)
    rows, columns = np.divmod(first, 48)
    assert rows.min() == 16 and not np.isin(columns, range(20, 28)).any()


def test_sampled_correspondences():
    rng = np.random.default_rng(0)
    pixels = correspondences.reciprocal_pixels(wall(0.0), wall(0.4))
    sizes = ((32, 48), (32, 48))
    xy1, xy2, true = correspondences.sample(*pixels, sizes, 100, rng, negative_share=0.4, clustered_share=0.5)
    assert true.sum() == 60 and true[:60].all()
    assert (xy1[true] - xy2[true] == [10, 0]).all()
    assert len(np.unique(xy1[true], axis=0)) == 60
    assert (xy1[~true, 0] < 10).all() and (xy2[~true, 0] >= 38).all()
    few = correspondences.sample(pixels[0][:5], pixels[1][:5], sizes, 100, rng)
    assert few[2].sum() == 5 and len(few[0]) == 100


def test_overlap_of_a_wall():
    views = [wall(0.0), wall(0.4), wall(5.0)]
    overlap = overlaps(views)
    assert overlap[0, 1] == pytest.approx(38 / 48, abs=0.1) and overlap[0, 2] == 0 and overlap[1, 1] == 1
    turned = se3.exp(np.array([0, 0, 0, 0, np.radians(40), 0]))
    assert axis_gaps(np.stack([np.eye(4), turned]))[0, 1] == pytest.approx(40)


def test_mirrored_views_still_correspond(config):
    """Points of both mirrored views still agree, and so do their pixels."""
    room = first_room(config)
    overlap = overlaps(room)
    np.fill_diagonal(overlap, 0)
    i, j = np.unravel_index(overlap.argmax(), overlap.shape)
    plain = correspondences.reciprocal_pixels(room[i], room[j])
    flipped = correspondences.reciprocal_pixels(mirrored(room[i]), mirrored(room[j]))
    assert len(plain[0]) > 50 and len(flipped[0]) == pytest.approx(len(plain[0]), rel=0.02)
