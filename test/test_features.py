"""docs/features.md has a row and a test for every public feature; QUALITY_DECLARATION.md links to what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import typer
from test_package import accepted

from mast3r_ros.cli.main import app
from mast3r_ros.tables import settings_of

#: How the tests' robot (ros_world.py) speaks of transforms.
IN_TESTS = {"tf": "drive", "tf_static": "mount_camera"}
ROW = re.compile(r"^\| (?:(\w+) )?`([^`]+)` \| \[(test_\w+\.py)\]\(\.\./test/(test_\w+\.py)\) \| `(\w+)` \|$", re.M)


#: What REP-2004 requires of level 2.
LEVEL_2 = {
    *("1.i", "1.ii", "1.iii", "1.iv", "1.v", "1.vi", "2.i", "2.ii", "2.iv", "3.i", "3.iii", "3.iv", "3.v"),
    *("4.i", "4.iii", "4.v", "5.i", "5.iii", "6.i", "7.i"),
}


@pytest.fixture(scope="module")
def rows(repository: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """By heading: (node or empty, feature, file, test) of each row."""
    page = (repository / "docs" / "features.md").read_text()
    parts = dict(part.split("\n", 1) for part in re.split(r"^## ", page, flags=re.M)[1:])
    read = {
        name: [(node, what, file, test) for node, what, file, _, test in ROW.findall(t)] for name, t in parts.items()
    }
    for name, text in parts.items():
        assert len(read[name]) == text.count("\n| ") - 1, f"{name}: a row that cannot be read"
        assert all(file == target for _, _, file, target, _ in ROW.findall(text))
    return read


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that does something, in words."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*path, name))


def features(rows: dict[str, list[tuple[str, str, str, str]]], heading: str) -> list[str]:
    found = [" ".join(filter(None, row[:2])) for row in rows[heading]]
    assert len(found) == len(set(found)), f"{heading}: a row twice"
    return sorted(found)


def test_every_command_and_launch_file_has_a_row(rows, repository: Path) -> None:
    assert features(rows, "Commands") == sorted(commands(typer.main.get_command(app)))
    assert features(rows, "Launch files") == sorted(path.name for path in (repository / "launch").glob("*.launch.py"))


def test_every_topic_service_and_parameter_has_a_row(rows, repository: Path, tmp_path: Path) -> None:
    """The policy has what relocalizer and mapper really use: test_security.py."""
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from node_interfaces import OF_EVERY_NODE, of_bag_player

    from mast3r_ros.ros.bag_player import BagPlayerParameters
    from mast3r_ros.ros.mapper_parameters import MapperParameters
    from mast3r_ros.settings import Settings

    player = of_bag_player(tmp_path)
    played = player.said | player.offered
    tables = (Settings, MapperParameters, BagPlayerParameters)
    assert features(rows, "Parameters") == sorted({entry.name for table in tables for entry in settings_of(table)})
    real = {f"bag_player {name}" for name in played - OF_EVERY_NODE}
    for profile in ElementTree.parse(repository / "config/sros2/policy.xml").iter("profile"):
        names = {str(name.text) for kind in ("topic", "service") for name in profile.iter(kind)}
        real |= {f"{profile.get('node')} {name}" for name in names - OF_EVERY_NODE - {"clock"}}
    assert features(rows, "Topics and services") == sorted(real)


def test_every_test_is_there_and_its_file_names_the_feature(rows, repository: Path) -> None:
    for heading, listed in rows.items():
        for _, what, file, test in listed:
            text = (repository / "test" / file).read_text()
            assert re.search(rf"def {test}\(", text), f"{file} has no {test}"
            text += (repository / "test" / "ros_world.py").read_text() if "from ros_world import" in text else ""
            # A command by its words, a topic or a parameter by its last name, a launch file by that of its plan.
            words = what.split() if heading == "Commands" else [re.split(r"[/.]", what.removesuffix(".launch.py"))[-1]]
            for word in words:
                word = IN_TESTS.get(word, word)
                assert re.search(rf"\b{re.escape(word)}|__{re.escape(word)}", text), f"{file} does not name {what}"


def test_the_quality_declaration_goes_through_level_2_and_links_to_what_is_there(repository: Path) -> None:
    page = (repository / "QUALITY_DECLARATION.md").read_text()
    claims = re.findall(r"^\| ((?:\d\.[ivx]+(?:, )?)+) \| [^|]+ \| (.+) \|$", page, re.M)
    assert {number for numbers, _ in claims for number in numbers.split(", ")} == LEVEL_2
    for numbers, claim in claims:
        proven = re.search(r"\]\((?!http)|`make |`git ", claim) or "**not met**" in claim or numbers in ("1.v", "5.iii")
        assert proven, f"{numbers}: neither a test or a command, nor said to be missing"
    for target in re.findall(r"\]\((?!http)([^)#]+)", page):
        assert (repository / target).exists(), target
    makefile = (repository / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"`make (\w+)", page))
    listed = re.findall(r"^\| `([\w-]+)` \|", page, re.M)
    assert listed == [requirement.name for requirement in accepted(repository).values()]
