"""Where half precision pays."""

from __future__ import annotations

from functools import cache

import torch

#: What a CPU calls it when it multiplies bfloat16 and sums in float32: matrix units of Intel's, AVX-512 of AMD's since
#: Zen 4. Products take a third (AMX) to half the time (AVX-512) of float32's.
INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return capabilities is not None and any(capabilities().get(name, False) for name in INSTRUCTIONS)
