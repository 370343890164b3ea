"""What the learned matchers share: frames become tokens once, pairs are decoded in batches, pixels become points.

The keyframe is always view 1 of a pair and the query view 2. Points of both views come out in camera 1's frame, so the
keyframe's points are where `Matches` wants them without any transformation, and of the query nothing but descriptors
is needed. The other way round its points would come in the frame of the query, whose pose is what is looked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame, lifted
from mast3r_ros.geometry.pointmap import estimate_focal
from mast3r_ros.matching.base import Capabilities, Features, Matches, PixelMatches, PredictedDepth
from mast3r_ros.matching.device_tokens import TOKENS, DeviceTokens, EncodedFeatures
from mast3r_ros.matching.fine import sampled
from mast3r_ros.matching.hardware import device_named, dtype_named
from mast3r_ros.matching.network_traits import NetworkTraits
from mast3r_ros.matching.network_view import NetworkView, view_of
from mast3r_ros.matching.pair_maps import PairMaps, ViewPoints, merged_matches
from mast3r_ros.matching.pair_threads import PairThreads
from mast3r_ros.matching.pairs import NetworkMatches, Pairs
from mast3r_ros.matching.reference_surface import surface_of
from mast3r_ros.matching.stopwatch import Stopwatch
from mast3r_ros.network import PointmapNetwork, Tokens
from mast3r_ros.network.captured import CapturedNetwork, Stages
from mast3r_ros.network.checkpoint import load_model
from mast3r_ros.network.shipped import shipped_checkpoint

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

#: Pairs decoded as one batch; more only cost memory.
PAIRS_AT_ONCE = 8
#: Retrieval describes squares of this many tokens on a side.
POOLED = 2
#: Every n-th pixel of a keyframe with depth is a landmark.
LANDMARK_STEP = 12
#: Values of each weight tensor that go into the network's fingerprint.
SAMPLES = 64

NO_CAMERA = "the keyframe has no calibration, without which its pixels have no points"


class NetworkMatcher(ABC):
    """Base of the matchers `mast3r` and `dust3r`.

    Attributes:
        network: in evaluation mode, on ``device``.
        stages: the same, by CUDA graphs on a GPU.
        device: where it runs.
        dtype: of encoder, decoders and descriptor heads; point heads and everything after them are float32.
        stopwatch: ``ms`` of the stages encode, decode, heads and match of the last ``describe`` or ``match``.
    """

    name: str
    #: Whether the network's own unit is the metre.
    metric: bool

    def __init__(
        self,
        checkpoint: str | Path | PointmapNetwork,
        size: int,
        dtype: str,
        device: str,
        subsample: int,
        min_confidence: float,
        compile: bool,
        device_memory: int,
    ) -> None:
        """See the matchers for the arguments.

        Raises:
            CheckpointError: for a checkpoint that is missing, damaged, or not safetensors.
            MatcherError: for options that cannot be had here.
        """
        self.device = device_named(device)
        self.dtype = dtype_named(dtype, self.device)
        self.network = self._loaded(checkpoint)
        traits = NetworkTraits.of(self.network.config)
        if traits.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = size or traits.size
        patch = self._patch = self.network.config.patch_size
        if not 2 * patch <= self.size <= 2048:
            raise MatcherError(f"size {size} is outside {2 * patch} to 2048 pixels (0 takes what the network knows)")
        if not 1 <= subsample <= 64:
            raise MatcherError(f"subsample {subsample} is outside 1 to 64")
        self.subsample, self.min_confidence = subsample, min_confidence
        self.stopwatch = Stopwatch(self.device)
        self._fingerprint = fingerprint(self.network)
        kept = device_memory << 20 if self.device.type == "cuda" else 0  # a CPU reads them where they are
        self._tokens_there = DeviceTokens(self.device, self.dtype, kept)
        if compile:
            for block in (*self.network.enc_blocks, *self.network.dec_blocks, *self.network.dec_blocks2):
                block.compile()
        self.stages: Stages = CapturedNetwork(self.network) if self.device.type == "cuda" else self.network
        small = self.device.type == "cpu" and traits.short_operations and not compile
        self._pair_threads = PairThreads() if small and torch.get_num_threads() > 1 else None

    def _loaded(self, checkpoint: str | Path | PointmapNetwork) -> PointmapNetwork:
        if isinstance(checkpoint, PointmapNetwork):  # is taken over
            for name, part in checkpoint.named_children():
                part.to(self.device, torch.float32 if name.startswith("downstream_head") else self.dtype)
            return checkpoint.eval().requires_grad_(False)
        if not str(checkpoint):
            checkpoint = self._shipped()
        return load_model(Path(checkpoint).expanduser(), self.device, self.dtype)

    def _shipped(self) -> Path:
        """The network of the package, for those who gave none."""
        path = shipped_checkpoint() if self.name == "mast3r" else None
        if path is None:
            raise MatcherError(
                f"matcher '{self.name}' needs a checkpoint (.safetensors): download and convert one with "
                "'mast3r_ros checkpoint download' and 'mast3r_ros checkpoint convert'"
            )
        logger.info("matcher %s takes the small network of the package, %s: no checkpoint is given", self.name, path)
        return path

    @property
    def signature(self) -> str:
        """Name, size and a fingerprint of the weights: what features depend on."""
        return f"{self.name}-{self.size}-{self._fingerprint}-1"

    @property
    def capabilities(self) -> Capabilities:
        """Everything. Each pair is decoded on its own, so two keyframes confirm a pose that is known."""
        return Capabilities(
            landmarks=True,
            pixel_matches=True,
            predicted_depth=True,
            focal=True,
            metric=self.metric,
            coarse_points=NetworkTraits.of(self.network.config).coarse_points,
            keyframes_on_track=2,
            pointmaps=True,
            upright=True,
            prefetch=True,
        )

    # -- what the map keeps ------------------------------------------------------------------------

    def describe(self, frame: Frame) -> Features:
        """Encode a frame.

        Returns:
            ``tokens`` (N, C) float16 and the frame's :class:`NetworkView` as arrays: about 1.5 MB and 0.4 MB for
            ViT-L at 512 x 384, where the frame has depth.
        """
        self.stopwatch.reset()
        return self._pair_threads.map(self._encoded, [frame])[0] if self._pair_threads else self._encoded(frame)

    @torch.inference_mode()
    def _encoded(self, frame: Frame) -> Features:
        with self.stopwatch.stage("encode"):
            view, image = view_of(frame, self.size, self.device)
            tokens = self.stages.encode(image).features[0]
            limit = float(np.finfo(np.float16).max)
            half = tokens.float().clamp(-limit, limit).half()
        others = {**view.to_features(), **self._described_besides(frame)}
        return EncodedFeatures(half, others) if half.is_cuda else {TOKENS: half.numpy(), **others}

    def _described_besides(self, frame: Frame) -> dict[str, NDArray[Any]]:
        """What else is kept of a frame."""
        return {}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """Encoder tokens averaged over squares of 2 x 2 (32 x 32 pixels), (N / 4, C) of unit length. No training."""
        rows, columns = (int(side) // self.network.config.patch_size for side in features["size"])
        if isinstance(features, EncodedFeatures):
            tokens = features.on_device
        else:
            tokens = torch.from_numpy(np.asarray(features[TOKENS]))
        encoded = tokens[:, : self.network.config.enc_embed_dim].float().T.reshape(1, -1, rows, columns)
        pooled = F.avg_pool2d(encoded, POOLED, ceil_mode=True)[0].flatten(1).T
        return np.ascontiguousarray(F.normalize(pooled, dim=1).cpu().numpy())

    def landmarks(self, features: Features) -> NDArray[np.float64]:
        """Points (N, 3) of a keyframe's own depth, every few pixels, its camera frame, metres; none without depth."""
        return NetworkView.from_features(features).surface(LANDMARK_STEP)

    def prefetch(self, references: Sequence[Features]) -> None:
        """Begin to copy keyframes to the GPU; nothing on a CPU."""
        self._tokens_there.fetch(references)

    # -- matching ----------------------------------------------------------------------------------

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Matches with each reference; references of one size are decoded as one batch.

        Points come from the keyframe's depth where it has enough, else from the network's pointmap of the keyframe:
        corrected by what depth there is (``Matches.scale``), or believed where the network is metric and nothing
        else is known, or refused; ``Matches.note`` says so.
        """

        def matched(pairs: Pairs, rows: list[int]) -> list[Matches]:
            found = self._correspond(pairs, with_points=True)
            views = [(view, pairs.view2) for view in pairs.views1]
            fine = [self._refined(f, references[row], query, v) for f, row, v in zip(found, rows, views, strict=True)]
            with self.stopwatch.stage("match"):
                return [self._lifted(f, *v) for f, v in zip(fine, views, strict=True)]

        return self._in_batches(query, references, matched)

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """Matches with each reference without their points, for keyframes that have none."""

        def matched(pairs: Pairs, rows: list[int]) -> list[PixelMatches]:
            found = self._correspond(pairs, with_points=False)
            return [_raw_pixels(f, view, pairs.view2) for f, view in zip(found, pairs.views1, strict=True)]

        return self._in_batches(query, references, matched)

    def _in_batches(
        self,
        query: Features,
        references: Sequence[Features],
        matched: Callable[[Pairs, list[int]], list[Found]],
    ) -> list[Found]:
        """What is found in the pair of each reference: decoded in batches, by several threads where that pays."""
        self.stopwatch.reset()

        @torch.inference_mode()
        def work(rows: list[int]) -> list[Found]:
            with self._alone():
                return matched(self._decoded(query, [references[row] for row in rows]), rows)

        batches = list(self._batches(references))
        with self.stopwatch.shared(min(self._pair_threads.size, len(batches)) if self._pair_threads else 1):
            done = self._pair_threads.map(work, batches) if self._pair_threads else [work(rows) for rows in batches]
        by_row = {row: found for rows, batch in zip(batches, done) for row, found in zip(rows, batch, strict=True)}
        return [by_row[row] for row in range(len(references))]

    def _alone(self) -> AbstractContextManager[Any]:
        """Held from decoding to the end of what is read from it: graphs write to the same memory every time."""
        return self.stages.graphs.lock if isinstance(self.stages, CapturedNetwork) else nullcontext()

    @abstractmethod
    def _correspond(self, pairs: Pairs, with_points: bool) -> list[NetworkMatches]:
        """Matched network pixels of each pair; with the reference's pointmap where asked for and needed."""

    def _refined(
        self, found: NetworkMatches, reference: Features, query: Features, views: tuple[NetworkView, NetworkView]
    ) -> NetworkMatches:
        """Better matches than those at network size, where a matcher can find them."""
        return found

    def _lifted(self, found: NetworkMatches, view1: NetworkView, view2: NetworkView) -> Matches:
        """Points and raw pixels of matched network pixels."""
        if view1.camera is None:
            return Matches.empty(NO_CAMERA)
        surface = surface_of(view1, found.pointmap1, self.metric)
        if surface.depth is None:
            return Matches.empty(surface.note)
        z = sampled(surface.depth, found.xy1)
        xy1, xy2, conf = found.xy1, found.xy2, found.conf
        known = np.isfinite(z)
        if not known.all():
            xy1, xy2, conf, z = (values[known] for values in (xy1, xy2, conf, z))
        points = lifted(view1.rays(xy1), z)
        conf = conf.astype(np.float64)
        reference_xy, query_xy = view1.to_raw(xy1), view2.to_raw(xy2)
        # Confidences are unbounded; of two sure matches none is worth much more than the other.
        weights = conf / (1 + conf)
        matches = Matches(query_xy, reference_xy, points, weights, surface.scale, surface.scale_sigma, surface.note)
        seen = np.isfinite(reference_xy) & np.isfinite(query_xy)
        return matches if seen.all() else matches[seen.all(axis=1)]

    # -- two views together ------------------------------------------------------------------------

    def pixel_grid(self, features: Features) -> NDArray[np.float64]:
        """(H, W, 2) where each network pixel lies in the frame's image."""
        view = NetworkView.from_features(features)
        return view.to_raw(view.grid()).reshape(*view.size, 2)

    def predict_pairs(self, first: Features, others: Sequence[Features]) -> list[PairMaps]:
        """Pointmaps and matches of the first image (i) with each of the others (j), decoded in either order."""

        def both_orders(pairs: Pairs, rows: list[int]) -> list[PairMaps]:
            jj, ij, from_j = self._seen_from_first(pairs)
            with self.stopwatch.stage("decode"):
                layers1, layers2 = self.stages.decode(pairs.tokens2, pairs.tokens1)
            swapped = Pairs([pairs.view2] * len(rows), pairs.views1[0], pairs.tokens2, pairs.tokens1, layers1, layers2)
            ii, ji, from_i = self._seen_from_first(swapped)
            found = []
            for row in range(len(rows)):
                a, b = from_i[row], from_j[row]
                matches = merged_matches((a.xy1, a.xy2, a.conf), (b.xy2, b.xy1, b.conf))
                found.append(PairMaps(ii[row], ji[row], jj[row], ij[row], *matches))
            return found

        return self._in_batches(first, others, both_orders)

    def _seen_from_first(self, pairs: Pairs) -> tuple[list[ViewPoints], list[ViewPoints], list[NetworkMatches]]:
        """Points of view 1 and of view 2 in camera 1's frame, and the matches."""
        maps = []
        with self.stopwatch.stage("heads"):
            for view, layers, tokens in ((1, pairs.layers1, pairs.tokens1), (2, pairs.layers2, pairs.tokens2)):
                points, conf = self.stages.points(view, layers, tokens)
                maps.append([ViewPoints(*both) for both in zip(points.cpu().numpy(), conf.cpu().numpy(), strict=True)])
        return maps[0], maps[1], self._correspond(pairs, with_points=False)

    # -- shape of a single view --------------------------------------------------------------------

    @torch.inference_mode()
    def predict_depth(self, features: Features, other: Features) -> PredictedDepth:
        """Depth of a frame, which is view 1 here: its points are wanted in its own camera frame."""
        view = NetworkView.from_features(features)
        depth, confidence = self._own_points(features, other)[..., 2:].reshape(-1, 2).T
        xy = view.to_raw(view.grid())
        known = np.isfinite(xy).all(axis=1) & np.isfinite(depth) & (depth > 0)
        return PredictedDepth(xy[known], depth[known], confidence[known])

    @torch.inference_mode()
    def estimate_focal(self, frame: Frame) -> float:
        """Focal length of the camera that took a frame, from its pointmap when it is paired with itself.

        Lens distortion is taken to be none, as the frame's own calibration is.
        """
        features = self.describe(Frame(frame.image, name=frame.name))
        view = NetworkView.from_features(features)
        focal = estimate_focal(self._own_points(features, features)[..., :3], limits=(0.2, 10.0))
        return focal * view.pixel

    def _own_points(self, features: Features, other: Features) -> NDArray[np.float32]:
        """(H, W, 4) points of a view in its own camera frame, and their confidence."""
        with self._alone():
            pairs = self._decoded(other, [features])
            with self.stopwatch.stage("heads"):
                pointmap = self.stages.points(1, pairs.layers1, pairs.tokens1)
            return torch.cat([pointmap.pts3d[0], pointmap.conf[0, ..., None]], dim=-1).cpu().numpy()

    # -- decoding ----------------------------------------------------------------------------------

    def _batches(self, references: Sequence[Features]) -> Iterator[list[int]]:
        """Rows of references that can be decoded together."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for row, reference in enumerate(references):
            by_size.setdefault(tuple(reference["size"].tolist()), []).append(row)
        threads = self._pair_threads.size if self._pair_threads else 1
        for rows in by_size.values():
            at_once = min(-(-len(rows) // threads), PAIRS_AT_ONCE)
            for start in range(0, len(rows), at_once):
                yield rows[start : start + at_once]

    def _decoded(self, query: Features, references: Sequence[Features]) -> Pairs:
        """All pairs of one batch: references of one size as view 1, the query as view 2."""
        views = [NetworkView.from_features(reference) for reference in references]
        view2 = NetworkView.from_features(query)
        with self.stopwatch.stage("decode"):
            tokens1 = self._tokens(references, views[0].size)
            tokens2 = self._tokens([query], view2.size)
            tokens2 = Tokens.upright(tokens2.features.expand(len(references), -1, -1), view2.size, self._patch)
            layers1, layers2 = self.stages.decode(tokens1, tokens2)
        return Pairs(views, view2, tokens1, tokens2, layers1, layers2)

    def _tokens(self, features: Sequence[Features], size: tuple[int, int]) -> Tokens:
        return Tokens.upright(self._tokens_there.stacked(features), size, self._patch)


def _raw_pixels(found: NetworkMatches, view1: NetworkView, view2: NetworkView) -> PixelMatches:
    """Matched network pixels as pixels of the images."""
    xy1, xy2 = view1.to_raw(found.xy1), view2.to_raw(found.xy2)
    seen = np.isfinite(xy1).all(axis=1) & np.isfinite(xy2).all(axis=1)
    return PixelMatches(xy2[seen], xy1[seen], view2.pixel)


def fingerprint(network: PointmapNetwork) -> str:
    """Twelve hexadecimal digits of the encoder: architecture and a sample of its weights, as they are on the device."""
    digest = hashlib.sha256(json.dumps(network.config.to_json(), sort_keys=True).encode())
    for name, parameter in sorted(network.named_parameters()):
        if name.startswith(("patch_embed", "enc_")):
            flat = parameter.detach().flatten()
            sample: Tensor = flat[:: max(1, len(flat) // SAMPLES)]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
