"""How far away every pixel of a keyframe is: by its depth, or by a network's pointmap made metric with evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.scale import MetricScale, metric_scale_from_depth
from mast3r_ros.matching.network_view import NetworkView
from mast3r_ros.matching.pairs import PredictedPoints

#: A keyframe that knows the depth of this share of its pixels needs no pointmap.
DENSE = 0.4
#: Fewer pixels than this share say nothing of the scale: a dozen triangulated points, of which some may be wrong.
FEWEST = 0.001
#: Half of all pixels agree on the scale to within this share of it, or it is no scale.
MAX_SPREAD = 0.3

#: Relative standard deviation of a metric network's own scale, far from what it was trained on.
OWN_SCALE_SIGMA = 0.15

OWN_SCALE = "the scale is the network's own: no depth and no baseline of the map confirms it"
NO_SCALE = (
    "the network has no metric scale and the keyframe has neither depth nor triangulated points: "
    "build the map with depth, or from overlapping views of known pose"
)


@dataclass(frozen=True, eq=False)
class ReferenceSurface:
    """Depth (H, W) of a keyframe's network pixels in metres, 0 or NaN where unknown; None where there is no scale.

    ``scale``, ``scale_sigma`` and ``note`` are those of :class:`Matches`.
    """

    depth: NDArray[np.floating] | None
    scale: MetricScale | None = None
    scale_sigma: float = 0.0
    note: str = ""


def needs_pointmap(view: NetworkView) -> bool:
    """Whether a keyframe's own depth is too sparse to match against."""
    return view.known_share < DENSE


def surface_of(view: NetworkView, pointmap: PredictedPoints | None, metric: bool) -> ReferenceSurface:
    """The surface that a keyframe's pixels show.

    Depth of the keyframe comes from a sensor, or was triangulated over known baselines; either corrects the scale
    of the pointmap, with the factor and its spread in ``scale``.

    Args:
        pointmap: of the keyframe in its own camera frame; not looked at where its depth is enough.
        metric: whether the network's own scale may be believed where nothing else is known.
    """
    if pointmap is None or not needs_pointmap(view):
        return ReferenceSurface(view.depth) if view.depth.size else ReferenceSurface(None, note=NO_SCALE)
    measured = np.where(view.depth > 0, view.depth, np.nan).astype(np.float32) if view.depth.size else None
    predicted = np.where(np.isfinite(pointmap.depth) & (pointmap.depth > 0), pointmap.depth, np.nan)
    scale = None
    if measured is not None and view.known_share >= FEWEST:
        scale = metric_scale_from_depth(predicted, measured, pointmap.conf)
    if measured is None or scale is None:
        if not metric:
            return ReferenceSurface(None, note=NO_SCALE)
        return ReferenceSurface(predicted, scale_sigma=OWN_SCALE_SIGMA, note=OWN_SCALE)
    if scale.spread > MAX_SPREAD:
        disagreement = f"{scale.factor:.2f} +- {scale.spread:.0%} times"
        return ReferenceSurface(
            None,
            scale,
            note=f"the network's depth does not fit the keyframe's: it would have to be {disagreement} as large",
        )
    return ReferenceSurface(np.where(np.isfinite(measured), measured, predicted * np.float32(scale.factor)), scale)
