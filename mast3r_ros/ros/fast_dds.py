"""Which variable hands our Fast DDS profile over: the name has changed, and both together load the profile twice.

Fast DDS 2 (Humble, Jazzy) reads FASTRTPS_DEFAULT_PROFILES_FILE only. Fast DDS 3 (Kilted and later) reads
FASTDDS_DEFAULT_PROFILES_FILE; there rmw_fastrtps still reads the old name as well, so that with both set every
node complains (XMLPARSER) about profiles that exist already.

Imports nothing but the standard library, so that scripts/with_ros.sh can run this file by itself: it prints
NAME=PATH of the variable to set, or nothing where the user has a profile of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

NEW_NAME = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_NAME = "FASTRTPS_DEFAULT_PROFILES_FILE"
#: Distributions with Fast DDS 2. Those that come after them have Fast DDS 3.
WITH_FAST_DDS_2 = ("foxy", "galactic", "humble", "iron", "jazzy")
#: rclpy of the first distribution with Fast DDS 3 (Kilted: 9; Jazzy: 7).
RCLPY_WITH_FAST_DDS_3 = 8


def variable(environment: Mapping[str, str] = os.environ) -> str:
    """The name that this distribution's Fast DDS reads a profile from.

    ROS_DISTRO says which distribution it is; where it is not set (ROS 2 from wheels), the version of rclpy does.
    """
    distribution = environment.get("ROS_DISTRO", "").strip().lower()
    if distribution:
        return OLD_NAME if distribution in WITH_FAST_DDS_2 else NEW_NAME
    version = _rclpy_version()
    return OLD_NAME if version is not None and version < RCLPY_WITH_FAST_DDS_3 else NEW_NAME


def setting(profile: Path | None = None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process's environment needs to use our profile; empty where the user has one, or ours is not there.

    Args:
        profile: the file; None looks where this package has it.
        environment: what is set already.
    """
    if any(environment.get(name) for name in (NEW_NAME, OLD_NAME)):
        return {}
    file = profile or next((path for path in _places(environment) if path.is_file()), None)
    return {} if file is None else {variable(environment): str(file)}


def unread(environment: Mapping[str, str] = os.environ) -> str:
    """A sentence where the user's profile is given under a name that this distribution does not read; else empty."""
    read = variable(environment)
    if read == OLD_NAME and environment.get(NEW_NAME) and not environment.get(OLD_NAME):
        return f"{NEW_NAME} is set, which this distribution's Fast DDS does not read: set {OLD_NAME} instead"
    return ""


def _rclpy_version() -> int | None:
    """Major version of the installed rclpy; None where there is none."""
    for name in ("rclpy", "ros-rclpy", "ros-jazzy-rclpy"):  # installed by a distribution, or from wheels
        try:
            return int(metadata.version(name).split(".")[0])
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return None


def _places(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where our profile may lie: in the repository, or installed by pip or colcon."""
    yield Path(__file__).resolve().parents[2] / "config" / "fastdds.xml"
    for prefix in (sys.prefix, *filter(None, environment.get("AMENT_PREFIX_PATH", "").split(":"))):
        yield Path(prefix) / "share" / "mast3r_ros" / "config" / "fastdds.xml"


if __name__ == "__main__":
    for name, value in setting().items():
        print(f"{name}={value}")
