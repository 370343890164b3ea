"""Checkpoints: every official layout converts, loads without a copy, and nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import COMPACT, SHARED, joined, needs_shared
from safetensors.torch import load_file, save_file

from mast3r_ros.errors import CheckpointError
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.network import PUBLISHED, PointmapNetwork
from mast3r_ros.network.checkpoint import (
    PUBLISHED_LICENCE,
    convert_checkpoint,
    count_parameters,
    inspect_checkpoint,
    load_model,
)
from mast3r_ros.network.config import Activation, NetworkConfig
from mast3r_ros.network.official import parse_model_string

#: Light; a DPT head has 19 million weights in any network.
MODEL = (
    "AsymmetricMASt3R(enc_depth=1, dec_depth=2, enc_embed_dim=32, dec_embed_dim=24, enc_num_heads=2,"
    "dec_num_heads=2, pos_embed='RoPE100',img_size=(512, 512), head_type='catconv', output_mode='pts3d+desc4', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), patch_embed_cls='ManyAR_PatchEmbed', two_confs=True, "
    "desc_conf_mode=('exp', 0, inf), landscape_only=False)"
)
DPT_MODEL = MODEL.replace("catconv", "catmlp+dpt").replace("dec_depth=2", "dec_depth=10")


@pytest.fixture(scope="session")
def network() -> PointmapNetwork:
    return random_network(parse_model_string(MODEL), seed=4)


@pytest.fixture(scope="session")
def official(network: PointmapNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as training writes it: options and progress beside the weights."""
    path = tmp_path_factory.mktemp("official") / "tiny.pth"
    options = argparse.Namespace(model=MODEL, lr=1e-4, epochs=3, output_dir="out", pretrained=None)
    torch.save({"args": options, "model": network.state_dict(), "epoch": 3, "best_so_far": 0.5}, path)
    return path


@pytest.fixture(scope="session")
def converted(official: Path) -> Path:
    target = official.with_name("tiny.safetensors")
    convert_checkpoint(official, target)
    return target


def same(network: PointmapNetwork, other: PointmapNetwork) -> bool:
    state, others = network.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(value, others[key]) for key, value in state.items())


def test_conversion_keeps_every_weight(network: PointmapNetwork, official: Path, converted: Path) -> None:
    loaded = load_model(converted)
    assert same(network, loaded)
    assert loaded.config == network.config and not loaded.training
    info = inspect_checkpoint(converted)
    assert (info.layout, info.intact, info.dtypes) == ("mast3r_ros", True, ("float32",))
    assert info.bytes == converted.stat().st_size
    assert sum(info.parameters.values()) == sum(p.numel() for p in network.parameters())
    assert inspect_checkpoint(official).layout == "official"
    assert "NaN" not in converted.with_suffix(".json").read_text()
    assert sorted(p.name for p in converted.parent.iterdir()) == ["tiny.json", "tiny.pth", "tiny.safetensors"]


def test_weights_are_mapped_not_copied(converted: Path) -> None:
    loaded = load_model(converted)
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(converted)):
            low, high = line.split()[0].split("-")
            spans.append((int(low, 16), int(high, 16)))
    assert spans
    for name, parameter in loaded.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in spans), name


def test_types_of_trunk_and_heads(converted: Path) -> None:
    loaded = load_model(converted, dtype=torch.bfloat16)
    assert loaded.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert loaded.downstream_head1.head_local_features.fc1.weight.dtype == torch.float32
    view, _ = loaded(torch.zeros(1, 3, 32, 48), torch.zeros(1, 3, 32, 48))
    assert view.pts3d.dtype == torch.float32


def test_hugging_face_layout(tmp_path: Path) -> None:
    """Bare infinities in the JSON, and the duplicates of shared tensors left out."""
    network = random_network(parse_model_string(DPT_MODEL))
    state = {name: parameter.detach() for name, parameter in network.named_parameters()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"enc_depth": 1, "dec_depth": 10, "enc_embed_dim": 32, "dec_embed_dim": 24, "enc_num_heads": 2, '
        '"dec_num_heads": 2, "pos_embed": "RoPE100", "img_size": [512, 512], "head_type": "catmlp+dpt", '
        '"output_mode": "pts3d+desc4", "depth_mode": ["exp", -Infinity, Infinity], "conf_mode": ["exp", 1, Infinity], '
        '"two_confs": true, "desc_mode": "norm", "desc_conf_mode": ["exp", 0, Infinity], "landscape_only": true, '
        '"patch_embed_cls": "ManyAR_PatchEmbed"}'
    )
    assert same(network, load_model(tmp_path))
    info = inspect_checkpoint(tmp_path / "model.safetensors")
    assert (info.layout, info.intact, info.config) == ("huggingface", None, network.config)


def test_hugging_face_layout_converts(network: PointmapNetwork, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    arguments = MODEL[MODEL.index("(") + 1 : -1].replace("inf", "math.inf")
    (tmp_path / "config.json").write_text(json.dumps(eval(f"dict({arguments})", {"math": math})))  # our own text
    convert_checkpoint(tmp_path, tmp_path / "ours.safetensors")
    assert same(network, load_model(tmp_path / "ours.safetensors"))


def test_aliases_unused_and_foreign_tensors(tmp_path: Path) -> None:
    """Either name of a shared tensor will do, the second wins; pre-training leftovers are ignored."""
    network = random_network(parse_model_string(DPT_MODEL))
    network.mask_token.data.zero_()
    state = dict(network.state_dict())
    prefix = "downstream_head1.dpt.scratch."
    state[f"{prefix}layer2_rn.weight"] = torch.zeros_like(state[f"{prefix}layer2_rn.weight"])
    del state[f"{prefix}layer3_rn.weight"], state["mask_token"]
    state["prediction_head.weight"] = torch.zeros(3)
    torch.save({"args": argparse.Namespace(model=DPT_MODEL), "model": state}, tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert same(network, load_model(tmp_path / "a.safetensors"))


def test_one_decoder_serves_for_two(tmp_path: Path) -> None:
    path = joined(COMPACT / "network" / "dust3r_tiny_linear.pth", tmp_path)
    convert_checkpoint(path, tmp_path / "linear.safetensors")
    assert not any(key.startswith("dec_blocks2") for key in load_file(tmp_path / "linear.safetensors"))
    state = load_model(tmp_path / "linear.safetensors").state_dict()
    name = "dec_blocks.1.cross_attn.projk.weight"
    assert torch.equal(state[name], state[name.replace("blocks", "blocks2")])
    assert state[name].data_ptr() == state[name.replace("blocks", "blocks2")].data_ptr()


@needs_shared
@pytest.mark.parametrize("name", ["mast3r_tiny", "dust3r_tiny_dpt"])
def test_golden_files_with_overlapping_views(name: str, tmp_path: Path) -> None:
    convert_checkpoint(SHARED / name / f"{name}.pth", tmp_path / "g.safetensors")
    loaded = load_model(tmp_path / "g.safetensors")
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(SHARED / name / f"{name}.pth", weights_only=True)["model"]
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in state.items())


def test_parameter_counts_of_the_published_models() -> None:
    mast3r = count_parameters(PUBLISHED["MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"])
    assert mast3r == {"encoder": 303_098_880, "decoders": 227_668_224, "heads": 157_870_984, "mask_token": 768}
    assert count_parameters(PUBLISHED["DUSt3R_ViTLarge_BaseDecoder_512_dpt"])["heads"] == 40_403_336
    assert count_parameters(PUBLISHED["DUSt3R_ViTLarge_BaseDecoder_224_linear"])["heads"] == 1_574_912


SIZES = "enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12"


@pytest.mark.parametrize(
    ("name", "string"),
    [
        (
            "DUSt3R_ViTLarge_BaseDecoder_224_linear",
            "AsymmetricCroCo3DStereo(pos_embed='RoPE100', img_size=(224, 224), head_type='linear', "
            f"output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), {SIZES})",
        ),
        (
            "DUSt3R_ViTLarge_BaseDecoder_512_dpt",
            f"AsymmetricCroCo3DStereo( {SIZES},pos_embed='RoPE100',patch_embed_cls='ManyAR_PatchEmbed',"
            "img_size=( 512,512 ), head_type='dpt', output_mode='pts3d', depth_mode=('exp',-inf,inf),"
            "conf_mode=('exp',1,inf), landscape_only=True)",
        ),
        (
            "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric",
            f"AsymmetricMASt3R({SIZES}, pos_embed='RoPE100',img_size=(512, 512), head_type='catmlp+dpt', "
            "output_mode='pts3d+desc24', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
            "patch_embed_cls='PatchEmbedDust3R', two_confs=True, desc_conf_mode=('exp', 0, inf), landscape_only=False)",
        ),
    ],
)
def test_published_model_strings(name: str, string: str) -> None:
    assert parse_model_string(string) == PUBLISHED[name]


def test_defaults_of_model_strings() -> None:
    short = MODEL.replace(", two_confs=True", "").replace("desc_conf_mode=('exp', 0, inf), ", "")
    assert not parse_model_string(short).two_confs
    own = parse_model_string(MODEL.replace("desc_conf_mode=('exp', 0, inf)", "desc_conf_mode=None"))
    assert own.desc_conf == own.conf == Activation("exp", 1.0)


@pytest.mark.parametrize(
    "string",
    [
        "__import__('os').system('touch /tmp/owned')",
        "AsymmetricMASt3R(__import__('os').system('touch /tmp/owned'))",
        MODEL.replace("enc_depth=1", "enc_depth=__import__('os').getpid()"),
        MODEL.replace("enc_depth=1", "enc_depth=1+1"),
        MODEL.replace("enc_depth=1", "enc_depth='1'"),
        MODEL.replace("enc_depth=1", "enc_depth=100000"),
        MODEL.replace("enc_depth=1, ", ""),
        MODEL.replace("enc_depth=1", "enc_depth=1, enc_depth=2"),
        MODEL.replace("enc_depth=1", "**{'enc_depth': 1}"),
        MODEL.replace("enc_depth=1", "enc_depth=1, backdoor=1"),
        MODEL.replace("enc_depth=1", "enc_depth=1, desc_mode='raw'"),
        MODEL.replace("RoPE100", "cosine"),
        MODEL.replace("catconv", "catconv:wide"),
        MODEL.replace("catconv", "catmlp+dpt"),
        MODEL.replace("pts3d+desc4", "pts3d"),
        MODEL.replace("AsymmetricMASt3R", "AsymmetricCroCo3DStereo"),
        MODEL.replace("AsymmetricMASt3R", "Other"),
        MODEL.replace("('exp', -inf, inf)", "(('exp',), -inf, inf)"),
        "(" * 4000,
        "a" * 100000,
        "",
    ],
)
def test_other_model_strings_are_refused(string: str) -> None:
    with pytest.raises(CheckpointError):
        parse_model_string(string)
    assert not Path("/tmp/owned").exists()


class Malicious:
    """Unpickling an instance runs a shell command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("where", ["args", "model", "plain pickle"])
def test_a_pickle_that_would_run_code_is_refused(where: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"
    content: dict[str, Any] = {"args": argparse.Namespace(model=MODEL), "model": {}}
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(proof), protocol=2))
    else:
        torch.save(content | {where: Malicious(proof)}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth asks for Python code to be run.*nothing was executed"):
        convert_checkpoint(path, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="asks for Python code"):
        inspect_checkpoint(path)
    assert not proof.exists()
    assert not list(tmp_path.glob("*.safetensors"))
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert proof.exists(), "the file was harmless, so the test proves nothing"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_that_a_wrapper_renamed(network: PointmapNetwork, prefix: str, tmp_path: Path) -> None:
    """DataParallel and torch.compile put a prefix before every name; trainers keep numbers and paths of their own."""
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    options = argparse.Namespace(model=MODEL, output_dir=Path("out"), lr=np.float32(1e-4))
    content = {"args": options, "model": state, "best_so_far": np.float64(0.3), "epoch": np.int64(3)}
    torch.save(content, tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert same(network, load_model(tmp_path / "a.safetensors"))
    save_file(state, tmp_path / "b.safetensors")
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    assert same(network, load_model(tmp_path / "b.safetensors"))


def test_numbers_of_another_numpy_are_read(network: PointmapNetwork, tmp_path: Path) -> None:
    """NumPy 1 names its scalars' module otherwise than NumPy 2."""
    content = {"args": argparse.Namespace(model=MODEL), "model": network.state_dict(), "best_so_far": np.float64(0.3)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pth").read_bytes()
    assert (b"numpy._core.multiarray" in data) != (b"numpy.core.multiarray" in data)
    names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "a.pth").write_bytes(data.replace(*(names if names[0] in data else names[::-1])))
    assert inspect_checkpoint(tmp_path / "a.pth").config == network.config


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda state: state, "only weights, which do not say their architecture"),
        (lambda state: {"state_dict": state, "epoch": 3}, "a 'state_dict': add the official training's args"),
        (lambda state: {"args": argparse.Namespace(), "encoder": state, "decoder": state}, "MUSt3R"),
        (lambda state: [state], "holds a list"),
    ],
)
def test_other_layouts_are_told_what_they_are(
    network: PointmapNetwork, wrap: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")


def test_damaged_and_foreign_files_are_refused(official: Path, converted: Path, tmp_path: Path) -> None:
    whole = official.read_bytes()
    for name, data, message in [
        ("cut.pth", whole[: len(whole) // 2], "truncated"),
        ("empty.pth", b"", "truncated"),
        ("photo.pth", b"\xff\xd8\xff\xe0" + b"0" * 1000, "truncated or no PyTorch checkpoint"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
    weights = converted.read_bytes()
    for cut in (0, 4, 500, len(weights) - 1):
        (tmp_path / "cut.safetensors").write_bytes(weights[:cut])
        shutil.copy(converted.with_suffix(".json"), tmp_path / "cut.json")
        with pytest.raises(CheckpointError, match=r"cut\.safetensors is truncated"):
            load_model(tmp_path / "cut.safetensors")
    for content in ({"model": {}}, [1, 2], {"args": argparse.Namespace(), "model": {}}, {"args": 3, "model": {"a": 3}}):
        torch.save(content, tmp_path / "foreign.pth")
        with pytest.raises(CheckpointError):
            inspect_checkpoint(tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_checkpoint(tmp_path / "none.pth")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "nan", "integer"])
def test_checkpoints_that_do_not_fit_their_architecture(network: PointmapNetwork, change: str, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    name = "enc_blocks.0.attn.qkv.weight"
    broken = {
        "shape": state[name][:-1],
        "nan": torch.full_like(state[name], torch.nan),
        "integer": torch.zeros(state[name].shape, dtype=torch.int64),
        "unknown": state[name],
    }
    if change == "missing":
        del state[name]
    else:
        state["other.weight" if change == "unknown" else name] = broken[change]
    torch.save({"args": argparse.Namespace(model=MODEL), "model": state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="other" if change == "unknown" else "qkv"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")


def test_a_view_of_absurd_size_is_refused_before_it_is_copied(network: PointmapNetwork, tmp_path: Path) -> None:
    state = dict(network.state_dict()) | {"enc_norm.weight": torch.zeros(1).expand(1 << 40)}
    torch.save({"args": argparse.Namespace(model=MODEL), "model": state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="other shapes"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")


def test_only_converted_files_are_loaded(official: Path, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mast3r_ros checkpoint convert"):
        load_model(official)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path)
    lonely = Path(shutil.copy(converted, tmp_path / "lonely.safetensors"))
    with pytest.raises(CheckpointError, match=r"lonely\.json or config\.json"):
        load_model(lonely)
    record = json.loads(converted.with_suffix(".json").read_text())
    for broken, message in [
        ("{", "cannot be read as JSON"),
        ("[]", "no JSON object"),
        (json.dumps({"format": "other"}), "no config of this package"),
        (json.dumps(record | {"format_version": 99}), "format version 99"),
        (json.dumps(record | {"network": {"enc_depth": -1}}), "cannot be built"),
        (json.dumps(record | {"network": record["network"] | {"enc_depth": 2}}), "lacks enc_blocks.1"),
    ]:
        lonely.with_suffix(".json").write_text(broken)
        with pytest.raises(CheckpointError, match=message):
            load_model(lonely)
    with pytest.raises(CheckpointError, match="should end in"):
        convert_checkpoint(official, tmp_path / "out.pth")


def test_a_changed_file_is_noticed(converted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(converted, tmp_path / "a.safetensors"))
    shutil.copy(converted.with_suffix(".json"), tmp_path / "a.json")
    assert inspect_checkpoint(copy).intact is True
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert inspect_checkpoint(copy).intact is False


def test_the_licence_of_published_architectures_is_named(converted: Path, tmp_path: Path) -> None:
    record = json.loads(converted.with_suffix(".json").read_text())
    assert "ask whoever trained it" in record["licence"]
    assert "CC BY-NC-SA 4.0" in PUBLISHED_LICENCE


def test_a_failed_write_leaves_the_old_file(official: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a.safetensors"
    target.parent.write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert_checkpoint(official, target)
    assert target.parent.read_text()


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    config = NetworkConfig(8, 1, 1, 8, 1, 1, "linear")
    state = random_network(config).state_dict()
    state = {k: state[k.replace("dec_blocks2", "dec_blocks")] for k in state}
    model = (
        "AsymmetricCroCo3DStereo(enc_embed_dim=8,enc_depth=1,enc_num_heads=1,dec_embed_dim=8,dec_depth=1,"
        "dec_num_heads=1,pos_embed='RoPE100')"
    )
    buffer = io.BytesIO()
    torch.save({"args": argparse.Namespace(model=model), "model": state}, buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in state.items())
