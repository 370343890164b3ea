"""A growing map: never lost, never overwrites another; and where it would fail."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_map_build import CAMERA, sideways, view, wall  # noqa: F401  # a fixture

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.localization.coverage import Coverage, CoverageSettings, CoverageVerdict
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.mapping import storage
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import Skip
from mast3r_ros.mapping.session import MappingSession
from mast3r_ros.matching import create


def at(posed: PosedFrame, second: float) -> PosedFrame:
    return replace(posed, frame=replace(posed.frame, stamp_ns=round(second * 1e9)))


def test_new_views_are_kept_and_a_wish_is_obeyed(tmp_path: Path, wall: NDArray[np.uint8]) -> None:  # noqa: F811
    session = MappingSession(tmp_path / "map")
    with pytest.raises(MapError, match="no keyframe to save"):
        session.save(tmp_path / "map")
    assert isinstance(session.offer(view(wall, sideways(0.0))), Keyframe)
    assert session.offer(view(wall, sideways(0.1))) is Skip.NOTHING_NEW
    assert isinstance(session.offer(view(wall, sideways(0.15)), force=True), Keyframe)
    assert session.offer(view(wall, sideways(0.35))) is Skip.NOTHING_NEW, "near the one that was wished for"
    assert session.unsaved == 2
    assert "2 keyframes" in session.save(tmp_path / "map") and session.unsaved == 0
    assert len(KeyframeMap.load(tmp_path / "map")) == 2


def test_another_map_is_never_overwritten_unasked(tmp_path: Path, wall: NDArray[np.uint8]) -> None:  # noqa: F811
    first = MappingSession(tmp_path / "map")
    first.offer(view(wall, sideways(0.0)))
    first.save(tmp_path / "map")
    with pytest.raises(MapError, match="holds a map already"):
        MappingSession(tmp_path / "map")
    with pytest.raises(MapError, match="in frame 'map'"):
        MappingSession(tmp_path / "map", frame_id="odom", existing="extend")

    extended = MappingSession(tmp_path / "map", existing="extend")
    assert extended.unsaved == 0 and extended.offer(view(wall, sideways(0.1))) is Skip.NOTHING_NEW
    extended.offer(view(wall, sideways(0.5)))
    extended.save(tmp_path / "map")
    assert len(KeyframeMap.load(tmp_path / "map")) == 2

    elsewhere = MappingSession(tmp_path / "other", existing="extend")
    elsewhere.offer(view(wall, sideways(0.0)))
    with pytest.raises(MapError, match="holds a map already"):
        elsewhere.save(tmp_path / "map")
    assert len(KeyframeMap.load(tmp_path / "map")) == 2 and elsewhere.unsaved == 1

    anew = MappingSession(tmp_path / "map", existing="replace")
    anew.offer(view(wall, sideways(0.0)))
    anew.save(tmp_path / "map")
    assert len(KeyframeMap.load(tmp_path / "map")) == 1

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(MapError, match="is not a map"):
        MappingSession(tmp_path / "home", existing="replace")


def test_keyframes_stay_in_memory_when_the_disk_is_full(
    tmp_path: Path,
    wall: NDArray[np.uint8],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = MappingSession(tmp_path / "map")
    session.offer(view(wall, sideways(0.0)))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_synced", full)
        with pytest.raises(MapError, match="No space left on device"):
            session.save(tmp_path / "map")
    assert session.unsaved == 1 and not (tmp_path / "map").exists()
    session.save(tmp_path / "map")
    assert session.unsaved == 0 and len(KeyframeMap.load(tmp_path / "map")) == 1


def test_keyframes_without_depth_get_points_when_saved(tmp_path: Path, wall: NDArray[np.uint8]) -> None:  # noqa: F811
    session = MappingSession(tmp_path / "map")
    for x in (0.0, 0.3, 0.6):
        session.offer(view(wall, sideways(x), depth=False))
    session.save(tmp_path / "map")
    assert all(keyframe.has_depth for keyframe in KeyframeMap.load(tmp_path / "map").keyframes)


@pytest.fixture
def coverage(wall: NDArray[np.uint8]) -> Coverage:  # noqa: F811
    """Along two metres of wall, one keyframe every 0.25 m and second."""
    keyframe_map = KeyframeMap()
    for i in range(9):
        keyframe_map.add(at(view(wall, sideways(0.25 * i)), i))
    return Coverage(Localizer(keyframe_map, create("sift", max_features=500)), CoverageSettings(leave_out_s=0.5))


def test_coverage_tells_mapped_from_unmapped_places(coverage: Coverage, wall: NDArray[np.uint8]) -> None:  # noqa: F811
    assert coverage.summary() == "no place was tried yet"
    known = coverage.try_frame(at(view(wall, sideways(1.1)), 4.4))
    assert known.verdict is CoverageVerdict.COVERED and known.distance_m < 0.05
    bare = Frame(np.full((CAMERA.height, CAMERA.width, 3), 200, np.uint8), CAMERA, stamp_ns=10**11)
    blank = coverage.try_frame(PosedFrame(bare, sideways(3.0, 90.0)))
    assert blank.verdict is CoverageVerdict.UNCOVERED and blank.reason
    assert coverage.counts() == {
        CoverageVerdict.COVERED: 1,
        CoverageVerdict.UNCOVERED: 1,
        CoverageVerdict.CONTRADICTED: 0,
    }
    assert "1 of 2 places would be found again" in coverage.summary() and blank.reason in coverage.summary()


def test_a_frame_is_not_found_by_its_own_keyframes(wall: NDArray[np.uint8]) -> None:  # noqa: F811
    keyframe_map = KeyframeMap()
    for i in range(3):
        keyframe_map.add(at(view(wall, sideways(0.1 * i)), 0.1 * i))
    localizer = Localizer(keyframe_map, create("sift", max_features=500))
    frame = at(view(wall, sideways(0.05)), 0.05)
    assert localizer.localize(frame.frame).localized
    assert Coverage(localizer).try_frame(frame).verdict is CoverageVerdict.UNCOVERED


def test_drifted_poses_are_contradicted_and_a_later_trial_replaces_an_earlier_one(
    coverage: Coverage,
    wall: NDArray[np.uint8],  # noqa: F811
) -> None:
    seen = view(wall, sideways(1.0))
    drifted = PosedFrame(replace(seen.frame, stamp_ns=10**11), sideways(1.6))
    trial = coverage.try_frame(drifted)
    assert trial.verdict is CoverageVerdict.CONTRADICTED and trial.distance_m == pytest.approx(0.6, abs=0.05)
    assert "found elsewhere" in coverage.summary()
    blurred = cv2.GaussianBlur(seen.frame.image, (0, 0), 15)
    coverage.try_frame(PosedFrame(replace(seen.frame, image=blurred, stamp_ns=10**11), sideways(1.0)))
    assert coverage.counts()[CoverageVerdict.UNCOVERED] == 1
    coverage.try_frame(at(seen, 100.0))
    assert coverage.counts() == {
        CoverageVerdict.COVERED: 1,
        CoverageVerdict.UNCOVERED: 0,
        CoverageVerdict.CONTRADICTED: 1,
    }
