"""Where tests of the kernels run: compiled on a GPU, or by Triton's interpreter; recordings without a GPU."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from mast3r_ros.network.graphs import Function, GraphReplay, Memory

HAS_CUDA = torch.cuda.is_available()
HAS_TRITON = find_spec("triton") is not None
if not HAS_CUDA:  # read when Triton is imported, which nothing does before a kernel is asked for
    os.environ["TRITON_INTERPRET"] = "1"

INTERPRETED = pytest.param(
    "cpu",
    marks=[
        pytest.mark.skipif(HAS_CUDA, reason="the kernels are compiled for the GPU in this process"),
        pytest.mark.skipif(not HAS_TRITON, reason="needs Triton: pip install -r requirements/test.txt"),
    ],
    id="interpreted",
)
COMPILED = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not HAS_CUDA, reason="no NVIDIA GPU here"),
        pytest.mark.skipif(not HAS_TRITON, reason="needs Triton: pip install triton"),
    ],
)
DEVICES = (INTERPRETED, COMPILED)


def record_plainly(
    function: Function, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], memory: Memory
) -> GraphReplay:
    """The bookkeeping of :func:`record_cuda` without a GPU: a replay computes the function again."""

    def replay() -> None:
        for place, value in zip(outputs, function(*inputs), strict=True):
            place.copy_(value)

    return replay
