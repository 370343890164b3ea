"""Names, shapes and completeness of a checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.model import PointmapNetwork

Value = TypeVar("Value")
Shape = tuple[int, ...]

#: Tensors of CroCo's pre-training and of training itself that no inference reads.
_IGNORED = re.compile(r"^(prediction_head\.|enc_pos_embed$|dec_pos_embed$)")
_ALIAS = re.compile(r"(\.scratch\.layer)_rn\.(\d)\.")
#: Present in official files but never used: filled with zeros where a file leaves them out.
_UNUSED = re.compile(r"^mask_token$|\.refinenet4\.resConfUnit1\.")
#: What DataParallel, torch.compile and Lightning put before every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")


def meta_network(config: NetworkConfig) -> PointmapNetwork:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return PointmapNetwork(config)


def expected_shapes(config: NetworkConfig) -> dict[str, Shape]:
    """Every parameter's official name and shape, each tensor once."""
    return {name: tuple(p.shape) for name, p in meta_network(config).named_parameters()}


def canonical(state: Mapping[str, Value]) -> dict[str, Value]:
    """One name per tensor, without what inference ignores and the prefix that a wrapper put before *every* name.

    Official files name the DPT's ``layer<k+1>_rn`` a second time, ``layer_rn.<k>``; where both are there the
    second counts, as it is read last.
    """
    for prefix in _WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            return canonical({name.removeprefix(prefix): value for name, value in state.items()})
    kept = {name: value for name, value in state.items() if not _IGNORED.match(name)}
    aliases = [name for name in kept if _ALIAS.search(name)]
    for name in aliases:
        kept[_ALIAS.sub(lambda found: f"{found[1]}{int(found[2]) + 1}_rn.", name)] = kept.pop(name)
    return kept


def with_second_decoder(state: Mapping[str, Value]) -> dict[str, Value]:
    """Without a second decoder of its own, the first serves for both (the same tensors under both names)."""
    complete = dict(state)
    if not any(name.startswith("dec_blocks2") for name in state):
        complete |= {
            name.replace("dec_blocks", "dec_blocks2", 1): value
            for name, value in state.items()
            if name.startswith("dec_blocks.")
        }
    return complete


def check_shapes(shapes: Mapping[str, Shape], config: NetworkConfig, source: str) -> list[str]:
    """Compare a complete canonical state dict with what the architecture needs.

    Returns:
        names of unused tensors that are missing and may be zero.

    Raises:
        CheckpointError: naming the first tensors that are missing, unknown or of another shape.
    """
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in shapes]
    if needed := [name for name in missing if not _UNUSED.search(name)]:
        raise CheckpointError(f"{source} lacks {_some(needed)}: it is incomplete or of another architecture")
    if unknown := [name for name in shapes if name not in expected]:
        raise CheckpointError(f"{source} holds {_some(unknown)}, unknown to its own architecture")
    wrong = [f"{name} {shapes[name]} for {expected[name]}" for name in shapes if shapes[name] != expected[name]]
    if wrong:
        raise CheckpointError(f"{source} has tensors of other shapes than its architecture: {_some(wrong)}")
    return missing


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest
