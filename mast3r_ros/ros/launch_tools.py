"""Turns a plan into a launch description. Runs where ROS 2's ``launch`` is installed (there are no wheels of it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mast3r_ros.ros import fast_dds
from mast3r_ros.ros.launch_plan import Argument, Installation, LaunchPlan, Program


def description(
    arguments: Callable[[Installation], list[Argument]],
    plan: Callable[[Mapping[str, str], Installation], LaunchPlan],
) -> LaunchDescription:
    """Arguments, our Fast DDS profile unless the user has one, then what the plan says once the arguments are known."""
    installation = Installation(Path(get_package_share_directory("mast3r_ros")), _is_installed)
    known = arguments(installation)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in known}
        made = plan(given, installation)
        return [*(LogInfo(msg=note) for note in made.notes), *(_node(program) for program in made.programs)]

    profile = Path(installation.config("fastdds.xml"))
    unread = fast_dds.unread()
    return LaunchDescription(
        [
            *(_declared(argument) for argument in known),
            *(SetEnvironmentVariable(name, value) for name, value in fast_dds.setting(profile).items()),
            *([LogInfo(msg=unread)] if unread else []),
            OpaqueFunction(function=start),
        ]
    )


def _is_installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def _declared(argument: Argument) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.sentence)


def _parameters(entry: str | dict[str, Any]) -> str | dict[str, Any]:
    """A file, or a table. Launch would read texts as YAML, and a map in the folder 2026 would be a number."""
    if isinstance(entry, str):
        return entry
    return {k: ParameterValue(v, value_type=str) if isinstance(v, str) else v for k, v in entry.items()}


def _node(program: Program) -> Node:
    """A plain Node, not a LifecycleNode: the relocalizer configures and activates itself (parameter ``autostart``).

    That works with every launch version; a lifecycle manager can drive it all the same.
    """
    time_outs = {}
    if program.time_to_stop is not None:
        time_outs = dict.fromkeys(("sigterm_timeout", "sigkill_timeout"), f"{program.time_to_stop:g}")
    return Node(
        package=program.package,
        executable=program.executable,
        name=program.executable,
        namespace=program.namespace,
        output="screen",
        parameters=[_parameters(entry) for entry in program.parameters],
        remappings=list(program.remappings),
        arguments=list(program.arguments),
        on_exit=[Shutdown(reason=program.last_reason)] if program.last_reason else None,
        **time_outs,
    )
