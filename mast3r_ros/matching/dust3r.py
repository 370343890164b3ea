"""The matcher `dust3r`: pixels match whose points are each other's nearest in space. Its scale is not metric.

Wang, Leroy, Cabon, Chidlovskii and Revaud, "DUSt3R: Geometric 3D Vision Made Easy", CVPR 2024.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.matching.gpu.kernel_use import with_kernels
from mast3r_ros.matching.gpu.points import point_matches_on_device
from mast3r_ros.matching.learned import NetworkMatcher
from mast3r_ros.matching.pairs import NetworkMatches, Pairs, PredictedPoints
from mast3r_ros.matching.pointmap_matches import pointmap_matches
from mast3r_ros.matching.reference_surface import needs_pointmap
from mast3r_ros.network import PointmapNetwork
from mast3r_ros.network.heads import Pointmap


class Dust3rMatcher(NetworkMatcher):
    """DUSt3R: reciprocal nearest neighbours of two pointmaps. Keyframes need depth, or neighbours of known pose.

    A MASt3R checkpoint works too; its descriptors are then not used.

    Args:
        checkpoint, size, dtype, device, compile, device_memory: as for ``mast3r``.
        subsample: of the matches in each square of this many pixels only the most confident is kept.
        min_confidence: both pixels of a match have at least this confidence of their points.
    """

    name = "dust3r"
    metric = False

    def __init__(
        self,
        checkpoint: str | Path | PointmapNetwork = "",
        size: int = 0,
        dtype: str = "auto",
        device: str = "auto",
        subsample: int = 8,
        min_confidence: float = 3.0,
        compile: bool = False,
        device_memory: int = 1024,
    ) -> None:
        super().__init__(checkpoint, size, dtype, device, subsample, min_confidence, compile, device_memory)

    def _correspond(self, pairs: Pairs, with_points: bool) -> list[NetworkMatches]:
        """Both pointmaps are needed to match; the reference's then comes for nothing."""
        with self.stopwatch.stage("heads"):
            first = self.stages.points(1, pairs.layers1, pairs.tokens1)
            second = self.stages.points(2, pairs.layers2, pairs.tokens2)
        if self.device.type == "cuda":
            fused = partial(self._matched_on_device, pairs, first, second)
            return with_kernels(self.device, fused, partial(self._matched, first, second))
        return self._matched(first, second)

    def _matched(self, first: Pointmap, second: Pointmap) -> list[NetworkMatches]:
        """On the CPU, pair by pair."""
        matched = []
        with self.stopwatch.stage("match"):
            points1, conf1, points2, conf2 = (maps.cpu().numpy() for maps in (*first, *second))
            for p1, c1, p2, c2 in zip(points1, conf1, points2, conf2, strict=True):
                sure1 = np.isfinite(p1).all(axis=-1) & (c1 >= self.min_confidence)
                sure2 = np.isfinite(p2).all(axis=-1) & (c2 >= self.min_confidence)
                xy1, xy2 = pointmap_matches(p1, p2, sure1, sure2)
                conf = np.minimum(c1[xy1[:, 1], xy1[:, 0]], c2[xy2[:, 1], xy2[:, 0]])
                kept = best_of_cells(xy1, conf, self.subsample)
                matched.append(NetworkMatches(xy1[kept], xy2[kept], conf[kept], PredictedPoints(p1[..., 2], c1)))
        return matched

    def _matched_on_device(self, pairs: Pairs, first: Pointmap, second: Pointmap) -> list[NetworkMatches]:
        """All pairs at once; pointmaps are copied of those references only that do not know their own depth."""
        with self.stopwatch.stage("match"):
            found = point_matches_on_device(
                first.pts3d, second.pts3d, first.conf, second.conf,
                cell=self.subsample, min_confidence=self.min_confidence,
            )  # fmt: skip
            rows = [k for k, view in enumerate(pairs.views1) if needs_pointmap(view)]
            depth, conf = first.pts3d[rows][..., 2].cpu().numpy(), first.conf[rows].cpu().numpy()
            maps = {row: PredictedPoints(depth[i], conf[i]) for i, row in enumerate(rows)}
        return [NetworkMatches(*matches, maps.get(k)) for k, matches in enumerate(found)]


def best_of_cells(xy: NDArray[np.int64], conf: NDArray[np.floating], cell: int) -> NDArray[np.int64]:
    """Rows of the most confident pixel (N, 2) in every square of ``cell`` pixels, ascending."""
    if len(xy) == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(-conf, kind="stable")
    cells = xy[order] // cell
    _, first = np.unique(cells[:, 1] * (int(cells[:, 0].max()) + 1) + cells[:, 0], return_index=True)
    return np.sort(order[first])
