"""Everything a network says of two images: maps of both views, matches, focal lengths, relative pose."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.geometry.absolute_pose import ransac_pose
from mast3r_ros.geometry.pointmap import estimate_focal
from mast3r_ros.matching.dust3r import best_of_cells
from mast3r_ros.matching.pointmap_matches import pointmap_matches
from mast3r_ros.matching.reciprocal import fast_reciprocal_matches
from mast3r_ros.network import PointmapNetwork, ViewPrediction
from mast3r_ros.network.preprocessing import NetworkImage
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]
Map = NDArray[np.float32]

#: Fewer matches than this explain any pose.
LEAST_INLIERS = 12
#: Descriptors and points below these confidences take no part in the pose (the matchers' own defaults).
SURE_DESCRIPTOR, SURE_POINT = 1.001, 3.0

#: The points have no unit to speak of noise in.
POSE = SolverSettings(threshold_px=5.0, point_sigma_m=0.0)


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """Two views of one scene. All pixels are those of the network images, x and y, centres at integers.

    Attributes:
        image_1, image_2: (H, W, 3) uint8 RGB as the network saw them; each view has its own H and W.
        pts3d_1, pts3d_2: (H, W, 3) points, both in camera 1's frame; metres for a metric network.
        conf_1, conf_2: (H, W) their confidence.
        desc_1, desc_2: (H, W, D) unit descriptors, None for DUSt3R.
        desc_conf_1, desc_conf_2: (H, W) their confidence.
        focal_1, focal_2: focal lengths in pixels; of view 2 from its pointmap as view 1 of the swapped pair.
        matches_xy_1, matches_xy_2: (N, 2) int64 reciprocal matches.
        camera1_T_camera2: (4, 4) from confident matches and view 1's points; NaN where no pose explains them.
        pose_inliers: (N,) bool, matches that the pose explains.
        original_T_input_1, original_T_input_2: (3, 3), see :class:`NetworkImage`.
    """

    image_1: NDArray[np.uint8]
    image_2: NDArray[np.uint8]
    pts3d_1: Map
    conf_1: Map
    pts3d_2: Map
    conf_2: Map
    focal_1: float
    focal_2: float
    matches_xy_1: NDArray[np.int64]
    matches_xy_2: NDArray[np.int64]
    camera1_T_camera2: Array
    pose_inliers: NDArray[np.bool_]
    original_T_input_1: Array
    original_T_input_2: Array
    desc_1: Map | None = None
    desc_conf_1: Map | None = None
    desc_2: Map | None = None
    desc_conf_2: Map | None = None

    @property
    def posed(self) -> bool:
        """Whether a pose was found."""
        return bool(np.isfinite(self.camera1_T_camera2).all())

    @property
    def match_confidence(self) -> NDArray[np.float32]:
        """(N,) the smaller confidence of a match's two pixels: of descriptors, or of points where there are none."""
        first, second = self.desc_conf_1, self.desc_conf_2
        conf_1, conf_2 = (self.conf_1, self.conf_2) if first is None or second is None else (first, second)
        (x1, y1), (x2, y2) = self.matches_xy_1.T, self.matches_xy_2.T
        confidence: NDArray[np.float32] = np.minimum(conf_1[y1, x1], conf_2[y2, x2])
        return confidence

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All fields as arrays by name, of the shapes in the class's docstring; fields that are None are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    def cloud(self, share: float = 0.9) -> tuple[Map, NDArray[np.uint8]]:
        """Points (N, 3) of both views in camera 1's frame and their colours: the most confident share of each."""
        points, colours = [], []
        for pts3d, conf, image in (
            (self.pts3d_1, self.conf_1, self.image_1),
            (self.pts3d_2, self.conf_2, self.image_2),
        ):
            kept = np.isfinite(pts3d).all(axis=-1) & (conf >= np.quantile(conf, 1 - share))
            points.append(pts3d[kept])
            colours.append(image[kept])
        return np.concatenate(points), np.concatenate(colours)

    def save(self, path: Path) -> None:
        """Write :meth:`arrays` as a compressed npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # a file, because savez would add a suffix of its own
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]


@torch.inference_mode()
def predict_pair(
    network: PointmapNetwork, image1: NetworkImage, image2: NetworkImage, subsample: int = 8
) -> PairPrediction:
    """Run a network on two images, each of which is encoded once.

    In float32 on a CPU this is the reference path that faster ones are compared with.

    Args:
        subsample: spacing of the pixels that matching starts from, or of the matches kept where there are no
            descriptors.
    """
    weight = network.patch_embed.proj.weight
    tokens1, tokens2 = (network.encode(image.tensor.to(weight.device)) for image in (image1, image2))
    layers1, layers2 = network.decode(tokens1, tokens2)
    views = []
    for number, layers, tokens in ((1, layers1, tokens1), (2, layers2, tokens2)):
        maps = list(network.points(number, layers, tokens))
        if network.config.has_descriptors:
            maps += network.descriptors(number, layers, tokens)
        views.append(ViewPrediction(*(m[0].cpu() for m in maps)))
    swapped, _ = network.decode(tokens2, tokens1)
    own_2 = network.points(1, swapped, tokens2).pts3d[0].cpu().numpy()
    return _assembled(image1, image2, views[0], views[1], own_2, subsample)


def _assembled(
    image1: NetworkImage,
    image2: NetworkImage,
    view1: ViewPrediction,
    view2: ViewPrediction,
    own_2: NDArray[np.float32],
    subsample: int,
) -> PairPrediction:
    """Matches, focal lengths and pose from the maps."""
    xy1, xy2, sure = _matched(view1, view2, subsample)
    focal_1, focal_2 = estimate_focal(view1.pts3d.numpy()), estimate_focal(own_2)
    points = view1.pts3d.numpy()[xy1[:, 1], xy1[:, 0]].astype(np.float64)
    camera1_T_camera2, explained = _pose(points[sure], xy2[sure], focal_2, image2.size)
    inliers = np.zeros(len(xy1), dtype=bool)
    inliers[np.flatnonzero(sure)[explained]] = True
    return PairPrediction(
        image_1=image1.pixels,
        image_2=image2.pixels,
        focal_1=focal_1,
        focal_2=focal_2,
        matches_xy_1=xy1,
        matches_xy_2=xy2,
        camera1_T_camera2=camera1_T_camera2,
        pose_inliers=inliers,
        original_T_input_1=image1.original_T_input,
        original_T_input_2=image2.original_T_input,
        **_named(view1, 1),
        **_named(view2, 2),
    )


def _named(view: ViewPrediction, number: int) -> dict[str, Any]:
    """A view's maps as arrays under the names of :class:`PairPrediction`."""
    return {f"{name}_{number}": None if m is None else m.numpy() for name, m in view._asdict().items()}


def _matched(
    view1: ViewPrediction, view2: ViewPrediction, subsample: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Matched pixels (N, 2) of both views, and which of them are confident."""
    if view1.desc is not None and view2.desc is not None:
        assert view1.desc_conf is not None and view2.desc_conf is not None
        xy1, xy2 = fast_reciprocal_matches(view1.desc.numpy(), view2.desc.numpy(), subsample=subsample)
        conf1, conf2, least = view1.desc_conf.numpy(), view2.desc_conf.numpy(), SURE_DESCRIPTOR
    else:
        conf1, conf2, least = view1.conf.numpy(), view2.conf.numpy(), SURE_POINT
        xy1, xy2 = pointmap_matches(view1.pts3d.numpy(), view2.pts3d.numpy())
        kept = best_of_cells(xy1, np.minimum(_at(conf1, xy1), _at(conf2, xy2)), subsample)
        xy1, xy2 = xy1[kept], xy2[kept]
    return xy1, xy2, np.minimum(_at(conf1, xy1), _at(conf2, xy2)) >= least


def _at(values: NDArray[Any], xy: NDArray[np.int64]) -> NDArray[Any]:
    """(H, W) at pixels (N, 2) -> (N,)."""
    return values[xy[:, 1], xy[:, 0]]


def _pose(
    points: Array, xy2: NDArray[np.int64], focal_2: float, size: tuple[int, int]
) -> tuple[Array, NDArray[np.bool_]]:
    """camera1_T_camera2 from points in camera 1's frame seen at pixels of view 2, and which of them fit."""
    unknown = np.full((4, 4), np.nan), np.zeros(len(points), dtype=bool)
    usable = np.isfinite(points).all(axis=1)
    if usable.sum() < LEAST_INLIERS or not np.isfinite(focal_2) or focal_2 <= 0:
        return unknown
    height, width = size
    ideal = (xy2[usable] - np.array([(width - 1) / 2, (height - 1) / 2])) / focal_2
    weights = np.ones(len(ideal))
    pose = ransac_pose(ideal, points[usable], weights, focal_2, POSE)
    if pose is None or pose.inlier.sum() < LEAST_INLIERS:
        return unknown
    inliers = unknown[1]
    inliers[np.flatnonzero(usable)[pose.inlier]] = True
    return pose.map_T_camera, inliers
