"""Play a recording and relocalize it as if it were live.

ros2 launch mast3r_ros replay.launch.py bag:=my_bag map:=$HOME/maps/office rviz:=true

The camera's topics are found in the recording; name them (image:=...) where it holds several cameras.
What it starts is said in mast3r_ros/ros/launch_plan.py; ros2 launch --show-args lists the arguments.
"""

from __future__ import annotations

from launch import LaunchDescription

from mast3r_ros.ros import launch_plan, launch_tools


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the player and the relocalizer on the recording's time."""
    return launch_tools.description(launch_plan.replay_arguments, launch_plan.replay)
