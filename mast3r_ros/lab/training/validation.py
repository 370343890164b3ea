"""How well a network matches pairs it never saw, as the matcher would: reciprocal nearest descriptors from a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.lab.training.correspondences import camera_points
from mast3r_ros.lab.training.pairs import Scenes, choose_pair, collate, images_of
from mast3r_ros.lab.training.views import View
from mast3r_ros.matching.reciprocal import fast_reciprocal_matches_batch
from mast3r_ros.network import PointmapNetwork

#: A match is right if it lies at most this far from the truth, in pixels of the network's image.
RIGHT_PX = 3.0
#: Spacing of the grid that matching starts from, as the matcher has it.
GRID = 8
#: Fewer matches give no pose.
LEAST_MATCHES = 6
POSE_DEG, POSE_M = 5.0, 0.25


@dataclass(frozen=True)
class HeldOutPair:
    """Two views and how much of the first the second sees."""

    view1: View
    view2: View
    overlap: float


def held_out_pairs(scenes: Scenes, rooms: int, pairs: int, seed: int = 0) -> list[HeldOutPair]:
    """Pairs of scenes 0 to ``rooms``, in turn, always the same."""
    chosen = []
    for number in range(pairs):
        scene = scenes[number % rooms]
        first, second = choose_pair(scene, np.random.default_rng([seed, 9, number]))
        overlap = float(min(scene.overlap[first, second], scene.overlap[second, first]))
        chosen.append(HeldOutPair(scene[first], scene[second], overlap))
    return chosen


def validate(
    network: PointmapNetwork,
    pairs: Sequence[HeldOutPair],
    amp: torch.dtype | None,
    by_points: bool = False,
) -> dict[str, float]:
    """Means of :func:`judge` over pairs, and ``precision_hard``: that of pairs whose overlap is below 0.3."""
    rows = judge(network, pairs, amp, by_points)
    hard = [row["precision_3px"] for row in rows if row["overlap"] < 0.3]
    shown = ("precision_3px", "coverage", "success", "points_error")
    means = {name: float(np.mean([row[name] for row in rows])) for name in shown}
    return means | {"precision_hard": float(np.mean(hard)) if hard else float("nan")}


@torch.inference_mode()
def judge(
    network: PointmapNetwork,
    pairs: Sequence[HeldOutPair],
    amp: torch.dtype | None,
    by_points: bool = False,
    at_once: int = 8,
) -> list[dict[str, float]]:
    """Match precision, coverage, pose from matches and depth, pointmap error of each pair.

    Args:
        by_points: match pixels whose predicted points are each other's nearest in space, instead of descriptors.

    Returns:
        rows of ``precision_3px``: share of matches within 3 px of the truth; ``coverage``: right matches per grid
        point that the other view sees; ``metres`` and ``degrees``: error of the pose by PnP, infinite without one;
        ``success``: 1 within 5 degrees and 0.25 m; ``points_error``: median error of the points relative to their
        distance; ``overlap``.
    """
    rows: list[dict[str, float]] = []
    device = network.patch_embed.proj.weight.device
    for start in range(0, len(pairs), at_once):
        part = pairs[start : start + at_once]
        batch = collate([{"image1": p.view1.image, "image2": p.view2.image} for p in part])
        images = images_of(batch, device)
        with torch.autocast(device.type, amp or torch.bfloat16, enabled=amp is not None):
            tokens = network.encode(images)
            first, second = tokens[: len(part)], tokens[len(part) :]
            layers1, layers2 = network.decode(first, second)
            points = network.points(1, layers1, first).pts3d
            if by_points:
                maps, metric = (points, network.points(2, layers2, second).pts3d), "l2"
            else:
                desc1 = network.descriptors(1, layers1, first).desc
                maps, metric = (desc1, network.descriptors(2, layers2, second).desc), "dot"
        found = fast_reciprocal_matches_batch(*maps, subsample=GRID, metric=metric)
        for pair, (xy1, xy2), points1 in zip(part, found, points.cpu().numpy()):
            row = judged(pair, xy1.cpu().numpy(), xy2.cpu().numpy())
            rows.append(row | {"points_error": _points_error(pair.view1, points1), "overlap": pair.overlap})
    return rows


def judged(pair: HeldOutPair, xy1: NDArray[np.int64], xy2: NDArray[np.int64]) -> dict[str, float]:
    """Matched pixels (N, 2) of a pair against its true geometry."""
    camera2_T_camera1 = se3.inverse(pair.view2.map_T_camera) @ pair.view1.map_T_camera
    points = camera_points(pair.view1).astype(np.float64)
    truth = _seen_at(points, camera2_T_camera1, pair.view2.K)
    right = np.linalg.norm(truth[xy1[:, 1], xy1[:, 0]] - xy2, axis=1) <= RIGHT_PX
    height, width = pair.view2.depth.shape
    grid = truth[GRID // 2 :: GRID, GRID // 2 :: GRID].reshape(-1, 2)
    visible = ((grid >= 0) & (grid <= [width - 1, height - 1])).all(axis=1).sum()
    measured = {
        "precision_3px": float(right.mean()) if len(right) else 0.0,
        "coverage": float(min(right.sum() / max(visible, 1), 1.0)),
    }
    metres, degrees = _pose_error(points[xy1[:, 1], xy1[:, 0]], xy2, pair, camera2_T_camera1)
    success = degrees < POSE_DEG and metres < POSE_M
    return measured | {"metres": metres, "degrees": degrees, "success": float(success)}


def _seen_at(points: NDArray[np.float64], motion: NDArray[np.float64], K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where camera 2 sees points (H, W, 3) of camera 1; NaN behind it and where they are unknown."""
    moved = se3.apply(motion, points)
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel = (moved @ K.T)[..., :2] / moved[..., 2:]
    pixel[(moved[..., 2] <= 0.01) | (points[..., 2] <= 0)] = np.nan
    return pixel


def _pose_error(points: NDArray, xy: NDArray, pair: HeldOutPair, truth: NDArray) -> tuple[float, float]:
    """Metres and degrees of a pose from points (N, 3) and pixels (N, 2); infinite where there is none."""
    known = points[:, 2] > 0
    points, xy = points[known], xy[known].astype(np.float64)
    if len(points) < LEAST_MATCHES:
        return float("inf"), float("inf")
    cv2.setRNGSeed(0)
    found, rotation, translation, _ = cv2.solvePnPRansac(
        points, xy, pair.view2.K, None, reprojectionError=2.5, iterationsCount=300, flags=cv2.SOLVEPNP_SQPNP
    )
    if not found:
        return float("inf"), float("inf")
    return se3.pose_error(se3.make(cv2.Rodrigues(rotation)[0], translation[:, 0]), truth)


def _points_error(view: View, predicted: NDArray[Any]) -> float:
    truth = camera_points(view)
    known = view.depth > 0
    error = np.linalg.norm(predicted - truth, axis=-1)[known] / np.linalg.norm(truth, axis=-1)[known]
    return float(np.median(error))
