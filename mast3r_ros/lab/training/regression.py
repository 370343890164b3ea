"""Pointmap regression: distances between predicted and true points, normalised or metric, weighted by confidence.

Wang et al., "DUSt3R", CVPR 2024, section 3; Leroy et al., "MASt3R", ECCV 2024, section 3.1 (metric predictions).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NORMALISATIONS = ("avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "sqrt_dis")
INVARIANCES = ("", "shift", "scale", "shift+scale")
EPS = 1e-8


class Points(NamedTuple):
    """Points (B, H, W, 3) of both views in camera 1's frame and which of them count (B, H, W)."""

    view1: Tensor
    view2: Tensor
    valid1: Tensor
    valid2: Tensor

    def map(self, view1: Tensor, view2: Tensor) -> Points:
        """Other points with the same masks."""
        return self._replace(view1=view1, view2=view2)

    def divided(self, by: Tensor) -> Points:
        """Points over a number per sample (B,)."""
        by = by[:, None, None, None]
        return self.map(self.view1 / by, self.view2 / by)

    def where(self, chosen: Tensor, other: Points) -> Points:
        """These points in the chosen samples (B,), others elsewhere."""
        chosen = chosen[:, None, None, None]
        return self.map(torch.where(chosen, self.view1, other.view1), torch.where(chosen, self.view2, other.view2))


class Errors(NamedTuple):
    """Distance (B, H, W) at every pixel of both views, and which of them count (B, H, W)."""

    view1: Tensor
    view2: Tensor
    counted1: Tensor
    counted2: Tensor


@dataclass(frozen=True)
class PointmapLoss:
    """How predicted pointmaps are compared with true ones.

    Attributes:
        normalisation: one of ``NORMALISATIONS``; prediction and truth are divided by their own size.
        metric: samples known in metres divide the prediction by the truth's size: its scale is supervised.
        truth_scale: the truth stays in its own unit (as in the published tests).
        in_log: compare p / |p| log(1 + |p|) instead of p.
        max_metric_m: samples with a point farther than this in either view do not count as metric.
        sky_value: constant error of sky pixels, which only lowers their confidence; 0 leaves them out.
        invariance: align medians first: ``shift`` of depth, ``scale``, or both. No gradient flows through medians.
    """

    normalisation: str = "avg_dis"
    metric: bool = True
    truth_scale: bool = False
    in_log: bool = False
    max_metric_m: float = math.inf
    sky_value: float = 2.0
    invariance: str = ""

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS or self.invariance not in INVARIANCES:
            raise ValueError(f"unknown normalisation '{self.normalisation}' or invariance '{self.invariance}'")

    def __call__(self, prediction: Points, truth: Points, is_metric: Tensor, sky: tuple[Tensor, Tensor]) -> Errors:
        """Errors of every pixel.

        Args:
            is_metric: (B,) whether a sample's truth is in metres.
            sky: (B, H, W) of both views.
        """
        if self.metric and math.isfinite(self.max_metric_m):
            is_metric = is_metric & (_farthest(truth) < self.max_metric_m)
        prediction, truth = self._scaled(prediction, truth, is_metric if self.metric else torch.zeros_like(is_metric))
        if "shift" in self.invariance:
            prediction, truth = _shifted(prediction), _shifted(truth)
        if "scale" in self.invariance:
            prediction, truth = _rescaled(prediction, truth, self.truth_scale)
        if self.in_log:
            prediction, truth = (p.map(_in_log(p.view1), _in_log(p.view2)) for p in (prediction, truth))
        error1, error2 = _distance(prediction.view1, truth.view1), _distance(prediction.view2, truth.view2)
        if not self.sky_value:
            return Errors(error1, error2, truth.valid1, truth.valid2)
        sky1, sky2 = sky[0] & ~truth.valid1, sky[1] & ~truth.valid2
        return Errors(
            torch.where(sky1, self.sky_value, error1),
            torch.where(sky2, self.sky_value, error2),
            truth.valid1 | sky1,
            truth.valid2 | sky2,
        )

    def _scaled(self, prediction: Points, truth: Points, is_metric: Tensor) -> tuple[Points, Points]:
        own, _ = normalised(prediction, self.normalisation)
        if self.truth_scale:
            return (prediction.where(is_metric, own) if self.metric else own), truth
        true_own, true_size = normalised(truth, self.normalisation)
        return prediction.divided(true_size).where(is_metric, own), true_own


def normalised(points: Points, mode: str) -> tuple[Points, Tensor]:
    """Points divided by their size, and that size (B,): a mean or median over the valid points of both views.

    Gradients flow through a mean, but not through a median.
    """
    if mode == "avg_warp-log1p":
        points = points.map(_in_log(points.view1), _in_log(points.view2))
    both, valid = _together(points)
    distance = both.norm(dim=-1)
    if mode == "median_dis":
        size = torch.where(valid, distance, torch.nan).nanmedian(dim=1).values.detach()
    else:
        # Zero where nothing is known: keeps an undefined distance out of the gradient of the mean.
        distance = torch.where(valid, distance, 0.0)
        if mode == "avg_log1p":
            distance = distance.log1p()
        elif mode == "sqrt_dis":
            distance = torch.where(valid, distance, 1.0).sqrt() * valid
        size = distance.sum(dim=1) / (valid.sum(dim=1) + EPS)
        size = size.square() if mode == "sqrt_dis" else size
    size = size.clamp(min=EPS)
    return points.divided(size), size


def mean_error(errors: Errors) -> Tensor:
    """Mean of view 1 plus mean of view 2; a view without counted pixels adds nothing."""
    return _mean(errors.view1, errors.counted1) + _mean(errors.view2, errors.counted2)


def confident_error(errors: Errors, conf1: Tensor, conf2: Tensor, alpha: float = 0.2) -> Tensor:
    """Errors times confidence (B, H, W), which a logarithm keeps from vanishing (DUSt3R, equation 4)."""
    weighted1 = errors.view1 * conf1 - alpha * conf1.log()
    weighted2 = errors.view2 * conf2 - alpha * conf2.log()
    return _mean(weighted1, errors.counted1) + _mean(weighted2, errors.counted2)


def in_first_camera(map_T_camera1: Tensor, points: Tensor) -> Tensor:
    """World points (B, H, W, 3) in the frame of cameras (B, 4, 4)."""
    R, t = map_T_camera1[:, :3, :3], map_T_camera1[:, :3, 3]
    return (points - t[:, None, None]) @ R[:, None]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over counted pixels, 0 without any."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).norm(dim=-1)


def _farthest(points: Points) -> Tensor:
    """(B,) largest distance of a valid point in either view."""
    far1 = torch.where(points.valid1, points.view1.norm(dim=-1), 0.0).flatten(1).amax(dim=1)
    far2 = torch.where(points.valid2, points.view2.norm(dim=-1), 0.0).flatten(1).amax(dim=1)
    return torch.maximum(far1, far2)


def _in_log(points: Tensor) -> Tensor:
    distance = points.norm(dim=-1, keepdim=True)
    return points * (distance.log1p() / distance.clamp(min=EPS))


def _together(points: Points) -> tuple[Tensor, Tensor]:
    """Points (B, 2 H W, 3) and masks (B, 2 H W) of both views."""
    both = torch.cat((points.view1.flatten(1, 2), points.view2.flatten(1, 2)), dim=1)
    return both, torch.cat((points.valid1.flatten(1), points.valid2.flatten(1)), dim=1)


def _shifted(points: Points) -> Points:
    """Median depth of both views moved to zero."""
    both, valid = _together(points)
    z = torch.where(valid, both[..., 2], torch.nan).nanmedian(dim=1).values.detach()
    shift = torch.stack((torch.zeros_like(z), torch.zeros_like(z), z), dim=-1)[:, None, None]
    return points.map(points.view1 - shift, points.view2 - shift)


def _rescaled(prediction: Points, truth: Points, truth_scale: bool) -> tuple[Points, Points]:
    """Both divided by their median distance to their median point, or the prediction brought to the truth's."""
    size = _spread(prediction).clamp(1e-3, 1e3)
    true_size = _spread(truth)
    if truth_scale:
        return prediction.divided(size / true_size), truth
    return prediction.divided(size), truth.divided(true_size)


def _spread(points: Points) -> Tensor:
    both, valid = _together(points)
    both = both.detach()
    centre = torch.where(valid[..., None], both, torch.nan).nanmedian(dim=1, keepdim=True).values
    return torch.where(valid, (both - centre).norm(dim=-1), torch.nan).nanmedian(dim=1).values
