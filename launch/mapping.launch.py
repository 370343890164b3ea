"""Make a map from a camera whose poses are known to TF (SLAM, motion capture, or odometry that is good enough).

ros2 launch mast3r_ros mapping.launch.py map:=$HOME/maps/office camera:=realsense rviz:=true
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from mast3r_ros.ros import launch_tools as tools

#: Of the node's topics, those that RViz shows: they follow the namespace.
RVIZ_TOPICS = ("/mapper/keyframes", "/mapper/coverage")


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the node and, where asked for, RViz."""
    empty = "; empty: as the parameter file says"
    return LaunchDescription(
        [
            DeclareLaunchArgument("map", default_value="", description="folder to save the map to" + empty),
            DeclareLaunchArgument(
                "existing", default_value="", description="refuse, extend or replace a map that is there" + empty
            ),
            DeclareLaunchArgument("global_frame_id", default_value="", description="frame of the poses" + empty),
            DeclareLaunchArgument("matcher", default_value="", description="matcher of the coverage trials" + empty),
            *tools.camera_arguments(),
            *tools.node_arguments("mapper.yaml"),
            *tools.fast_dds_profile(),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Node]:
    overrides = tools.given(context, "map", "existing", "global_frame_id", "matcher")
    node = tools.processing_node(context, "mapper", tools.camera_topics(context), **overrides)
    return [node, *tools.rviz_node(context, "mapping.rviz", RVIZ_TOPICS)]
