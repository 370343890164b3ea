"""The Python interface: the seven lines of the README, and what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import walls

import mast3r_ros as m
from mast3r_ros.geometry import se3
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map on disk and a photo of the same place, where the README says they are."""
    folder = tmp_path_factory.mktemp("office")
    keyframes = KeyframeMap()
    for number in range(3):
        keyframes.add(walls.posed(number))
    keyframes.prepare(create("sift"))
    keyframes.save(folder / "maps" / "office")
    m.Settings().write(folder / "robot.yaml")
    cv2.imwrite(str(folder / "photo.png"), walls.image(1)[..., ::-1])
    return folder


def test_the_first_code_block_of_the_readme_runs(
    office: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    (office / "photo.jpg").write_bytes((office / "photo.png").read_bytes())
    monkeypatch.chdir(office)
    names: dict[str, object] = {}
    exec(blocks[0], names)
    answer = names["answer"]
    assert isinstance(answer, m.PoseEstimate) and answer.reason is m.Reason.NONE
    assert answer.map_T_camera is not None and "Reason.NONE" in capsys.readouterr().out


def test_pixels_a_file_and_a_frame_are_the_same(office: Path) -> None:
    relocalizer = m.Relocalizer(m.open_map(office / "maps" / "office"), m.load_matcher("sift"))
    pixels = walls.image(1)
    by_file = relocalizer.localize(str(office / "photo.png"))
    by_pixels = relocalizer.localize(pixels)
    by_frame = relocalizer.localize(m.Frame(pixels, walls.CAMERA))
    for answer in (by_file, by_pixels, by_frame):
        assert answer.localized and answer.map_T_camera is not None
        assert np.allclose(answer.map_T_camera, by_file.map_T_camera)


def test_a_localizer_says_the_same_as_the_pipeline(office: Path) -> None:
    keyframes, matcher = m.open_map(office / "maps" / "office"), create("sift")
    frame = m.Frame(walls.image(2), walls.CAMERA)
    ours, core = m.Relocalizer(keyframes, matcher).localize(frame), Localizer(keyframes, matcher).localize(frame)
    assert np.array_equal(ours.map_T_camera, core.map_T_camera)


def test_without_a_network_nothing_waits_for_pytorch(office: Path) -> None:
    """A robot with sift starts seconds earlier: neither its nodes nor a whole answer in a map import PyTorch."""
    nodes = [f"mast3r_ros.ros.{name}_node" for name in ("relocalizer", "mapper") if find_spec("rclpy")]
    program = f"""
import sys
from importlib import import_module
import mast3r_ros as m
for node in {nodes}:
    import_module(node)
keyframes = m.open_map({str(office / "maps" / "office")!r})
relocalizer = m.Relocalizer(keyframes, m.load_matcher("sift"))
assert relocalizer.localize({str(office / "photo.png")!r}).localized
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout == "False\n", ran


def test_settings_are_swapped_as_a_whole_between_frames(office: Path) -> None:
    relocalizer = m.Relocalizer(m.open_map(office / "maps" / "office"), m.load_matcher("sift"))
    assert relocalizer.localize(walls.image(1)).localized
    relocalizer.settings = m.Settings().changed({"gates.min_inliers": 10000})
    refused = relocalizer.localize(walls.image(1))
    assert not refused.localized and refused.reason is m.Reason.TOO_FEW_INLIERS


def test_the_map_keeps_as_much_in_memory_as_the_settings_say(office: Path) -> None:
    keyframes, settings = m.open_map(office / "maps" / "office"), m.Settings().changed({"feature_memory": 1})
    matcher = m.Relocalizer(keyframes, m.load_matcher("sift"), settings).matcher
    assert keyframes.feature_memory == 2**20
    for keyframe in keyframes.keyframes:
        keyframes.features(matcher, keyframe.id)
    assert keyframes._cache.used_bytes <= 2**20


def test_a_track_holds_odometry_against_a_jump(office: Path) -> None:
    settings = m.Settings().changed({"tracking.commit_views": 1})
    relocalizer = m.Relocalizer(m.open_map(office / "maps" / "office"), m.load_matcher("sift"), settings)
    first = m.Frame(walls.image(1), walls.CAMERA, 10**9)
    assert relocalizer.track(first, np.eye(4)).localized
    assert relocalizer.map_T_odom is not None
    far = se3.make(np.eye(3), (30.0, 0.0, 0.0))
    moved = relocalizer.track(m.Frame(walls.image(1), walls.CAMERA, 2 * 10**9), far)
    assert not moved.localized and moved.reason is m.Reason.ODOMETRY_DISAGREES
    relocalizer.reset()
    assert relocalizer.map_T_odom is None


def test_errors_say_the_way_out(office: Path, tmp_path: Path) -> None:
    with pytest.raises(m.UserError, match="nowhere"):
        m.open_map(tmp_path / "nowhere")
    with pytest.raises(m.UserError, match="unknown matcher 'magic'"):
        m.load_matcher("magic")
    relocalizer = m.Relocalizer(m.open_map(office / "maps" / "office"), m.load_matcher("sift"))
    with pytest.raises(m.UserError, match="no_photo.jpg"):
        relocalizer.localize(tmp_path / "no_photo.jpg")


def test_the_package_names_what_it_exports() -> None:
    assert all(getattr(m, name) is not None for name in m.__all__) and set(m.__all__) <= set(dir(m))
    with pytest.raises(AttributeError):
        _ = m.never_there
