"""Visual relocalization for ROS 2: the metric pose of a camera in a map of reference keyframes.

    import mast3r_ros as m

    keyframes = m.open_map("maps/office")
    relocalizer = m.Relocalizer(keyframes, m.load_matcher("auto"), m.Settings.read("robot.yaml"))
    answer = relocalizer.localize("photo.jpg")
    print(answer.map_T_camera, answer.covariance, answer.reason)

NumPy arrays in, typed results out; every error that a user can cause is a :class:`UserError` that says the way out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mast3r_ros import moved

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Frame",
    "PoseEstimate",
    "PosePrior",
    "Reason",
    "Relocalizer",
    "Settings",
    "UserError",
    "build_map",
    "load_matcher",
    "open_map",
]

if TYPE_CHECKING:
    from mast3r_ros.errors import UserError
    from mast3r_ros.frames import Camera, Frame
    from mast3r_ros.localization import PoseEstimate, PosePrior, Reason
    from mast3r_ros.pipeline import Relocalizer, build_map, load_matcher, open_map
    from mast3r_ros.settings import Settings

#: Where the names are. They are imported when they are used: the command answers `--help` without torch and OpenCV.
_HOMES = {
    "mast3r_ros.errors": ("UserError",),
    "mast3r_ros.frames": ("Camera", "Frame"),
    "mast3r_ros.localization": ("PoseEstimate", "PosePrior", "Reason"),
    "mast3r_ros.pipeline": ("Relocalizer", "build_map", "load_matcher", "open_map"),
    "mast3r_ros.settings": ("Settings",),
}

moved.install()


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
