"""What the launch files share. Runs where ROS 2's ``launch`` is installed (not part of the wheels on PyPI)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mast3r_ros.ros.cameras import CAMERAS, CameraTopics

#: Humble's Fast DDS knows the second name only.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

#: Launch arguments that name the camera's topics.
TOPICS = ("image", "camera_info", "depth", "depth_info")


def shared(*parts: str) -> str:
    """Path of an installed file of this package."""
    return str(Path(get_package_share_directory("mast3r_ros"), *parts))


def camera_arguments() -> list[DeclareLaunchArgument]:
    """The arguments that say where images come from."""
    as_camera = "empty: as camera says"
    return [
        DeclareLaunchArgument("camera", default_value="none", description=f"presets: {', '.join(CAMERAS)}"),
        DeclareLaunchArgument("image", default_value="", description=f"topic of raw images; {as_camera}"),
        DeclareLaunchArgument(
            "image_transport", default_value="raw", description="raw, or compressed for the topic IMAGE/compressed"
        ),
        DeclareLaunchArgument("camera_info", default_value="", description=f"topic of calibration; {as_camera}"),
        DeclareLaunchArgument("depth", default_value="", description=f"topic of depth; {as_camera}"),
        DeclareLaunchArgument(
            "depth_transport",
            default_value="raw",
            description="raw, or compressedDepth for the topic DEPTH/compressedDepth",
        ),
        DeclareLaunchArgument("depth_info", default_value="", description=f"calibration of depth; {as_camera}"),
    ]


def node_arguments(params_file: str) -> list[DeclareLaunchArgument]:
    """The arguments that every node of this package takes."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the nodes"),
        DeclareLaunchArgument("params_file", default_value=shared("config", params_file), description="parameter file"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
        DeclareLaunchArgument("rviz", default_value="false", description="start RViz beside the node"),
    ]


def value(context: LaunchContext, name: str) -> str:
    """What was given for a launch argument."""
    return str(LaunchConfiguration(name).perform(context))


def is_true(context: LaunchContext, name: str) -> bool:
    """A launch argument that is a switch."""
    return value(context, name).lower() in ("true", "1", "yes", "on")


def given(context: LaunchContext, *names: str) -> dict[str, str]:
    """Those launch arguments that were given; the others are left to the parameter file."""
    return {name: text for name in names if (text := value(context, name))}


def camera_topics(context: LaunchContext) -> CameraTopics:
    """The camera preset with the topics that were given one by one.

    Raises:
        RuntimeError: for an unknown camera.
    """
    name = value(context, "camera")
    if name not in CAMERAS:
        raise RuntimeError(f"camera:={name} is not known: choose one of {', '.join(CAMERAS)}, or name the topics")
    preset = CAMERAS[name]
    topics = {
        key: value(context, key) or getattr(preset, key) for key in ("image", "camera_info", "depth", "depth_info")
    }
    return CameraTopics(**topics, settings=preset.settings, driver=preset.driver)


def processing_node(context: LaunchContext, executable: str, topics: CameraTopics, **overrides: Any) -> Node:
    """The relocalizer or the mapper, fed by a camera.

    A plain Node, not a LifecycleNode: the relocalizer configures and activates itself (parameter ``autostart``),
    which works with every launch version; a lifecycle manager can drive it all the same. Parameters: the file first,
    then what the camera asks for, then the launch arguments.
    """
    settings = [shared("config", topics.settings)] if topics.settings else []
    transport, depth_transport = value(context, "image_transport"), value(context, "depth_transport")
    depth = topics.depth or "depth"
    remappings = {
        "image": f"{topics.image}/compressed" if transport == "compressed" else topics.image,
        "camera_info": topics.camera_info,
        "depth": f"{depth}/compressedDepth" if depth_transport == "compressedDepth" else depth,
        "depth/camera_info": topics.depth_info or "depth/camera_info",
    }
    return Node(
        package="mast3r_ros",
        executable=executable,
        name=executable,
        namespace=value(context, "namespace"),
        output="screen",
        parameters=[
            value(context, "params_file"),
            *settings,
            {
                "use_sim_time": is_true(context, "use_sim_time"),
                "image_transport": transport,
                "depth_transport": depth_transport,
                **overrides,
            },
        ],
        remappings=[(name, topic) for name, topic in remappings.items() if name != topic],
        arguments=["--ros-args", "--log-level", value(context, "log_level")],
        # The mapper saves its map when it is told to stop: give it time before it is killed.
        sigterm_timeout="60",
        sigkill_timeout="60",
    )


def rviz_node(context: LaunchContext, config: str, topics: tuple[str, ...]) -> list[Node]:
    """RViz with a configuration of this package, where asked for; its topics follow the namespace."""
    if not is_true(context, "rviz"):
        return []
    namespace = value(context, "namespace").strip("/")
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz2",
            arguments=["-d", shared("config", config)],
            parameters=[{"use_sim_time": is_true(context, "use_sim_time")}],
            remappings=[(topic, f"/{namespace}{topic}") for topic in topics] if namespace else [],
        )
    ]


def fast_dds_profile() -> list[SetEnvironmentVariable]:
    """Shared memory large enough for images, unless the user has a profile of their own. Other DDS ignore it."""
    if any(name in os.environ for name in PROFILE_VARIABLES):
        return []
    return [SetEnvironmentVariable(name, shared("config", "fastdds.xml")) for name in PROFILE_VARIABLES]
