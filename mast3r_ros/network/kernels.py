"""Triton kernels of the network. Import this on first use only: it needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotate(x, out, cos, sin, count, heads, xb, xh, xn, ob, oh, on, HEADS: tl.constexpr, HALF: tl.constexpr, LANES: tl.constexpr):  # fmt: skip # noqa: E501
    """Rotary positions of all heads of one token: lane j of a head's vector is pair j % quarter of axis j // quarter.

    Args:
        x, out: (B, heads, count, d) of any strides but the last.
        cos, sin: (count, 2, d / 4) and (count, 2, 2, d / 4) float32, see ``Rotation``.
        HEADS, LANES: powers of two that hold ``heads`` and HALF = d / 2.
    """
    token = tl.program_id(0)
    n = token % count
    b = (token // count).to(tl.int64)
    quarter = HALF // 2
    lane = tl.arange(0, LANES)
    axis = lane // quarter
    pair = lane % quarter
    head = tl.arange(0, HEADS)[:, None]
    there = (head < heads) & (lane < HALF)[None, :]
    first = (axis * HALF + pair)[None, :]
    c = tl.load(cos + n * HALF + lane, mask=lane < HALF, other=0.0)[None, :]
    s = tl.load(sin + n * 2 * HALF + axis * HALF + quarter + pair, mask=lane < HALF, other=0.0)[None, :]
    source = x + b * xb + n * xn + head * xh + first
    u = tl.load(source, mask=there, other=0.0).to(tl.float32)
    v = tl.load(source + quarter, mask=there, other=0.0).to(tl.float32)
    target = out + b * ob + n * on + head * oh + first
    tl.store(target, (u * c - v * s).to(out.dtype.element_ty), mask=there)
    tl.store(target + quarter, (v * c + u * s).to(out.dtype.element_ty), mask=there)
