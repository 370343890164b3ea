"""Advice that can be followed: an option that an error names exists in the commands that can end in that error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from mast3r_ros.cli.main import app

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]+")
#: A command that a text names with the option; it is held against that command, whoever can end there.
NAMED = re.compile(r"mast3r_ros ([a-z]+(?: [a-z]+)?)(?: [A-Z]\S*)* (--[a-z-]+)")
#: Who can end in the errors of a module outside of cli/.
REACHED_BY = {
    "datasets/detect.py": ["map build", "bag write"],
    "datasets/tum.py": ["map build", "bag write", "evaluate tum"],
    "lab/datasets/query_list.py": ["evaluate queries"],
    "lab/endure/campaign.py": ["endure messages", "endure files", "endure kills", "endure life", "endure faults"],
    "lab/endure/faults.py": ["endure faults"],
    "lab/runs/replay.py": ["evaluate bag", "replay"],
    "lab/runs/compare.py": ["evaluate queries"],
    "lab/runs/worlds.py": ["evaluate worlds"],
    "lab/runs/bag.py": ["evaluate bag"],
    "lab/runs/mapfree.py": ["evaluate mapfree"],
    "lab/runs/mapfree_score.py": ["evaluate mapfree"],
    "network/download.py": ["checkpoint download"],
    "localization/single_reference.py": ["localize"],
    "localization/merge.py": ["map merge"],
    "localization/placement.py": ["map merge"],
    "mapping/consistency.py": ["map build"],
    "mapping/imported.py": ["map import"],
    "mapping/mesh.py": ["map export"],
    "multiview/reconstruct.py": ["reconstruct"],
    "multiview/photos.py": ["reconstruct"],
    "multiview/video.py": ["reconstruct"],
    "multiview/scale.py": ["reconstruct", "map scale"],
    "mast3r_ros/workers.py": ["map build"],
    "mast3r_ros/settings.py": ["localize", "replay", "evaluate bag"],
}
#: Options of the commands of ROS, COLMAP, pip and nvidia-smi.
FOREIGN = {
    "--query-gpu",
    "--format",
    "--id",
    "--no-deps",
    "--output_type",
    "--ros-args",
    "--params-file",
    "--log-level",
    "--once",
}


def commands() -> dict[str, set[str]]:
    """Every command with its options; "" is the program itself."""

    def walk(command: click.Command, name: str) -> Iterator[tuple[str, set[str]]]:
        yield name, {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                yield from walk(inner, f"{name} {word}".strip())

    return dict(walk(typer.main.get_command(app), ""))


def messages(path: Path) -> Iterator[str]:
    """Texts in a module that are neither docstrings nor help of options."""
    tree = ast.parse(path.read_text())
    texts = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node.value


def advice(repository: Path) -> list[tuple[str, str]]:
    """(module, option) of everything that the core's texts name."""
    root = repository / "mast3r_ros"
    found = []
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).as_posix()
        if not module.startswith(("cli/", "lab/commands/")):
            texts = (NAMED.sub("", text) for text in messages(path))
            found += [(module, option) for text in texts for option in OPTION.findall(text)]
    return [(module, option) for module, option in dict.fromkeys(found) if option not in FOREIGN]


def test_every_option_in_an_error_exists_where_the_error_can_happen(repository: Path) -> None:
    known = commands()
    wrong = [
        f"{path.name} names {name} {option}, which it has not"
        for path in sorted((repository / "mast3r_ros").rglob("*.py"))
        for text in messages(path)
        for name, option in NAMED.findall(text)
        if option not in known[name]
    ]
    for module, option in advice(repository):
        who = next((names for key, names in REACHED_BY.items() if f"mast3r_ros/{module}".endswith(key)), None)
        if who is None:
            wrong.append(f"{module} says {option}: say in REACHED_BY which commands can end there")
        else:
            wrong += [f"{module} says {option}, which {name} has not" for name in who if option not in known[name]]
    assert not wrong, "\n".join(wrong)


def test_every_option_in_the_commands_own_texts_exists(repository: Path) -> None:
    every = set().union(*commands().values())
    package = repository / "mast3r_ros"
    for path in (*(package / "cli").glob("*.py"), *(package / "lab" / "commands").glob("*.py")):
        named = {option for text in messages(path) for option in OPTION.findall(text)}
        assert named <= every | FOREIGN, f"{path.name} names {named - every - FOREIGN}"


@pytest.mark.parametrize("command", ["map build", "bag write", "bag check", "replay", "evaluate bag"])
def test_what_readers_of_recordings_advise_can_be_given(command: str) -> None:
    """Their texts name things, not options: image topic, camera_info topic, depth topic, the calibration, no depth."""
    wanted = {"--image-topic", "--camera-info-topic", "--depth-topic", "--intrinsics", "--no-depth"}
    assert wanted <= commands()[command]


@pytest.mark.parametrize("command", ["map build", "bag write", "bag check"])
def test_what_readers_of_poses_advise_can_be_given(command: str) -> None:
    assert {"--map-frame", "--camera-frame", "--pose-topic"} <= commands()[command]
