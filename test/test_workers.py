"""Work done side by side: the same results in the same order, whoever does it, and whoever dies."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dying_matcher import DyingMatcher
from dying_workers import die_always, die_once, double

from mast3r_ros.errors import MapError, UserError
from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.endure.scene import CAMERA, map_T_camera, view
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.splits import evaluate_split
from mast3r_ros.localization import Localizer
from mast3r_ros.localization.map_noise import save_ready
from mast3r_ros.localization.portable import PortableLocalizer, Query
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


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of two visits of the same views, not described yet."""
    folder, made = tmp_path_factory.mktemp("room"), KeyframeMap()
    for number in (*range(12), *range(12)):
        image, depth = view(number)
        off = se3.exp(np.random.default_rng(len(made)).normal(0, 0.003, 6))
        made.add(PosedFrame(Frame(image, CAMERA, len(made), depth), map_T_camera(number) @ off))
    made.save(folder / "map")
    return folder / "map"


@pytest.mark.parametrize("where", BACKENDS[1:])
def test_a_map_is_the_same_whoever_makes_it_ready(tmp_path: Path, room: Path, where: str) -> None:
    """Described, and its noise measured; in the middle of describing a worker is killed."""
    ready = {}
    for name, who in (("one", "1"), ("other", backend(where))):
        shutil.copytree(room, tmp_path / name)
        keyframe_map = KeyframeMap.load(tmp_path / name)
        keyframe_map.provenance["source"] = "a room"
        with workers(who) as several:
            matcher = create("fake") if who == "1" else DyingMatcher(create("fake"), tmp_path / "died")
            save_ready(keyframe_map, matcher, tmp_path / name, by=several)
        ready[name] = contents(tmp_path / name)
    assert (tmp_path / "died").exists()
    assert ready["one"] == ready["other"] and sum("features" in name for name in ready["one"]) >= 24
    assert keyframe_map.pose_noise is not None


def facts(records: list[Record]) -> list[tuple[object, ...]]:
    """All that is known of queries but for the time that they took."""
    return [
        (r.name, r.accepted, r.reason, r.map_T_camera.tobytes(), r.covariance.tobytes(), r.keyframes, repr(r.evidence))
        for r in records
        if r.map_T_camera is not None and r.covariance is not None
    ]


@pytest.mark.parametrize("where", BACKENDS[1:])
def test_queries_are_answered_alike_whoever_answers(tmp_path: Path, room: Path, where: str) -> None:
    keyframe_map, queries = (
        KeyframeMap.load(room),
        [PosedFrame(Frame(view(n)[0], CAMERA, n), map_T_camera(n)) for n in range(10)],
    )
    told: list[tuple[int, int]] = []
    found = {}
    for who in ("1", backend(where)):
        matcher = create("fake") if who == "1" else DyingMatcher(create("fake"), tmp_path / "died")
        with workers(who) as several:
            evaluation, _ = evaluate_split(
                queries,
                keyframe_map,
                matcher,
                progress=lambda stage, done, total: told.append((done, total)) if stage == "localizing" else None,
                name="room",
                by=several,
            )
        found[who] = facts(evaluation.records)
        assert len(evaluation.records) == 10 and all(r.timings_ms["processor"] > 0 for r in evaluation.records)
    assert (tmp_path / "died").exists()
    assert found["1"] == found[where] and len(found["1"]) >= 8
    assert told == 2 * [(done, 10) for done in range(1, 11)]


def test_what_was_asked_before_makes_no_difference(room: Path) -> None:
    keyframe_map, frames = KeyframeMap.load(room), [Frame(view(n)[0], CAMERA, n) for n in range(3)]
    one = PortableLocalizer(Localizer(keyframe_map, create("fake")))
    before = one(Query(frames[0]))
    for frame in 3 * frames:
        one(Query(frame))
    assert (one(Query(frames[0])).map_T_camera == before.map_T_camera).all()


def test_a_map_that_workers_cannot_read_is_told() -> None:
    with workers("2") as several, pytest.raises(MapError, match="save it first"):
        list(several.run(PortableLocalizer(Localizer(KeyframeMap(), create("fake"))), []))
