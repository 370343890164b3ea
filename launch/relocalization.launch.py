"""Relocalize a camera in a map.

ros2 launch mast3r_ros relocalization.launch.py map:=$HOME/maps/office camera:=realsense rviz:=true

What it starts is said in mast3r_ros/ros/launch_plan.py; ros2 launch --show-args lists the arguments.
"""

from __future__ import annotations

from launch import LaunchDescription

from mast3r_ros.ros import launch_plan, launch_tools


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the node and, where asked for, RViz."""
    return launch_tools.description(launch_plan.relocalization_arguments, launch_plan.relocalization)
