"""Checkpoints as the package uses them: weights in safetensors, architecture in JSON. No pickle is loaded here.

``convert_checkpoint`` is the one way in for official ``.pth`` files; Hugging Face folders are read directly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.config import PUBLISHED, NetworkConfig
from mast3r_ros.network.legacy import read_pth
from mast3r_ros.network.model import PointmapNetwork
from mast3r_ros.network.official import DUST3R_CLASS, MAST3R_CLASS, config_from_arguments
from mast3r_ros.network.state_dict import canonical, check_shapes, meta_network, with_second_decoder

FORMAT = "mast3r_ros network"
FORMAT_VERSION = 1
#: A config is a page of text; a larger file is something else.
MAX_CONFIG_BYTES = 1 << 20

PUBLISHED_LICENCE = (
    "the weights published for this architecture are CC BY-NC-SA 4.0 (no commercial use, share alike); "
    "the data sets they were trained on add terms of their own"
)
UNKNOWN_LICENCE = "not stated in the file: ask whoever trained it"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds.

    Attributes:
        layout: ``official`` (.pth), ``huggingface`` or ``mast3r_ros``.
        config: the architecture.
        architecture: the published name with this architecture, or "" for others.
        parameters: number of distinct parameters by part: encoder, decoders, heads, mask_token.
        dtypes: types the tensors are stored in.
        bytes, sha256: of the weights file.
        intact: whether the file is the one that was converted, None where nothing was recorded.
        licence: what is known of it.
    """

    path: Path
    layout: str
    config: NetworkConfig
    architecture: str
    parameters: dict[str, int]
    dtypes: tuple[str, ...]
    bytes: int
    sha256: str
    intact: bool | None
    licence: str


def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    head_dtype: torch.dtype = torch.float32,
) -> PointmapNetwork:
    """A network for inference. Weights are mapped from the file: on a CPU and in the file's type, none is copied.

    Args:
        path: a ``.safetensors`` file with its ``.json`` beside it, or a Hugging Face folder.
        dtype: of encoder and decoders.
        head_dtype: of the heads, float32 in the reference.

    Raises:
        CheckpointError: for missing, damaged or foreign files, and for a ``.pth`` that was not converted.
    """
    weights, config, _ = _locate(Path(path))
    network = meta_network(config)
    with _opened(weights) as file:
        names = canonical({name: name for name in file.keys()})  # noqa: SIM118  # not a dict
        shapes = {name: tuple(file.get_slice(stored).get_shape()) for name, stored in names.items()}
        unused = check_shapes(with_second_decoder(shapes), config, str(weights))
        state = {}
        for name, stored in names.items():
            wanted = head_dtype if name.startswith("downstream_head") else dtype
            state[name] = file.get_tensor(stored).to(device=device, dtype=wanted)
    for name in unused:
        state[name] = torch.zeros(network.get_parameter(name).shape, device=device, dtype=dtype)
    # Not strict about the second names of shared tensors only: check_shapes has seen to the rest.
    network.load_state_dict(with_second_decoder(state), strict=False, assign=True)
    return network.eval().requires_grad_(False)


def read_config(path: str | Path) -> NetworkConfig:
    """Architecture of a ``.safetensors`` checkpoint or Hugging Face folder; its weights are not read.

    Raises:
        CheckpointError: for missing or foreign files, and for a ``.pth`` that was not converted.
    """
    return _locate(Path(path).expanduser())[1]


def convert_checkpoint(source: str | Path, destination: str | Path) -> CheckpointInfo:
    """Official ``.pth`` or Hugging Face folder -> ``destination`` (.safetensors) and its ``.json``.

    Both are written beside their final place and renamed, the JSON last.

    Raises:
        CheckpointError: for a source that cannot be read safely, or a destination that cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if destination.suffix != ".safetensors":
        raise CheckpointError(f"{destination} should end in .safetensors")
    layout, origin, config, state = _read(source)
    check_shapes(with_second_decoder(_shapes(state)), config, str(source))
    dense = _dense(state, str(source))
    record: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": config.to_json(),
        "source": {"file": origin.name, "layout": layout, "sha256": _sha256(origin)},
        "licence": _licence(config),
    }
    _write(destination, dense, record)
    return inspect_checkpoint(destination)


def save_network(
    network: PointmapNetwork, destination: Path, dtype: torch.dtype, extra: Mapping[str, Any] | None = None
) -> None:
    """A network in memory -> ``destination`` (.safetensors) and its ``.json``, with ``extra`` entries in the latter.

    Raises:
        CheckpointError: for weights that are not finite, and where the disk refuses.
    """
    state = {name: p.detach().cpu().to(dtype) for name, p in network.named_parameters()}
    record: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "network": network.config.to_json()}
    _write(destination, _dense(state, destination.name), record | dict(extra or {}))


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """What a checkpoint of any layout holds; its tensors are checked against its architecture.

    Raises:
        CheckpointError: for files that are damaged, foreign, or ask for code.
    """
    path = Path(path)
    layout, weights, config, state = _read(path)
    check_shapes(with_second_decoder(_shapes(state)), config, str(path))
    digest = _sha256(weights)
    recorded = _locate(path)[2].get("weights_sha256") if layout == "mast3r_ros" else None
    return CheckpointInfo(
        path=weights,
        layout=layout,
        config=config,
        architecture=next((name for name, published in PUBLISHED.items() if published == config), ""),
        parameters=count_parameters(config),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})),
        bytes=weights.stat().st_size,
        sha256=digest,
        intact=None if recorded is None else recorded == digest,
        licence=_licence(config),
    )


def count_parameters(config: NetworkConfig) -> dict[str, int]:
    """Distinct parameters by part of the network."""
    counts = {"encoder": 0, "decoders": 0, "heads": 0, "mask_token": 0}
    for name, parameter in meta_network(config).named_parameters():
        first = name.split(".")[0]
        part = "heads" if first.startswith("downstream") else "decoders" if first.startswith("dec") else "encoder"
        counts["mask_token" if first == "mask_token" else part] += parameter.numel()
    return counts


def _read(path: Path) -> tuple[str, Path, NetworkConfig, dict[str, Tensor]]:
    """Layout, weights file, architecture and canonical state dict (mapped, not copied) of any checkpoint."""
    if path.is_file() and path.suffix != ".safetensors":
        config, state = read_pth(path)
        return "official", path, config, state
    weights, config, record = _locate(path)
    with _opened(weights) as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return ("mast3r_ros" if record else "huggingface"), weights, config, canonical(stored)


def _locate(path: Path) -> tuple[Path, NetworkConfig, dict[str, Any]]:
    """Weights file, architecture, and the conversion's record ({} for the Hugging Face layout)."""
    weights = path / "model.safetensors" if path.is_dir() else path
    if not weights.is_file():
        raise CheckpointError(f"{weights} does not exist")
    if weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is no safetensors file: convert it once with "
            f"'mast3r_ros checkpoint convert {path.name} -o {path.stem}.safetensors'"
        )
    own, huggingface = weights.with_suffix(".json"), weights.with_name("config.json")
    if own.is_file():
        record = _json(own)
        return weights, _own_config(own, record), record
    if not huggingface.is_file():
        raise CheckpointError(f"{weights} needs its architecture beside it: {own.name} or config.json")
    arguments = _json(huggingface)
    is_mast3r = str(arguments.get("head_type", "")).startswith("cat")
    return weights, config_from_arguments(MAST3R_CLASS if is_mast3r else DUST3R_CLASS, arguments), {}


def _json(path: Path) -> dict[str, Any]:
    """Python's reader takes the bare Infinity that Hugging Face configs contain."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is too large for a config: {path.stat().st_size} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return values


def _own_config(path: Path, record: Mapping[str, Any]) -> NetworkConfig:
    if record.get("format") != FORMAT or not isinstance(record.get("network"), dict):
        raise CheckpointError(f"{path} is no config of this package: convert the checkpoint again")
    if record.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {record.get('format_version')}, this program reads {FORMAT_VERSION}: "
            "update the package, or convert the checkpoint again"
        )
    try:
        return NetworkConfig.from_json(record["network"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} describes a network that cannot be built: {error}") from error


def _opened(weights: Path) -> Any:
    try:
        return safe_open(weights, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{weights} is truncated or no safetensors file: download or convert it again ({error})"
        ) from error


def _write(destination: Path, dense: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Weights and config under a temporary name first: a reader never finds half a file."""
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        save_file(dense, partial, metadata={"format": "pt"})
        record["weights_sha256"] = _sha256(partial)
        os.replace(partial, destination)
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        os.replace(partial, destination.with_suffix(".json"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{destination} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _dense(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors that own exactly their memory, as safetensors wants them: views are copied, all others are not."""
    dense, seen = {}, set()
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: '{name}' contains NaN or infinity: the file is damaged")
        tensor = tensor.contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        dense[name] = tensor
    return dense


def _licence(config: NetworkConfig) -> str:
    return PUBLISHED_LICENCE if config in PUBLISHED.values() else UNKNOWN_LICENCE


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
