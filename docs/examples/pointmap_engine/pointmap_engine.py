"""An adapter from a network that turns views into pointmaps (as VGGT and MapAnything do) to a matcher of mast3r_ros.

docs/engines.md explains it line by line. What is asked of the engine is one call:

    model(images (B, 2, 3, H, W) in [0, 1]) -> {"world_points": (B, 2, H, W, 3), "world_points_conf": (B, 2, H, W)}

with all points in the camera frame of the first view, at a scale of the engine's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mast3r_ros.frames import Frame, lifted
from mast3r_ros.matching import Capabilities, Features, Matches, create
from mast3r_ros.matching.dust3r import best_of_cells
from mast3r_ros.matching.network_view import NetworkView, rectified
from mast3r_ros.matching.packed_camera import packed_camera
from mast3r_ros.matching.pairs import PredictedPoints
from mast3r_ros.matching.pointmap_matches import pointmap_matches
from mast3r_ros.matching.reference_surface import surface_of
from mast3r_ros.surface import surface_depth

Model = Callable[[Tensor], Mapping[str, Tensor]]

#: Of the matches in each square of so many network pixels only the most confident is kept.
CELL = 4
#: Every n-th pixel of a keyframe with depth is a landmark.
LANDMARK_STEP = 12
#: Pairs that go through the engine as one batch.
PAIRS_AT_ONCE = 4


class PointmapEngineMatcher:
    """Pixels match whose points are each other's nearest; the keyframe's depth makes them metric.

    Args:
        model: the engine, in evaluation mode, on ``device``.
        weights: names its weights: features of other ones must not be mixed in a map's cache.
        size: height and width of the images that it sees.
        least_confidence: of both pixels of a match, in the engine's own measure.
        metric: whether its unit is the metre, so that a keyframe without depth can be believed.
    """

    name = "pointmap_engine"

    def __init__(
        self,
        model: Model,
        weights: str,
        size: tuple[int, int] = (392, 518),
        least_confidence: float = 1.5,
        metric: bool = False,
        device: str = "cpu",
    ) -> None:
        self.model, self.weights, self.size = model, weights, size
        self.least_confidence, self.metric, self.device = least_confidence, metric, device
        # The engine has no descriptors; keyframes are retrieved by those of SIFT.
        self._retrieval = create("sift", max_features=500)

    @property
    def signature(self) -> str:
        """Everything that the features depend on."""
        return f"{self.name}-{self.weights}-{self.size[0]}x{self.size[1]}-1"

    @property
    def capabilities(self) -> Capabilities:
        """A pair costs most of the time, so two keyframes have to do on track."""
        return Capabilities(landmarks=True, keyframes_on_track=2, upright=True)

    def describe(self, frame: Frame) -> Features:
        """The image as the engine sees it, where its pixels lie, and how far away what they show is."""
        height, width = self.size
        image = np.asarray(Image.fromarray(rectified(frame)).resize((width, height), Image.BOX))
        sx, sy = frame.width / width, frame.height / height  # pixel centres are at integers
        to_frame = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
        view = NetworkView(self.size, to_frame, frame.camera, np.zeros((0, 0), np.float32))
        depth = view.depth
        if frame.depth is not None and frame.camera is not None:
            depth = np.nan_to_num(surface_depth(frame.depth, view.to_raw(view.grid()))).reshape(self.size)
        found = self._retrieval.describe(frame)["descriptors"]
        geometry = {**view.to_features(), "camera": packed_camera(frame.camera), "depth": depth}
        return {"image": image, "descriptors": found, **geometry}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, 128) RootSIFT."""
        return self._retrieval.local_descriptors(features)

    def landmarks(self, features: Features) -> NDArray[np.float64]:
        """What a keyframe's own depth shows, every few pixels."""
        return NetworkView.from_features(features).surface(LANDMARK_STEP)

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """The keyframe is the first view: its points come out in its own camera frame."""
        matched: list[Matches] = []
        for start in range(0, len(references), PAIRS_AT_ONCE):
            batch = references[start : start + PAIRS_AT_ONCE]
            points, confidence = self._pointmaps(query, batch)
            matched += [self._matches(query, *pair) for pair in zip(batch, points, confidence, strict=True)]
        return matched

    @torch.inference_mode()
    def _pointmaps(self, query: Features, references: Sequence[Features]) -> tuple[NDArray, NDArray]:
        """Points (B, 2, H, W, 3) and confidence (B, 2, H, W) of each reference together with the query."""
        pairs = np.stack([np.stack([reference["image"], query["image"]]) for reference in references])
        images = torch.from_numpy(pairs).to(self.device).permute(0, 1, 4, 2, 3).float() / 255
        found = self.model(images)
        points, confidence = (found[key].float().cpu().numpy() for key in ("world_points", "world_points_conf"))
        return points, confidence

    def _matches(self, query: Features, reference: Features, points: NDArray, confidence: NDArray) -> Matches:
        view1, view2 = NetworkView.from_features(reference), NetworkView.from_features(query)
        if view1.camera is None:
            return Matches.empty("the keyframe has no calibration, without which its pixels have no points")
        sure = np.isfinite(points).all(axis=-1) & (confidence >= self.least_confidence)
        xy1, xy2 = pointmap_matches(points[0], points[1], sure[0], sure[1])
        least = np.minimum(confidence[0][xy1[:, 1], xy1[:, 0]], confidence[1][xy2[:, 1], xy2[:, 0]])
        kept = best_of_cells(xy1, least, CELL)
        xy1, xy2, least = xy1[kept], xy2[kept], least[kept].astype(np.float64)
        # Metres: the keyframe's depth where it has enough, else the pointmap scaled by what there is, or nothing.
        surface = surface_of(view1, PredictedPoints(points[0, ..., 2], confidence[0]), self.metric)
        if surface.depth is None:
            return Matches.empty(surface.note)
        depth = surface.depth[xy1[:, 1], xy1[:, 0]]
        found = Matches(
            view2.to_raw(xy2),
            view1.to_raw(xy1),
            lifted(view1.rays(xy1), depth),
            least / (1 + least),
            *(surface.scale, surface.scale_sigma, surface.note),
        )
        seen = [np.isfinite(a).all(axis=1) for a in (found.query_xy, found.reference_xy, found.points)]
        return found[np.logical_and.reduce(seen)]
