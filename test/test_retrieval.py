"""Finding keyframes by appearance and by pose, and the caches behind it."""

from __future__ import annotations

import builtins
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping import retrieval
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.overlap import view_overlap
from mast3r_ros.mapping.records import Entry
from mast3r_ros.mapping.retrieval import COMPRESS_ABOVE, RetrievalIndex
from mast3r_ros.mapping.views import KeyframeViews
from mast3r_ros.mapping.vlad import Vocabulary
from mast3r_ros.matching.base import Features, Matches

CAMERA = Camera.pinhole(64, 48, 50, 50, 31.5, 23.5)


class PatchMatcher:
    """Describes a frame by its 8x8 grey patches and counts how often it is asked to."""

    name = "patches"

    def __init__(self, signature: str = "patches-1") -> None:
        self.signature = signature
        self.described = 0

    def describe(self, frame: Frame) -> Features:
        self.described += 1
        grey = frame.image.mean(axis=2).astype(np.float32)
        patches = grey.reshape(6, 8, 8, 8).transpose(0, 2, 1, 3).reshape(48, 64)
        patches = patches - patches.mean(axis=1, keepdims=True)
        return {"patches": patches[np.abs(patches).max(axis=1) > 1] / 255, "size": np.array(grey.shape)}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        return features["patches"]

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        return [Matches.empty() for _ in references]


def picture(seed: int, noise: float = 0.0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 255, (24, 32, 1)), np.ones((2, 2, 3)))
    return np.clip(image + np.random.default_rng(seed + 1000).normal(0, noise + 1e-9, image.shape), 0, 255).astype(
        np.uint8
    )


def map_of(count: int) -> KeyframeMap:
    keyframe_map = KeyframeMap()
    for seed in range(count):
        keyframe_map.add(PosedFrame(Frame(picture(seed), CAMERA), se3.make(np.eye(3), [seed, 0, 0])))
    return keyframe_map


def ask(keyframe_map: KeyframeMap, matcher: PatchMatcher, seed: int, k: int = 3) -> list[str]:
    return keyframe_map.retrieve(matcher, matcher.describe(Frame(picture(seed, noise=10), CAMERA)), k)


@pytest.mark.parametrize("count", [1, 2, 5, 20, 80])
def test_a_noisy_copy_finds_its_keyframe_in_maps_of_any_size(count: int) -> None:
    keyframe_map, matcher = map_of(count), PatchMatcher()
    for seed in range(0, count, 7):
        found = ask(keyframe_map, matcher, seed)
        assert found[0] == f"{seed:06d}"
        assert len(found) == len(set(found)) == min(3, count)


def test_scores_fall_and_exclude_excludes() -> None:
    keyframe_map, matcher = map_of(10), PatchMatcher()
    features = matcher.describe(Frame(picture(4, noise=10), CAMERA))
    scored = keyframe_map.retrieve_scored(matcher, features, 10)
    scores = [score for _, score in scored]
    assert scores == sorted(scores, reverse=True) and scores[0] > 2 * max(scores[1], 0.1)
    assert keyframe_map.similarities(matcher, features) == pytest.approx(dict(scored), abs=1e-5)
    rest = keyframe_map.retrieve(matcher, features, 3, exclude={"000004"})
    assert rest == [id for id, _ in scored[1:4]]


def test_a_query_without_descriptors_finds_nothing_and_such_a_keyframe_is_never_found() -> None:
    keyframe_map, matcher = map_of(3), PatchMatcher()
    flat = Frame(np.full((48, 64, 3), 90, np.uint8), CAMERA)
    keyframe_map.add(PosedFrame(flat, np.eye(4)), id="flat")
    assert keyframe_map.retrieve(matcher, matcher.describe(flat), 3) == []
    assert "flat" not in ask(keyframe_map, matcher, 1, k=4)
    only_flat = KeyframeMap()
    only_flat.add(PosedFrame(flat, np.eye(4)))
    assert ask(only_flat, matcher, 1) == []


def test_the_index_is_deterministic() -> None:
    first, second = PatchMatcher(), PatchMatcher()
    features = first.describe(Frame(picture(3, noise=10), CAMERA))
    assert map_of(30).similarities(first, features) == map_of(30).similarities(second, features)


def test_added_keyframes_are_found_and_each_is_described_once() -> None:
    keyframe_map, matcher = map_of(40), PatchMatcher()
    keyframe_map.prepare(matcher)
    trained = keyframe_map._index(matcher).vocabulary
    for seed in range(40, 60):
        keyframe_map.add(PosedFrame(Frame(picture(seed), CAMERA), np.eye(4)))
        keyframe_map.prepare(matcher)
    assert matcher.described == 60
    assert keyframe_map._index(matcher).vocabulary is trained, "a growing map must not be trained again each time"
    assert ask(keyframe_map, matcher, 55)[0] == "000055"
    for seed in range(60, 80):
        keyframe_map.add(PosedFrame(Frame(picture(seed), CAMERA), np.eye(4)))
    keyframe_map.prepare(matcher)
    assert keyframe_map._index(matcher).vocabulary is not trained, "a map twice as large needs another vocabulary"


def test_adding_and_reading_go_on_while_a_vocabulary_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot that maps must not wait for the training that a coverage trial has begun."""
    keyframe_map, matcher = map_of(4), PatchMatcher()
    training, go_on, train = threading.Event(), threading.Event(), Vocabulary.train

    def slowly(*arguments: NDArray[np.float32]) -> Vocabulary:
        training.set()
        assert go_on.wait(60)
        return train(*arguments)

    monkeypatch.setattr(Vocabulary, "train", slowly)
    found: list[list[str]] = []
    searching = threading.Thread(target=lambda: found.append(ask(keyframe_map, matcher, 1, 1)))
    searching.start()
    assert training.wait(60)
    new = PosedFrame(Frame(picture(4), CAMERA), np.eye(4))
    adding = threading.Thread(target=keyframe_map.add, args=(new,))
    adding.start()
    adding.join(10)
    added = not adding.is_alive() and len(keyframe_map.keyframes) == 5
    go_on.set()
    searching.join()
    adding.join()
    assert added and found == [["000001"]]
    assert ask(keyframe_map, matcher, 4, 1) == ["000004"], "what came meanwhile is indexed at the next search"


def test_new_points_make_features_anew() -> None:
    keyframe_map, matcher = map_of(2), PatchMatcher()
    keyframe_map.prepare(matcher)
    keyframe_map.set_points("000001", np.array([[10.0, 20.0]]), np.ones(1))
    keyframe_map.prepare(matcher)
    assert matcher.described == 3 and keyframe_map["000001"].has_depth


def test_caches_survive_on_disk(tmp_path: Path) -> None:
    map_of(12).save(tmp_path / "map")
    keyframe_map, matcher = KeyframeMap.load(tmp_path / "map"), PatchMatcher()
    keyframe_map.prepare(matcher)
    again, idle = KeyframeMap.load(tmp_path / "map"), PatchMatcher()
    again.prepare(idle)
    assert idle.described == 0
    assert ask(again, idle, 7) == ask(keyframe_map, matcher, 7)
    again.add(PosedFrame(Frame(picture(12), CAMERA), np.eye(4)))
    again.prepare(idle)
    again.save(tmp_path / "map")
    third, lazy = KeyframeMap.load(tmp_path / "map"), PatchMatcher()
    assert ask(third, lazy, 12)[0] == "000012"
    assert lazy.described == 1, "only the query"


def test_features_in_memory_are_saved_too(tmp_path: Path) -> None:
    keyframe_map, matcher = map_of(5), PatchMatcher()
    keyframe_map.prepare(matcher)
    keyframe_map.save(tmp_path / "map")
    matcher.described = 0
    KeyframeMap.load(tmp_path / "map").prepare(matcher)
    assert matcher.described == 0


def test_another_matcher_has_its_own_cache(tmp_path: Path) -> None:
    map_of(3).save(tmp_path / "map")
    keyframe_map = KeyframeMap.load(tmp_path / "map")
    for signature in ("patches-1", "patches-2"):
        matcher = PatchMatcher(signature)
        keyframe_map.prepare(matcher)
        assert matcher.described == 3
    assert sorted(p.name for p in (tmp_path / "map" / "features").iterdir()) == ["patches-1", "patches-2"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage", "empty"])
@pytest.mark.parametrize("which", ["features", "retrieval"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, which: str) -> None:
    map_of(6).save(tmp_path / "map")
    KeyframeMap.load(tmp_path / "map").prepare(PatchMatcher())
    file = sorted((tmp_path / "map" / which).rglob("*.safetensors"))[0]
    data = file.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 0x55]) + data[-8:]
    file.write_bytes({"truncate": data[:-20], "flip": flipped, "garbage": b"x" * 500, "empty": b""}[damage])
    keyframe_map, matcher = KeyframeMap.load(tmp_path / "map"), PatchMatcher()
    with caplog.at_level(logging.WARNING):
        keyframe_map.features(matcher, "000000")
        assert ask(keyframe_map, matcher, 2)[0] == "000002"
    assert any(str(file) in message and "damaged" in message for message in caplog.messages)
    assert matcher.described == (2 if which == "features" else 1)
    caplog.clear()
    healed = KeyframeMap.load(tmp_path / "map")
    assert ask(healed, PatchMatcher(), 2)[0] == "000002"
    assert not caplog.messages


def test_a_stale_index_is_brought_up_to_date(tmp_path: Path) -> None:
    map_of(6).save(tmp_path / "map")
    KeyframeMap.load(tmp_path / "map").prepare(PatchMatcher())
    shutil.copytree(tmp_path / "map" / "retrieval", tmp_path / "stale")
    keyframe_map = KeyframeMap.load(tmp_path / "map")
    keyframe_map.add(PosedFrame(Frame(picture(6), CAMERA), np.eye(4)))
    keyframe_map.save(tmp_path / "map")
    shutil.rmtree(tmp_path / "map" / "retrieval", ignore_errors=True)
    shutil.copytree(tmp_path / "stale", tmp_path / "map" / "retrieval")
    assert ask(KeyframeMap.load(tmp_path / "map"), PatchMatcher(), 6)[0] == "000006"


def test_a_place_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_of(4).save(tmp_path / "map")
    keyframe_map, matcher = KeyframeMap.load(tmp_path / "map"), PatchMatcher()
    (tmp_path / "map" / "features").write_text("in the way")
    (tmp_path / "map" / "retrieval").write_text("in the way")
    keyframe_map.prepare(matcher)
    assert ask(keyframe_map, matcher, 2)[0] == "000002"
    assert matcher.described == 5
    assert len([m for m in caplog.messages if "cannot be cached" in m]) == 1


def test_memory_is_bounded() -> None:
    keyframe_map, matcher = KeyframeMap(feature_memory=50_000), PatchMatcher()
    for seed in range(20):
        keyframe_map.add(PosedFrame(Frame(picture(seed), CAMERA), np.eye(4)))
    keyframe_map.prepare(matcher)
    assert 0 < keyframe_map._cache.used_bytes <= 50_000
    assert ask(keyframe_map, matcher, 19)[0] == "000019"


def test_searching_without_faiss_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    local = {f"{i}": rng.normal(size=(50, 16)).astype(np.float32) for i in range(30)}
    with_faiss = RetrievalIndex()
    with_faiss.update({id: id for id in local}, local.__getitem__)
    expected = with_faiss.search(local["5"], 5)
    real = builtins.__import__

    def without_faiss(name: str, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    found = with_faiss.search(local["5"], 5)
    assert [id for id, _ in found] == [id for id, _ in expected]
    other = RetrievalIndex()
    other.update({id: id for id in local}, local.__getitem__)
    assert [other.search(local[id], 1)[0][0] for id in local] == list(local)


def test_vlad_vectors_have_unit_length() -> None:
    rng = np.random.default_rng(1)
    vocabulary = Vocabulary.train(rng.normal(size=(3000, 24)).astype(np.float32))
    assert vocabulary.words.shape == (64, 24)
    assert np.linalg.norm(vocabulary.aggregate(rng.normal(size=(200, 24)).astype(np.float32))) == pytest.approx(
        1, abs=1e-5
    )
    assert not vocabulary.aggregate(np.zeros((0, 24), np.float32)).any()


def test_a_large_map_is_searched_within_ten_milliseconds() -> None:
    """1,500 descriptors of 128 values against 5,000 keyframes; the best of many tries: the machine is shared."""
    rng = np.random.default_rng(2)
    seeds = rng.normal(size=(400, 128)).astype(np.float32)

    def local(id: str, count: int = 20) -> NDArray[np.float32]:
        own = np.random.default_rng(int(id))
        return seeds[own.integers(0, 400, count)] + own.normal(0, 0.3, (count, 128)).astype(np.float32)

    index = RetrievalIndex()
    index.update({f"{i}": f"{i}" for i in range(5000)}, local)
    assert len(index) == 5000 > COMPRESS_ABOVE
    query = np.concatenate([local("1234")] * 75)
    assert index.search(query, 5)[0][0] == "1234"  # how fast: `mast3r_ros benchmark map --size 5000`


def grown(count: int, folder: Path) -> tuple[RetrievalIndex, dict[str, NDArray[np.float32]], list[int]]:
    """An index of ``count`` keyframes, saved after each of its last few, and how many bytes each save wrote anew."""
    rng = np.random.default_rng(4)
    local = {f"{i}": rng.normal(size=(4, 16)).astype(np.float32) for i in range(count)}
    index, written = RetrievalIndex(), []
    for known in range(count - 3, count + 1):
        before = {file: file.stat().st_ino for file in folder.rglob("*.safetensors")}
        index.update({id: id for id in list(local)[:known]}, local.__getitem__)
        index.save(folder / "m.safetensors")
        files = [file for file in folder.rglob("*-*.safetensors") if before.get(file) != file.stat().st_ino]
        written.append(sum(file.stat().st_size for file in files))
    return index, local, written


def test_a_new_keyframe_costs_a_large_index_no_more_than_a_small_one(tmp_path: Path) -> None:
    index, local, written = grown(600, tmp_path / "large")
    assert max(written[1:]) < written[0] / 200
    loaded = RetrievalIndex.load(tmp_path / "large" / "m.safetensors")
    assert len(loaded) == 600 and not loaded.update({id: id for id in local}, local.__getitem__)
    assert loaded.search(local["599"], 7) == index.search(local["599"], 7)


def test_a_running_map_looks_at_new_keyframes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: the content of what was there before is not asked for again."""
    matcher, keyframe_map = PatchMatcher(), KeyframeMap()
    for seed in range(12):
        keyframe_map.add(PosedFrame(Frame(picture(seed), CAMERA), np.eye(4)))
    query = matcher.describe(Frame(picture(3), CAMERA))
    assert keyframe_map.retrieve(matcher, query, 1) == ["000003"]
    asked: list[str] = []
    content_key = Entry.content_key.fget
    monkeypatch.setattr(Entry, "content_key", property(lambda e: (asked.append(e.keyframe.id), content_key(e))[1]))
    keyframe_map.add(PosedFrame(Frame(picture(99), CAMERA), np.eye(4)), id="new")
    assert keyframe_map.retrieve(matcher, query, 1) == ["000003"]
    assert keyframe_map.retrieve(matcher, matcher.describe(Frame(picture(99), CAMERA)), 1) == ["new"]
    assert set(asked) == {"new"}


def test_rows_of_the_past_are_not_found_and_are_forgotten(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    local = {f"{i}": rng.normal(size=(6, 16)).astype(np.float32) for i in range(60)}
    index = RetrievalIndex()
    index.update({id: id for id in local}, local.__getitem__)
    other = dict(local)
    other["7"], _ = local["8"] + 0.01, other.pop("9")
    index.update({id: "new" if id == "7" else id for id in other}, other.__getitem__)
    index.save(tmp_path / "m.safetensors")
    for known in (index, RetrievalIndex.load(tmp_path / "m.safetensors")):
        known.update({id: "new" if id == "7" else id for id in other}, other.__getitem__)
        assert {id for id, _ in known.search(local["8"], 2)} == {"7", "8"}
        assert "9" not in dict(known.search(local["9"], 60)) and len(known.search(local["9"], 60)) == 59


def test_lists_find_what_the_exact_search_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(retrieval, "EXACT", 500)
    rng = np.random.default_rng(6)
    places = rng.normal(size=(60, 12, 16))
    local = {f"{i}": (places[i % 60] + rng.normal(0, 0.3, (12, 16))).astype(np.float32) for i in range(1500)}
    index = RetrievalIndex()
    for count in (1000, 1500):  # lists of the first, the others one by one
        index.update({id: id for id in list(local)[:count]}, local.__getitem__)
    assert index._coarse is not None and len(index._coarse) == 1000
    index.save(tmp_path / "m.safetensors")
    loaded = RetrievalIndex.load(tmp_path / "m.safetensors")
    assert loaded._coarse is not None
    hits = 0
    for id in map(str, range(0, 1500, 50)):
        exact = sorted(index.similarities(local[id]).items(), key=lambda scored: -scored[1])[:10]
        found = index.search(local[id], 10)
        assert found == loaded.search(local[id], 10) and found[0][0] == id
        hits += len(dict(exact).keys() & dict(found).keys())
    assert hits >= 0.95 * 300


def test_an_index_that_is_being_built_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "KEPT", 10)
    rng = np.random.default_rng(7)
    local = {f"{i}": rng.normal(size=(6, 16)).astype(np.float32) for i in range(35)}
    index = RetrievalIndex()

    def killed() -> None:
        index.save(tmp_path / "m.safetensors")
        if len(index) >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.update({id: id for id in local}, local.__getitem__, killed)
    described: list[str] = []
    again = RetrievalIndex.load(tmp_path / "m.safetensors")
    again.update({id: id for id in local}, lambda id: (described.append(id), local[id])[1])
    assert len(again) == 35 and len(described) == 15


def test_the_pose_prior_prefers_views_of_the_same_surface() -> None:
    here = np.eye(4)
    views = {
        "same": here,
        "nudged": se3.exp([0.2, 0, 0, 0, 0.1, 0]),
        "aside": se3.exp([1.0, 0, 0, 0, 0, 0]),
        "backwards": se3.exp([0, 0, 0, 0, np.pi, 0]),
        "facing": se3.exp([0, 0, 5.0, 0, np.pi, 0]),
        "far": se3.exp([30.0, 0, 0, 0, 0, 0]),
        "rolled": se3.exp([0, 0, 0, 0, 0, 1.0]),
    }
    scores = dict(zip(views, view_overlap(here, np.stack(list(views.values())), 2.5), strict=True))
    assert scores["same"] == pytest.approx(1) == pytest.approx(scores["rolled"])
    assert 1 > scores["nudged"] > scores["aside"] > 0
    assert scores["backwards"] == scores["facing"] == scores["far"] == 0
    keyframe_map = KeyframeMap()
    for id, pose in views.items():
        depth = np.full((CAMERA.height, CAMERA.width), 2.5, np.float32)
        keyframe_map.add(PosedFrame(Frame(picture(0), CAMERA, depth=depth), pose), id=id)
    assert keyframe_map.retrieve_near(here, 10) == ["same", "rolled", "nudged", "aside"]
    assert keyframe_map.retrieve_near(here, 1) == ["same"]


def test_only_what_is_too_far_to_count_is_passed_over() -> None:
    rng = np.random.default_rng(8)
    poses = np.stack([se3.exp(np.concatenate([rng.uniform(-60, 60, 3), rng.normal(0, 0.2, 3)])) for _ in range(800)])
    depths = rng.uniform(1, 4, 800)
    views = KeyframeViews([f"{n}" for n in range(800)], poses, depths, 2.5, ())
    for pose in poses[::40]:
        everywhere = view_overlap(pose, poses, depths)
        assert np.array_equal(views.overlaps(pose), everywhere) and 1 <= (everywhere > 0).sum() < 400


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_map_can_be_used(tmp_path: Path) -> None:
    map_of(3).save(tmp_path / "map")
    (tmp_path / "map").chmod(0o555)
    try:
        assert ask(KeyframeMap.load(tmp_path / "map"), PatchMatcher(), 1)[0] == "000001"
    finally:
        (tmp_path / "map").chmod(0o755)


def test_a_single_keyframe_of_few_descriptors_is_found():
    """Its descriptors are all that its one word was made of, so their residuals cancel."""
    local = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    index = RetrievalIndex()
    index.update({"photo": "1"}, lambda _: local)
    other = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    assert [id for id, _ in index.search(other, 5)] == ["photo"]
    exact = np.ones((2, 4), np.float32)
    index = RetrievalIndex()
    index.update({"photo": "1"}, lambda _: exact)
    assert [id for id, _ in index.search(local[:, :4], 5)] == ["photo"]
