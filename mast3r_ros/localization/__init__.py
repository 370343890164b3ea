"""The pose of a frame in the map, or the reason why there is none."""

from mast3r_ros.localization.estimate import Evidence, KeyframeMatches, PoseEstimate, Reason, Status
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.localization.tracking import Tracker
from mast3r_ros.settings import Gates, LocalizerSettings, TrackerSettings

__all__ = [
    "Evidence",
    "Gates",
    "KeyframeMatches",
    "Localizer",
    "LocalizerSettings",
    "PoseEstimate",
    "PosePrior",
    "Reason",
    "Status",
    "Tracker",
    "TrackerSettings",
]
