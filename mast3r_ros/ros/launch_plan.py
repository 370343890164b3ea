"""What the launch files start, as plain data: which programs, with which parameters, remappings and variables.

Nothing of ``launch`` is imported here, so that all of this can be tested without it; :mod:`launch_tools` translates.
``ros2 launch`` runs on the system's Python: only what ROS 2 itself brings may be imported (the standard library, YAML).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mast3r_ros.errors import UserError
from mast3r_ros.plain_yaml import read_yaml
from mast3r_ros.ros import recorded_topics
from mast3r_ros.ros.cameras import CAMERAS, CameraTopics

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
#: Those of ROS 2, by the names it takes on a command line.
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
#: By the argument that names them.
TRANSPORTS = {"image_transport": ("raw", "compressed"), "depth_transport": ("raw", "compressedDepth")}
#: The mapper saves its map when it is told to stop, seconds.
TIME_TO_STOP = 60.0
#: A large map takes a while to load, and the first images of a recording should not be missed, seconds.
WAIT_FOR_THE_NODE = 120.0
#: Topics that RViz shows or publishes; those of the nodes follow the namespace.
RVIZ_TOPICS = {
    "relocalizer": (
        "/relocalizer/map_points",
        "/relocalizer/keyframes",
        "/relocalizer/points",
        "/relocalizer/pose",
        "/relocalizer/path",
        "/relocalizer/matches",
        "/initialpose",
    ),
    "mapper": ("/mapper/keyframes", "/mapper/coverage"),
}
RVIZ_CONFIGURATIONS = {"relocalizer": "relocalization.rviz", "mapper": "mapping.rviz"}


@dataclass(frozen=True)
class Argument:
    """An argument of a launch file; without a default it must be given."""

    name: str
    sentence: str
    default: str | None = ""


@dataclass(frozen=True)
class Program:
    """An executable of a ROS 2 package.

    Attributes:
        parameters: files and tables, later ones win.
        remappings: (from, to); relative names are resolved in the node's namespace.
        arguments: of the command line.
        time_to_stop: before it is killed, seconds; None as launch does.
        last_reason: everything is stopped when this program ends, with this reason; empty: it is not.
    """

    package: str
    executable: str
    namespace: str = ""
    parameters: tuple[str | dict[str, Any], ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    time_to_stop: float | None = None
    last_reason: str = ""


@dataclass(frozen=True)
class LaunchPlan:
    """Programs to start, and sentences to say."""

    programs: tuple[Program, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installation:
    """What is installed: the folder of our shared files, and whether a ROS 2 package is there."""

    share: Path
    has: Callable[[str], bool] = field(default=lambda package: False)

    def config(self, name: str) -> str:
        """Path of one of our configuration files."""
        return str(self.share / "config" / name)


def relocalization_arguments(installation: Installation) -> list[Argument]:
    """Arguments of relocalization.launch.py."""
    empty = "; empty: as the parameter file says"
    return [
        Argument("map", "folder of the map" + empty),
        Argument("matcher", "matcher by name" + empty),
        Argument("checkpoint", "weights of a network, safetensors" + empty),
        Argument("feed", "none, or amcl to seed AMCL" + empty),
        Argument("autostart", "false where a lifecycle manager starts the node" + empty),
        *_live_arguments(installation.config("relocalizer.yaml")),
    ]


def relocalization(given: Mapping[str, str], installation: Installation) -> LaunchPlan:
    """The relocalizer, fed by a camera. Raises UserError for arguments that cannot be."""
    overrides = _overrides(given, "map", "matcher", "checkpoint", "feed")
    if given["autostart"]:
        overrides["autostart"] = switch(given, "autostart")
    return _node_and_rviz("relocalizer", given, installation, _camera_topics(given), overrides)


def mapping_arguments(installation: Installation) -> list[Argument]:
    """Arguments of mapping.launch.py."""
    empty = "; empty: as the parameter file says"
    return [
        Argument("map", "folder to save the map to" + empty),
        Argument("existing", "refuse, extend or replace a map that is there" + empty),
        Argument("global_frame_id", "frame of the poses" + empty),
        Argument("matcher", "matcher of the coverage trials" + empty),
        *_live_arguments(installation.config("mapper.yaml")),
    ]


def mapping(given: Mapping[str, str], installation: Installation) -> LaunchPlan:
    """The mapper, fed by a camera. Raises UserError for arguments that cannot be."""
    overrides = _overrides(given, "map", "existing", "global_frame_id", "matcher")
    return _node_and_rviz("mapper", given, installation, _camera_topics(given), overrides)


def replay_arguments(installation: Installation) -> list[Argument]:
    """Arguments of replay.launch.py."""
    empty = "; empty: as params_file says"
    return [
        Argument("bag", "recording to play: ROS 2 folder, .mcap, .db3, or ROS 1 .bag", None),
        Argument("map", "folder of the map", None),
        Argument("rate", "seconds of recording per second", "1.0"),
        Argument("start_offset", "start this far in, seconds", "0.0"),
        Argument("loop", "start again at the end", "false"),
        Argument("on_end", "exit ends everything; hold stays", "exit"),
        Argument("matcher", "matcher by name" + empty),
        Argument("checkpoint", "weights of a network, safetensors" + empty),
        *_camera_arguments(),
        # The recording's time; there is no other.
        *(a for a in _node_arguments(installation.config("relocalizer.yaml")) if a.name != "use_sim_time"),
        *_transform_arguments("", "", "empty: as recorded"),
    ]


def replay(given: Mapping[str, str], installation: Installation) -> LaunchPlan:
    """A recording, played on its own time, and the relocalizer. Raises UserError for arguments that cannot be."""
    given = {**given, "use_sim_time": "true"}
    if given["on_end"] not in ("exit", "hold"):
        raise UserError(f"on_end:={given['on_end']} is neither exit nor hold")
    ends = given["on_end"] == "exit" and not switch(given, "loop")
    player = Program(
        package="mast3r_ros",
        executable="bag_player",
        parameters=(
            {
                "bag": os.path.expanduser(given["bag"]),
                "rate": _number(given, "rate"),
                "start_offset": _number(given, "start_offset"),
                "loop": switch(given, "loop"),
                "on_end": given["on_end"],
                "wait_for_subscribers": WAIT_FOR_THE_NODE,
            },
        ),
        last_reason="the recording has ended" if ends else "",
    )
    given, topics = _as_recorded(given)
    overrides = _overrides(given, "map", "matcher", "checkpoint")
    plan = _node_and_rviz("relocalizer", given, installation, topics, overrides)
    return dataclasses.replace(plan, programs=(*plan.programs, player))


def switch(given: Mapping[str, str], name: str) -> bool:
    """An argument that is true or false. Raises UserError for anything else."""
    text = given[name].strip().lower()
    if text not in TRUE + FALSE:
        raise UserError(f"{name}:={given[name]} is neither true nor false")
    return text in TRUE


def _live_arguments(params_file: str) -> list[Argument]:
    """Arguments of a node beside a camera and a robot."""
    transforms = _transform_arguments("tf", "tf_static", "relative names follow the namespace, as Nav2's do")
    return [*_camera_arguments(), *_node_arguments(params_file), *transforms]


def _camera_arguments() -> list[Argument]:
    """Where images come from."""
    as_camera = "; empty: as camera says"
    return [
        Argument("camera", f"presets, whose topics follow the namespace: {', '.join(CAMERAS)}", "none"),
        Argument("image", "topic of raw images" + as_camera),
        Argument("image_transport", "raw, or compressed for the topic IMAGE/compressed", "raw"),
        Argument("camera_info", "topic of calibration" + as_camera),
        Argument("depth", "topic of depth" + as_camera),
        Argument("depth_transport", "raw, or compressedDepth for the topic DEPTH/compressedDepth", "raw"),
        Argument("depth_info", "calibration of depth" + as_camera),
    ]


def _node_arguments(params_file: str) -> list[Argument]:
    """What every node of this package takes."""
    return [
        Argument("namespace", "namespace of the nodes"),
        Argument("params_file", "parameter file", params_file),
        Argument("use_sim_time", "take the time from /clock", "false"),
        Argument("log_level", ", ".join(LOG_LEVELS), "info"),
        Argument("rviz", "start RViz beside the node", "false"),
    ]


def _transform_arguments(tf: str, tf_static: str, sentence: str) -> list[Argument]:
    return [
        Argument("tf", f"topic of transforms; {sentence} (/tf: one tree for all robots)", tf),
        Argument("tf_static", f"topic of static transforms; {sentence}", tf_static),
    ]


def _number(given: Mapping[str, str], name: str) -> float:
    try:
        return float(given[name])
    except ValueError:
        raise UserError(f"{name}:={given[name]} is no number") from None


def _overrides(given: Mapping[str, str], *names: str) -> dict[str, Any]:
    """Arguments that were given; others are left to the parameter file. A shell leaves the ~ of map:=~/x as it is."""
    return {name: os.path.expanduser(given[name]) for name in names if given[name]}


def _preset(given: Mapping[str, str]) -> CameraTopics:
    name = given["camera"]
    if name not in CAMERAS:
        raise UserError(f"camera:={name} is not known: choose one of {', '.join(CAMERAS)}, or name the topics")
    return CAMERAS[name]


def _camera_topics(given: Mapping[str, str]) -> CameraTopics:
    """The preset, relative so that it follows the namespace, with the topics that were given one by one as they are."""
    preset = _preset(given)
    topics = {
        key: given[key] or getattr(preset, key).lstrip("/") for key in ("image", "camera_info", "depth", "depth_info")
    }
    return dataclasses.replace(preset, **topics)


def _as_recorded(given: Mapping[str, str]) -> tuple[dict[str, str], CameraTopics]:
    """Where the recording holds images, calibration, depth and transforms, as far as it was not said."""
    preset, is_preset = _preset(given), given["camera"] != "none"
    said = {key: given[key] or (getattr(preset, key) if is_preset else "") for key in ("image", "camera_info", "depth")}
    found = recorded_topics.find(
        recorded_topics.Request(
            bag=given["bag"],
            **_transports(given),
            preset=is_preset,
            namespace=given["namespace"],
            **said,
        )
    )
    topics = dataclasses.replace(
        preset,
        image=found.image,
        camera_info=found.camera_info,
        depth=found.depth,
        depth_info=given["depth_info"] or found.depth_info,
    )
    recorded = {
        "image_transport": found.image_transport,
        "depth_transport": found.depth_transport,
        "tf": given["tf"] or found.tf,
        "tf_static": given["tf_static"] or found.tf_static,
    }
    return {**given, **recorded}, topics


def _transports(given: Mapping[str, str]) -> dict[str, str]:
    """How images and depth are packed, by argument (and parameter)."""
    for name, known in TRANSPORTS.items():
        if given[name] not in known:
            raise UserError(f"{name}:={given[name]} is not known: choose one of {', '.join(known)}")
    return {name: given[name] for name in TRANSPORTS}


def _parameter_file(given: Mapping[str, str]) -> str:
    """The parameter file, which must be one: without it the node would run with its defaults or not at all."""
    path = os.path.expanduser(given["params_file"])
    try:
        document = read_yaml(Path(path).read_text())
    except OSError as error:
        raise UserError(f"params_file:={path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"params_file:={path} is no YAML: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"params_file:={path} has no parameters: expected NODE: ros__parameters: ... (docs/ros.md)")
    return path


def _log_level(given: Mapping[str, str]) -> str:
    """A level, or LOGGER:=LEVEL as ROS 2 takes it."""
    level = given["log_level"]
    if level.rpartition(":=")[2].lower() not in LOG_LEVELS:
        raise UserError(f"log_level:={level} is no log level: choose one of {', '.join(LOG_LEVELS)}")
    return level


def _node_and_rviz(
    executable: str,
    given: Mapping[str, str],
    installation: Installation,
    topics: CameraTopics,
    overrides: Mapping[str, Any],
) -> LaunchPlan:
    """The relocalizer or the mapper and, where asked for, RViz.

    Parameters of the node: the file first, then what the camera asks for, then the launch arguments.
    """
    transports, sim_time = _transports(given), switch(given, "use_sim_time")
    remappings = {
        "image": recorded_topics.packed(topics.image, transports["image_transport"]),
        "camera_info": topics.camera_info or "camera_info",
        "depth": recorded_topics.packed(topics.depth or "depth", transports["depth_transport"]),
        "depth/camera_info": topics.depth_info or "depth/camera_info",
    }
    transforms = (("/tf", given["tf"]), ("/tf_static", given["tf_static"]))
    node = Program(
        package="mast3r_ros",
        executable=executable,
        namespace=given["namespace"],
        parameters=(
            _parameter_file(given),
            *([installation.config(topics.settings)] if topics.settings else []),
            {"use_sim_time": sim_time, **transports, **overrides},
        ),
        remappings=(*((name, topic) for name, topic in remappings.items() if name != topic), *transforms),
        arguments=("--ros-args", "--log-level", _log_level(given)),
        time_to_stop=TIME_TO_STOP,
    )
    if not switch(given, "rviz"):
        return LaunchPlan((node,))
    if not installation.has("rviz2"):
        return LaunchPlan((node,), ("RViz is not installed (apt install ros-$ROS_DISTRO-rviz2): going on without it",))
    rviz = Program(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        parameters=({"use_sim_time": sim_time},),
        # In the node's namespace, so that what its configuration names follows it.
        remappings=(*((topic, topic.lstrip("/")) for topic in RVIZ_TOPICS[executable]), *transforms),
        arguments=("-d", installation.config(RVIZ_CONFIGURATIONS[executable])),
    )
    return LaunchPlan((node, rviz))
