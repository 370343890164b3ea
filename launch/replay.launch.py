"""Play a recording and relocalize it as if it were live.

ros2 launch mast3r_ros replay.launch.py bag:=my_bag map:=$HOME/maps/office rviz:=true

The camera's topics are found in the recording; name them (image:=...) where it holds several cameras.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from mast3r_ros.io.bags import find_topics, open_bag
from mast3r_ros.io.bags.frames import base_name
from mast3r_ros.ros import launch_tools as tools


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the player and the relocalizer on the recording's time."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="recording to play: ROS 2 folder, .mcap, .db3, or ROS 1 .bag"),
            DeclareLaunchArgument("map", description="folder of the map"),
            DeclareLaunchArgument("rate", default_value="1.0", description="seconds of recording per second"),
            DeclareLaunchArgument("start_offset", default_value="0.0", description="start this far in, seconds"),
            DeclareLaunchArgument("loop", default_value="false", description="start again at the end"),
            DeclareLaunchArgument("on_end", default_value="exit", description="exit ends everything; hold stays"),
            DeclareLaunchArgument(
                "matcher", default_value="", description="matcher by name; empty: as params_file says"
            ),
            *tools.camera_arguments(),
            *tools.node_arguments("relocalizer.yaml"),
            *tools.fast_dds_profile(),
            OpaqueFunction(function=_replay),
        ]
    )


def _replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    ends = tools.value(context, "on_end") == "exit" and not tools.is_true(context, "loop")
    player = Node(
        package="mast3r_ros",
        executable="bag_player",
        name="bag_player",
        output="screen",
        parameters=[
            {
                "bag": tools.value(context, "bag"),
                "rate": float(tools.value(context, "rate")),
                "start_offset": float(tools.value(context, "start_offset")),
                "loop": tools.is_true(context, "loop"),
                "on_end": tools.value(context, "on_end"),
                # A large map takes a while to load; the first images should not be missed.
                "wait_for_subscribers": 120.0,
            }
        ],
        on_exit=[Shutdown(reason="the recording has ended")] if ends else None,
    )
    passed_on = ("map", "matcher", "params_file", "namespace", "log_level", "rviz")
    arguments = {name: tools.value(context, name) for name in passed_on} | _recorded_topics(context)
    relocalization = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(tools.shared("launch", "relocalization.launch.py")),
        launch_arguments={**arguments, "use_sim_time": "true"}.items(),
    )
    return [relocalization, player]


def _recorded_topics(context: LaunchContext) -> dict[str, str]:
    """Where the recording holds images, calibration and depth, as far as it was not said."""
    names = ("camera", "image_transport", "depth_transport", *tools.TOPICS)
    said = {name: tools.value(context, name) for name in names}
    if said["camera"] != "none":
        return said
    compressed = said["image_transport"] == "compressed" and said["image"]
    wished = f"{said['image']}/compressed" if compressed else said["image"]
    packed = said["depth_transport"] == "compressedDepth" and said["depth"]
    wished_depth = f"{said['depth']}/compressedDepth" if packed else said["depth"]
    with open_bag(tools.value(context, "bag")) as bag:
        found = find_topics(
            bag.topics, str(bag.path), wished or None, said["camera_info"] or None, wished_depth or None
        )
    image, depth = base_name(found.image), base_name(found.depth or "")
    return {
        "camera": "none",
        "image": image,
        "image_transport": "raw" if image == found.image else "compressed",
        "camera_info": found.camera_info or "",
        "depth": depth,
        "depth_transport": "raw" if depth == (found.depth or "") else "compressedDepth",
        "depth_info": said["depth_info"] or found.depth_info or "",
    }
