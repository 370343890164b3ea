"""The map on disk: what is saved comes back, damage is named, and no failure loses the old map."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping import atomic, growing, storage, tensor_file
from mast3r_ros.mapping.keyframe import PoseNoise
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.repair import repair
from mast3r_ros.matching.fake import FakeMatcher

CAMERA = Camera(
    64, 48, np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]]), "plumb_bob", np.array([0.1, 0, 0, 0, 0])
)


def posed(seed: int, *, depth: bool = True) -> PosedFrame:
    """A smooth random picture at a random pose."""
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    metres = rng.uniform(0.5, 5, (48, 64)).astype(np.float32)
    metres[0, :4] = [0, np.nan, np.inf, -1]
    pose = se3.exp(np.concatenate([rng.uniform(-2, 2, 3), rng.uniform(-1, 1, 3)]))
    return PosedFrame(Frame(image, CAMERA, 10**18 + seed, metres if depth else None), pose)


def small_map(count: int = 3, **options) -> KeyframeMap:
    keyframe_map = KeyframeMap("world", source="a test", **options)
    for seed in range(count):
        keyframe_map.add(posed(seed, depth=seed != 1))
    return keyframe_map


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_map().save(tmp_path / "map")
    return tmp_path / "map"


def edit_line(folder: Path, number: int, **changes) -> None:
    """Change members of one keyframe and make the checksum fit, as if it had been saved so."""
    lines = (folder / "keyframes.jsonl").read_text().splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes})
    data = "\n".join(lines) + "\n"
    (folder / "keyframes.jsonl").write_text(data)
    header = yaml.safe_load((folder / "map.yaml").read_text())
    header["keyframes_sha256"] = hashlib.sha256(data.encode()).hexdigest()
    (folder / "map.yaml").write_text(yaml.safe_dump(header))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_what_is_saved_comes_back(tmp_path: Path, image_format: str) -> None:
    before = small_map(image_format=image_format)
    frames = [before.frame(keyframe.id) for keyframe in before.keyframes]
    before.save(tmp_path / "map")
    after = KeyframeMap.load(tmp_path / "map")
    assert after.frame_id == "world" and after.provenance["source"] == "a test"
    assert [k.id for k in after.keyframes] == ["000000", "000001", "000002"]
    assert [k.has_depth for k in after.keyframes] == [True, False, True]
    for seed, (old, new, frame) in enumerate(zip(before.keyframes, after.keyframes, frames, strict=True)):
        assert np.allclose(new.map_T_camera, posed(seed).map_T_camera, atol=1e-8)
        assert new.camera.same_as(CAMERA) and new.stamp_ns == old.stamp_ns == 10**18 + seed
        again = after.frame(new.id)
        assert np.array_equal(again.image, frame.image)
        truth = posed(seed).frame
        assert np.abs(again.image.astype(int) - truth.image).mean() < (0.01 if image_format == "png" else 4)
        if new.has_depth:
            assert np.array_equal(again.depth, frame.depth)
            assert not again.depth[0, :4].any()
            assert np.allclose(again.depth[1:], truth.depth[1:], atol=6e-4)


def test_an_empty_map_loads_and_finds_nothing(tmp_path: Path) -> None:
    KeyframeMap().save(tmp_path / "map")
    empty = KeyframeMap.load(tmp_path / "map")
    matcher = FakeMatcher()
    empty.prepare(matcher)
    assert len(empty) == 0
    assert empty.retrieve(matcher, matcher.describe(posed(0).frame), 5) == []
    assert empty.retrieve_near(np.eye(4), 5) == []


@pytest.mark.parametrize("id", ["../x", ".hidden", "a/b", "", "a b", "x" * 200, "ü"])
def test_ids_that_could_leave_the_folder_are_refused(id: str) -> None:
    with pytest.raises(MapError, match="id"):
        KeyframeMap().add(posed(0), id=id)


def test_frames_that_cannot_be_keyframes_are_refused() -> None:
    keyframe_map = small_map(1)
    frame, pose = posed(5).frame, posed(5).map_T_camera
    with pytest.raises(MapError, match="already has"):
        keyframe_map.add(posed(5), id="000000")
    with pytest.raises(MapError, match="no camera calibration"):
        keyframe_map.add(PosedFrame(Frame(frame.image), pose))
    with pytest.raises(MapError, match="finite"):
        keyframe_map.add(PosedFrame(frame, np.full((4, 4), np.nan)))
    with pytest.raises(MapError, match="rigid"):
        keyframe_map.add(PosedFrame(frame, np.diag([1.2, 1, 1, 1])))
    with pytest.raises(MapError, match="no keyframe 'nobody'"):
        keyframe_map.frame("nobody")
    assert len(keyframe_map) == 1


def test_no_map_and_not_a_map_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="there is no map"):
        KeyframeMap.load(tmp_path / "nowhere")
    with pytest.raises(MapError, match="not a map"):
        KeyframeMap.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format_version: 99", "version 99.*reads up to 2"),
        ("{ not yaml", "map.yaml"),
        ("- 1", "format_version"),
        ("format_version: 1", "frame_id"),
        ("format_version: 1\nframe_id: map\nkeyframes_sha256: x\ncameras: {a: {width: 0}}", "camera 'a'"),
        ("[" * 5000, "map.yaml"),
        ("!!python/object/apply:os.system ['true']", "map.yaml"),
        ("a" * (17 * 2**20), "larger than"),
    ],
)
def test_a_damaged_header_is_refused(saved: Path, text: str, message: str) -> None:
    (saved / "map.yaml").write_text(text)
    with pytest.raises(MapError, match=message):
        KeyframeMap.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "../../etc"}, "unusable id"),
        ({"id": "000000"}, "repeats"),
        ({"camera": "other"}, "camera"),
        ({"stamp_ns": "noon"}, "stamp_ns"),
        ({"pose": {"translation": [0, 0, 0], "rotation_xyzw": [0, 0, 0, 2.0]}}, "quaternion"),
        ({"pose": {"translation": [0, float("nan"), 0], "rotation_xyzw": [0, 0, 0, 1]}}, "NaN"),
        ({"pose": {"translation": [0, 0], "rotation_xyzw": [0, 0, 0, 1]}}, "translation"),
        ({"image": {"format": "exe", "bytes": 1, "sha256": "0" * 64}}, "image format"),
        ({"image": {"format": "jpg", "bytes": 10**12, "sha256": "0" * 64}}, "bytes"),
        ({"note": "x" * 20_000}, "too long"),
    ],
)
def test_a_damaged_line_is_named(saved: Path, changes: dict, message: str) -> None:
    edit_line(saved, 2, **changes)
    with pytest.raises(MapError, match=f"line 2.*{message}"):
        KeyframeMap.load(saved)


def test_a_rounded_quaternion_is_normalised(saved: Path) -> None:
    edit_line(saved, 2, pose={"translation": [1, 2, 3], "rotation_xyzw": [0, 0, 0.7071, 0.7071]})
    pose = KeyframeMap.load(saved)["000001"].map_T_camera
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)


def test_an_edit_by_hand_is_noticed_and_repaired(saved: Path) -> None:
    path = saved / "keyframes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "garbage", lines[2]]) + "\n")
    with pytest.raises(MapError, match="line 2"):
        KeyframeMap.load(saved)
    path.write_text("\n".join([lines[0], lines[2]]) + "\n")
    with pytest.raises(MapError, match="map repair"):
        KeyframeMap.load(saved)
    (saved / "depth" / "000002.png").unlink()
    report = repair(saved)
    assert (report.kept, report.without_depth, report.dropped) == (2, ["000002"], {})
    assert [k.has_depth for k in KeyframeMap.load(saved).keyframes] == [True, False]


def test_images_missing_or_changed_are_named(saved: Path) -> None:
    image = saved / "images" / "000001.jpg"
    data = image.read_bytes()
    image.write_bytes(bytes([data[0] ^ 255]) + data[1:])
    with pytest.raises(MapError, match=r"000001\.jpg.*changed"):
        KeyframeMap.load(saved).frame("000001")
    image.write_bytes(data[:-5])
    with pytest.raises(MapError, match=r"000001\.jpg.*bytes instead of"):
        KeyframeMap.load(saved)
    image.unlink()
    with pytest.raises(MapError, match=r"000001\.jpg: is missing"):
        KeyframeMap.load(saved)
    report = repair(saved)
    assert report.kept == 2 and "000001" in report.dropped
    assert [k.id for k in KeyframeMap.load(saved).keyframes] == ["000000", "000002"]


def test_an_image_of_another_size_is_not_decoded(saved: Path, tmp_path: Path) -> None:
    other = KeyframeMap(image_format="jpg")
    camera = CAMERA.resized(640, 480)
    other.add(PosedFrame(Frame(np.zeros((480, 640, 3), np.uint8), camera), np.eye(4)), id="000001")
    other.save(tmp_path / "other")
    (saved / "images" / "000001.jpg").write_bytes((tmp_path / "other" / "images" / "000001.jpg").read_bytes())
    assert "640x480" in repair(saved).dropped["000001"]


def test_saving_again_keeps_files_and_a_persons_notes(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    inode = (saved / "images" / "000000.jpg").stat().st_ino
    keyframe_map = KeyframeMap.load(saved)
    keyframe_map.add(posed(9))
    keyframe_map.save(saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "images" / "000000.jpg").stat().st_ino == inode
    assert len(KeyframeMap.load(saved)) == 4
    assert sorted(p.name for p in saved.parent.iterdir()) == ["map"]


def test_a_copy_shares_nothing_with_the_original(saved: Path, tmp_path: Path) -> None:
    KeyframeMap.load(saved).save(tmp_path / "copy")
    (tmp_path / "copy" / "images" / "000000.jpg").write_bytes(b"spoilt")
    KeyframeMap.load(saved).frame("000000")


def test_a_folder_that_is_no_map_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(MapError, match="not a map"):
        small_map().save(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def grow(keyframe_map: KeyframeMap) -> None:
    """Saved by what is new."""
    keyframe_map.add(posed(7))


def change(keyframe_map: KeyframeMap) -> None:
    """Saved as a whole."""
    keyframe_map.add(posed(7))
    keyframe_map.set_points("000001", np.array([[10.0, 20.0]]), np.array([2.0]))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("bug")])
@pytest.mark.parametrize(
    ("how", "step"),
    [
        (change, "mast3r_ros.mapping.storage.write_synced"),
        (change, "mast3r_ros.mapping.atomic._swap"),
        (change, "pathlib.Path.write_bytes"),
        (grow, "pathlib.Path.write_bytes"),
        (grow, "mast3r_ros.mapping.growing._write_behind"),
        (grow, "mast3r_ros.mapping.growing.write_synced"),
        (grow, "os.replace"),
    ],
)
def test_a_failure_while_saving_leaves_the_old_map(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, how: Callable[[KeyframeMap], None], step: str
) -> None:
    before = contents(saved)
    keyframe_map = KeyframeMap.load(saved)
    how(keyframe_map)

    def fail(*args, **kwargs) -> None:
        raise error

    monkeypatch.setattr(step, fail)
    with pytest.raises(MapError if isinstance(error, OSError) else type(error)):
        keyframe_map.save(saved)
    monkeypatch.undo()
    assert contents(saved) == before
    assert sorted(p.name for p in saved.parent.iterdir()) == ["map"]
    keyframe_map.save(saved)  # and the map in memory lost nothing either
    assert len(KeyframeMap.load(saved)) == 4


def test_a_keyframe_is_added_by_writing_nothing_else(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the map is: no file of it is read, written or linked but the two that list the keyframes."""
    keyframe_map = KeyframeMap.load(saved)
    keyframe_map.prepare(FakeMatcher())
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in saved.rglob("*") if path.is_file()}
    keyframe_map.add(posed(9, depth=False))
    other = CAMERA.resized(32, 24)
    keyframe_map.add(PosedFrame(Frame(np.full((24, 32, 3), 90, np.uint8), other, 5), np.eye(4)), "small")
    opened: list[str] = []
    opening = io.open
    monkeypatch.setattr(
        io, "open", lambda file, *more, **names: (opened.append(str(file)), opening(file, *more, **names))[1]
    )
    keyframe_map.save(saved)
    monkeypatch.undo()
    assert {Path(name).name for name in opened} <= {
        *("000003.jpg", "small.jpg", "keyframes.jsonl", "map.yaml", ".map.yaml.saving")
    }
    after = {path: (path.stat().st_ino, path.read_bytes()) for path in saved.rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} == {"000003.jpg", "small.jpg"}
    assert {path.name for path, was in before.items() if after[path] != was} == {"keyframes.jsonl", "map.yaml"}
    lines = saved / "keyframes.jsonl"
    assert after[lines][0] == before[lines][0] and after[lines][1].startswith(before[lines][1])
    again = KeyframeMap.load(saved)
    assert [k.id for k in again.keyframes] == ["000000", "000001", "000002", "000003", "small"]
    assert again["small"].camera.same_as(other) and again["000003"].camera.same_as(CAMERA)
    assert np.array_equal(again.frame("000003").image, keyframe_map.frame("000003").image)
    assert again.retrieve(FakeMatcher(), FakeMatcher().describe(posed(9).frame), 1) == ["000003"]


def test_a_map_that_grew_in_steps_is_the_map_saved_at_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "TABLE_AGAIN", 2)
    keyframe_map, table = KeyframeMap.load(saved), saved / "keyframes.safetensors"
    stands_for = []
    for seed in range(3, 12):
        keyframe_map.add(posed(seed, depth=seed != 4))
        keyframe_map.pose_noise = PoseNoise(0.01 * seed, 0.02)
        keyframe_map.save(saved)
        stands_for.append(len(tensor_file.read(table)[0]["stamps"]))
        assert KeyframeMap.load(saved).pose_noise == keyframe_map.pose_noise
    assert stands_for == [3, 3, 6, 6, 6, 9, 9, 9, 12]
    small_map(3).save(saved.parent / "once")
    whole = KeyframeMap.load(saved.parent / "once")
    for seed in range(3, 12):
        whole.add(posed(seed, depth=seed != 4))
    whole.save(saved.parent / "other")
    for name in ("keyframes.jsonl", "images/000011.jpg", "depth/000011.png"):
        assert (saved / name).read_bytes() == (saved.parent / "other" / name).read_bytes()
    at_once, columns = tensor_file.read(saved.parent / "other" / "keyframes.safetensors"), tensor_file.read(table)
    assert at_once[1] == columns[1] and all(np.array_equal(at_once[0][k], columns[0][k], True) for k in columns[0])


def test_what_a_killed_save_has_appended_is_written_over(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed = multiprocessing.get_context("fork").Process(target=_killed_before_it_counts, args=(saved,))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    keyframe_map = KeyframeMap.load(saved)
    assert len(keyframe_map) == 3 and "interrupted" in caplog.text
    keyframe_map.add(posed(20))
    keyframe_map.save(saved)
    caplog.clear()
    again = KeyframeMap.load(saved)
    assert len(again) == 4 and not caplog.text
    assert np.array_equal(again.frame("000003").image, keyframe_map.frame("000003").image)
    assert not list(saved.rglob(".*"))


def _killed_before_it_counts(folder: Path) -> None:
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    keyframe_map = KeyframeMap.load(folder)
    keyframe_map.add(posed(9))
    keyframe_map.add(posed(10))
    keyframe_map.save(folder)


def test_a_copy_made_of_links_stays_what_it_is(saved: Path) -> None:
    copy = saved.parent / "copy"
    shutil.copytree(saved, copy, copy_function=os.link)
    before = contents(copy)
    keyframe_map = KeyframeMap.load(saved)
    for _ in range(2):
        keyframe_map.add(posed(len(keyframe_map)))
        keyframe_map.save(saved)
    assert contents(copy) == before and len(KeyframeMap.load(saved)) == 5


def test_a_map_is_read_while_it_is_saved(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may have map.yaml of before, and the lines and the table of after."""
    monkeypatch.setattr(growing, "TABLE_AGAIN", 0)
    header = (saved / "map.yaml").read_bytes()
    keyframe_map = KeyframeMap.load(saved)
    keyframe_map.add(posed(9))
    keyframe_map.save(saved)
    (saved / "map.yaml").write_bytes(header)
    assert len(KeyframeMap.load(saved)) == 3


def test_a_really_full_disk_leaves_the_old_map(tmp_path: Path) -> None:
    """A file size limit makes the kernel itself refuse the write, as a full disk does."""
    small_map(2).save(tmp_path / "map")
    before = contents(tmp_path / "map")
    child = multiprocessing.get_context("spawn").Process(target=_save_with_tiny_limit, args=(str(tmp_path / "map"),))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert contents(tmp_path / "map") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map"]


def _save_with_tiny_limit(path: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    keyframe_map = KeyframeMap.load(path)
    keyframe_map.add(posed(8))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(MapError, match="unchanged"):
        keyframe_map.save(path)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_while_saving_loses_nothing(tmp_path: Path, kind: signal.Signals) -> None:
    small_map(2).save(tmp_path / "map")
    before = contents(tmp_path / "map")
    child = multiprocessing.get_context("spawn").Process(target=_save_for_ever, args=(str(tmp_path / "map"),))
    child.start()
    deadline = time.monotonic() + 150  # starting Python takes its time beside seven others
    while not (tmp_path / "saving").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, kind)
    child.join(60)
    assert child.exitcode not in (None, 0)
    (tmp_path / "saving").unlink()
    assert contents(tmp_path / "map") == before
    keyframe_map = KeyframeMap.load(tmp_path / "map")
    keyframe_map.save(tmp_path / "map")  # what a killed process left behind is cleared away
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map"]


def _save_for_ever(path: str) -> None:
    # A shell starts what runs in the background with SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    keyframe_map = KeyframeMap.load(path)
    header = storage.Header("world")

    def linger(fresh: Path) -> None:
        Path(path).with_name("saving").touch()
        time.sleep(120)

    storage.write_map(Path(path), header, [keyframe_map._entry("000000")], linger)


def test_a_crash_between_the_two_renames_is_undone_by_loading(saved: Path) -> None:
    saved.rename(saved.with_name(".map.old"))
    (saved.with_name(".map.saving-dead")).mkdir()
    assert len(KeyframeMap.load(saved)) == 3
    KeyframeMap.load(saved).save(saved)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["map"]


def test_concurrent_saves_take_turns(saved: Path) -> None:
    maps = [KeyframeMap.load(saved) for _ in range(4)]
    for number, keyframe_map in enumerate(maps):
        keyframe_map.add(posed(20 + number))
    threads = [threading.Thread(target=keyframe_map.save, args=(saved,)) for keyframe_map in maps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyframeMap.load(saved)) == 4
    assert sorted(p.name for p in saved.parent.iterdir()) == ["map"]


def test_a_save_waits_for_another_only_so_long(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "LOCK_PATIENCE_S", 0.1)
    with atomic.locked(saved), pytest.raises(MapError, match="keeps saving"):
        small_map().save(saved)


def test_a_map_is_saved_on_a_network_file_system(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS turns flock into a lock of the file's bytes, which needs a file opened for writing."""
    flock, asked = fcntl.flock, []

    def nfs(handle: int, how: int) -> None:
        asked.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        if asked[-1] == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", nfs)
    small_map().save(saved)
    assert asked and len(KeyframeMap.load(saved)) == 3


def test_a_map_is_saved_where_there_are_no_locks(
    saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_daemon(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_daemon)
    small_map(4).save(saved)
    assert len(KeyframeMap.load(saved)) == 4 and "this file system has no locks" in caplog.text


def identities(paths: list[Path]) -> set[tuple[int, int]]:
    return {(status.st_dev, status.st_ino) for status in (path.stat() for path in paths)}


@pytest.mark.parametrize("how", [grow, change])
def test_a_save_waits_for_its_own_files_and_for_nobody_elses(
    saved: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[KeyframeMap], None]
) -> None:
    synced: set[tuple[int, int]] = set()
    fsync = os.fsync

    def watched(handle: int) -> None:
        status = os.fstat(handle)
        synced.add((status.st_dev, status.st_ino))
        fsync(handle)

    def flushed() -> None:
        raise AssertionError("flushes everything that any program on the robot has written")

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "sync", flushed)
    earlier = identities([path for kind in ("images", "depth") for path in (saved / kind).iterdir()])
    keyframe_map = KeyframeMap.load(saved)
    how(keyframe_map)
    keyframe_map.save(saved)
    own = [saved.parent, saved, *saved.rglob("*")]
    if how is grow:
        new = [saved / "images" / "000003.jpg", saved / "depth" / "000003.png"]
        own = [saved, saved / "keyframes.jsonl", saved / "map.yaml", *new, *(file.parent for file in new)]
    assert identities(own) - earlier == synced


def test_the_folder_holds_nothing_pickled(saved: Path) -> None:
    keyframe_map = KeyframeMap.load(saved)
    keyframe_map.prepare(FakeMatcher())
    suffixes = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert suffixes == {".yaml", ".jsonl", ".jpg", ".png", ".safetensors"}


def test_adding_goes_on_while_a_save_is_running(saved: Path) -> None:
    keyframe_map = KeyframeMap.load(saved)
    with atomic.locked(saved):  # a slow disk
        thread = threading.Thread(target=keyframe_map.save, args=(saved,))
        thread.start()
        time.sleep(0.1)
        keyframe_map.add(posed(30))
        keyframe_map.set_points("000001", np.array([[10.0, 20.0]]), np.array([2.0]))
        assert thread.is_alive()
    thread.join()
    assert len(keyframe_map) == 4
    assert not KeyframeMap.load(saved)["000001"].has_depth, "what was saved is how it was when the save began"
    keyframe_map.save(saved)
    again = KeyframeMap.load(saved)
    assert len(again) == 4 and again.frame("000001").depth[20, 10] == 2.0


def test_a_map_is_the_same_with_its_table_and_without(
    saved: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SIZES_CHECKED", 0)

    def said(keyframe_map: KeyframeMap) -> list:
        frames = [keyframe_map.frame(k.id) for k in keyframe_map.keyframes]
        return [
            *[(k.id, k.stamp_ns, k.has_depth, k.map_T_camera.tolist()) for k in keyframe_map.keyframes],
            *[frame.image.tobytes() for frame in frames],
            *keyframe_map._entries.content_keys().items(),
            keyframe_map.overlaps(np.eye(4)),
            keyframe_map.scene_depth_m,
        ]

    table, lines = KeyframeMap.load(saved), (saved / "keyframes.jsonl").read_text()
    assert table._entries._made.keys() == {list(table._entries)[-1]}  # nothing was made that was not asked for
    file = saved / "keyframes.safetensors"
    whole = file.read_bytes()
    for damaged in (None, whole[:-7], whole.replace(b"000001", b"../001")):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        assert said(KeyframeMap.load(saved)) == said(table)
        assert ("damaged" in caplog.text) == (damaged is not None)
    file.write_bytes(whole)
    (saved / "keyframes.jsonl").write_text(lines.replace("stamp_ns", "stamp_xx", 1))
    with pytest.raises(MapError, match=r"line 1.*stamp_ns"):
        KeyframeMap.load(saved)


def test_lines_that_the_map_does_not_count_are_told_and_taken_over_by_a_repair(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = len(KeyframeMap.load(saved))
    with (saved / "keyframes.jsonl").open("a") as file:
        file.write('{"id": "half')
    assert len(KeyframeMap.load(saved)) == count and "map repair" in caplog.text
    assert repair(saved).dropped
    assert len(KeyframeMap.load(saved)) == count


def test_a_missing_image_of_a_large_map_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SIZES_CHECKED", 0)
    keyframe_map = KeyframeMap.load(saved)
    keyframe_map.add(posed(9))
    keyframe_map.save(saved)  # behind the table
    for name in ("000003", "000001"):
        (saved / "images" / f"{name}.jpg").unlink()
        with pytest.raises(MapError, match=rf"{name}\.jpg: is missing"):
            KeyframeMap.load(saved)
