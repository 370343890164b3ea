"""What the packaging files say agrees: versions, dependencies, pins, commands, data files."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mast3r_ros
from mast3r_ros import waiting_threads
from mast3r_ros.errors import as_run_here

pytestmark = pytest.mark.smoke

#: Modules whose distribution or rosdep key is called something else.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "rerun": "rerun-sdk",
}
ROSDEP_KEYS = {
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "scipy": "python3-scipy",
}
#: Comes with PyTorch's CUDA builds; without it a GPU is used in another way.
WITH_PYTORCH = {"triton"}
#: Not needed by what runs on a robot.
LABORATORY = {"rerun-sdk"}
#: Not from PyPI: brought by ROS 2 on a robot.
ROS = re.compile(
    r"(rclpy|launch|launch_ros|tf2_ros|ament_index_python|builtin_interfaces|rcl_interfaces|\w+_(msgs|srvs))$"
)


def requirement_lines(text: str) -> list[Requirement]:
    """The requirements of a pip requirements file that apply to this Python; files it names are not read."""
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return [r for r in wanted if r.marker is None or r.marker.evaluate()]


def pins(path: Path) -> dict[str, str]:
    """Pinned versions in a requirements file by canonical name; fails on anything that is not pinned exactly."""
    pinned = {}
    for requirement in requirement_lines(path.read_text()):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path.name}: {requirement} is not pinned"
        pinned[canonicalize_name(requirement.name)] = specifier.version
    return pinned


def setup_arguments(repository: Path) -> dict[str, ast.expr]:
    """The keyword arguments of the call to setup() in setup.py."""
    tree = ast.parse((repository / "setup.py").read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def accepted(repository: Path) -> dict[str, Requirement]:
    """install_requires of setup.py by canonical name."""
    listed = [Requirement(line) for line in ast.literal_eval(setup_arguments(repository)["install_requires"])]
    return {canonicalize_name(requirement.name): requirement for requirement in listed}


def extras(repository: Path) -> dict[str, Requirement]:
    """What setup.py's extras add, by canonical name."""
    groups = ast.literal_eval(setup_arguments(repository)["extras_require"]).values()
    return {canonicalize_name(r.name): r for r in (Requirement(line) for group in groups for line in group)}


def imported_modules(*paths: Path) -> dict[str, Path]:
    """Top-level modules that are imported absolutely anywhere in these files, each with one importing file."""
    modules: dict[str, Path] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update({alias.name.split(".")[0]: path for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules[node.module.split(".")[0]] = path
    return modules


def exec_depends(repository: Path) -> set[str]:
    """The exec_depend keys of package.xml."""
    return {str(e.text) for e in ElementTree.parse(repository / "package.xml").iter("exec_depend")}


def test_versions_agree(repository: Path) -> None:
    version = mast3r_ros.__version__
    assert ElementTree.parse(repository / "package.xml").findtext("version") == version
    assert ast.literal_eval(setup_arguments(repository)["version"]) == version
    newest = re.search(r"^(\d+\.\d+\.\d+) \(", (repository / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert newest and newest.group(1) == version


@pytest.mark.parametrize("name", ["requirements.txt", "requirements/ubuntu-24.04.txt"])
def test_every_dependency_is_pinned_within_its_range(repository: Path, name: str) -> None:
    pinned = pins(repository / "requirements/pip.txt") | pins(repository / name)
    for library, requirement in accepted(repository).items():
        assert library in pinned, f"setup.py requires {library}, which neither requirements/pip.txt nor {name} pins"
        assert requirement.specifier.contains(pinned[library]), f"{library}=={pinned[library]} is outside {requirement}"
    unknown = pinned.keys() - accepted(repository).keys() - extras(repository).keys()
    assert not unknown, f"pinned in {name} but not required by setup.py: {sorted(unknown)}"


def test_floors_are_plain_and_those_of_ubuntu(repository: Path) -> None:
    """What Ubuntu 22.04 has is a floor; test_floors.py runs on them."""
    floors = {}
    for name, requirement in accepted(repository).items():
        (specifier,) = requirement.specifier
        assert specifier.operator == ">=", f"{requirement}: tools turn `name>=version` into `name==version`"
        floors[name] = specifier.version
    apt = pins(repository / "requirements/ubuntu-22.04.txt")
    assert {name: floors[name] for name in apt} == apt


def test_every_tool_and_ros_wheel_is_pinned(repository: Path) -> None:
    for path in sorted((repository / "requirements").glob("*.txt")):
        if path.name != "constraints.txt":
            # Nothing of features.txt is for Python 3.10.
            assert pins(path) or (path.name == "features.txt" and sys.version_info < (3, 11)), path


def test_every_import_is_a_declared_dependency(repository: Path) -> None:
    """A module that is imported but declared nowhere works here and fails on a user's machine."""
    required, ros = accepted(repository), exec_depends(repository)
    with_nav2 = {"bond", "nav2_msgs"}
    for module, path in imported_modules(*sorted((repository / "mast3r_ros").rglob("*.py"))).items():
        if module in sys.stdlib_module_names or module in with_nav2 | WITH_PYTORCH | {"mast3r_ros"}:
            continue
        if ROS.match(module):
            assert module in ros, f"{path} imports {module}, which package.xml does not list"
        else:
            name = canonicalize_name(DISTRIBUTIONS.get(module, module))
            assert name in required | extras(repository), f"{path} imports {module}, which setup.py does not require"


def test_package_xml_lists_what_apt_can_bring(repository: Path) -> None:
    keys = {ROSDEP_KEYS[name] for name in accepted(repository) if name in ROSDEP_KEYS}
    assert keys == {key for key in exec_depends(repository) if key.startswith("python3-")}


def test_apt_and_the_requirements_of_a_robot_cover_everything(repository: Path) -> None:
    """docs/install.md: rosdep brings what package.xml lists, pip the rest, in the ranges of setup.py."""
    wanted = requirement_lines((repository / "requirements-robot.txt").read_text())
    by_pip = {canonicalize_name(requirement.name): requirement for requirement in wanted}
    from_pip = {
        name: range_ for name, range_ in accepted(repository).items() if name not in {*ROSDEP_KEYS, *LABORATORY}
    }
    assert by_pip == from_pip
    for dockerfile in ("cpu", "cuda"):
        assert "-r requirements-robot.txt" in (repository / "docker" / f"{dockerfile}.Dockerfile").read_text()


def test_the_dockerfiles_differ_in_pytorch_only(repository: Path) -> None:
    def steps(name: str) -> list[str]:
        lines = (repository / "docker" / f"{name}.Dockerfile").read_text().splitlines()
        return [line.removesuffix(" \\") for line in lines if not line.startswith("#")]

    (cpu_only,) = [line for line in steps("cpu") if line not in steps("cuda")]
    assert "whl/cpu" in cpu_only and steps("cuda") == [line for line in steps("cpu") if line != cpu_only]
    assert os.access(repository / "docker" / "entrypoint.sh", os.X_OK)


def declared_commands(repository: Path, command: str) -> list[str]:
    """The commands that setup.py declares when it is run with this command."""
    code = "import setuptools; setuptools.setup = lambda **k: print(k['entry_points']); exec(open('setup.py').read())"
    listed = subprocess.run(
        [sys.executable, "-c", code, command], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    return list(ast.literal_eval(listed)["console_scripts"])


def executables(repository: Path) -> list[Path]:
    """What `ros2 run` starts."""
    return sorted((repository / "executables").iterdir())


def test_a_global_path_gets_no_command_without_the_name_of_the_package(repository: Path) -> None:
    """pip's bin/ is shared by all programs; colcon's commands would run on colcon's own Python, not on a venv's."""
    for command in ("bdist_wheel", "editable_wheel", "dist_info"):
        assert all(line.startswith("mast3r_ros") for line in declared_commands(repository, command)), command
    for command in ("install", "develop"):
        assert declared_commands(repository, command) == []


def test_ros2_run_starts_every_node_with_the_python_of_the_shell(repository: Path) -> None:
    assert {path.name for path in executables(repository)} == {"bag_player", "mapper", "mast3r_ros", "relocalizer"}
    for path in executables(repository):
        assert os.access(path, os.X_OK), f"{path.name} cannot be executed"
        assert path.read_text().startswith("#!/usr/bin/env python3\n")
        module = next(iter(re.findall(r"^ *from ([\w.]+) import main$", path.read_text(), re.MULTILINE)))
        assert importlib.util.find_spec(module), module
    version = subprocess.run(
        [repository / "executables" / "mast3r_ros", "--version"],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert version == f"mast3r_ros {mast3r_ros.__version__}\n"


def test_a_missing_module_is_named_with_the_way_out(repository: Path, tmp_path: Path) -> None:
    """`ros2 run` without the virtual environment: the system's Python lacks what pip brought."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy', name='numpy')")
    for name in ("relocalizer", "mapper", "bag_player"):
        done = subprocess.run(
            [sys.executable, repository / "executables" / name],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert "module numpy" in done.stderr and "docs/install.md" in done.stderr


def test_messages_name_the_command_as_it_is_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After colcon build `mast3r_ros` is on no PATH: users are told to say `ros2 run mast3r_ros mast3r_ros`."""
    sentence = "make one with `mast3r_ros map build SOURCE`; see mast3r_ros in docs"
    monkeypatch.setenv("PATH", str(tmp_path))
    built_by_colcon = "make one with `ros2 run mast3r_ros mast3r_ros map build SOURCE`; see mast3r_ros in docs"
    assert as_run_here(sentence) == built_by_colcon and as_run_here(built_by_colcon) == built_by_colcon
    (tmp_path / "mast3r_ros").write_text("#!/bin/sh\n")
    (tmp_path / "mast3r_ros").chmod(0o755)
    assert as_run_here(sentence) == sentence


def test_importing_the_package_leaves_the_environment_alone(repository: Path) -> None:
    """The variables that our programs set are for our programs, not for whoever composes one of our nodes."""
    clean = {k: v for k, v in os.environ.items() if k not in waiting_threads.DEFAULTS}
    unchanged = "import os; before = dict(os.environ); import mast3r_ros; assert dict(os.environ) == before, os.environ"
    # OpenCV, for one, changes LD_LIBRARY_PATH: only what is ours is looked for.
    unset = "import os, mast3r_ros.localization, mast3r_ros.ros.relocalizer_node\n"
    unset += f"assert not set({list(waiting_threads.DEFAULTS)}) & set(os.environ), os.environ"
    for code in (unchanged, unset):
        subprocess.run([sys.executable, "-c", code], env=clean, check=True, cwd=repository)


@pytest.mark.parametrize(
    "program",
    [
        "import mast3r_ros.cli.main as program; run = lambda: program.main()",
        "from mast3r_ros.ros import relocalizer, runner; runner.importlib.import_module = said\nrun = relocalizer.main",
        "from mast3r_ros.ros import mapper, runner; runner.importlib.import_module = said\nrun = mapper.main",
    ],
    ids=["mast3r_ros", "relocalizer", "mapper"],
)
def test_programs_let_waiting_threads_sleep_before_numpy_comes(repository: Path, program: str) -> None:
    code = "import os, sys; sys.argv[1:] = ['--version']; names = {names}\ndef said(_): raise SystemExit\n{program}\n"
    code += "assert not {{'numpy', 'torch'}} & set(sys.modules)\n"
    code += "try: run()\nexcept SystemExit: pass\n"
    code += "assert {{name: os.environ.get(name) for name in names}} == names, os.environ"
    clean = {k: v for k, v in os.environ.items() if k not in waiting_threads.DEFAULTS}
    code = code.format(names=waiting_threads.DEFAULTS, program=program)
    subprocess.run([sys.executable, "-c", code], env=clean, cwd=repository, check=True, capture_output=True)


def test_installed_commands_are_those_of_setup_py(repository: Path) -> None:
    names = {line.split("=")[0].strip() for line in declared_commands(repository, "bdist_wheel")}
    installed = {e.name for e in metadata.distribution("mast3r_ros").entry_points if e.group == "console_scripts"}
    nodes = {f"mast3r_ros_{path.name}" for path in executables(repository)} - {"mast3r_ros_mast3r_ros"}
    assert names == {"mast3r_ros"} | nodes
    by_pip = Path(str(metadata.distribution("mast3r_ros").locate_file(""))).is_relative_to(sys.prefix)
    assert installed == (names if by_pip else set()), "colcon makes no commands: see setup.py"


def test_a_wheel_holds_the_ros_resources_and_every_package(repository: Path, tmp_path: Path) -> None:
    """What `pip install .` would install, listed by building the package's file tree without isolation."""
    build = [sys.executable, "setup.py", "-q", "install", "--single-version-externally-managed", "--prefix", "/x"]
    build += ["--root", str(tmp_path / "root"), "--record", str(tmp_path / "record")]
    build[3:3] = ["egg_info", "--egg-base", str(tmp_path), "build", "--build-base", str(tmp_path / "build")]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    files = set((tmp_path / "record").read_text().split())
    expected = {
        "share/ament_index/resource_index/packages/mast3r_ros",
        "share/mast3r_ros/package.xml",
        "share/mast3r_ros/config/fastdds.xml",
        "lib/mast3r_ros/relocalizer",
        "lib/mast3r_ros/mapper",
        "lib/mast3r_ros/bag_player",
        "lib/mast3r_ros/mast3r_ros",
    }
    expected |= {f"share/mast3r_ros/launch/{path.name}" for path in (repository / "launch").glob("*.py")}
    assert expected <= {file.removeprefix("/x/") for file in files}
    code = [file for file in files if file.endswith(".py") and "/launch/" not in file]
    installed = {file.split("site-packages/")[-1] for file in code}
    sources = {str(path.relative_to(repository)) for path in (repository / "mast3r_ros").rglob("*.py")}
    assert sources == installed


def test_the_environment_has_ros(repository: Path) -> None:
    """A fresh interpreter imports rclpy and the generated tf2_msgs with no library path set by hand."""
    check = "import rclpy; from tf2_msgs.msg import TFMessage; assert TFMessage().transforms == []"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=repository)


def test_the_peak_of_memory_is_of_this_program_and_not_of_who_started_it() -> None:
    """Linux hands ru_maxrss on to a child: benchmarks in fresh processes had their parent's peak."""
    had = np.ones(50_000_000)
    told = "from mast3r_ros.memory import peak_mib, resident_mib; print(resident_mib(), peak_mib())"
    result = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    resident, peak = map(float, result.stdout.split())
    assert 1 < resident <= peak < 300 < had.nbytes / 2**20
