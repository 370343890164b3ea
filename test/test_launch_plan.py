"""What the launch files start, as plain data, and as real processes where that tells more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import numpy as np
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from ros_world import build_map, ros, wait_until
from test_ros_bag_player import picture, write_bag

from mast3r_ros.errors import UserError
from mast3r_ros.io.bags import BagWriter
from mast3r_ros.ros import launch_plan, recorded_topics
from mast3r_ros.ros.cameras import CAMERAS
from mast3r_ros.ros.launch_plan import Installation, LaunchPlan, Program

SHARE = Path(__file__).resolve().parents[1]
PLANS = {
    "relocalization": (launch_plan.relocalization_arguments, launch_plan.relocalization),
    "mapping": (launch_plan.mapping_arguments, launch_plan.mapping),
    "replay": (launch_plan.replay_arguments, launch_plan.replay),
}


def planned(name: str, has: Callable[[str], bool] = lambda package: True, **given: str) -> LaunchPlan:
    """What the launch file would start with these arguments."""
    arguments, plan = PLANS[name]
    installation = Installation(SHARE, has)
    defaults = {argument.name: argument.default or "" for argument in arguments(installation)}
    assert set(given) <= set(defaults), "arguments that are not declared"
    return plan({**defaults, **given}, installation)


def program(plan: LaunchPlan, executable: str) -> Program:
    (found,) = [p for p in plan.programs if p.executable == executable]
    return found


def table(p: Program) -> dict[str, Any]:
    """The parameters that do not come from files."""
    (last,) = [entry for entry in p.parameters if isinstance(entry, dict)]
    return last


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "ride", 2)


@pytest.fixture()
def required(bag: Path) -> dict[str, dict[str, str]]:
    """Arguments without which a launch file cannot be started."""
    return {"relocalization": {}, "mapping": {}, "replay": {"bag": str(bag), "map": "a_map"}}


@pytest.mark.parametrize("name", PLANS)
def test_the_files_that_are_handed_over_exist(name: str, required: dict[str, dict[str, str]]) -> None:
    for camera in CAMERAS if name != "replay" else ["none"]:
        plan = planned(name, camera=camera, rviz="true", **required[name])
        files = [entry for p in plan.programs for entry in p.parameters if isinstance(entry, str)]
        files += [word for p in plan.programs for word in p.arguments if "/" in word]
        assert len(files) >= 2 and all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("name", PLANS)
def test_transforms_follow_the_namespace_as_those_of_nav2_do(name: str, required: dict[str, dict[str, str]]) -> None:
    """A recording's transforms are where they were recorded."""
    plan = planned(name, rviz="true", namespace="robot1", **required[name])
    topics = ("/tf", "/tf_static") if name == "replay" else ("tf", "tf_static")
    for p in plan.programs:
        if p.executable != "bag_player":
            assert p.namespace == "robot1"
            assert set(zip(("/tf", "/tf_static"), topics)) <= set(p.remappings)
    own_tree = planned(name, tf="/tf", tf_static="/tf_static", **required[name]).programs[0]
    assert {("/tf", "/tf"), ("/tf_static", "/tf_static")} <= set(own_tree.remappings)


@pytest.mark.parametrize("camera", [name for name in CAMERAS if name != "none"])
def test_camera_presets_follow_the_namespace(camera: str) -> None:
    preset = CAMERAS[camera]
    remappings = dict(planned("relocalization", camera=camera, namespace="robot1").programs[0].remappings)
    assert remappings["image"] == preset.image.removeprefix("/")
    assert not any(topic.startswith("/") for name, topic in remappings.items())
    named = dict(planned("relocalization", camera=camera, image="/front/image").programs[0].remappings)
    assert named["image"] == "/front/image"
    compressed = planned("relocalization", camera=camera, image_transport="compressed").programs[0]
    assert dict(compressed.remappings)["image"] == f"{preset.image.removeprefix('/')}/compressed"
    assert table(compressed)["image_transport"] == "compressed"


@pytest.mark.parametrize("name", ["relocalization", "mapping"])
def test_the_topics_of_rviz_follow_the_namespace(name: str) -> None:
    rviz = program(planned(name, rviz="true", namespace="robot1"), "rviz2")
    moved = {topic: target for topic, target in rviz.remappings if not topic.startswith("/tf")}
    assert moved and all(target == topic.removeprefix("/") for topic, target in moved.items())


@pytest.mark.parametrize("name", PLANS)
def test_without_rviz_the_node_starts_and_a_sentence_says_so(name: str, required: dict[str, dict[str, str]]) -> None:
    """Launch finds out that a package is missing when the node runs already, and leaves it behind."""
    plan = planned(name, has=lambda package: package != "rviz2", rviz="true", **required[name])
    assert "rviz2" not in [p.executable for p in plan.programs] and plan.programs
    assert "RViz is not installed" in plan.notes[0]
    assert planned(name, rviz="true", **required[name]).notes == ()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("params_file", "/nope", "params_file:=/nope: No such file"),
        ("use_sim_time", "maybe", "use_sim_time:=maybe is neither true nor false"),
        ("rviz", "", "rviz:= is neither true nor false"),
        ("autostart", "perhaps", "autostart:=perhaps is neither"),
        ("loop", "twice", "loop:=twice is neither"),
        ("log_level", "loud", "log_level:=loud .* debug, info, warn, error, fatal"),
        ("log_level", "relocalizer:=loud", "log_level:=relocalizer:=loud"),
        ("image_transport", "theora", "image_transport:=theora .* raw, compressed"),
        ("depth_transport", "theora", "depth_transport:=theora .* raw, compressedDepth"),
        ("camera", "kinect9", "camera:=kinect9 .* realsense"),
        ("rate", "fast", "rate:=fast is no number"),
        ("start_offset", "late", "start_offset:=late"),
        ("on_end", "stop", "on_end:=stop is neither exit nor hold"),
        ("bag", "/no/bag", "/no/bag"),
    ],
)
def test_wrong_arguments_are_named(
    name: str, argument: str, value: str, words: str, required: dict[str, dict[str, str]]
) -> None:
    if argument not in {a.name for a in PLANS[name][0](Installation(SHARE))}:
        return
    with pytest.raises(UserError, match=words):
        planned(name, **{**required[name], argument: value})


@pytest.mark.parametrize("content", ["- a list", "{unclosed", "", "\x00"])
def test_a_parameter_file_without_parameters_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match="params_file:="):
        planned("relocalization", params_file=str(file))


def test_right_arguments_are_taken_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, meant in (("True", True), ("1", True), ("on", True), ("False", False), ("no", False)):
        assert table(planned("relocalization", use_sim_time=text).programs[0])["use_sim_time"] is meant
    for level in ("debug", "WARN", "fatal", "relocalizer:=debug"):
        assert planned("mapping", log_level=level).programs[0].arguments[-1] == level
    monkeypatch.setenv("HOME", "/home/robot")
    assert table(planned("relocalization", map="~/maps/office").programs[0])["map"] == "/home/robot/maps/office"


def test_what_is_not_given_is_left_to_the_parameter_file() -> None:
    """nav2.yaml says autostart: false; so does whoever starts the node with it."""
    node = planned("relocalization", params_file=str(SHARE / "config" / "nav2.yaml")).programs[0]
    assert set(table(node)) == {"use_sim_time", "image_transport", "depth_transport"}
    assert table(planned("relocalization", autostart="false").programs[0])["autostart"] is False


def test_a_recording_is_replayed_on_its_own_topics_and_time(bag: Path) -> None:
    plan = planned("replay", bag=str(bag), map="m")
    node, player = program(plan, "relocalizer"), program(plan, "bag_player")
    assert dict(node.remappings) | {"image": "/camera/image_raw", "depth": "/camera/depth"} == dict(node.remappings)
    assert table(node)["use_sim_time"] is True and table(node)["image_transport"] == "raw"
    assert table(player)["bag"] == str(bag) and player.last_reason
    for stays in ({"loop": "true"}, {"on_end": "hold"}):
        assert not program(planned("replay", bag=str(bag), map="m", **stays), "bag_player").last_reason


def test_a_recording_made_in_a_namespace_is_found_by_its_preset(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for topic in ("/robot1/camera/camera/color/image_raw", "/robot2/camera/camera/color/image_raw"):
            bag.image(topic, picture(0), 1, "cam")
        bag.transform("odom", "base_link", np.eye(4), 1)
    given = {"bag": str(tmp_path / "bag"), "map": "m", "camera": "realsense"}
    node = program(planned("replay", namespace="robot1", **given), "relocalizer")
    assert dict(node.remappings)["image"] == "/robot1/camera/camera/color/image_raw"
    assert any(str(entry).endswith("realsense.yaml") for entry in node.parameters)
    with pytest.raises(UserError, match="no topic /camera/camera/color/image_raw"):
        planned("replay", **given)


def test_ros2_launch_needs_no_module_of_the_virtual_environment(bag: Path, tmp_path: Path) -> None:
    """It runs on the system's Python; the recording is then read by the shell's python3."""
    for missing in ("rosbags", "numpy", "torch", "cv2"):
        (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no {missing}', name='{missing}')")
    wish = recorded_topics.Request(bag=str(bag))
    code = "import os; from mast3r_ros.ros import launch_plan, fast_dds, recorded_topics as r\n"
    code += f"del os.environ['PYTHONPATH']; print(r.find(r.Request(bag={str(bag)!r})))"
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{recorded_topics.look(wish)}\n", done.stderr
    code = code.replace(str(bag), "/no/bag")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "UserError: /no/bag" in done.stderr


# The same, run


def command_line(p: Program) -> list[str]:
    """The command that launch_ros makes of a node."""
    command = [sys.executable, "-m", f"mast3r_ros.ros.{p.executable}", *p.arguments, "--ros-args"]
    command += ["-r", f"__node:={p.executable}", *(["-r", f"__ns:=/{p.namespace}"] if p.namespace else [])]
    for entry in p.parameters:
        pairs = [] if isinstance(entry, str) else [f"{k}:={str(v).lower()}" for k, v in entry.items()]
        command += ["--params-file", entry] if isinstance(entry, str) else [w for pair in pairs for w in ("-p", pair)]
    return command + [word for old, new in p.remappings for word in ("-r", f"{old}:={new}")]


@contextmanager
def running(p: Program) -> Iterator[None]:
    process = subprocess.Popen(command_line(p), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_a_robot_in_a_namespace_hears_its_own_camera_transforms_and_parameters(tmp_path: Path) -> None:
    """The command that launch makes, with Nav2's parameter file, as a process of its own over DDS."""
    params = tmp_path / "nav2.yaml"
    changed = (
        (SHARE / "config" / "nav2.yaml").read_text().replace("transform_tolerance: 1.0", "transform_tolerance: 0.5")
    )
    params.write_text(changed)
    given = {"map": str(build_map(tmp_path / "map")), "matcher": "fake", "autostart": "true"}
    plan = planned("relocalization", namespace="robot1", camera="realsense", params_file=str(params), **given)
    with ros(), running(plan.programs[0]):
        observer = rclpy.create_node("observer")
        camera = {f"/robot1/camera/camera/{topic}" for topic in ("color/image_raw", "color/camera_info")}
        wait_until(lambda: camera | {"/robot1/tf", "/robot1/tf_static"} <= heard(observer))
        assert not any(topic.startswith(("/tf", "/camera")) for topic in heard(observer))
        client = observer.create_client(GetParameters, "/robot1/relocalizer/get_parameters")
        assert client.wait_for_service(30)
        names = ["transform_tolerance", "depth_slop", "autostart"]
        asked = client.call_async(GetParameters.Request(names=names))
        rclpy.spin_until_future_complete(observer, asked, timeout_sec=30)
        tolerance, slop, autostart = asked.result().values
        assert tolerance.double_value == 0.5 and slop.double_value == 0.02 and autostart.bool_value
        observer.destroy_node()


def heard(observer: Node) -> set[str]:
    """Topics that somebody subscribes to."""
    return {name for name, _ in observer.get_topic_names_and_types() if observer.count_subscribers(name)}
