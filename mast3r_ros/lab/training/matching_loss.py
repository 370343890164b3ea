"""Matching loss: descriptors of corresponding pixels are each other's best match (InfoNCE).

Leroy et al., "MASt3R", ECCV 2024, section 3.2; van den Oord et al., "Contrastive Predictive Coding", 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MODES = ("proper", "dual", "all")
#: Probabilities below this give no gradient.
LEAST_PROBABILITY = 1e-8


def at_pixels(maps: Tensor, xy: Tensor) -> Tensor:
    """Values (B, N, ...) of maps (B, H, W, ...) at integer pixels (B, N, 2)."""
    batch = torch.arange(len(maps), device=maps.device)[:, None]
    return maps[batch, xy[..., 1], xy[..., 0]]


def infonce(desc1: Tensor, desc2: Tensor, temperature: float | Tensor = 0.07, mode: str = "proper") -> Tensor:
    """Loss of every row of two lists of descriptors that should match row by row.

    Args:
        desc1: (B, N, D) of unit length.
        desc2: (B, N + P, D); rows beyond N are further negatives (mode ``all`` only).
        temperature: of the similarities.
        mode: ``proper``: cross entropies of rows and of columns, added; ``dual``: of their product; ``all``: of
            one softmax over the whole matrix.

    Returns:
        (B, N).

    Raises:
        ValueError: for an unknown mode, or more columns than rows where both are softmaxed.
    """
    similarity = desc1 @ desc2.transpose(1, 2) / temperature
    least = math.log(LEAST_PROBABILITY)
    if mode == "all":
        log_p = similarity.flatten(1).log_softmax(dim=1).view_as(similarity)
        return -log_p.diagonal(dim1=1, dim2=2).clamp(min=least)
    if mode not in MODES or similarity.shape[1] != similarity.shape[2]:
        raise ValueError(f"mode '{mode}' is not one of {MODES}, or cannot take {tuple(similarity.shape[1:])}")
    own = similarity.diagonal(dim1=1, dim2=2)
    rows, columns = own - similarity.logsumexp(dim=2), own - similarity.logsumexp(dim=1)
    if mode == "dual":
        return -(rows + columns).clamp(min=least)
    return -(rows.clamp(min=least) + columns.clamp(min=least))


def infonce_in_blocks(
    desc1: Tensor, desc2: Tensor, block: int, permutation: Tensor, temperature: float | Tensor = 0.07
) -> Tensor:
    """:func:`infonce` (``proper``) within blocks of permuted rows, to bound memory.

    Args:
        block: rows that are compared with each other; divides N.
        permutation: (B, N) int64 of the rows.

    Returns:
        (B, N), in the order of the permutation.
    """
    batch, count, dim = desc1.shape
    rows = torch.arange(batch, device=desc1.device)[:, None]
    split = (batch * (count // block), block, dim)
    first, second = (d[rows, permutation].reshape(split) for d in (desc1, desc2))
    return infonce(first, second, temperature).reshape(batch, count)


def padding_negatives(desc: Tensor, xy: Tensor, count: int) -> Tensor:
    """Descriptors (B, count, D) of the first pixels of maps (B, H, W, D) that are not among xy (B, N, 2)."""
    batch, height, width, _ = desc.shape
    free = torch.ones(batch, height * width, dtype=torch.bool, device=desc.device)
    free[torch.arange(batch, device=desc.device)[:, None], xy[..., 1] * width + xy[..., 0]] = False
    # A stable sort brings the free pixels to the front in their order.
    first = free.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return desc.flatten(1, 2)[torch.arange(batch, device=desc.device)[:, None], first]


def confident_matching(
    losses: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    valid: Tensor,
    alpha: float = 10.0,
    mode: str = "mean",
    negative_quantile: float | None = None,
) -> Tensor:
    """Matching losses times the descriptors' confidences, which a logarithm keeps from vanishing.

    Args:
        losses: (B, N) of :func:`infonce`; conf1, conf2: (B, N) at the same pixels; valid: (B, N) true matches.
        mode: ``mean`` or ``prod`` of the two confidences.
        negative_quantile: pixels of false matches are taken to have this quantile of the losses: their confidence
            falls. None: they have no term.
    """
    conf = (conf1 + conf2) / 2 if mode == "mean" else conf1 * conf2
    losses, conf = losses[valid], conf[valid]
    if not len(losses):
        return conf1.sum() * 0.0
    total = (losses * conf - alpha * conf.log()).mean()
    if negative_quantile is None or bool(valid.all()):
        return total
    lost = losses.detach().float().quantile(negative_quantile)
    unmatched = torch.cat((conf1[~valid], conf2[~valid]))
    return total + (lost * unmatched - alpha * unmatched.log()).mean()


def average_precision(desc1: Tensor, desc2: Tensor, valid: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """Mean over valid rows (B, N) of 1 / (1 + number of rows of ``desc2`` more similar than the true one)."""
    similarity = (desc1.to(dtype) @ desc2.to(dtype).transpose(1, 2)).float()
    own = similarity.diagonal(dim1=1, dim2=2)[..., None]
    rank = (similarity > own).sum(dim=2)
    return (1.0 / (1 + rank))[valid].mean()
