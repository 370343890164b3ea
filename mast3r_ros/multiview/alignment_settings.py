"""How pointmaps are aligned, and what is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AlignmentSettings:
    """How pointmaps are aligned (DUSt3R, section 3.4 and its published defaults).

    Attributes:
        distance: ``l1`` (Euclidean distance of the points) or ``l2`` (its square).
        weight: how confidences become weights, one of :data:`pointmap_pair.TRANSFORMS`.
        least_confidence: pixels of more than this take part in PnP.
        iterations: steps of Adam.
        rate, last_rate: step size at the beginning and at the end.
        schedule: ``cosine`` or ``linear`` between them.
        principal_points: optimise them as well.
        each_pair_alike: the mean over each pair's pixels, averaged over the pairs; otherwise every pixel counts alike.
        as_published: start as the published code does, for comparison with it only: an image reached by the spanning
            tree gets the focal length of the pair before, known focal lengths do not help to find poses there, and
            where all is known a pair's second camera is sought with the focal length of the first.
    """

    distance: str = "l1"
    weight: str = "log"
    least_confidence: float = 3.0
    iterations: int = 300
    rate: float = 0.01
    last_rate: float = 1e-6
    schedule: str = "cosine"
    principal_points: bool = False
    each_pair_alike: bool = False
    as_published: bool = False


@dataclass(frozen=True, eq=False)
class KnownViews:
    """What is known of some images beforehand, and is kept.

    Attributes:
        poses: (4, 4) world_T_camera by image number.
        focals: pixels by image number.
        centres: (2,) principal points by image number, where optimisation begins or which it keeps; elsewhere the
            middle of the image.
    """

    poses: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    focals: Mapping[int, float] = field(default_factory=dict)
    centres: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def fixes_scale(self) -> bool:
        """Whether the known poses decide the unit of length."""
        return len(self.poses) > 1
