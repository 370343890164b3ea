"""The campaigns of `mast3r_ros endure`, in their short form, and the defects that the long ones found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import separate_runner
from faulty_trials import make_faulty
from torch import nn

from mast3r_ros.cli.main import app
from mast3r_ros.errors import CheckpointError, DatasetError, SettingsError, UserError
from mast3r_ros.io.bags import BagWriter, open_bag
from mast3r_ros.io.datasets.camera_file import read_camera
from mast3r_ros.lab.endure.campaign import run_campaign
from mast3r_ros.lab.training.state import Averaged, save_state
from mast3r_ros.tables import read_parameters

SEED = 7


def silent(done: int, total: int) -> None:
    """No progress bar."""


def test_a_campaign_counts_what_is_wrong_survives_crashes_and_goes_on(tmp_path: Path) -> None:
    numbers = [int(np.random.default_rng([SEED, n]).integers(2**31)) for n in range(14)]
    crashes = sum(n % 3 != 0 and n % 7 == 0 for n in numbers)
    outside = sum(n % 3 != 0 and n % 7 != 0 and n % 5 == 0 for n in numbers)
    assert crashes and outside
    half = run_campaign("faulty", make_faulty, 7, SEED, tmp_path / "report", silent)
    whole = run_campaign("faulty", make_faulty, 14, SEED, tmp_path / "report", silent)
    assert half["trials"] == 7 and whole["trials"] == 14 and sum(whole["outcomes"].values()) == 14
    assert whole["kinds"]["divisible"] == sum(n % 3 == 0 for n in numbers)
    assert whole["kinds"]["the process ended by 3"] == crashes
    touched = sum(count for kind, count in whole["kinds"].items() if "PermissionError" in kind)
    assert touched == outside
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["found"] == whole["found"]
    assert f"--first {whole['findings'][0]['trial']}" in (tmp_path / "report" / "report.md").read_text()
    with pytest.raises(UserError, match=f"seed {SEED}"):
        run_campaign("faulty", make_faulty, 30, SEED + 1, tmp_path / "report", silent)


@pytest.mark.parametrize(
    ("name", "trials", "some"),
    [("files", 25, ""), ("kills", 8, "killed"), ("life", 30, ""), ("messages", 60, "")],
)
def test_campaigns_in_short(name: str, trials: int, some: str, tmp_path: Path) -> None:
    """Nothing is found, something was tried, and the report says so. The faults: test_demo.py has their recording."""
    if name in ("life", "messages"):
        pytest.importorskip("rclpy")
    words = ["endure", name, "--trials", str(trials), "--report", str(tmp_path), "--json"]
    result = separate_runner().invoke(app, words)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["trials"], figures["found"]) == (trials, 0), figures["findings"]
    assert sum(figures["outcomes"].values()) == trials and len(figures["outcomes"]) > 3
    assert any(some in outcome for outcome in figures["outcomes"])
    assert json.loads((tmp_path / "summary.json").read_text())["trials"] == trials


# -- what the campaigns found --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "deep: " + "[" * 1000,
        "image_width: .inf\nimage_height: 4\ndistortion_coefficients: {data: []}\ncamera_matrix: {data: [1]}\n",
        "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [1, 2\n",
        '<?xml version="1.0"?>\n<opencv_storage><camera_matrix>',
    ],
    ids=["nested", "infinite", "cut yaml", "cut xml"],
)
def test_a_broken_calibration_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(DatasetError, match="camera.yaml"):
        read_camera(tmp_path / "camera.yaml")


def test_a_parameter_file_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text("deep: " + "[" * 1000)
    with pytest.raises(SettingsError, match="robot.yaml"):
        read_parameters(tmp_path / "robot.yaml", "relocalizer")


def test_a_damaged_definition_of_a_standard_message_is_not_used(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag.mcap") as bag:
        bag.transform("a", "b", np.eye(4), 1)
        bag.transform("a", "b", np.eye(4), 2)
    data = (tmp_path / "bag.mcap").read_bytes()
    assert data.count(b"Header header") >= 1
    (tmp_path / "bag.mcap").write_bytes(data.replace(b"Header header", b"Header heeder"))
    with open_bag(tmp_path / "bag.mcap") as reader:
        assert reader.transforms().can_transform("a", "b", 1)


def test_a_training_whose_disk_is_full_says_so_and_keeps_its_state(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    arguments = network, nn.Linear(1, 1), Averaged(network, 0.9), torch.optim.AdamW(network.parameters())
    save_state(tmp_path / "state.safetensors", 1, *arguments, {})
    before = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / ".state.safetensors.partial").mkdir()  # what cannot be written, by whomever
    with pytest.raises(CheckpointError, match="go on"):
        save_state(tmp_path / "state.safetensors", 2, *arguments, {})
    assert (tmp_path / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "a/../../../secret.png"])
def test_a_colmap_model_cannot_name_an_image_outside(tmp_path: Path, name: str) -> None:
    from mast3r_ros.io.datasets import open_source
    from mast3r_ros.lab.endure.scene import small_map, view
    from mast3r_ros.mapping.blob import encode_image
    from mast3r_ros.mapping.export import export_colmap

    export_colmap(small_map(), tmp_path / "model")
    (tmp_path / "secret.png").write_bytes(encode_image(view(0)[0], "png").read())
    images = tmp_path / "model" / "images.txt"
    images.write_text(images.read_text().replace("k2.png", name))
    with pytest.raises(DatasetError, match="outside"):
        list(open_source(tmp_path / "model"))
