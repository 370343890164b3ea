"""Where a network runs, and what it computes in."""

from __future__ import annotations

import torch

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.half_precision import multiplies_bfloat16

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(name: str) -> torch.device:
    """The device of that name; auto takes the GPU where there is one.

    Raises:
        MatcherError: for an unknown name, and for cuda without a usable GPU.
    """
    if name not in DEVICES:
        raise MatcherError(f"device '{name}' is not one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise MatcherError("device cuda: PyTorch finds no usable GPU here; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The type to compute in; auto takes bfloat16 where the hardware multiplies it, which float32 accumulates.

    Raises:
        MatcherError: for an unknown name, and for float16 on a CPU.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if name not in DTYPES:
        raise MatcherError(f"dtype '{name}' is not one of auto, {', '.join(DTYPES)}")
    if DTYPES[name] is torch.float16 and device.type == "cpu":
        raise MatcherError("dtype float16 is for GPUs: use bfloat16 or float32 on a CPU")
    return DTYPES[name]
