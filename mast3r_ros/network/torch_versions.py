"""What PyTorch's versions since 2.1 do differently is settled here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def plain_attention() -> AbstractContextManager[Any]:
    """Attention as plain products instead of a fused kernel, while the context lasts."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel  # 2.3
    except ImportError:
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_math=True, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)


def eager() -> AbstractContextManager[Any]:
    """What was compiled runs as it was written, while the context lasts; before 2.6 it stays compiled."""
    if hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def gpu_multiplies_bfloat16() -> bool:
    """Whether the current GPU multiplies bfloat16 itself: NVIDIA's from Ampere (8.0) on, and what ROCm runs on.

    ``torch.cuda.is_bf16_supported`` counts emulation too from 2.4 on, and can be told not to from 2.5 on.
    """
    if torch.version.hip is not None:
        return bool(torch.cuda.is_bf16_supported())
    return torch.cuda.get_device_capability()[0] >= 8
