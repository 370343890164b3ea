"""Work done side by side: the same results in the same order, whoever does it, and whoever dies."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dying_workers import die_always, die_once, double

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.described import describe
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import create
from mast3r_ros.workers import workers

BACKENDS = ["1", "2", "ray"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers find the tasks of this folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def backend(where: str) -> str:
    if where == "ray":
        pytest.importorskip("ray", reason="the extra 'ray' is optional")
    return where


@pytest.mark.parametrize("where", BACKENDS)
def test_results_come_in_order_and_a_worker_that_dies_is_replaced(tmp_path: Path, where: str) -> None:
    with workers(backend(where)) as several:
        assert list(several.run(double, range(20))) == [2 * n for n in range(20)]
        if where != "1":
            assert list(several.run(partial(die_once, tmp_path), range(20))) == [2 * n for n in range(20)]
            assert (tmp_path / "died").exists()


def test_workers_that_die_again_and_again_are_told() -> None:
    with workers("2") as several, pytest.raises(UserError, match="died 3 times"):
        list(several.run(die_always, range(4)))


@pytest.mark.parametrize("where", ["0", "many", "ssh://a"])
def test_unknown_workers_are_told(where: str) -> None:
    with pytest.raises(UserError, match=r"ray://HOST"), workers(where):
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("where", BACKENDS[1:])
def test_a_map_is_the_same_whoever_describes_it(tmp_path: Path, where: str) -> None:
    camera, rng = Camera.pinhole(96, 72, 80, 80, 47.5, 35.5), np.random.default_rng(3)
    made = KeyframeMap()
    for number in range(20):
        image = np.kron(rng.integers(0, 255, (18, 24, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        depth = np.full((72, 96), 2.0, np.float32)
        made.add(PosedFrame(Frame(image, camera, number, depth), se3.make(np.eye(3), [number, 0, 0])))
    made.save(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    matcher = create("sift")
    for name, who in (("one", "1"), ("other", backend(where))):
        keyframe_map = KeyframeMap.load(tmp_path / name)
        with workers(who) as several:
            describe(keyframe_map, matcher, several)
        keyframe_map.prepare(matcher)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert one == other and sum("features" in name for name in one) == 20
