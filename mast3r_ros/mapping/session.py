"""A map that grows while frames come in, saved such that no failure loses it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from mast3r_ros.errors import MapError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.atomic import recover
from mast3r_ros.mapping.keyframe import Keyframe
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.live_points import LivePoints
from mast3r_ros.mapping.selection import KeyframeSelector, SelectionSettings, Skip
from mast3r_ros.mapping.triangulate import triangulate_missing_depth

#: What to do with a map that stands where this one is to be saved.
EXISTING = ("refuse", "extend", "replace")


class Refined(Protocol):
    """What a refinement tells of itself."""

    @property
    def doubts(self) -> list[str]:
        """What a person should know of it, a sentence each."""


class MappingSession:
    """Selects keyframes and saves them. One thread offers frames; any thread may save.

    Args:
        path: folder of the map.
        frame_id: frame of the poses.
        selection: when a frame becomes a keyframe.
        existing: a map that is there already is refused (at once, not after an hour of mapping), extended or replaced.
        refine: gives keyframes without depth better poses before they are triangulated; may raise MapError.

    Raises:
        MapError: if the place is taken, or the map to extend cannot be used.
    """

    def __init__(
        self,
        path: Path,
        frame_id: str = "map",
        selection: SelectionSettings | None = None,
        existing: str = "refuse",
        source: str = "",
        refine: Callable[[KeyframeMap], Refined] | None = None,
    ) -> None:
        self._existing, self._refine = existing, refine
        self._correction = np.eye(4)  # from the frame of the poses to that of the map, once it was refined
        self._adding = threading.Lock()  # held while poses or points of keyframes change
        self._live: LivePoints | None = None
        self._own: set[Path] = set()  # what may be overwritten: it holds no keyframe that this map has not
        self._saving = threading.Lock()
        self._selector = KeyframeSelector(selection)
        path = self._checked(path, may_load=existing == "extend")
        if existing == "extend" and (path / "map.yaml").is_file():
            self.map = _extended(path, frame_id)
            self._own.add(path)
        else:
            self.map = KeyframeMap(frame_id, source=source)
        for keyframe in self.map.keyframes:
            self._selector.remember(keyframe.map_T_camera)
        self._saved = len(self.map)

    @property
    def unsaved(self) -> int:
        """Keyframes that are only in memory."""
        return len(self.map) - self._saved

    def settle(self) -> None:
        """Wait until a save in progress has ended."""
        with self._saving:
            pass

    def offer(self, posed: PosedFrame, force: bool = False) -> Keyframe | Skip:
        """Add a frame if it shows something new; with ``force``, whatever it shows.

        Raises:
            MapError: if the frame cannot be a keyframe (no calibration, an impossible pose).
        """
        skip = self._selector.judge(posed)
        if skip is not None and not force:
            return skip
        with self._adding:
            keyframe = self.map.add(self.in_map(posed))
        if skip is not None:
            self._selector.remember(posed.map_T_camera)
        return keyframe

    def in_map(self, posed: PosedFrame) -> PosedFrame:
        """A frame with its pose in the map, which differs from what was given once the map was refined."""
        return PosedFrame(posed.frame, self._correction @ posed.map_T_camera)

    def triangulate_newest(self) -> None:
        """Points for keyframes of a moment ago, so that a map without depth can be tried while it is made."""
        if self.map.measured:
            return
        with self._adding:
            self._live = self._live or LivePoints(self.map)
            self._live.update()

    def save(self, path: Path, triangulate: bool = True) -> str:
        """Save everything in one step; on failure the folder and the keyframes in memory stay as they were.

        Args:
            triangulate: afterwards refine the poses of keyframes without depth, give them triangulated points, and save
                those too.

        Returns:
            what was saved, as a sentence.

        Raises:
            MapError: if the map is empty, another map stands there, or the disk refuses.
        """
        with self._saving:
            path = self._checked(path)
            if not len(self.map):
                raise MapError("there is no keyframe to save yet")
            self._write(path)
            more = ""
            if triangulate and not self.map.measured:
                more = self._refined()
            if triangulate and any(not keyframe.has_depth for keyframe in self.map.keyframes):
                triangulate_missing_depth(self.map)
                self._write(path)
            return f"saved {self._saved} keyframes to {path}{more}"

    def _refined(self) -> str:
        """Better poses where that can be done; what is to be said of it. Points are made anew in any case."""
        more, before = "", {keyframe.id: keyframe.map_T_camera for keyframe in self.map.keyframes}
        try:
            if self._refine is not None:
                more = f"; poses refined{''.join(f'; {doubt}' for doubt in self._refine(self.map).doubts)}"
        except MapError as error:
            more = f"; {error}"
        with self._adding:
            last = list(before)[-1]
            moved = self.map[last].map_T_camera @ se3.inverse(before[last])
            newer = [keyframe for keyframe in self.map.keyframes if keyframe.id not in before]
            # With the others their points of live triangulation go: more keyframes see them now.
            poses = {id: self.map[id].map_T_camera for id in before}
            self.map.set_poses(poses | {keyframe.id: moved @ keyframe.map_T_camera for keyframe in newer})
            self._correction, self._live = moved @ self._correction, None
        return more

    def _write(self, path: Path) -> None:
        count = len(self.map)
        self.map.save(path)
        self._saved = count
        self._own.add(path)

    def _checked(self, path: Path, may_load: bool = False) -> Path:
        """The folder, if it may be written. Writing to a map that was not loaded would lose its keyframes."""
        path = path.expanduser().resolve()
        recover(path)
        if path in self._own or not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return path
        if not (path / "map.yaml").is_file():
            raise MapError(f"{path} exists and is not a map: choose another place, or remove it first")
        if self._existing != "replace" and not may_load:
            raise MapError(
                f"{path} holds a map already: choose another place, or set existing to extend (the poses continue in "
                "its frame) or replace"
            )
        return path


def _extended(path: Path, frame_id: str) -> KeyframeMap:
    keyframe_map = KeyframeMap.load(path)
    if keyframe_map.frame_id != frame_id:
        raise MapError(f"{path} is in frame '{keyframe_map.frame_id}', the new poses are in '{frame_id}'")
    return keyframe_map
