"""Keypoints of one query with those of several keyframes by LightGlue, as one batch.

Lindenberger, Sarlin, Pollefeys, "LightGlue: Local Feature Matching at Light Speed", ICCV 2023. The layers are kornia's.
They run here because kornia's own loop takes no pairs of different numbers of points: shorter ones are filled up and
masked, all layers run and no point is dropped on the way, so a pair's matches do not depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.sparse import Paired

#: Pairs that a GPU matches as one batch; more only cost memory. A CPU matches them one by one: nothing is filled up and
#: masked then, and what a pair needs stays in the cache (two thirds of the time of a batch of three).
PAIRS_AT_ONCE = 8
#: Least confidence of a match: LightGlue's own.
THRESHOLD = 0.1


class Keypoints(NamedTuple):
    """Pixels (N, 2), descriptors (N, D), and width and height (2,) of the image."""

    xy: NDArray[np.float32]
    descriptors: NDArray[Any]
    size: NDArray[np.float32]

    @property
    def normalized(self) -> NDArray[np.float32]:
        """Pixels (N, 2) in [-1, 1] along the longer side."""
        return np.asarray((self.xy - self.size / 2) / (self.size.max() / 2), np.float32)


class LightGlue:
    """The network with its weights.

    Args:
        network: kornia's LightGlue, loaded.
        dtype: of the layers; positions and the assignment are float32.
    """

    def __init__(self, network: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.pairs_at_once = PAIRS_AT_ONCE if device.type == "cuda" else 1
        self.network = network.to(device)
        for part in (network.input_proj, network.transformers):
            part.to(dtype)

    def pair(self, query: Keypoints, references: Sequence[Keypoints]) -> list[Paired]:
        """Matches of the query with each reference."""
        nothing = Paired(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        found = [nothing] * len(references)
        worth = [row for row, reference in enumerate(references) if len(reference.xy) and len(query.xy)]
        for start in range(0, len(worth), self.pairs_at_once):
            rows = worth[start : start + self.pairs_at_once]
            for row, scores in zip(rows, self.scores(query, [references[row] for row in rows]), strict=True):
                found[row] = _mutual(scores)
        return found

    @torch.inference_mode()
    def scores(self, query: Keypoints, references: Sequence[Keypoints]) -> list[Tensor]:
        """Log-probability (N, M) that keypoints of the query and of each reference show the same."""
        longest = max(len(reference.xy) for reference in references)
        descriptors1, places1 = (
            torch.stack([_filled(array, longest) for array in arrays]).to(self.device)
            for arrays in ([r.descriptors for r in references], [r.normalized for r in references])
        )
        descriptors0, places0 = (
            torch.from_numpy(array)[None].expand(len(references), -1, -1).to(self.device)
            for array in (query.descriptors, query.normalized)
        )
        masks = self._masks(len(query.xy), [len(reference.xy) for reference in references], longest)
        x0, x1 = (self.network.input_proj(x.to(self.dtype)) for x in (descriptors0, descriptors1))
        encoding0, encoding1 = (self.network.posenc(places).to(self.dtype) for places in (places0, places1))
        for layer in self.network.transformers:
            x0, x1 = layer(x0, x1, encoding0, encoding1, *masks)
        assign = self.network.log_assignment[-1]
        scores = []
        for k, reference in enumerate(references):
            of_pair, _ = assign(x0[k : k + 1].float(), x1[k : k + 1, : len(reference.xy)].float())
            scores.append(of_pair[0, :-1, :-1])
        return scores

    def _masks(self, count: int, counts: list[int], longest: int) -> tuple[Tensor, Tensor] | tuple[()]:
        """Which keypoints (B, 1, N, 1) are there; nothing where all are."""
        if min(counts) == longest:
            return ()
        there = torch.arange(longest) < torch.tensor(counts)[:, None]
        everywhere = torch.ones(len(counts), 1, count, 1, dtype=torch.bool, device=self.device)
        return everywhere, there[:, None, :, None].to(self.device)


def _filled(array: NDArray[Any], length: int) -> Tensor:
    """Rows of zeros appended to (N, D)."""
    return torch.nn.functional.pad(torch.from_numpy(array), (0, 0, 0, length - len(array)))


def _mutual(scores: Tensor) -> Paired:
    """Each other's best by log-probability (N, M), where it is enough."""
    best, columns = scores.max(dim=1)
    rows = torch.arange(len(scores), device=scores.device)
    kept = (scores.argmax(dim=0)[columns] == rows) & (best > np.log(THRESHOLD))
    return Paired(rows[kept].cpu().numpy(), columns[kept].cpu().numpy(), best[kept].exp().cpu().numpy())
