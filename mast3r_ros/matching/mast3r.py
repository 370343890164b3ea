"""The matcher `mast3r`: descriptors of both views from one network pass, metric points from one RGB reference.

Leroy, Cabon and Revaud, "Grounding Image Matching in 3D with MASt3R", ECCV 2024.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.learned import NetworkMatcher
from mast3r_ros.matching.pairs import Correspondences, Pairs, PredictedPoints
from mast3r_ros.matching.reciprocal import fast_reciprocal_matches_batch
from mast3r_ros.matching.reference_surface import needs_pointmap
from mast3r_ros.matching.registry import register
from mast3r_ros.network import PointmapNetwork
from mast3r_ros.network.heads import Descriptors


@register("mast3r")
class Mast3rMatcher(NetworkMatcher):
    """MASt3R: reciprocal matches of descriptors; a pointmap only of keyframes without depth.

    Args:
        checkpoint: a ``.safetensors`` file with its ``.json``, or a Hugging Face folder; or a network in memory.
        size: longer side of the network image in pixels; 0 takes the size the network was trained for.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; auto takes bfloat16 where the hardware has it.
        device: ``auto``, ``cpu`` or ``cuda``.
        subsample: spacing in pixels of the grid that matching starts from.
        min_confidence: both pixels of a match have at least this descriptor confidence.
        compile: compile the transformer blocks at the first frame, which takes a minute and pays on a GPU.
    """

    name = "mast3r"
    metric = True

    def __init__(
        self,
        checkpoint: str | Path | PointmapNetwork = "",
        size: int = 0,
        dtype: str = "auto",
        device: str = "auto",
        subsample: int = 8,
        min_confidence: float = 1.001,
        compile: bool = False,
    ) -> None:
        super().__init__(checkpoint, size, dtype, device, compile)
        if not self.network.config.has_descriptors:
            raise MatcherError(f"{checkpoint} is a DUSt3R network, without descriptors: use matcher 'dust3r'")
        if not 1 <= subsample <= 64:
            raise MatcherError(f"subsample {subsample} is outside 1 to 64")
        self.subsample, self.min_confidence = subsample, min_confidence

    def _correspond(self, pairs: Pairs, with_points: bool) -> list[Correspondences]:
        """Fast reciprocal matches, started in the references, where the points are."""
        with self.stopwatch.stage("heads"):
            first, second = self._descriptors(1, pairs), self._descriptors(2, pairs)
            pointmaps = self._pointmaps(pairs) if with_points else {}
        with self.stopwatch.stage("match"):
            found = fast_reciprocal_matches_batch(first.desc, second.desc, subsample=self.subsample)
            matched = []
            for k, (xy1, xy2) in enumerate(found):
                conf1 = first.desc_conf[k, xy1[:, 1], xy1[:, 0]]
                conf = torch.minimum(conf1, second.desc_conf[k, xy2[:, 1], xy2[:, 0]])
                sure = conf >= self.min_confidence
                xy1, xy2, conf = (values[sure].cpu() for values in (xy1, xy2, conf))
                matched.append(Correspondences(xy1.numpy(), xy2.numpy(), conf.numpy(), pointmaps.get(k)))
        return matched

    def _descriptors(self, view: int, pairs: Pairs) -> Descriptors:
        """Descriptors of all pairs' view 1 or 2, from an MLP in ``dtype`` to unit length in float32."""
        layers, tokens = (pairs.layers1, pairs.tokens1) if view == 1 else (pairs.layers2, pairs.tokens2)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            return self.network.descriptors(view, layers, tokens)

    def _pointmaps(self, pairs: Pairs) -> dict[int, PredictedPoints]:
        """Pointmaps of the references that do not know their own depth, by row."""
        rows = [k for k, view in enumerate(pairs.views1) if needs_pointmap(view)]
        if not rows:
            return {}
        pointmap = self.network.points(1, pairs.layers1_of(rows), pairs.tokens1[rows])
        depth, conf = pointmap.pts3d[..., 2].cpu().numpy(), pointmap.conf.cpu().numpy()
        return {row: PredictedPoints(np.asarray(depth[i]), np.asarray(conf[i])) for i, row in enumerate(rows)}
