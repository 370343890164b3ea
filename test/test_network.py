"""The networks against golden outputs, the published tables of names and shapes, and independent formulas."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import COMPACT, SHARED, SPEC, case, joined, needs_shared
from kernels import DEVICES

from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import PUBLISHED, NetworkConfig, PointmapNetwork, Tokens, ViewPrediction, postprocess
from mast3r_ros.network.captured import CapturedNetwork
from mast3r_ros.network.config import Activation
from mast3r_ros.network.fused_rope import rotate_fused
from mast3r_ros.network.heads import build_head
from mast3r_ros.network.legacy import read_pth
from mast3r_ros.network.preprocessing import normalised, prepare
from mast3r_ros.network.rope import grid_positions, grid_rotation, rotate, rotation
from mast3r_ros.network.state_dict import meta_network, with_second_decoder

NAMES = ("mast3r_tiny", "dust3r_tiny_dpt", "dust3r_tiny_linear")
CASES = ("landscape", "portrait", "mixed", "diffsize")

#: (atol, rtol) by kind of value, from the golden README.
TOLERANCE = {
    "pos": (0, 0),
    "enc": (1e-4, 0),
    "dec": (1e-4, 0),
    "raw_dpt": (5e-4, 1e-4),
    "desc": (5e-5, 0),
    "conf": (0, 2e-4),
    "desc_conf": (0, 2e-4),
    "pts3d": (5e-4, 1e-3),
}
SAMPLES = {
    "": np.s_[:],
    "_half": np.s_[:, 0::2, 1::2],
    "_sub": np.s_[:, 1::4, 2::4],
    "_win": np.s_[:, 16:48, 32:80],
}


@cache
def network_from(path: Path) -> PointmapNetwork:
    config, state = read_pth(path)
    network = meta_network(config)
    dense = {name: tensor.contiguous() for name, tensor in with_second_decoder(state).items()}
    missing = network.load_state_dict(dense, strict=False, assign=True)
    assert not missing.unexpected_keys
    assert all("layer_rn" in key for key in missing.missing_keys)
    return network.eval()


def shared_network(name: str) -> PointmapNetwork:
    return network_from(SHARED / name / f"{name}.pth")


def check(kind: str, value: torch.Tensor, expected: np.ndarray) -> None:
    atol, rtol = TOLERANCE[kind]
    np.testing.assert_allclose(value.detach().cpu().numpy(), expected, atol=atol, rtol=rtol, err_msg=kind)


def check_view(view: ViewPrediction, number: int, golden: dict[str, np.ndarray]) -> int:
    """Compare every stored output of a view; how many there were."""
    compared = 0
    for key in golden:
        if not key.startswith(f"out{number}_"):
            continue
        suffix = next((s for s in SAMPLES if s and key.endswith(s)), "")
        kind = key.removeprefix(f"out{number}_").removesuffix(suffix).removesuffix("_in_other_view")
        check(kind, getattr(view, kind)[SAMPLES[suffix]], golden[key])
        compared += 1
    return compared


def images_of(golden: dict[str, np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(golden[f"img{n}"]) for n in (1, 2)]


@torch.no_grad()
def check_pair(network: PointmapNetwork, golden: dict[str, np.ndarray]) -> None:
    """Every stage of one pair against the golden file."""
    images = images_of(golden)
    for n, image in zip((1, 2), images):
        prepared = prepare(golden[f"raw{n}"], size=int(golden[f"load_size{n}"][0]))
        assert torch.equal(prepared.tensor, image)
        assert [list(prepared.size)] == golden[f"true_shape{n}"].tolist()
    images = [image.to(network.mask_token.device) for image in images]
    tokens = [network.encode(image) for image in images]
    layers = network.decode(*tokens)
    for n in (1, 2):
        check("pos", tokens[n - 1].positions, golden[f"pos{n}"])
        check("enc", tokens[n - 1].features, golden[f"enc{n}"])
        for key in (k for k in golden if k.startswith(f"dec{n}_")):
            check("dec", layers[n - 1][int(key[5:])], golden[key])
        if f"raw_dpt{n}" in golden:
            check("raw_dpt", network.head(n).raw_points(layers[n - 1], tokens[n - 1].size), golden[f"raw_dpt{n}"])
    for n, view in enumerate(network(*images), start=1):
        assert check_view(view, n, golden) >= 2


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pair", CASES)
def test_golden_pair(name: str, pair: str) -> None:
    check_pair(shared_network(name), case(SHARED / name / f"case_{pair}.npz"))


def test_golden_pair_in_any_clone(tmp_path: Path) -> None:
    network = network_from(joined(COMPACT / "network" / "dust3r_tiny_linear.pth", tmp_path))
    check_pair(network, case(COMPACT / "network" / "dust3r_tiny_linear_mixed.npz"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
class TestOnAGpu:
    """The golden cases in float32, by the plain network and by its graphs."""

    @pytest.fixture(autouse=True)
    def exact_products(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)

    def check(self, network: PointmapNetwork, golden: dict[str, np.ndarray]) -> None:
        network = copy.deepcopy(network).cuda()
        check_pair(network, golden)
        stages = CapturedNetwork(network)
        for _ in range(2):  # recorded, then replayed
            tokens = [stages.encode(image.cuda()) for image in images_of(golden)]
            for n, layers in enumerate(stages.decode(*tokens), start=1):
                maps = list(stages.points(n, layers, tokens[n - 1]))
                if network.config.has_descriptors:
                    maps += stages.descriptors(n, layers, tokens[n - 1])
                assert check_view(ViewPrediction(*maps), n, golden) >= 2

    @needs_shared
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("pair", CASES)
    def test_golden_pair(self, name: str, pair: str) -> None:
        self.check(shared_network(name), case(SHARED / name / f"case_{pair}.npz"))

    def test_golden_pair_in_any_clone(self, tmp_path: Path) -> None:
        network = network_from(joined(COMPACT / "network" / "dust3r_tiny_linear.pth", tmp_path))
        self.check(network, case(COMPACT / "network" / "dust3r_tiny_linear_mixed.npz"))


@torch.no_grad()
def test_golden_mast3r_head_in_any_clone(tmp_path: Path) -> None:
    config, state = read_pth(joined(COMPACT / "network" / "mast3r_tiny_head1.pth", tmp_path))
    golden = case(COMPACT / "network" / "mast3r_tiny_head1_landscape.npz")
    head = build_head(config)
    head.load_state_dict({k.removeprefix("downstream_head1."): v for k, v in state.items()}, strict=False)
    layers = [torch.zeros(0)] * (config.dec_depth + 1)
    for index in (0, 6, 9, 12):
        layers[index] = torch.from_numpy(golden[f"dec1_{index:02d}"])
    check("raw_dpt", head.raw_points(layers, (112, 160)), golden["raw_dpt1"])
    view = ViewPrediction(*head.points(layers, (112, 160)), *head.descriptors(layers, (112, 160)))
    assert check_view(view, 1, golden) == 5


@needs_shared
@pytest.mark.parametrize("name", ["mast3r_tiny", "dust3r_tiny_linear"])
@torch.no_grad()
def test_golden_batch_from_images_encoded_once(name: str) -> None:
    """All ordered pairs of three images, each of which is encoded a single time."""
    network, golden = shared_network(name), case(SHARED / name / "case_batch.npz")
    prepared = [prepare(golden[f"raw{i}"], size=int(golden["load_size"][0])) for i in range(3)]
    assert [list(p.size) for p in prepared] == golden["true_shape"][:3].tolist()
    tokens = network.encode(torch.cat([p.tensor for p in prepared]))
    first, second = tokens[torch.from_numpy(golden["idx1"])], tokens[torch.from_numpy(golden["idx2"])]
    layers1, layers2 = network.decode(first, second)
    sample = SAMPLES["_sub"]
    for n, pointmap in ((1, network.points(1, layers1, first)), (2, network.points(2, layers2, second))):
        check("pts3d", pointmap.pts3d[sample], golden["pts3d_1_sub" if n == 1 else "pts3d_in_other_view_2_sub"])
        check("conf", pointmap.conf[sample], golden[f"conf_{n}_sub"])


@needs_shared
@pytest.mark.parametrize("name", ["mast3r_tiny", "dust3r_tiny_dpt"])
@torch.no_grad()
def test_golden_batch_stored_in_landscape(name: str) -> None:
    network, golden = shared_network(name), case(SHARED / name / "case_training_layout.npz")
    images = [torch.cat([normalised(image) for image in golden[f"img{n}_u8"]]) for n in (1, 2)]
    shapes = [torch.from_numpy(golden[f"true_shape{n}"]) for n in (1, 2)]
    assert len({tuple(row) for row in golden["true_shape1"].tolist()}) == 2, "the batch mixes orientations"
    tokens = network.encode(images[0], shapes[0])
    check("pos", tokens.positions, golden["pos1"])
    check("enc", tokens.features, golden["enc1"])
    for n, view in enumerate(network(*images, *shapes), start=1):
        assert check_view(view, n, golden) >= 2


@pytest.mark.parametrize("portrait", [(False, False), (True, True), (True, False)])
@torch.no_grad()
def test_storage_in_landscape_changes_no_value(portrait: tuple[bool, bool]) -> None:
    """Any mix of orientations in a transposed batch gives what each upright image gives, transposed."""
    network = random_network(small(head_type="catconv", desc_dim=8, two_confs=True), seed=1)
    stored = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    shapes = torch.tensor([(48, 32) if tall else (32, 48) for tall in portrait])
    together = network(stored, stored.flip(0).contiguous(), shapes, shapes.flip(0))
    upright = [image.transpose(1, 2) if tall else image for image, tall in zip(stored, portrait)]
    for index in range(2):
        alone = network(upright[index][None], upright[1 - index][None])
        for view, single, tall in zip(together, alone, (portrait[index], portrait[1 - index])):
            for batch, one in zip(view, single):
                assert batch is not None and one is not None
                torch.testing.assert_close(batch[index], one[0].transpose(0, 1) if tall else one[0])


@torch.no_grad()
def test_tokens_from_a_cache() -> None:
    """Half precision on disk costs no more than its rounding; positions come from the size."""
    network = random_network(small(head_type="catconv", desc_dim=8, two_confs=True), seed=1)
    tokens = network.encode(torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1)
    restored = Tokens.upright(tokens.features.half(), (32, 48), 16)
    assert torch.equal(restored.positions, tokens.positions) and len(restored) == 2
    exact, cached = (network.descriptors(1, network.decode(t, t)[0], t).desc for t in (tokens, restored))
    assert cached.dtype == torch.float32
    assert 0 < (1 - (cached * exact).sum(-1)).max() < 1e-4


@needs_shared
@pytest.mark.parametrize(
    ("table", "published", "total"),
    [
        ("mast3r_512", "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", 688_638_856),
        ("dust3r_512_dpt", "DUSt3R_ViTLarge_BaseDecoder_512_dpt", 571_171_208),
        ("dust3r_224_linear", "DUSt3R_ViTLarge_BaseDecoder_224_linear", 532_342_784),
        ("dust3r_224_linear", "DUSt3R_ViTLarge_BaseDecoder_512_linear", 532_342_784),
    ],
)
def test_full_size_state_dict_equals_the_official_one(table: str, published: str, total: int) -> None:
    rows = [line.split("\t") for line in (SPEC / f"state_dict_{table}.tsv").read_text().splitlines()[1:]]
    network = meta_network(PUBLISHED[published])
    ours = {name: "x".join(map(str, tensor.shape)) for name, tensor in network.state_dict().items()}
    assert ours == {key: shape for key, shape, _ in rows}
    assert sum(p.numel() for p in network.parameters()) == total


def small(**changes: object) -> NetworkConfig:
    config = NetworkConfig(32, 2, 2, 24, 2, 2, "linear")
    return replace(config, **changes)  # type: ignore[arg-type]


@torch.no_grad()
def test_catconv_head_against_a_second_writing_of_it() -> None:
    config = small(head_type="catconv", desc_dim=8, two_confs=True)
    head = random_network(config, seed=3).downstream_head1
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(2, 15, 32, generator=generator), torch.zeros(0), torch.randn(2, 15, 24, generator=generator)]
    pointmap, descriptors = head.points(layers, (48, 80)), head.descriptors(layers, (48, 80))
    assert pointmap.pts3d.shape == (2, 48, 80, 3)
    assert pointmap.conf.shape == descriptors.desc_conf.shape == (2, 48, 80)
    assert descriptors.desc.shape == (2, 48, 80, 8)

    weights = {name: value.double().numpy() for name, value in head.state_dict().items()}
    tokens = np.concatenate([layers[0].numpy(), layers[2].numpy()], axis=-1).astype(np.float64)
    dense = _mlp(tokens, weights, "head_local_features", channels=9, patch=16)
    check("desc_conf", descriptors.desc_conf, np.exp(dense[..., 8]))
    check("desc", descriptors.desc, dense[..., :8] / np.linalg.norm(dense[..., :8], axis=-1, keepdims=True))

    half = _mlp(tokens, weights, "head_pts3d.mlp", channels=25, patch=8)
    full = _bilinear_corner_aligned(half, 48, 80)
    hidden = np.maximum(_conv3x3(full, weights["head_pts3d.head.1.weight"], weights["head_pts3d.head.1.bias"]), 0)
    raw = hidden @ weights["head_pts3d.head.3.weight"][:, :, 0, 0].T + weights["head_pts3d.head.3.bias"]
    distance = np.linalg.norm(raw[..., :3], axis=-1, keepdims=True)
    check("pts3d", pointmap.pts3d, raw[..., :3] / distance * np.expm1(distance))
    check("conf", pointmap.conf, 1 + np.exp(raw[..., 3]))


def _mlp(tokens: np.ndarray, weights: dict[str, np.ndarray], name: str, channels: int, patch: int) -> np.ndarray:
    """MLP and pixel shuffle by explicit indexing: tokens (B, 15, C) on a 3 x 5 grid -> (B, H, W, channels)."""
    hidden = tokens @ weights[f"{name}.fc1.weight"].T + weights[f"{name}.fc1.bias"]
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    out = hidden @ weights[f"{name}.fc2.weight"].T + weights[f"{name}.fc2.bias"]
    image = np.zeros((len(tokens), 3 * patch, 5 * patch, channels))
    for y in range(3 * patch):
        for x in range(5 * patch):
            token, inside = y // patch * 5 + x // patch, y % patch * patch + x % patch
            image[:, y, x] = out[:, token, inside :: patch * patch]
    return image


def _bilinear_corner_aligned(image: np.ndarray, height: int, width: int) -> np.ndarray:
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, image.shape[axis] - 1, size)
        low = np.minimum(at.astype(int), image.shape[axis] - 2)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        image = np.take(image, low, axis) * (1 - weight) + np.take(image, low + 1, axis) * weight
    return image


def _conv3x3(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = image.shape[1:3]
    return bias + sum(
        padded[:, i : i + rows, j : j + columns] @ weight[:, :, i, j].T for i in range(3) for j in range(3)
    )


def test_descriptor_confidence_is_the_points_confidence_without_one_of_its_own() -> None:
    network = random_network(small(head_type="catconv", desc_dim=8, two_confs=False))
    view, _ = network(torch.zeros(1, 3, 32, 48), torch.ones(1, 3, 32, 48))
    assert view.desc_conf is not None and torch.equal(view.conf, view.desc_conf)


def test_rotation_depends_on_relative_positions_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def product(at_q: tuple[int, int], at_k: tuple[int, int]) -> float:
        by_q, by_k = (rotation(torch.tensor([[at]]), 16, 100.0) for at in (at_q, at_k))
        return float((rotate(q, by_q) * rotate(k, by_k)).sum())

    assert product((3, 5), (1, 9)) == pytest.approx(product((13, 25), (11, 29)), abs=1e-5)
    assert product((3, 5), (1, 9)) != pytest.approx(product((5, 3), (9, 1)), abs=1e-3)


def test_rotation_is_the_complex_product_of_the_papers() -> None:
    x = torch.randn(1, 2, 6, 16, generator=torch.Generator().manual_seed(0))
    positions = grid_positions(2, 3)
    turned = rotate(x, rotation(positions[None], 16, 100.0)).numpy()
    frequencies = 100.0 ** (-np.arange(4) / 4)
    for axis in range(2):
        pair = x[..., 8 * axis : 8 * axis + 4].numpy() + 1j * x[..., 8 * axis + 4 : 8 * axis + 8].numpy()
        pair = pair * np.exp(1j * positions[:, axis].numpy()[:, None] * frequencies)
        np.testing.assert_allclose(turned[..., 8 * axis : 8 * axis + 4], pair.real, atol=1e-5)
        np.testing.assert_allclose(turned[..., 8 * axis + 4 : 8 * axis + 8], pair.imag, atol=1e-5)


def test_activations() -> None:
    raw = torch.tensor([[[[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]]])
    far = math.expm1(5)
    np.testing.assert_allclose(postprocess.points(raw, Activation("exp"))[0, 0], [[0, 0.6 * far, 0.8 * far], [0] * 3])
    np.testing.assert_allclose(postprocess.points(raw, Activation("square"))[0, 0, 0], [0, 15, 20])
    assert torch.equal(postprocess.points(raw, Activation("linear")), raw)
    c = torch.tensor([-1.0, 0.0, 9.0])
    np.testing.assert_allclose(
        postprocess.confidence(c, Activation("exp", 1, 10)), [1 + math.exp(-1), 2, 10], rtol=1e-6
    )
    np.testing.assert_allclose(postprocess.confidence(c, Activation("sigmoid", 1, 3))[1], 2)


@torch.no_grad()
def test_pairs_in_one_batch_equal_pairs_one_by_one() -> None:
    network = random_network(small(head_type="catconv", desc_dim=8, two_confs=True), seed=1)
    images = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    query, references = network.encode(images[:1]), network.encode(images[1:])
    layers1, layers2 = network.decode(query[[0, 0]], references)
    together = network.descriptors(2, layers2, references)
    for index in range(2):
        one = references[[index]]
        _, layers = network.decode(query, one)
        torch.testing.assert_close(network.descriptors(2, layers, one).desc[0], together.desc[index])
    assert len(layers1) == network.config.dec_depth + 1


@torch.no_grad()
def test_bfloat16_stays_close_to_float32() -> None:
    network = random_network(small(head_type="catconv", desc_dim=8, two_confs=True), seed=1)
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    exact = network(images[:1], images[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = network(images[:1], images[1:])
    for reference, view in zip(exact, fast):
        assert view.desc is not None and reference.desc is not None
        assert view.desc.dtype == torch.float32
        assert 0 < (1 - (view.desc * reference.desc).sum(-1)).max() < 1e-3
        torch.testing.assert_close(view.conf, reference.conf, rtol=0.05, atol=0)


def test_a_new_networks_decoders_are_equal_and_reproducible() -> None:
    first, again = random_network(small(), seed=5), random_network(small(), seed=5)
    state = first.state_dict()
    assert all(torch.equal(state[k.replace("blocks.", "blocks2.")], v) for k, v in state.items() if "dec_blocks." in k)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in state.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"enc_depth": 0},
        {"enc_embed_dim": 34},
        {"head_type": "mlp"},
        {"desc_dim": 8},
        {"head_type": "dpt"},
        {"depth": Activation("exp", 0, 10)},
        {"conf": Activation("exp")},
        {"conf": Activation("sigmoid", 1, math.nan)},
    ],
)
def test_impossible_networks_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError):
        small(**changes)


def test_config_survives_json() -> None:
    for config in PUBLISHED.values():
        assert NetworkConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="unknown setting"):
        NetworkConfig.from_json({"enc_width": 3})
    with pytest.raises(ValueError, match="enc_depth"):
        NetworkConfig.from_json({"enc_depth": True})


def test_wrong_images_and_requests_are_refused() -> None:
    network = random_network(small())
    with pytest.raises(ValueError, match="multiple of 16"):
        network.encode(torch.zeros(1, 3, 30, 48))
    with pytest.raises(ValueError, match="landscape"):
        network.encode(torch.zeros(1, 3, 32, 48), torch.tensor([[48, 64]]))
    tokens = network.encode(torch.zeros(1, 3, 32, 48))
    layers, _ = network.decode(tokens, tokens)
    with pytest.raises(ValueError, match="no descriptors"):
        network.descriptors(1, layers, tokens)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_kernel_rotates_as_the_plain_operations_do(device: str, dtype: torch.dtype) -> None:
    """Heads in numbers that are no powers of two, of a batch that is a part of a larger tensor."""
    ulp = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for batch, (rows, columns), heads, dim in ((2, (3, 4), 24, 64), (1, (2, 3), 5, 12), (3, (2, 2), 1, 16)):
        generator = torch.Generator().manual_seed(dim)
        qkv = torch.randn(batch, rows * columns, 3 * heads, dim, generator=generator).to(device, dtype)
        x = qkv.transpose(1, 2)[:, heads // 2 : heads // 2 + heads]
        by = grid_rotation(rows, columns, dim, 100.0, torch.device(device))
        torch.testing.assert_close(rotate_fused(x, by), rotate(x, by), atol=ulp, rtol=ulp)
