"""What official checkpoints say of their architecture: a constructor call as text, or its arguments as JSON.

The text is parsed as literals with an allow-list of names; it is never evaluated.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.config import Activation, NetworkConfig

MAST3R_CLASS = "AsymmetricMASt3R"
DUST3R_CLASS = "AsymmetricCroCo3DStereo"

#: Longest model string worth reading; the published ones have about 500 characters.
MAX_LENGTH = 5000

_SIZES = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")

#: Arguments that change nothing at inference: how images are stored, what is frozen, how it was trained.
_WITHOUT_EFFECT = {"img_size", "freeze", "landscape_only", "patch_embed_cls", "mask_ratio"}

#: Arguments that only have this one value here.
_FIXED = {"mlp_ratio": 4, "norm_im2_in_dec": True}

_KNOWN = {
    *_SIZES,
    *_WITHOUT_EFFECT,
    *_FIXED,
    *(
        "pos_embed",
        "patch_size",
        "head_type",
        "output_mode",
        "depth_mode",
        "conf_mode",
        "two_confs",
        "desc_conf_mode",
        "desc_mode",
    ),
}


def parse_model_string(text: object) -> NetworkConfig:
    """The architecture that a model string such as ``AsymmetricMASt3R(enc_depth=24, ...)`` describes.

    Raises:
        CheckpointError: for anything but a call of one of the two official classes with known literal arguments.
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise CheckpointError("the checkpoint's model string is no text of sensible length: not an official checkpoint")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"the checkpoint's model string cannot be read ({error}): {_short(text)}") from error
    is_call = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    if not is_call or call.func.id not in (MAST3R_CLASS, DUST3R_CLASS) or call.args:  # type: ignore[attr-defined]
        raise CheckpointError(f"the model string is no {DUST3R_CLASS}(...) or {MAST3R_CLASS}(...): {_short(text)}")
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:  # type: ignore[attr-defined]
        if keyword.arg is None or keyword.arg in arguments:
            raise CheckpointError(f"the model string repeats or unpacks arguments: {_short(text)}")
        arguments[keyword.arg] = _literal(keyword.value, keyword.arg)
    return config_from_arguments(call.func.id, arguments)  # type: ignore[attr-defined]


def config_from_arguments(class_name: str, arguments: Mapping[str, Any]) -> NetworkConfig:
    """The architecture of an official class called with these keyword arguments (lists count as tuples).

    Raises:
        CheckpointError: for unknown, missing or unusable arguments.
    """
    if unknown := sorted(set(arguments) - _KNOWN):
        raise CheckpointError(f"the checkpoint's model has arguments that are not known here: {', '.join(unknown)}")
    for name, value in _FIXED.items():
        if arguments.get(name, value) != value:
            raise CheckpointError(f"a model with {name} = {arguments[name]!r} is not supported, only {value!r}")
    if missing := [name for name in _SIZES if name not in arguments]:
        raise CheckpointError(f"the checkpoint's model does not say its {', '.join(missing)}")
    if "norm" not in str(arguments.get("desc_mode", "norm")):
        raise CheckpointError(f"descriptors of mode {arguments['desc_mode']!r} are not supported, only 'norm'")
    mast3r = class_name == MAST3R_CLASS
    head_type = arguments.get("head_type", "linear")
    if mast3r != str(head_type).startswith("cat"):
        raise CheckpointError(f"{class_name} has no head of type '{head_type}'")
    try:
        two_confs = mast3r and arguments.get("two_confs", False) is True
        conf = arguments.get("conf_mode", ("exp", 1, math.inf))
        desc_conf = (arguments.get("desc_conf_mode") or conf) if two_confs else ("exp", 0, math.inf)
        return NetworkConfig(
            **{name: _integer(name, arguments[name]) for name in _SIZES},
            patch_size=_integer("patch_size", arguments.get("patch_size", 16)),
            head_type=head_type,
            desc_dim=_descriptor_length(str(arguments.get("output_mode", "pts3d")), mast3r),
            rope_base=_rope_base(str(arguments.get("pos_embed"))),
            img_size=_image_size(arguments.get("img_size", (512, 512))),
            depth=_activation(arguments.get("depth_mode", ("exp", -math.inf, math.inf))),
            conf=_activation(conf),
            desc_conf=_activation(desc_conf),
            two_confs=two_confs,
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"the checkpoint describes a network that cannot be built: {error}") from error


def _literal(node: ast.expr, name: str) -> Any:
    """A constant, a signed number, ``inf``, or a flat tuple or list of those."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value
    if isinstance(node, (ast.Tuple, ast.List)) and not any(isinstance(n, (ast.Tuple, ast.List)) for n in node.elts):
        return tuple(_literal(element, name) for element in node.elts)
    raise CheckpointError(f"the model string gives {name} a value that is no literal: nothing was evaluated")


def _integer(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is no integer")
    return value


def _activation(value: Any) -> Activation:
    kind, low, high = value
    return Activation(str(kind), float(low), float(high))


def _rope_base(pos_embed: str) -> float:
    found = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", pos_embed)
    if not found:
        raise ValueError(f"position embedding '{pos_embed}' is not supported, only RoPE with its base, as in RoPE100")
    return float(found[1])


def _descriptor_length(output_mode: str, mast3r: bool) -> int:
    found = re.fullmatch(r"pts3d(?:\+desc(\d+))?", output_mode)
    if not found or bool(found[1]) != mast3r:
        raise ValueError(f"output_mode '{output_mode}' does not go with {'MASt3R' if mast3r else 'DUSt3R'}")
    return int(found[1] or 0)


def _image_size(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return _integer("img_size", height), _integer("img_size", width)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
