"""A batch of decoded pairs and what is matched in them: the stages between tokens and `Matches`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.matching.network_view import NetworkView
from mast3r_ros.network import Tokens


@dataclass(frozen=True, eq=False)
class Pairs:
    """K references (view 1) paired with one query (view 2), decoded.

    Attributes:
        views1, view2: geometry of the images.
        tokens1, tokens2: K images each.
        layers1, layers2: what heads read, see ``PointmapNetwork.decode``.
    """

    views1: list[NetworkView]
    view2: NetworkView
    tokens1: Tokens
    tokens2: Tokens
    layers1: list[Tensor]
    layers2: list[Tensor]

    def layers1_of(self, rows: list[int]) -> list[Tensor]:
        """Decoder layers, (len(rows), N, C) each, of some of the references."""
        if rows == list(range(len(self.tokens1))):
            return self.layers1
        return [layer[rows] if len(layer) else layer for layer in self.layers1]  # some are left out, see `captured`


@dataclass(frozen=True, eq=False)
class PredictedPoints:
    """A network's pointmap of one view in its own camera frame.

    Attributes:
        depth: (H, W) along the optical axis, in the network's units.
        conf: (H, W) at least 0.
    """

    depth: NDArray[np.float32]
    conf: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkMatches:
    """Matched pixels of one pair.

    Attributes:
        xy1, xy2: (N, 2) network pixels of reference and query; fractions of them where full images were matched.
        conf: (N,) the smaller confidence of the two.
        pointmap1: of the reference, where it was predicted.
    """

    xy1: NDArray[Any]
    xy2: NDArray[Any]
    conf: NDArray[np.float32]
    pointmap1: PredictedPoints | None = None
