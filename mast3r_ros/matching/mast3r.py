"""The matcher `mast3r`: descriptors of both views from one network pass, metric points from one RGB reference.

Leroy, Cabon and Revaud, "Grounding Image Matching in 3D with MASt3R", ECCV 2024.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Features
from mast3r_ros.matching.fine import refined
from mast3r_ros.matching.gpu.matches import matches_on_device
from mast3r_ros.matching.learned import NetworkMatcher
from mast3r_ros.matching.network_traits import NetworkTraits
from mast3r_ros.matching.network_view import NetworkView, rectified
from mast3r_ros.matching.pair_matches import MatchOptions, confident_matches
from mast3r_ros.matching.pairs import NetworkMatches, Pairs, PredictedPoints
from mast3r_ros.matching.reference_surface import needs_pointmap
from mast3r_ros.network import PointmapNetwork
from mast3r_ros.network.heads import DescriptorHead, Descriptors


class Mast3rMatcher(NetworkMatcher):
    """MASt3R: reciprocal matches of descriptors; a pointmap only of keyframes without depth.

    Args:
        checkpoint: a ``.safetensors`` file with its ``.json``, or a Hugging Face folder; or a network in memory.
        size: longer side of the network image in pixels; 0 takes the size the network was trained for.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; auto takes bfloat16 where the hardware has it.
        device: ``auto``, ``cpu`` or ``cuda``.
        subsample: spacing in pixels of the grid that matching starts from.
        search_stride: 1 for exact nearest neighbours, see
            :func:`~mast3r_ros.matching.reciprocal.fast_reciprocal_matches_batch`; 0 takes 1 for the published networks
            and 2 for those with a convolutional stem, whose descriptors are smooth between pixels.
        min_confidence: both pixels of a match have at least this descriptor confidence.
        coarse_to_fine: match windows of images larger than the network's again, at full resolution: several times
            slower and larger features, for exact positions.
        compile: compile the transformer blocks at the first frame; takes a minute and a C++ compiler, pays on a GPU.
        device_memory: MiB of the GPU that the tokens of keyframes may take; 1024 hold 700 of ViT-L at 512 x 384.
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
        search_stride: int = 0,
        min_confidence: float = 1.001,
        coarse_to_fine: bool = False,
        compile: bool = False,
        device_memory: int = 1024,
    ) -> None:
        super().__init__(checkpoint, size, dtype, device, subsample, min_confidence, compile, device_memory)
        if not self.network.config.has_descriptors:
            raise MatcherError(f"{checkpoint} is a DUSt3R network, without descriptors: use matcher 'dust3r'")
        self.search_stride = search_stride or (2 if NetworkTraits.of(self.network.config).smooth_descriptors else 1)
        self.coarse_to_fine = coarse_to_fine
        for view in (1, 2):
            head = self.network.head(view)
            assert isinstance(head, DescriptorHead)
            head.descriptor_part().to(self.dtype)

    @property
    def signature(self) -> str:
        """As for all networks; features for coarse-to-fine matching hold more."""
        return super().signature + ("-fine" if self.coarse_to_fine else "")

    def _described_besides(self, frame: Frame) -> dict[str, NDArray[Any]]:
        """With ``coarse_to_fine`` the rectified ``image`` (H, W, 3)."""
        return {"image": rectified(frame)} if self.coarse_to_fine else {}

    def _correspond(self, pairs: Pairs, with_points: bool) -> list[NetworkMatches]:
        """Fast reciprocal matches, started in the references, where the points are."""
        with self.stopwatch.stage("heads"):
            first, second = self._descriptors(1, pairs), self._descriptors(2, pairs)
            pointmaps = self._pointmaps(pairs) if with_points else {}
        with self.stopwatch.stage("match"):
            found = self._reciprocal(first, second)
        return [replace(matches, pointmap1=pointmaps.get(k)) for k, matches in enumerate(found)]

    def _reciprocal(self, first: Descriptors, second: Descriptors) -> list[NetworkMatches]:
        """Confident reciprocal matches of each pair."""
        maps = first.desc, second.desc, first.desc_conf, second.desc_conf
        options = MatchOptions(self.subsample, self.search_stride, self.min_confidence)
        if self.device.type == "cuda":
            products = torch.float32 if self.dtype == torch.float32 else torch.float16
            return [NetworkMatches(*found) for found in matches_on_device(*maps, options, products)]
        return [NetworkMatches(*found) for found in confident_matches(*maps, options)]

    def _refined(
        self, found: NetworkMatches, reference: Features, query: Features, views: tuple[NetworkView, NetworkView]
    ) -> NetworkMatches:
        """Windows of the full images matched again."""
        if not self.coarse_to_fine:
            return found
        with self.stopwatch.stage("fine"):
            return refined(found, reference, query, views, self._match_crops)

    def _match_crops(self, crops1: Tensor, crops2: Tensor) -> list[NetworkMatches]:
        """Matches of pairs of crops, which are images of their own to the network."""
        tokens1, tokens2 = (self.stages.encode(crops.to(self.device)) for crops in (crops1, crops2))
        layers1, layers2 = self.stages.decode(tokens1, tokens2)
        first = self.stages.descriptors(1, layers1, tokens1, unit=self._exact)
        return self._reciprocal(first, self.stages.descriptors(2, layers2, tokens2, unit=self._exact))

    def _descriptors(self, view: int, pairs: Pairs) -> Descriptors:
        """Descriptors of all pairs' view 1 or 2, computed in ``dtype``."""
        layers, tokens = (pairs.layers1, pairs.tokens1) if view == 1 else (pairs.layers2, pairs.tokens2)
        return self.stages.descriptors(view, layers, tokens, unit=self._exact)

    @property
    def _exact(self) -> bool:
        """Whether every descriptor is made comparable beforehand: other searches than a CPU's exact one do it."""
        return self.search_stride == 1 and self.device.type != "cuda"

    def _pointmaps(self, pairs: Pairs) -> dict[int, PredictedPoints]:
        """Pointmaps of the references that do not know their own depth, by row."""
        rows = [k for k, view in enumerate(pairs.views1) if needs_pointmap(view)]
        if not rows:
            return {}
        pointmap = self.stages.points(1, pairs.layers1_of(rows), pairs.tokens1[rows])
        depth, conf = pointmap.pts3d[..., 2].cpu().numpy(), pointmap.conf.cpu().numpy()
        return {row: PredictedPoints(np.asarray(depth[i]), np.asarray(conf[i])) for i, row in enumerate(rows)}
