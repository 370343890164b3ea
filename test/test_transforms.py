"""TransformBuffer: chains, interpolation, time, and the trees it must refuse."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mast3r_ros.geometry import se3
from mast3r_ros.transforms import (
    DisconnectedFrames,
    FutureExtrapolation,
    InvalidTransform,
    PastExtrapolation,
    TransformBuffer,
    TransformUnavailable,
    UnknownFrame,
)

SECOND = 1_000_000_000


def moved(x: float, yaw: float = 0.0) -> np.ndarray:
    return se3.exp([x, 0, 0, 0, 0, yaw])


def message(parent: str, child: str, rotation: tuple[float, ...], stamp_ns: int = 0) -> SimpleNamespace:
    x, y, z, w = rotation
    return SimpleNamespace(
        header=SimpleNamespace(
            frame_id=parent, stamp=SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
        ),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=1.0, y=2.0, z=3.0), rotation=SimpleNamespace(x=x, y=y, z=z, w=w)
        ),
    )


def test_interpolates_translation_and_rotation() -> None:
    buffer = TransformBuffer()
    buffer.set("odom", "base", moved(0.0, 0.0), 0)
    buffer.set("odom", "base", moved(2.0, 1.0), SECOND)
    np.testing.assert_allclose(buffer.lookup("odom", "base", SECOND // 4), moved(0.5, 0.25), atol=1e-12)


def test_chain_goes_up_and_down_through_the_common_ancestor() -> None:
    buffer = TransformBuffer()
    camera, wheel = se3.exp([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), se3.exp([-0.1, 0, 0.05, 0, 0.3, 0])
    buffer.set("map", "odom", moved(5.0, 0.5), 0)
    buffer.set("odom", "base", moved(1.0), 0)
    buffer.set("base", "camera", camera, 0, static=True)
    buffer.set("base", "wheel", wheel, 0, static=True)
    np.testing.assert_allclose(buffer.lookup("wheel", "camera", 0), se3.inverse(wheel) @ camera, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("map", "camera", 0), moved(5.0, 0.5) @ moved(1.0) @ camera, atol=1e-12)
    np.testing.assert_allclose(
        buffer.lookup("camera", "map", 0), se3.inverse(buffer.lookup("map", "camera", 0)), atol=1e-12
    )
    np.testing.assert_allclose(buffer.lookup("base", "base", 0), np.eye(4))


def test_static_transform_holds_at_any_time_and_above_a_moving_one_does_not_hide_it() -> None:
    buffer = TransformBuffer()
    buffer.set("base", "camera", moved(0.1), 7 * SECOND, static=True)
    np.testing.assert_allclose(buffer.lookup("base", "camera", 0), moved(0.1))
    np.testing.assert_allclose(buffer.lookup("base", "camera"), moved(0.1))
    buffer.set("odom", "base", moved(1.0), SECOND)
    # The link odom -> base is not on the way from camera to base, so its time does not matter.
    np.testing.assert_allclose(buffer.lookup("base", "camera", 99 * SECOND), moved(0.1))


def test_latest_is_the_newest_stamp_that_all_links_share() -> None:
    buffer = TransformBuffer()
    for stamp in range(4):
        buffer.set("map", "odom", moved(float(stamp)), stamp * SECOND)
    for stamp in range(3):
        buffer.set("odom", "base", moved(10.0 * stamp), stamp * SECOND)
    np.testing.assert_allclose(buffer.lookup("map", "base"), moved(22.0))


def test_refuses_to_extrapolate_and_tells_the_directions_apart() -> None:
    buffer = TransformBuffer()
    buffer.set("odom", "base", moved(0.0), 1 * SECOND)
    buffer.set("odom", "base", moved(1.0), 2 * SECOND)
    with pytest.raises(FutureExtrapolation, match=r"odom -> base.*0\.500 s older"):
        buffer.lookup("odom", "base", 2 * SECOND + SECOND // 2)
    with pytest.raises(PastExtrapolation, match=r"odom -> base.*1\.000 s newer"):
        buffer.lookup("odom", "base", 0)
    assert buffer.can_transform("odom", "base", 2 * SECOND)
    assert not buffer.can_transform("odom", "base", 3 * SECOND)


def test_the_gap_that_is_interpolated_is_known() -> None:
    buffer = TransformBuffer(cache_s=None)
    for stamp in (0, 1, 9):
        buffer.set("odom", "base", moved(0.0), stamp * SECOND)
    buffer.set("base", "camera", moved(0.0), 0, static=True)
    assert buffer.gap_s("odom", "camera", SECOND // 2) == 1
    assert buffer.gap_s("camera", "odom", 5 * SECOND) == 8
    assert buffer.gap_s("odom", "camera", 9 * SECOND) == buffer.gap_s("base", "camera", 5 * SECOND) == 0
    with pytest.raises(FutureExtrapolation):
        buffer.gap_s("odom", "camera", 10 * SECOND)


def test_unknown_and_disconnected_frames_are_named() -> None:
    buffer = TransformBuffer()
    with pytest.raises(UnknownFrame, match="no frames at all"):
        buffer.lookup("map", "base")
    buffer.set("odom", "base", moved(0.0), 0)
    with pytest.raises(UnknownFrame, match="'map'.*base, odom"):
        buffer.lookup("map", "base")
    buffer.set("world", "map", moved(0.0), 0)
    with pytest.raises(DisconnectedFrames, match="'map' hangs from 'world', 'base' from 'odom'"):
        buffer.lookup("map", "base")
    assert issubclass(DisconnectedFrames, TransformUnavailable)


def test_keeps_only_the_cache_and_drops_what_is_older() -> None:
    buffer = TransformBuffer(cache_s=2.0)
    for stamp in range(10):
        assert buffer.set("odom", "base", moved(float(stamp)), stamp * SECOND)
    assert buffer.can_transform("odom", "base", 7 * SECOND)
    assert not buffer.can_transform("odom", "base", 7 * SECOND - 1)
    assert not buffer.set("odom", "base", moved(0.0), 3 * SECOND)
    endless = TransformBuffer(cache_s=None)
    for stamp in (0, 10_000):
        endless.set("odom", "base", moved(float(stamp)), stamp * SECOND)
    np.testing.assert_allclose(endless.lookup("odom", "base", 5_000 * SECOND), moved(5_000.0))


def test_late_and_repeated_samples_find_their_place() -> None:
    buffer = TransformBuffer()
    for stamp, x in ((0, 0.0), (2, 2.0), (1, 5.0), (1, 7.0)):
        buffer.set("odom", "base", moved(x), stamp * SECOND)
    np.testing.assert_allclose(buffer.lookup("odom", "base", SECOND), moved(7.0))
    np.testing.assert_allclose(buffer.lookup("odom", "base", SECOND // 2), moved(3.5))


def test_clear_after_a_jump_back_in_time_keeps_static_transforms() -> None:
    buffer = TransformBuffer()
    buffer.set("base", "camera", moved(0.1), 0, static=True)
    buffer.set("odom", "base", moved(9.0), 100 * SECOND)
    assert not buffer.set("odom", "base", moved(1.0), SECOND)
    buffer.clear()
    assert buffer.frames == ["base", "camera"]
    assert buffer.set("odom", "base", moved(1.0), SECOND)
    np.testing.assert_allclose(buffer.lookup("odom", "camera", SECOND), moved(1.1))


def test_a_child_may_change_its_parent_over_time() -> None:
    buffer = TransformBuffer()
    buffer.set("table", "cup", moved(1.0), 0)
    buffer.set("hand", "cup", moved(0.1), 10)
    buffer.set("hand", "cup", moved(0.3), 20)
    np.testing.assert_allclose(buffer.lookup("hand", "cup", 15), moved(0.2))
    np.testing.assert_allclose(buffer.lookup("table", "cup", 5), moved(1.0))
    with pytest.raises(DisconnectedFrames):
        buffer.lookup("table", "cup", 15)


@pytest.mark.parametrize("parent", ["camera", "base"])
def test_loops_are_refused_and_change_nothing(parent: str) -> None:
    buffer = TransformBuffer()
    buffer.set("odom", "base", moved(1.0), 0)
    buffer.set("base", "camera", moved(1.0), 0, static=True)
    with pytest.raises(InvalidTransform, match="loop"):
        buffer.set(parent, "odom", moved(1.0), 0)
    np.testing.assert_allclose(buffer.lookup("odom", "camera", 0), moved(2.0))


@pytest.mark.parametrize(
    ("parent", "child", "matrix"),
    [
        ("", "base", np.eye(4)),
        ("base", "base", np.eye(4)),
        ("odom", "base", np.full((4, 4), np.nan)),
        ("odom", "base", np.diag([2.0, 1.0, 1.0, 1.0])),
        ("odom", "base", np.diag([-1.0, 1.0, 1.0, 1.0])),
        ("odom", "base", np.eye(3)),
    ],
)
def test_what_is_no_rigid_motion_is_refused(parent: str, child: str, matrix: np.ndarray) -> None:
    buffer = TransformBuffer()
    with pytest.raises(InvalidTransform):
        buffer.set(parent, child, matrix, 0)
    assert buffer.frames == []


def test_messages_are_normalised_or_refused() -> None:
    buffer = TransformBuffer()
    buffer.set_message(message("/odom", "/base", (0.0, 0.0, 2.0, 2.0), stamp_ns=3 * SECOND + 5))
    expected = se3.make(se3.exp([0, 0, 0, 0, 0, np.pi / 2])[:3, :3], [1, 2, 3])
    np.testing.assert_allclose(buffer.lookup("odom", "base", 3 * SECOND + 5), expected, atol=1e-12)
    for bad in ((0.0, 0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 1.0)):
        with pytest.raises(InvalidTransform, match="odom -> base"):
            buffer.set_message(message("odom", "base", bad))


def test_the_caller_may_reuse_its_matrix() -> None:
    buffer = TransformBuffer()
    pose = moved(1.0)
    buffer.set("odom", "base", pose, 0)
    pose[:3, 3] = 99.0
    np.testing.assert_allclose(buffer.lookup("odom", "base", 0), moved(1.0))


def test_reading_while_another_thread_writes() -> None:
    buffer = TransformBuffer(cache_s=1e-6)
    buffer.set("odom", "base", moved(0.0), 0)
    done = threading.Event()

    def write() -> None:
        for stamp in range(5_000):
            buffer.set("odom", "base", moved(float(stamp)), stamp)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = [0.0]
    while not done.is_set():
        seen.append(float(buffer.lookup("odom", "base")[0, 3]))
    writer.join()
    assert seen == sorted(seen)
