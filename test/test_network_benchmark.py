"""Benchmarks of networks: their figures, the network that knows the truth, and the plain path they compare with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mast3r_ros.geometry import se3
from mast3r_ros.lab.speed import known_truth
from mast3r_ros.lab.speed.match_recall import SHIFT, descriptor_pairs, measure_recall
from mast3r_ros.lab.speed.network_benchmark import CONFIGS, STAGES
from mast3r_ros.lab.speed.plain_path import published_matches
from mast3r_ros.matching import create, fast_reciprocal_matches
from mast3r_ros.network import PUBLISHED, PointmapNetwork
from mast3r_ros.network.preprocessing import prepare

SMALL = CONFIGS["small"]


@pytest.fixture(scope="module")
def network() -> PointmapNetwork:
    return known_truth.knowing_network(SMALL)


def test_every_published_descriptor_network_can_know_the_room() -> None:
    knowing = [name for name, config in PUBLISHED.items() if known_truth.can_know(config)]
    assert knowing == ["MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"]


@torch.inference_mode()
def test_pixels_pass_the_encoder_and_descriptors_are_places(network: PointmapNetwork) -> None:
    """The same place has the same descriptor from wherever it is seen; another one has another."""
    images = [prepare(posed.frame.image, 160) for posed in known_truth.views(1, 1)[0]]
    tokens = network.encode(images[0].tensor)
    pixels = images[0].tensor[0, :, :16, :16].reshape(-1)
    np.testing.assert_allclose(tokens.features[0, 0, : len(pixels)], pixels, atol=0.02)
    layers, _ = network.decode(tokens, tokens)
    desc = network.descriptors(1, layers, tokens).desc[0]
    nearby, far = (desc[60, 40] * desc[60, 41]).sum(), (desc[60, 40] * desc[10, 150]).sum()
    assert nearby > 0.98 > 0.9 > far
    # The random layers have a say, so errors in them show.
    other, _ = network.decode(tokens, network.encode(torch.zeros_like(images[0].tensor)))
    changed = (network.descriptors(1, other, tokens).desc[0] - desc).norm(dim=-1).mean()
    assert 1e-5 < changed < 0.1


def test_a_knowing_network_localizes(network: PointmapNetwork) -> None:
    (keyframe,), (query,) = known_truth.views(1, 1)
    matcher = create("mast3r", checkpoint=network, dtype="float32", device="cpu")
    (matches,) = matcher.match(matcher.describe(query.frame), [matcher.describe(keyframe.frame)])
    assert len(matches) > 500
    query_T_keyframe = se3.inverse(query.map_T_camera) @ keyframe.map_T_camera
    error = np.linalg.norm(
        known_truth.CAMERA.project(se3.apply(query_T_keyframe, matches.points)) - matches.query_xy, axis=1
    )
    assert np.median(error) < 6  # noise and quantisation are about 3 px of wall


def test_a_narrow_network_cannot_know() -> None:
    with pytest.raises(ValueError, match="width"):
        known_truth.knowing_network(PUBLISHED["DUSt3R_ViTLarge_BaseDecoder_512_dpt"])


@pytest.mark.parametrize("texture", ["smooth", "noisy", "repetitive"])
def test_the_plain_path_gives_the_same_matches(texture: str) -> None:
    pair = descriptor_pairs(96)[texture]
    for plain, ours in zip(published_matches(*pair), fast_reciprocal_matches(*pair), strict=True):
        assert torch.equal(plain, ours)


def test_recall_of_the_fast_search() -> None:
    rows = {row["texture"]: row for row in measure_recall(96)["textures"]}
    for name, row in rows.items():
        assert row["reciprocal"] == 1, name  # whatever it finds, the exhaustive search has too
        assert row["exhaustive"] > row["fast"] > 50
    for name in ("smooth", "repetitive"):
        assert rows[name]["regions_found"] > 0.97 and rows[name]["correct"] > 0.98
    # With noise and with nothing to tell repetitions apart it is as often right as the exhaustive search.
    for row in rows.values():
        assert row["correct"] > row["correct_exhaustive"] - 0.05
    assert rows["exactly repetitive"]["correct"] < 0.2


def test_pairs_of_maps_are_shifted_as_they_say() -> None:
    for name, (first, second) in descriptor_pairs(64).items():
        dx, dy = SHIFT
        similarity = (first[dy:, dx:] * second[:-dy, :-dx]).sum(dim=-1).mean()
        assert similarity > (0.7 if name == "noisy" else 0.95), name


def test_benchmark_network_contract(run, monkeypatch) -> None:
    """The small network at a small size: every figure is there and holds together."""
    from dataclasses import replace

    monkeypatch.setitem(CONFIGS, "small", replace(SMALL, img_size=(224, 224)))
    options = ("--config", "small", "--keyframes", "2", "--queries", "1", "--rounds", "1", "--json")
    code, out, err = run("benchmark", "network", *options)
    assert code == 0, err
    figures = json.loads(out, parse_constant=pytest.fail)
    assert tuple(figures["stages_ms"]) == STAGES and all(ms > 0 for ms in figures["stages_ms"].values())
    assert figures["total_ms"] == pytest.approx(sum(figures["stages_ms"].values()))
    plain = figures["plain"]
    assert plain["pairs_measured"] == 2 and set(plain["stages_ms"]) == set(STAGES)
    assert figures["speedup_over_plain"] == pytest.approx(plain["total_ms"] / figures["total_ms"])
    assert 100 < figures["peak_memory_mib"] < 20_000
    deviation = figures["deviation"]
    assert 0 <= deviation["points_relative_error"] < 0.05 and 0 <= deviation["descriptor_angle_deg"] < 5
    assert 0 < deviation["match_agreement"] <= 1
    assert abs(deviation["match_error_change"]) < 0.2
    assert deviation["pose_error"]["float32"]["position_m"] < 0.3
    assert 0 < deviation["pose_error"]["float32"]["expected_position_m"] < 0.3
    assert abs(deviation["pose_error"]["expected_change"]) < 0.5


def test_benchmark_gpu_rehearsed_on_a_cpu(run, tmp_path) -> None:
    """Rows as they come, figures that hold together, a file that has all of them."""
    options = ("--config", "small", "-k", "1", "--rounds", "1", "--no-compiled", "--network-size", "96")
    file = tmp_path / "table.json"
    code, out, err = run("benchmark", "gpu", *options, "--device", "cpu", "--dtype", "float32", "-o", str(file))
    assert code == 0, err
    rows = {row["row"]: row for row in json.loads(file.read_text(), parse_constant=pytest.fail)["rows"]}
    assert list(rows) == ["set-up", "float32 K=1", "start", "graphs K=1", "plain K=1"]
    row = rows["graphs K=1"]
    assert row["device"] == "cpu" and row["dtype"] == "float32" and row["total_ms"] > 0
    assert set(row["localizer_ms"]) >= {"describe", "match", "total"}
    assert row["deviation"]["match_agreement"] == 1  # on a CPU both are the same
    for name in ("image in", "encode", "decode", "descriptors", "matching", "pose", "total"):
        assert f"graphs K=1: {name} " in out


def test_benchmark_node_sends_images_to_the_real_node(run, tmp_path) -> None:
    pytest.importorskip("rclpy")
    options = ("--config", "small", "-k", "1", "--rate", "5", "--seconds", "1", "--network-size", "64")
    file = tmp_path / "rates.json"
    code, out, err = run("benchmark", "node", *options, "--device", "cpu", "--dtype", "float32", "-o", str(file))
    assert code == 0, err
    rows = {row["row"]: row for row in json.loads(file.read_text())["rows"]}
    assert list(rows) == ["node set-up", "node start", "node 5 Hz"] and "node start: " in out


def test_benchmark_match_prints_a_table(run) -> None:
    code, out, _ = run("benchmark", "match", "--size", "64")
    assert code == 0 and "exactly repetitive" in out and "regions found" in out


def test_benchmark_pose_solves_what_poselib_solves(run) -> None:
    """Both find the room's poses among wrong matches."""
    options = ("--noise", "1", "--noise", "4", "-n", "2", "--rounds", "1", "--matches", "800", "--json")
    code, out, err = run("benchmark", "pose", *options)
    assert code == 0, err
    figures = json.loads(out)
    assert [row["noise_px"] for row in figures["rows"]] == [1.0, 4.0] and figures["keyframes"] == 4
    for row in figures["rows"]:
        for way in ("mast3r_ros", "poselib"):
            assert row[way]["poses_found"] == 2 and row[way]["position_mm"] < 15 * row["noise_px"]


def test_benchmark_pose_says_when_nothing_is_found(run) -> None:
    code, out, err = run(
        "benchmark", "pose", "--wrong", "0.95", "--matches", "10", "-k", "1", "-n", "1", "--noise", "30"
    )
    assert code == 1 and out == "" and "no pose at 30 px" in err


def test_benchmark_refuses_what_it_cannot_measure(run, tmp_path) -> None:
    for options, words in (
        (("--config", "vitx"), "vitl, small"),
        (("--checkpoint", str(tmp_path / "none.safetensors")), "does not exist"),
    ):
        code, out, err = run("benchmark", "network", *options)
        assert code == 1 and out == "" and words in err
