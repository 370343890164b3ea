"""Errors meant for people.

Every failure that a user can cause or cure is a ``UserError``: its message names the thing that is
wrong and the way out. The CLI prints it and exits 1; a node logs it once and goes on.
"""

import re
import shutil
import sys

#: Sub-commands that messages name.
_OURS = re.compile(r"(?<!mast3r_ros )\bmast3r_ros (?=(?:map|bag|checkpoint|train|evaluate|localize)\b)")


class UserError(Exception):
    """Base of all errors whose message alone is enough for a user to act on."""


def missing_module(error: ModuleNotFoundError) -> str:
    """A sentence for a Python module that is not installed where this program runs; see docs/install.md."""
    name = (error.name or str(error)).partition(".")[0]
    way_out = (
        "source the setup file of ROS 2"
        if name in ("rclpy", "tf2_msgs") or name.endswith(("_msgs", "_srvs"))
        else "activate the virtual environment that has it, or install it there"
    )
    return f"the Python module {name} is missing in {sys.executable}: {way_out} (docs/install.md)"


def as_run_here(sentence: str) -> str:
    """A sentence with our command as it is called here: after a colcon build it is on no PATH, `ros2 run` finds it."""
    return sentence if shutil.which("mast3r_ros") else _OURS.sub("ros2 run mast3r_ros mast3r_ros ", sentence)


class CalibrationError(UserError):
    """Camera intrinsics or distortion that cannot be used."""


class CodecError(UserError):
    """An image, depth image or point cloud message that cannot be decoded."""


class BagError(UserError):
    """A recording that cannot be read or written."""


class DatasetError(UserError):
    """A data set folder with a missing or malformed file."""


class MapError(UserError):
    """A map on disk that is missing, damaged, of a newer format, or made for something else."""


class MatcherError(UserError):
    """A matcher that is unknown or cannot run here."""


class CheckpointError(UserError):
    """A network checkpoint that is missing, damaged, foreign, unsafe, or of another architecture."""


class SettingsError(UserError):
    """A setting that does not exist or was given a value it cannot have, or a parameter file that cannot be read."""
