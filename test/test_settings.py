"""One tree of settings: ROS, parameter files, command line and documentation say the same."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mast3r_ros.cli.main import app
from mast3r_ros.errors import SettingsError
from mast3r_ros.localization.estimate import Reason
from mast3r_ros.matching.registry import matcher_options
from mast3r_ros.settings import Settings
from mast3r_ros.tables import as_markdown, as_yaml, settings_of

pytestmark = pytest.mark.smoke


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    changed = Settings().changed({"gates.min_inliers": 30, "matcher": "sift", "initial_pose.x": 2, "autostart": False})
    changed.write(tmp_path / "robot.yaml")
    assert Settings.read(tmp_path / "robot.yaml") == changed
    assert isinstance(changed.node.initial_pose.x, float)
    assert changed.differences() == {
        "gates.min_inliers": 30,
        "matcher": "sift",
        "initial_pose.x": 2.0,
        "autostart": False,
    }


@pytest.mark.parametrize("node", ["/**", "relocalizer", "/relocalizer", "/robot1/relocalizer", "/**/relocalizer"])
def test_files_of_the_node_are_read_however_they_name_it(node: str, tmp_path: Path) -> None:
    document = {
        node: {"ros__parameters": {"keyframes": 7, "gates": {"min_spread": 0.2}, "use_sim_time": True}},
        "amcl": {"ros__parameters": {"alpha1": 0.2}},
    }
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(document))
    read = Settings.read(tmp_path / "robot.yaml")
    assert (read.localizer.keyframes, read.localizer.gates.min_spread) == (7, 0.2)
    assert set(read.differences()) == {"keyframes", "gates.min_spread"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/**: {ros__parameters: {keyframe: 5}}", "no parameter keyframe .did you mean keyframes"),
        ("/**: {ros__parameters: {keyframes: 0}}", "keyframes must be a whole number between 1 and 100, got 0"),
        ("/**: {ros__parameters: {threshold: .nan}}", "threshold must be a number"),
        ("/**: {ros__parameters: {feature: surf, feed: me}}", "(?s)feature must be one of sift, orb.*feed must be"),
        ("keyframes: 5", "is no parameter file: expected"),
        ("[1, 2]", "is no parameter file: expected"),
        ("{a: [", "is not YAML"),
    ],
)
def test_wrong_files_are_told_with_what_would_be_right(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(text)
    with pytest.raises(SettingsError, match=complaint) as told:
        Settings.read(tmp_path / "robot.yaml")
    assert "robot.yaml" in str(told.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere.yaml: No such file"):
        Settings.read(tmp_path / "nowhere.yaml")


def test_the_tree_is_frozen_and_changed_as_a_whole() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.localizer.gates.min_inliers = 3  # type: ignore[misc]
    changed = settings.changed({"gates.min_inliers": 20})
    assert (
        settings == Settings() and changed.localizer.gates.min_inliers == 20 and changed.tracking == settings.tracking
    )


def test_every_setting_is_said_once_and_within_its_own_range() -> None:
    names = [entry.name for entry in settings_of(Settings)]
    assert len(names) == len(set(names))
    for entry in settings_of(Settings):
        assert not entry.spec.complaint(entry.name, entry.kind, entry.default)


def test_one_default_changes_ros_yaml_docs_and_command_line(tmp_path: Path) -> None:
    """The default of one field is changed in the source, and nothing else."""
    program = """
import re, sys
from pathlib import Path
import mast3r_ros.settings as s
text = Path(s.__file__).read_text()
text, count = re.subn(r'keyframes: int = setting\\(5,', 'keyframes: int = setting(9,', text)
assert count == 1
exec(compile(text, s.__file__, "exec"), s.__dict__)
from mast3r_ros.cli import options
from mast3r_ros.lab.commands.options import DEFAULT_KEYFRAMES
from mast3r_ros.tables import as_markdown, as_yaml
from mast3r_ros.localization import Localizer, LocalizerSettings
assert "    keyframes: 9" in as_yaml(s.Settings)
assert "| `keyframes` | int | `9` |" in as_markdown(s.Settings)
assert "[default: 9]" in options.option("keyframes").help and DEFAULT_KEYFRAMES == 9
assert LocalizerSettings().keyframes == 9
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert "    keyframes: 5" in as_yaml(Settings) and "| `keyframes` | int | `5` |" in as_markdown(Settings)


def test_settings_of_the_gpu_reach_the_matcher_that_has_them() -> None:
    matching = Settings().changed({"compile_network": True, "device_memory": 3, "network_size": 128}).matching
    had = {"compile": True, "device_memory": 3, "size": 128}
    assert had.items() <= matcher_options("mast3r", matching.options()).items()
    assert not set(had) & set(matcher_options("sift", matching.options()))
    shown = CliRunner().invoke(app, ["localize", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "--compile" in shown.stdout


def test_the_command_writes_and_checks_files(tmp_path: Path) -> None:
    run = CliRunner()
    assert run.invoke(app, ["settings", "--write", str(tmp_path / "robot.yaml")]).exit_code == 0
    assert Settings.read(tmp_path / "robot.yaml") == Settings()
    shown = run.invoke(app, ["settings", "--params", str(tmp_path / "robot.yaml"), "--json"])
    assert yaml.safe_load(shown.stdout) == Settings().values()


def test_every_reason_for_a_refusal_is_explained(repository: Path) -> None:
    page = (repository / "docs" / "ros.md").read_text()
    table = page.split("### Why a frame was not localized")[1].split("###")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert explained == {reason.value for reason in Reason if reason is not Reason.NONE}
