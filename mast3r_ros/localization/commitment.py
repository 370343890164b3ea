"""When a track is believed: answers from several views must agree before others steer by it.

A twin room, a corridor of equal doors, a second chair of the same make: from one view all of it agrees. From the next
views it rarely does. So what others rely on (map -> odom) waits for answers that were found independently of each
other, from views that differ, by different keyframes; and it is withdrawn as soon as the track is contradicted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.settings import CommitmentSettings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class View:
    """A view from which the track was looked for.

    Attributes:
        odom_T_camera: (4, 4).
        found: whether an answer from there agreed with the track.
        keyframes: ids that supported it.
    """

    odom_T_camera: Array
    found: bool
    keyframes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Views:
    """The views since a track began, each unlike all others: standing still adds none."""

    views: tuple[View, ...] = ()

    def with_view(self, view: View, apart_m: float, apart_rad: float) -> Views:
        """With one more, or with the one like it updated: what was found once from there counts as found."""
        for k, known in enumerate(self.views):
            metres, degrees = se3.pose_error(view.odom_T_camera, known.odom_T_camera)
            if metres < apart_m and np.radians(degrees) < apart_rad:
                both = replace(known, found=known.found or view.found, keyframes=known.keyframes | view.keyframes)
                return Views((*self.views[:k], both, *self.views[k + 1 :]))
        return Views((*self.views, view))

    @property
    def found(self) -> int:
        """Views from which the track was found."""
        return sum(view.found for view in self.views)

    @property
    def keyframes(self) -> int:
        """Different keyframes that supported it."""
        return len(frozenset().union(*(view.keyframes for view in self.views)))

    def suffice(self, settings: CommitmentSettings) -> bool:
        """Whether the track may be believed."""
        return (
            self.found >= settings.commit_views
            and self.found >= settings.commit_share * len(self.views)
            and self.keyframes >= min(settings.commit_keyframes, settings.commit_views)
        )

    def missing(self, settings: CommitmentSettings) -> str:
        """What it takes, in words."""
        agree = f"{self.found} of {len(self.views)} different views agree"
        return (
            f"{agree}, {settings.commit_views} and {settings.commit_share:.0%} are needed before map -> odom is given: "
            "drive on or turn, or give an initial pose"
        )
