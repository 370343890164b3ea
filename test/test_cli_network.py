"""The commands checkpoint, predict and match: their files, their JSON, their refusals."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from golden_cases import SHARED, case, needs_shared
from oracle import CAMERA, TINY, OracleNetwork, keyframe_poses, save_network, see
from PIL import Image
from test_matching import texture

from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.matching import fast_reciprocal_matches
from mast3r_ros.matching.prediction import predict_pair
from mast3r_ros.network import NetworkConfig, Tokens
from mast3r_ros.network.preprocessing import load_image, prepare

SIZE = 96
DUST3R = NetworkConfig(
    enc_embed_dim=64, enc_depth=2, enc_num_heads=4, dec_embed_dim=48, dec_depth=3, dec_num_heads=4, head_type="linear"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks and two photographs of one wall, the second moved by (24, 8) pixels."""
    folder = tmp_path_factory.mktemp("network")
    save_network(random_network(TINY, seed=3), folder / "mast3r.safetensors")
    save_network(random_network(DUST3R, seed=3), folder / "dust3r.safetensors")
    wall = texture(7, 400, 300)
    Image.fromarray(wall[:240, :320]).save(folder / "a.png")
    Image.fromarray(wall[8:248, 24:344]).save(folder / "b.png")
    return folder


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


# predict


@needs_shared
@pytest.mark.parametrize("name", ["mast3r_tiny", "dust3r_tiny_linear"])
def test_predict_is_the_reference_path(run: Any, tmp_path: Path, name: str) -> None:
    """From image files and the official checkpoint to the golden numbers, with the commands alone."""
    golden = case(SHARED / name / "case_landscape.npz")
    for number in (1, 2):
        Image.fromarray(golden[f"raw{number}"]).save(tmp_path / f"{number}.png")
    network, out = tmp_path / "network.safetensors", tmp_path / "out.npz"
    converted = run("checkpoint", "convert", SHARED / name / f"{name}.pth", "-o", network, "--json")
    assert converted.code == 0 and converted.json["sha256"]
    size = int(golden["load_size1"][0])
    options = ("--checkpoint", network, "--size", size, "--dtype", "float32", "--device", "cpu", "-o", out)
    result = run("predict", tmp_path / "1.png", tmp_path / "2.png", *options, "--json")
    assert result.code == 0, result.err
    found = arrays(out)
    kinds = {"pts3d": (5e-4, 1e-3), "conf": (0, 2e-4)} | ({"desc_conf": (0, 2e-4)} if name == "mast3r_tiny" else {})
    for number, suffix in ((1, ""), (2, "_in_other_view")):
        for kind, (atol, rtol) in kinds.items():
            key = f"out{number}_{kind}" + (suffix if kind == "pts3d" else "")
            np.testing.assert_allclose(found[f"{kind}_{number}"], golden[key][0], atol=atol, rtol=rtol, err_msg=key)
        if name == "mast3r_tiny":
            desc = found[f"desc_{number}"][None]
            np.testing.assert_allclose(desc[:, 1::4, 2::4], golden[f"out{number}_desc_sub"], atol=5e-5)
        image = (golden[f"img{number}"][0].transpose(1, 2, 0) + 1) * 127.5
        np.testing.assert_array_equal(found[f"image_{number}"], np.rint(image).astype(np.uint8))


def test_npz_contract(run: Any, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.npz"
    options = ("--checkpoint", files / "mast3r.safetensors", "--size", SIZE, "-o", out, "--device", "cpu", "--json")
    result = run("predict", files / "a.png", files / "b.png", *options)
    assert result.code == 0, result.err
    found = arrays(out)
    height, width = 64, 96
    for number in (1, 2):
        assert found[f"pts3d_{number}"].shape == (height, width, 3)
        assert found[f"conf_{number}"].shape == found[f"desc_conf_{number}"].shape == (height, width)
        assert found[f"desc_{number}"].shape == (height, width, 24)
        assert found[f"image_{number}"].shape == (height, width, 3)
        np.testing.assert_allclose(np.linalg.norm(found[f"desc_{number}"], axis=-1), 1, atol=1e-5)
    xy1, xy2 = fast_reciprocal_matches(found["desc_1"], found["desc_2"])
    np.testing.assert_array_equal(found["matches_xy_1"], xy1)
    np.testing.assert_array_equal(found["matches_xy_2"], xy2)
    assert found["focal_1"].shape == () and found["camera1_T_camera2"].shape == (4, 4)
    assert result.json["matches"] == len(xy1) and result.json["dtype"] == "float32"
    assert result.json["size_1"] == [width, height]


def test_predictions_do_not_depend_on_the_way(files: Path) -> None:
    """Encoded once and head by head, a prediction equals the network's own forward pass."""
    network = random_network(TINY, seed=3).eval().requires_grad_(False)
    images = [prepare(load_image(files / name), SIZE) for name in ("a.png", "b.png")]
    views = network(*(image.tensor for image in images))
    found = predict_pair(network, *images).arrays()
    for number, view in enumerate(views, start=1):
        for kind, value in view._asdict().items():
            np.testing.assert_allclose(found[f"{kind}_{number}"], value[0], atol=1e-5, rtol=1e-5)


def test_dust3r_has_no_descriptors_but_matches(run: Any, files: Path, tmp_path: Path) -> None:
    options = ("--checkpoint", files / "dust3r.safetensors", "--size", SIZE, "-o", tmp_path / "o.npz", "--json")
    assert run("predict", files / "a.png", files / "b.png", *options).code == 0
    found = arrays(tmp_path / "o.npz")
    assert not any(name.startswith("desc") for name in found)
    assert found["matches_xy_1"].shape == found["matches_xy_2"].shape and found["matches_xy_1"].shape[1] == 2


class TwoCameras(OracleNetwork):
    """Knows the pose of each image it encodes, in their order, and sees pairs from the first of them."""

    def __init__(self, poses: list[np.ndarray]) -> None:
        super().__init__()
        self.poses, self.encoded = poses, []

    def encode(self, images: torch.Tensor, true_shape: torch.Tensor | None = None) -> Tokens:
        tokens = super().encode(images, true_shape)
        self.encoded.append(tokens)
        return tokens

    def decode(self, tokens1: Tokens, tokens2: Tokens) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        self.camera_T_map = se3.inverse(self.poses[self.encoded.index(tokens1)])
        return super().decode(tokens1, tokens2)


def test_a_pose_that_explains_the_matches_is_found() -> None:
    """With a network that knows the truth: pose, focal lengths and inliers of two photographs."""
    poses = keyframe_poses()[:2]
    images = [prepare(see(pose).image, 320) for pose in poses]
    found = predict_pair(TwoCameras(poses), *images)
    metres, degrees = se3.pose_error(found.camera1_T_camera2, se3.inverse(poses[0]) @ poses[1])
    assert found.posed and metres < 0.02 and degrees < 0.5
    assert found.pose_inliers.sum() > 0.9 * len(found.matches_xy_1) > 100
    assert found.focal_1 == pytest.approx(CAMERA.fx, rel=0.01)
    assert found.focal_2 == pytest.approx(CAMERA.fx, rel=0.01)


def test_ply_holds_both_views(run: Any, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "cloud.ply"
    options = ("--checkpoint", files / "mast3r.safetensors", "--size", SIZE, "-o", out)
    result = run("predict", files / "a.png", files / "b.png", *options)
    assert result.code == 0 and "camera1_T_camera2" in result.out
    header, _, body = out.read_bytes().partition(b"end_header\n")
    count = int(next(line for line in header.decode().splitlines() if line.startswith("element vertex")).split()[2])
    assert len(body) == 15 * count
    assert 0.85 * 2 * 64 * 96 < count <= 2 * 64 * 96
    points = np.frombuffer(body, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert np.isfinite(points["xyz"]).all() and points["rgb"].std() > 10


@pytest.mark.usefixtures("no_shipped_network")
def test_what_predict_refuses(run: Any, files: Path, tmp_path: Path) -> None:
    pair = (files / "a.png", files / "b.png")
    network = files / "mast3r.safetensors"
    assert run("predict", *pair, "--checkpoint", network, "-o", tmp_path / "x.obj").code == 2
    (tmp_path / "official.pth").write_bytes(b"PK")
    for arguments, words in (
        (pair, "checkpoint download"),
        ((*pair, "--checkpoint", tmp_path / "official.pth"), "checkpoint convert official.pth"),
        ((*pair, "--checkpoint", tmp_path / "missing.safetensors"), "does not exist"),
        ((files / "a.png", tmp_path / "none.png", "--checkpoint", network), "none.png"),
        ((*pair, "--checkpoint", network, "--size", 16), "size 16"),
        ((*pair, "--checkpoint", network, "--dtype", "int8"), "dtype 'int8'"),
    ):
        result = run("predict", *arguments, "-o", tmp_path / "x.npz")
        assert (result.code, result.out) == (1, "") and words in result.err, result.err
        assert not (tmp_path / "x.npz").exists()


# match


def test_match_draws_what_sift_finds(run: Any, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "matches.png"
    result = run("match", files / "a.png", files / "b.png", "-o", out, "--json")
    assert result.code == 0, result.err
    assert result.json["matcher"] == "sift" and result.json["matches"] > 50
    assert result.json["epipolar_inliers"] > 0.8 * result.json["matches"]
    picture = cv2.imread(str(out))
    assert picture.shape[0] > 640 and picture.shape[1] > 2 * 640
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_match_by_network(run: Any, files: Path, tmp_path: Path) -> None:
    pair = (files / "a.png", files / "b.png")
    for name in ("mast3r", "dust3r"):
        options = (
            "--checkpoint",
            files / f"{name}.safetensors",
            "--size",
            SIZE,
            "-o",
            tmp_path / f"{name}.jpg",
            "--json",
        )
        result = run("match", *pair, *options)
        assert result.code == 0, result.err
        assert result.json["matcher"] == name and (tmp_path / f"{name}.jpg").stat().st_size > 1000


def test_match_of_images_without_anything_in_common(run: Any, files: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 500, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    result = run("match", files / "a.png", tmp_path / "grey.png", "-o", tmp_path / "m.png", "--json")
    assert result.code == 0 and result.json["matches"] == result.json["epipolar_inliers"] == 0
    assert result.json["median_confidence"] is None and (tmp_path / "m.png").exists()


@pytest.mark.usefixtures("no_shipped_network")
def test_what_match_refuses(run: Any, files: Path, tmp_path: Path) -> None:
    pair = (files / "a.png", files / "b.png")
    for arguments, words in (
        (("-o", tmp_path / "m.png", "--matcher", "mast3r"), "checkpoint download"),
        (("-o", tmp_path / "m.xyz"), "m.xyz"),
        (
            ("-o", tmp_path / "m.png", "--matcher", "mast3r", "--checkpoint", files / "dust3r.safetensors"),
            "DUSt3R network",
        ),
        (
            ("-o", tmp_path / "m.png", "--matcher", "orb", "--checkpoint", files / "dust3r.safetensors"),
            "unknown matcher",
        ),
    ):
        result = run("match", *pair, *arguments)
        assert result.code == 1 and words in result.err, result.err


# checkpoint


def test_inspect_for_people_and_machines(run: Any, files: Path) -> None:
    path = files / "mast3r.safetensors"
    result = run("checkpoint", "inspect", path)
    assert result.code == 0 and "descriptors of 24" in result.out and "SHA-256" in result.out
    facts = run("checkpoint", "inspect", path, "--json").json
    assert facts["matcher"] == "mast3r" and facts["config"]["enc_depth"] == 2 and facts["bytes"] == path.stat().st_size
    parts = {name: count for name, count in facts["parameters"].items() if name != "total"}
    assert facts["parameters"]["total"] == sum(parts.values())
    assert facts["parameters"]["total"] == sum(p.numel() for p in random_network(TINY).parameters())


def test_convert_refuses_a_pickle_that_runs_code(run: Any, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    evil = tmp_path / "evil.pth"
    torch.save({"args": Evil(), "model": {}}, evil)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Evil(), protocol=2))
    for path in (evil, plain):
        result = run("checkpoint", "convert", path, "-o", tmp_path / "out.safetensors")
        assert result.code == 1 and result.err.startswith("error: ") and result.err.count("\n") == 1
        assert not marker.exists() and not (tmp_path / "out.safetensors").exists()


def test_nothing_is_downloaded_before_the_licence_is_accepted(run: Any, tmp_path: Path) -> None:
    """The address would refuse the connection: it must not even be tried."""
    options = ("-o", tmp_path / "weights", "--mirror", "http://127.0.0.1:9")
    result = run("checkpoint", "download", *options)
    assert (result.code, result.out) == (1, "")
    assert "CC BY-NC-SA" in result.err and "--accept-licence" in result.err
    assert not (tmp_path / "weights").exists()
    accepted = run("checkpoint", "download", *options, "--accept-licence")
    assert accepted.code == 1 and "check the network" in accepted.err and "CC BY-NC-SA" in accepted.err


def test_published_names_are_listed(run: Any) -> None:
    names = run("checkpoint", "download", "list", "--json").json
    assert len(names) == 4 and "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric" in names
    result = run("checkpoint", "download", "MASt3R_ViTHuge")
    assert result.code == 1 and names[0] in result.err and "licence" not in result.err
