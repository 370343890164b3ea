"""Where a network runs, and what it computes in."""

from __future__ import annotations

import logging
import warnings

import torch

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.half_precision import multiplies_bfloat16

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(name: str) -> torch.device:
    """The device of that name; auto takes a GPU that works, and says so where there is one that does not.

    Raises:
        MatcherError: for an unknown name, or ``cuda`` where no GPU works.
    """
    if name not in DEVICES:
        raise MatcherError(f"device '{name}' is not one of {', '.join(DEVICES)}")
    if name == "cpu":
        return torch.device("cpu")
    usable, why = _gpu()
    if usable:
        return torch.device("cuda")
    if name == "cuda":
        raise MatcherError(f"device cuda: PyTorch finds no usable GPU here{why and f' ({why})'}; use auto or cpu")
    if why:
        logger.warning("the GPU of this machine cannot be used, so the network runs on the CPU: %s", why)
    return torch.device("cpu")


def _gpu() -> tuple[bool, str]:
    """Whether a GPU computes, and what is wrong with one that does not; nothing where there is none."""
    with warnings.catch_warnings(record=True) as said:  # PyTorch tells of a broken driver by a warning only
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if not there:
        told = [str(warning.message) for warning in said if "CUDA" in str(warning.message)]
        return False, _first_sentence(told[0]) if told else ""
    try:
        works = float((torch.ones(8, device="cuda") + 1).sum()) == 16
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # no kernel for this card, no memory left
        return False, _first_sentence(str(error))
    return works, "" if works else "it computes 1 + 1 wrongly"


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].removesuffix(".")


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
