"""How the mapper draws coverage: an arrow for every place that was tried, in the colour of the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from mast3r_ros.geometry import se3
from mast3r_ros.localization.coverage import CoverageVerdict, Trial
from mast3r_ros.ros import conversions

COLOURS = {
    CoverageVerdict.COVERED: ColorRGBA(r=0.1, g=0.8, b=0.2, a=1.0),
    CoverageVerdict.UNCOVERED: ColorRGBA(r=0.9, g=0.1, b=0.1, a=1.0),
    CoverageVerdict.CONTRADICTED: ColorRGBA(r=0.8, g=0.1, b=0.9, a=1.0),
}
#: Ends of an arrow's three strokes in the camera frame, metres: it points where the camera looked.
ARROW = np.array([[0, 0, 0], [0, 0, 0.3], [0, 0, 0.3], [0.05, 0, 0.22], [0, 0, 0.3], [-0.05, 0, 0.22]])


def to_coverage_markers(trials: Sequence[Trial], frame_id: str, stamp_ns: int) -> MarkerArray:
    """All trials in one marker (RViz is slow with thousands of markers)."""
    header = conversions.header(frame_id, stamp_ns)
    arrows = Marker(header=header, ns="coverage", type=Marker.LINE_LIST, action=Marker.ADD)
    arrows.scale.x = 0.02
    arrows.pose.orientation.w = 1.0
    arrows.points = [Point(x=x, y=y, z=z) for trial in trials for x, y, z in _arrow(trial).tolist()]
    arrows.colors = [COLOURS[trial.verdict] for trial in trials for _ in ARROW]
    clear = Marker(header=header, ns="coverage", action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, arrows] if trials else [clear])


def _arrow(trial: Trial) -> NDArray[np.float64]:
    return se3.apply(trial.map_T_camera, ARROW)
