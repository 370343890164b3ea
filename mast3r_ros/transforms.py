"""A tree of coordinate frames over time: what tf2's buffer does, in plain Python.

Used by bag reading, and by the ROS nodes where tf2_ros is not installed. Semantics follow tf2: a
lookup interpolates between the two samples around its stamp, never extrapolates, and a child may
change its parent over time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.geometry import se3

Array = NDArray[np.float64]

#: How far R^T R may be from the identity before a matrix is refused as not being a rotation.
RIGID = 1e-3
#: Two publishers of one frame: most samples are so many times further from their neighbours than those are apart.
TO_AND_FRO = 4.0
#: Fewer samples than this do not tell.
FEWEST_TURNS = 6


class InvalidTransform(UserError):
    """A transform that no tree may hold: NaN, zero quaternion, not rigid, or one that closes a loop."""


class TransformUnavailable(UserError):
    """The asked-for transform cannot be given (base of the four reasons why)."""


class UnknownFrame(TransformUnavailable):
    """Nobody has published this frame yet."""


class DisconnectedFrames(TransformUnavailable):
    """Both frames are known, but no chain of transforms joins them."""


class FutureExtrapolation(TransformUnavailable):
    """The stamp is newer than the newest sample: worth trying again a little later."""


class PastExtrapolation(TransformUnavailable):
    """The stamp is older than the oldest sample kept: trying again will not help."""


@dataclass
class _Track:
    """What is known of one child frame: samples sorted by stamp, and a static pose, which has no time.

    Where a frame has both, its history stays: samples count between the oldest and the newest, the static pose before
    them, and after them if it came later than they did.
    """

    stamps: list[int] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    poses: list[Array] = field(default_factory=list)
    fixed: tuple[str, Array] | None = None
    fixed_last: bool = False

    def insert(self, stamp_ns: int, parent: str, pose: Array) -> None:
        at = bisect_left(self.stamps, stamp_ns)
        replaces = at < len(self.stamps) and self.stamps[at] == stamp_ns
        end = at + 1 if replaces else at
        self.stamps[at:end], self.parents[at:end], self.poses[at:end] = [stamp_ns], [parent], [pose]
        self.fixed_last = False

    def fix(self, parent: str, pose: Array) -> None:
        self.fixed, self.fixed_last = (parent, pose), True

    def forget_before(self, stamp_ns: int) -> None:
        keep = bisect_left(self.stamps, stamp_ns)
        del self.stamps[:keep], self.parents[:keep], self.poses[:keep]

    def is_fixed(self, stamp_ns: int | None) -> bool:
        """Whether the static pose holds at a stamp (None: the newest)."""
        if self.fixed is None or not self.stamps:
            return self.fixed is not None
        if stamp_ns is None or stamp_ns > self.stamps[-1]:
            return self.fixed_last
        return stamp_ns < self.stamps[0]

    def parent(self, stamp_ns: int | None) -> str:
        """Parent at a stamp, or of the nearest sample in time (structure needs no exact stamp)."""
        if self.fixed is not None and self.is_fixed(stamp_ns):
            return self.fixed[0]
        if stamp_ns is None:
            return self.parents[-1]
        return self.parents[max(bisect_right(self.stamps, stamp_ns) - 1, 0)]

    def pose(self, stamp_ns: int) -> Array:
        """``parent_T_child`` at a stamp inside the samples; the earlier one where the parent changes."""
        if self.fixed is not None and self.is_fixed(stamp_ns):
            return self.fixed[1]
        before = bisect_right(self.stamps, stamp_ns) - 1
        t0 = self.stamps[before]
        if t0 == stamp_ns or self.parents[before] != self.parents[before + 1]:
            return self.poses[before]
        alpha = (stamp_ns - t0) / (self.stamps[before + 1] - t0)
        return se3.interpolate(self.poses[before], self.poses[before + 1], alpha)

    def gap_ns(self, stamp_ns: int) -> int:
        """Time between the two samples around a stamp inside the samples, 0 where one hits it."""
        if self.is_fixed(stamp_ns):
            return 0
        before = bisect_right(self.stamps, stamp_ns) - 1
        return 0 if self.stamps[before] == stamp_ns else self.stamps[before + 1] - self.stamps[before]

    def duplicates(self, newest: int) -> str:
        """Why more than one node seems to publish this frame, by its newest samples; empty where nothing says so."""
        parents, poses = self.parents[-newest:], self.poses[-newest:]
        if self.fixed is not None and self.stamps:
            return "it is published both as static and as moving"
        turns = sum(a != b for a, b in pairwise(parents))
        if turns > len(set(parents)):
            return f"its parent changes {turns} times between {' and '.join(sorted(set(parents)))}"
        if len(poses) >= FEWEST_TURNS and _alternates(np.stack(poses)):
            return "its pose jumps to and fro between one sample and the next"
        return ""


def _alternates(poses: Array) -> bool:
    """Whether every other pose (N, 4, 4) belongs to another motion: neighbours are far apart, next ones near."""
    for values in (poses[:, :3, 3], poses[:, :3, :3].reshape(-1, 9)):
        one = np.linalg.norm(np.diff(values, axis=0), axis=1)
        two = np.linalg.norm(values[2:] - values[:-2], axis=1)
        if (np.minimum(one[:-1], one[1:]) > TO_AND_FRO * two + 1e-9).mean() > 0.5:
            return True
    return False


class TransformBuffer:
    """Transforms between named frames over time. All methods may be called from any thread.

    Args:
        cache_s: seconds of history kept behind each frame's newest sample; None keeps everything.
    """

    def __init__(self, cache_s: float | None = 10.0) -> None:
        self._cache_ns = None if cache_s is None else round(cache_s * 1e9)
        self._tracks: dict[str, _Track] = {}
        self._lock = RLock()

    def set(self, parent: str, child: str, parent_T_child: Array, stamp_ns: int, static: bool = False) -> bool:
        """Take one sample: ``parent_T_child`` (4, 4) maps coordinates of child into parent, metres.

        Returns:
            False if the sample was dropped because it is older than the history that is kept.

        Raises:
            InvalidTransform: for an empty name, a matrix that is not a finite rigid motion, or a loop.
        """
        parent, child = _frame_id(parent), _frame_id(child)
        pose = _rigid(parent, child, parent_T_child)
        with self._lock:
            self._refuse_loop(parent, child)
            track = self._tracks.setdefault(child, _Track())
            if static:
                track.fix(parent, pose)
                return True
            if self._cache_ns is not None and track.stamps and stamp_ns < track.stamps[-1] - self._cache_ns:
                return False
            track.insert(stamp_ns, parent, pose)
            if self._cache_ns is not None:
                track.forget_before(track.stamps[-1] - self._cache_ns)
            return True

    def set_message(self, message: Any, static: bool = False) -> bool:
        """Take one geometry_msgs/TransformStamped (any object with its fields). See :meth:`set`."""
        t, q = message.transform.translation, message.transform.rotation
        stamp = message.header.stamp
        try:
            pose = se3.from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
        except ValueError as error:
            names = f"{message.header.frame_id} -> {message.child_frame_id}"
            raise InvalidTransform(f"transform {names}: {error}: correct the node that publishes it") from error
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return self.set(message.header.frame_id, message.child_frame_id, pose, stamp_ns, static)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> Array:
        """``target_T_source`` (4, 4) at ``stamp_ns``, or at the newest stamp both share if None.

        Raises:
            UnknownFrame, DisconnectedFrames, FutureExtrapolation, PastExtrapolation.
        """
        target, source = _frame_id(target), _frame_id(source)
        with self._lock:
            from_source, from_target = self._path(target, source, stamp_ns)
            if stamp_ns is None:
                stamp_ns = self._newest_common([*from_source, *from_target])
                from_source, from_target = self._path(target, source, stamp_ns)
            return se3.inverse(self._up(from_target, stamp_ns)) @ self._up(from_source, stamp_ns)

    def can_transform(self, target: str, source: str, stamp_ns: int | None = None) -> bool:
        """Whether :meth:`lookup` would succeed now."""
        try:
            self.lookup(target, source, stamp_ns)
        except TransformUnavailable:
            return False
        return True

    def gap_s(self, target: str, source: str, stamp_ns: int) -> float:
        """How far apart the samples are that a lookup interpolates: seconds, the largest over the chain.

        Raises:
            As :meth:`lookup`.
        """
        with self._lock:
            self.lookup(target, source, stamp_ns)
            from_source, from_target = self._path(_frame_id(target), _frame_id(source), stamp_ns)
            return max((self._tracks[link].gap_ns(stamp_ns) for link in [*from_source, *from_target]), default=0) / 1e9

    @property
    def frames(self) -> list[str]:
        """Names of all frames known, sorted."""
        with self._lock:
            parents = {parent for track in self._tracks.values() for parent in track.parents}
            fixed = {track.fixed[0] for track in self._tracks.values() if track.fixed is not None}
            return sorted(parents | fixed | set(self._tracks))

    def children(self) -> dict[str, list[tuple[str, bool]]]:
        """The tree at its newest: parent -> children, sorted by name, each with whether it is static."""
        with self._lock:
            below: dict[str, list[tuple[str, bool]]] = {}
            for child in sorted(self._tracks):
                track = self._tracks[child]
                below.setdefault(track.parent(None), []).append((child, track.is_fixed(None)))
            return below

    def duplicates(self, newest: int = 0) -> dict[str, str]:
        """Frames that more than one node seems to publish, and what tells so; by so many samples each, 0: all."""
        with self._lock:
            found = {child: track.duplicates(newest) for child, track in self._tracks.items()}
            return {child: why for child, why in sorted(found.items()) if why}

    def clear(self) -> None:
        """Forget everything but static transforms: for when time has jumped backwards.

        Static transforms stay because their publishers send them only once.
        """
        with self._lock:
            fixed = {child: track.fixed for child, track in self._tracks.items() if track.fixed is not None}
            self._tracks = {child: _Track(fixed=pose, fixed_last=True) for child, pose in fixed.items()}

    def _refuse_loop(self, parent: str, child: str) -> None:
        if child in self._ancestors(parent, None):
            raise InvalidTransform(
                f"transform {parent} -> {child} closes a loop ({child} is already above {parent}): "
                "two nodes publish the same frames in opposite order; stop one of them"
            )

    def _ancestors(self, frame: str, stamp_ns: int | None) -> list[str]:
        """The frame and everything above it. Parents of different times may form a loop: stop there."""
        chain = [frame]
        while (track := self._tracks.get(chain[-1])) is not None:
            above = track.parent(stamp_ns)
            if above in chain:
                break
            chain.append(above)
        return chain

    def _path(self, target: str, source: str, stamp_ns: int | None) -> tuple[list[str], list[str]]:
        """Frames below the common ancestor, from source up and from target up."""
        up, down = self._ancestors(source, stamp_ns), self._ancestors(target, stamp_ns)
        for common in up:
            if common in down:
                return up[: up.index(common)], down[: down.index(common)]
        known = self.frames
        for frame in (target, source):
            if frame not in known:
                raise UnknownFrame(f"frame '{frame}' is not in the transform tree (it has {_listed(known)})")
        raise DisconnectedFrames(
            f"no transform joins '{target}' and '{source}': '{target}' hangs from '{down[-1]}', "
            f"'{source}' from '{up[-1]}'; publish the missing link"
        )

    def _newest_common(self, links: Iterable[str]) -> int:
        newest = [self._tracks[link].stamps[-1] for link in links if not self._tracks[link].is_fixed(None)]
        return min(newest, default=0)

    def _up(self, links: list[str], stamp_ns: int) -> Array:
        """Transform from the first link's frame to the frame above the last link."""
        T = np.eye(4)
        for child in links:
            T = self._sample(child, stamp_ns) @ T
        return T

    def _sample(self, child: str, stamp_ns: int) -> Array:
        track = self._tracks[child]
        if not track.is_fixed(stamp_ns):
            oldest, newest = track.stamps[0], track.stamps[-1]
            link = f"transform {track.parent(stamp_ns)} -> {child} at {stamp_ns / 1e9:.3f} s"
            if stamp_ns > newest:
                raise FutureExtrapolation(
                    f"{link} is not there yet: the newest is {(stamp_ns - newest) / 1e9:.3f} s older"
                )
            if stamp_ns < oldest:
                raise PastExtrapolation(
                    f"{link} is not there: the oldest kept is {(oldest - stamp_ns) / 1e9:.3f} s newer"
                )
        return track.pose(stamp_ns)


def _frame_id(name: str) -> str:
    """ROS 1 wrote frame names with a leading slash; they mean the same."""
    return name.lstrip("/")


def _rigid(parent: str, child: str, matrix: Array) -> Array:
    if not parent or not child:
        raise InvalidTransform(f"transform '{parent}' -> '{child}' has an empty frame name: fill in both frame ids")
    if parent == child:
        raise InvalidTransform(f"frame '{child}' cannot be its own parent")
    pose = np.array(matrix, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise InvalidTransform(f"transform {parent} -> {child} is not a (4, 4) matrix of finite numbers")
    R = pose[:3, :3]
    if np.abs(R.T @ R - np.eye(3)).max() > RIGID or np.linalg.det(R) < 0:
        raise InvalidTransform(f"transform {parent} -> {child} is not a rigid motion")
    return pose


def _listed(names: list[str], most: int = 8) -> str:
    if not names:
        return "no frames at all"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
