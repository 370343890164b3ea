"""Launch files, configurations and docs/ros.md agree with the nodes; where launch is installed, they are run."""

from __future__ import annotations

import json
import py_compile
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2")

from ros_world import build_map, values
from test_ros_bag_player import write_bag

from mast3r_ros.ros import launch_plan
from mast3r_ros.ros.bag_player import BagPlayerParameters
from mast3r_ros.ros.cameras import CAMERAS
from mast3r_ros.ros.mapper_node import Mapper
from mast3r_ros.ros.mapper_parameters import MapperParameters
from mast3r_ros.ros.relocalizer_node import RelocalizerNode
from mast3r_ros.settings import Settings
from mast3r_ros.tables import settings_of

pytestmark = pytest.mark.usefixtures("rclpy_running")

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))
TABLES = {"relocalizer": Settings, "mapper": MapperParameters, "bag_player": BagPlayerParameters}


def names(table: type) -> set[str]:
    return {entry.name for entry in settings_of(table)}


@pytest.fixture(scope="module")
def live_topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """Topics that the real nodes publish or subscribe to, under their default names."""
    folder = tmp_path_factory.mktemp("maps")
    mapper = Mapper(parameter_overrides=values(map=str(folder / "new")))
    relocalizer = RelocalizerNode(
        parameter_overrides=values(map=str(build_map(folder / "map")), matcher="fake", autostart=False)
    )
    relocalizer.trigger_configure()
    relocalizer.trigger_activate()
    topics: set[str] = set()
    for node in (mapper, relocalizer):
        for endpoint in (*node.publishers, *node.subscriptions):
            topics.add(endpoint.topic_name)
    yield topics
    mapper.destroy_node()
    relocalizer.destroy_node()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_compile_and_ask_for_plans_that_exist(path: Path, tmp_path: Path) -> None:
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
    arguments, plan = re.findall(r"launch_plan\.(\w+)[,)]", path.read_text())
    assert arguments == f"{plan}_arguments" and plan == path.name.partition(".")[0]
    assert callable(getattr(launch_plan, arguments)) and callable(getattr(launch_plan, plan))


def test_launch_files_and_configurations_are_installed() -> None:
    code = "import setuptools; setuptools.setup = lambda **k: print(k['data_files']); exec(open('setup.py').read())"
    listed = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for path in (*LAUNCH_FILES, *(REPOSITORY / "config").iterdir()):
        assert f"{path.parent.name}/{path.name}" in listed, f"{path.name} is not installed by setup.py"


def parameter_sections(path: Path) -> dict[str, dict[str, Any]]:
    return {node: section["ros__parameters"] for node, section in yaml.safe_load(path.read_text()).items()}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_parameter_in_a_configuration_is_declared_and_allowed(path: Path) -> None:
    for node, parameters in parameter_sections(path).items():
        node = path.stem if node == "/**" else node.rpartition("/")[2]
        if node in ("map_server", "lifecycle_manager_localization"):
            continue  # Nav2's
        tables = [TABLES[node]] if node in TABLES else [Settings, MapperParameters]
        for table in tables:
            assert set(parameters) <= names(table), f"{path.name}: {set(parameters) - names(table)}"
            for entry in settings_of(table):
                if entry.name in parameters:
                    assert not entry.spec.complaint(entry.name, entry.kind, parameters[entry.name])


def test_derived_files_are_up_to_date() -> None:
    derived = runpy.run_path(str(REPOSITORY / "scripts" / "ros_reference.py"))["files"]()
    for path, content in derived.items():
        assert path.read_text() == content, f"{path.name} is not up to date: run scripts/ros_reference.py"
    page = (REPOSITORY / "docs" / "ros.md").read_text()
    for node, table in TABLES.items():
        assert all(f"| `{name}`" in page for name in names(table)), node


def test_default_parameter_files_are_accepted_by_the_nodes(tmp_path: Path) -> None:
    """As ros2 launch hands them over: the node's file, then the camera's, then the arguments."""
    context_args = ["--ros-args", "-r", "__ns:=/robot1"]
    for name in ("mapper.yaml", "zed.yaml"):
        context_args += ["--params-file", str(REPOSITORY / "config" / name)]
    context_args += ["-p", f"map:={tmp_path / 'map'}"]
    mapper = Mapper(cli_args=context_args)
    try:
        assert mapper.get_fully_qualified_name() == "/robot1/mapper"
        assert mapper.get_parameter("rectified").value is True
        assert mapper.get_parameter("depth_slop").value == 0.005
        assert mapper.get_parameter("selection.distance_m").value == MapperParameters().selection.distance_m
    finally:
        mapper.destroy_node()
    files = [str(REPOSITORY / "config" / name) for name in ("relocalizer.yaml", "usb_cam.yaml")]
    relocalizer = RelocalizerNode(
        cli_args=["--ros-args", *(w for f in files for w in ("--params-file", f)), "-p", "autostart:=false"]
    )
    try:
        assert relocalizer.get_parameter("use_depth").value is False
        assert relocalizer.get_parameter("keyframes").value == Settings().localizer.keyframes
    finally:
        relocalizer.destroy_node()


def rviz_topics(path: Path) -> set[str]:
    document = yaml.safe_load(path.read_text())["Visualization Manager"]
    return {entry["Topic"]["Value"] for entry in (*document["Displays"], *document["Tools"]) if "Topic" in entry}


@pytest.mark.parametrize("name", ["relocalization", "mapping"])
def test_rviz_shows_topics_that_exist_and_the_launch_file_moves_all_of_them(name: str, live_topics: set[str]) -> None:
    shown = rviz_topics(REPOSITORY / "config" / f"{name}.rviz")
    assert shown and shown <= live_topics
    node = {"relocalization": "relocalizer", "mapping": "mapper"}[name]
    assert set(launch_plan.RVIZ_TOPICS[node]) == shown


def test_foxglove_shows_topics_that_exist(live_topics: set[str]) -> None:
    layout = json.loads((REPOSITORY / "config" / "foxglove_layout.json").read_text())
    panels = layout["configById"]
    shown = set(panels["3D!relocalization"]["topics"]) | {panels["Image!matches"]["imageMode"]["imageTopic"]}
    shown |= {path["value"].split(".")[0] for path in panels["Plot!pose"]["paths"]}
    shown |= {
        panels["DiagnosticSummary!health"]["topicToRender"],
        panels["3D!relocalization"]["publish"]["poseEstimateTopic"],
    }
    assert shown <= live_topics
    in_layout = set(re.findall(r'"(\w+![\w]+)"', json.dumps(layout["layout"])))
    assert in_layout == set(panels)


def test_the_documentation_names_every_topic_and_camera(live_topics: set[str]) -> None:
    page = (REPOSITORY / "docs" / "ros.md").read_text()
    for topic in live_topics - {"/tf", "/tf_static", "/parameter_events", "/rosout"}:
        short = re.sub(r"^/(relocalizer|mapper)/", "~/", topic)
        assert f"`{short}`" in page or f"`{short.lstrip('/')}`" in page, topic
    for name, camera in CAMERAS.items():
        if name != "none":
            assert f"`{name}`" in page and camera.image in page and camera.depth in page
            assert (REPOSITORY / "config" / camera.settings).is_file()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_descriptions_are_made_by_real_launch(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("launch_ros", reason="launch is not on PyPI: runs where ROS 2 is installed")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    bag = write_bag(tmp_path / "ride", 2)
    given = {"map": str(tmp_path / "map"), "bag": str(bag), "camera": "none", "rviz": "true", "namespace": "robot1"}
    description = runpy.run_path(str(path))["generate_launch_description"]()
    context = LaunchContext()
    context.launch_configurations.update(given)
    made = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            made += entity.execute(context)
    nodes = [entity for entity in made if isinstance(entity, Node)]
    assert nodes and len(made) == {"relocalization": 2, "mapping": 2, "replay": 3}[path.name.partition(".")[0]]
