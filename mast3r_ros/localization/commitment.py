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

#: What a view speaks against a track from which nothing of it was found, the most that such views add up to, and what
#: an agreeing view speaks for it where the map, or the matcher, cannot tell what should be seen.
MISSED, MOST_MISSED, UNTOLD = 0.2, 1.0, 0.1


@dataclass(frozen=True, eq=False)
class View:
    """A view from which the track was looked for.

    Attributes:
        odom_T_camera: (4, 4).
        found: whether an answer from there agreed with the track.
        explained: of the image's parts in which the map shows something, the share that shows it; NaN where unknown.
        keyframes: ids that supported it.
    """

    odom_T_camera: Array
    found: bool
    explained: float = float("nan")
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
                keyframes = known.keyframes | view.keyframes
                shown = view if view.found and not known.found else known
                return Views((*self.views[:k], replace(shown, keyframes=keyframes), *self.views[k + 1 :]))
        return Views((*self.views, view))

    @property
    def found(self) -> int:
        """Views from which the track was found."""
        return sum(view.found for view in self.views)

    @property
    def keyframes(self) -> int:
        """Different keyframes that supported it."""
        return len(frozenset().union(*(view.keyframes for view in self.views)))

    def evidence(self, settings: CommitmentSettings) -> float:
        """How much more of what the map expects was found than in a place that is merely alike, summed over views."""
        total = 0.0
        for view in self.views:
            more = view.explained - settings.commit_expected if view.found else -MISSED
            total = max(total + (UNTOLD if np.isnan(more) else more), -MOST_MISSED)
        return total

    def suffice(self, settings: CommitmentSettings) -> bool:
        """Whether the track may be believed."""
        if settings.commit_views == 1:
            return self.found > 0
        enough = self.found >= settings.commit_views and self.keyframes >= settings.commit_keyframes
        return enough and self.evidence(settings) >= settings.commit_evidence

    def missing(self, settings: CommitmentSettings) -> str:
        """What it takes, in words."""
        return (
            f"{self.found} of {len(self.views)} different views agree, with evidence {self.evidence(settings):.2f}; "
            f"map -> odom waits for {settings.commit_views} and {settings.commit_evidence:.2f}: drive on or turn, or "
            "give an initial pose"
        )
