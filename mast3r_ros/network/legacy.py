"""Reading official ``.pth`` files without trusting them: pickles that may hold tensors and plain values only."""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.config import NetworkConfig
from mast3r_ros.network.official import parse_model_string
from mast3r_ros.network.state_dict import canonical

#: Older releases let a crafted file run code in spite of weights_only (CVE-2025-32434).
FIRST_SAFE_TORCH = (2, 6)
#: How the restricted unpickler names what a file wanted to import or call.
_CODE = re.compile(r"(?:GLOBAL|reduce for unrecognized function) (\S+)")
#: Keys under which other trainers keep the weights: PyTorch Lightning, and MUSt3R's several networks.
_LIGHTNING, _MUST3R = "state_dict", ("encoder", "decoder")


def read_pth(path: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Architecture and state dict, by our names, of an official checkpoint; tensors are mapped from the file.

    Nothing in the file is executed: the unpickler builds tensors, plain containers and ``argparse.Namespace``.

    Raises:
        CheckpointError: for files that are damaged, no checkpoints of these networks, or ask for code.
    """
    content = _unpickle(path)
    entry = "model" if isinstance(content, dict) and "model" in content else _LIGHTNING
    if not isinstance(content, dict) or not {"args", entry} <= content.keys():
        raise CheckpointError(f"{path} is no DUSt3R or MASt3R checkpoint: {_what_it_is(content)}")
    state, arguments = content[entry], content["args"]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path}: the entry '{entry}' is no dictionary of named tensors")
    state = canonical(state)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.is_floating_point():
            raise CheckpointError(f"{path}: '{name}' is no dense tensor of floating point numbers")
    arguments = arguments if isinstance(arguments, dict) else vars(arguments) if hasattr(arguments, "__dict__") else {}
    return parse_model_string(arguments.get("model")), state


def _what_it_is(content: Any) -> str:
    """Why a file without 'args' and 'model' cannot be used, as far as its keys tell."""
    missing = "it has no entries 'args' and 'model'"
    if not isinstance(content, dict):
        return f"{missing}, but holds a {type(content).__name__}"
    if all(name in content for name in _MUST3R):
        return f"{missing}, but an encoder and a decoder as MUSt3R's have, another architecture"
    if _LIGHTNING in content:
        return f"{missing}, but a 'state_dict': add the official training's args to it, which say the architecture"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return (
            f"{missing}, only weights, which do not say their architecture: save {{'args': args, 'model': weights}} "
            "with the official training's args, or put the weights as model.safetensors beside a config.json"
        )
    return missing


def _plain_types() -> list[Any]:
    """Paths and NumPy's scalars (a folder, a loss or an epoch that was kept beside the weights): values without code.

    Files name them by the module that NumPy 1 or NumPy 2 kept them in.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    types = [type(np.dtype(code)) for code in "?bhilqBHILQefdg"]
    dtypes = {type for type in types if type is not np.dtype}  # older NumPy has no classes of their own
    return [PosixPath, PurePosixPath, np.dtype, *dtypes, *((scalar, name) for name in names)]


def _unpickle(path: Path) -> Any:
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < FIRST_SAFE_TORCH:
        raise CheckpointError(
            f"torch {torch.__version__} cannot read a .pth file safely: use 2.6 or later for the conversion; "
            "the converted file runs with this one"
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *_plain_types()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except Exception as error:  # the file decides what goes wrong in the unpickler
        if asked := _CODE.search(str(error)):
            raise CheckpointError(
                f"{path} asks for Python code to be run ({asked[1]}), which a checkpoint has no need for; it was "
                "refused and nothing was executed. Get the file from its publisher"
            ) from error
        raise CheckpointError(
            f"{path} is truncated or no PyTorch checkpoint: download it again ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """The one line of torch's explanation that says what is wrong, without its advice to load unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if "weights_only" not in line] or [type(error).__name__]
    return useful[0][:200]
