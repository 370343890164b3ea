"""Whether another pose explains what a pose leaves unexplained.

A copy of a door, or a cupboard that was moved, gives a pose with a hundred inliers that explains little of what the map
expects; so does the right pose behind people, and at night. What tells them apart is the rest of the matches: to a
wrong pose they are of the room where it really is, or of other copies, and some of them agree on that. To the right one
they are mistakes, of which hardly any agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry.absolute_pose import ransac_pose
from mast3r_ros.localization.estimate import Evidence
from mast3r_ros.localization.support import Support
from mast3r_ros.settings import Gates, SolverSettings

#: A pose with so many times the inliers that a single keyframe needs, in so many keyframes, may show so many times less
#: of what the map expects.
STRONG, KEYFRAMES, LESS = 2, 3, 2
#: The best other pose has at most this share of its inliers. Set on the stress rooms of seeds 0 and 1: of the wrong
#: poses with 20 inliers or more none had less than 0.11.
RIVAL = 0.1
#: Rounds that the other pose is looked for in: to have that many inliers it must be easily found.
ROUNDS = 500


def unrivalled(
    support: Support, evidence: Evidence, ideal: NDArray[np.float64], gates: Gates, settings: SolverSettings
) -> bool:
    """Whether a pose that shows too little of what the map expects has so much evidence, and no rival, that it may.

    Args:
        ideal: (N, 2) undistorted image coordinates of its matches at z = 1.
        settings: that it was solved with.
    """
    if evidence.inliers < STRONG * gates.strong_inliers or evidence.agreeing_keyframes < KEYFRAMES:
        return False
    if not evidence.explained >= with_less(gates).min_explained:
        return False
    rest = ~support.pose.inlier
    rival = ransac_pose(
        ideal[rest],
        support.points[rest],
        np.ones(int(rest.sum())),
        support.pose.focal_px,
        replace(settings, iterations=min(settings.iterations, ROUNDS)),
    )
    return rival is None or float(rival.inlier.sum()) <= RIVAL * evidence.inliers


def with_less(gates: Gates) -> Gates:
    """The gates of a pose that has no rival."""
    return replace(gates, min_explained=gates.min_explained / LESS)
