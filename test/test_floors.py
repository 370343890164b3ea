"""The floors that setup.py states, installed exactly (`make setup DISTRO=humble`), do the command line's main job."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from test_package import accepted

#: A drive through a small room: its bag, and three of its frames as pictures, with their true poses in JSON.
RECORD = """
import json, sys
from pathlib import Path
import cv2
from mast3r_ros.io.datasets import open_source
from mast3r_ros.lab.synthetic import recording

folder = Path(sys.argv[1])
small = recording.RecordingSettings(family="office", seed=1, width=320, height=240, mapping_s=6.0, mapping_hz=2)
recording.record_mapping(recording.demo_world(small), folder / "mapping.mcap", small)
truth = {}
frames = list(open_source(folder / "mapping.mcap"))
for number in (3, 6, 9):
    posed = frames[number]
    cv2.imwrite(str(folder / f"{number}.png"), posed.frame.image[..., ::-1])
    truth[f"{number}.png"] = posed.map_T_camera.tolist()
(folder / "truth.json").write_text(json.dumps(truth))
"""


@pytest.fixture(scope="module")
def floors(repository: Path) -> Path:
    """The environment with the floors."""
    environment = repository / ".venv-humble"
    if not (environment / ".setup" / "package").exists():
        pytest.skip("needs the environment that `make setup DISTRO=humble` makes where it finds a Python 3.10")
    return environment


def run(floors: Path, command: str, *arguments: str | Path) -> str:
    """What a command of that environment prints."""
    environ = {name: value for name, value in os.environ.items() if name not in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE",)}
    environ.pop("LD_LIBRARY_PATH", None)  # of this interpreter's ROS wheels
    line = [str(floors / "bin" / command), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, f"{' '.join(line[:4])}: {done.stderr[-2000:]}"
    return done.stdout


def test_the_floors_are_plain_and_installed_exactly(floors: Path, repository: Path) -> None:
    stated = {}
    for name, requirement in accepted(repository).items():
        (floor,) = requirement.specifier
        assert floor.operator == ">=" and not requirement.extras and requirement.marker is None, requirement
        stated[name] = Version(floor.version)
    code = "import json, sys; from importlib.metadata import version; print(json.dumps([*map(version, sys.argv[1:])]))"
    installed = [Version(version) for version in json.loads(run(floors, "python", "-c", code, *stated))]
    assert [version.public for version in installed] == [version.public for version in stated.values()]


@pytest.mark.timeout(600)  # five processes, each of which imports torch
def test_a_map_is_built_and_images_are_localized_on_the_floors(floors: Path, tmp_path: Path) -> None:
    run(floors, "python", "-c", RECORD, tmp_path)
    built = run(floors, "mast3r_ros", "map", "build", tmp_path / "mapping.mcap", "-o", tmp_path / "map", "--json")
    assert json.loads(built)["keyframes"] >= 3
    truth = json.loads((tmp_path / "truth.json").read_text())
    images = [tmp_path / name for name in truth]
    answers = run(floors, "mast3r_ros", "localize", tmp_path / "map", *images, "--json")
    found = [json.loads(line) for line in answers.splitlines()]
    assert len(found) == len(truth)
    for answer, true in zip(found, truth.values()):
        assert answer["status"] == "localized", answer
        assert np.linalg.norm(np.array(answer["map_T_camera"]["translation"]) - np.array(true)[:3, 3]) < 0.05
