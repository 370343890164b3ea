"""Relocalize a camera in a map.

ros2 launch mast3r_ros relocalization.launch.py map:=$HOME/maps/office camera:=realsense rviz:=true
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from mast3r_ros.ros import launch_tools as tools

#: Of the node's topics, those that RViz shows or publishes: they follow the namespace.
RVIZ_TOPICS = (
    "/relocalizer/map_points",
    "/relocalizer/keyframes",
    "/relocalizer/points",
    "/relocalizer/pose",
    "/relocalizer/path",
    "/relocalizer/matches",
    "/initialpose",
)


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the node and, where asked for, RViz."""
    empty = "; empty: as the parameter file says"
    return LaunchDescription(
        [
            DeclareLaunchArgument("map", default_value="", description="folder of the map" + empty),
            DeclareLaunchArgument("matcher", default_value="", description="matcher by name" + empty),
            DeclareLaunchArgument(
                "checkpoint", default_value="", description="weights of a network, safetensors" + empty
            ),
            DeclareLaunchArgument("feed", default_value="", description="none, or amcl to seed AMCL" + empty),
            DeclareLaunchArgument(
                "autostart", default_value="true", description="false where a lifecycle manager starts the node"
            ),
            *tools.camera_arguments(),
            *tools.node_arguments("relocalizer.yaml"),
            *tools.fast_dds_profile(),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Node]:
    overrides = tools.given(context, "map", "matcher", "checkpoint", "feed")
    autostart = tools.is_true(context, "autostart")
    node = tools.processing_node(context, "relocalizer", tools.camera_topics(context), autostart=autostart, **overrides)
    return [node, *tools.rviz_node(context, "relocalization.rviz", RVIZ_TOPICS)]
