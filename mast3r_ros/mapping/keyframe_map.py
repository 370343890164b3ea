"""The map: keyframes, their pixels, what matchers know of them, and how to find the ones that matter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Camera, Frame, PosedFrame, valid_depth
from mast3r_ros.mapping import storage
from mast3r_ros.mapping.atomic import link_tree
from mast3r_ros.mapping.blob import (
    IMAGE_FORMATS,
    decode_depth,
    decode_image,
    decode_points,
    drawn,
    encode_depth,
    encode_image,
    encode_points,
)
from mast3r_ros.mapping.feature_cache import MEMORY_BYTES, FeatureCache
from mast3r_ros.mapping.growing import append
from mast3r_ros.mapping.indexes import Indexes
from mast3r_ros.mapping.keyframe import Keyframe, PoseNoise
from mast3r_ros.mapping.records import MAX_IMAGE_SIDE, Entry, rigid_pose, valid_id
from mast3r_ros.mapping.retrieval import RetrievalIndex
from mast3r_ros.mapping.table import Entries
from mast3r_ros.mapping.views import KeyframeViews
from mast3r_ros.matching.base import Features, Matcher

#: Called with (done, total).
Progress = Callable[[int, int], None]


class KeyframeMap:
    """Keyframes in insertion order; safe to read while another thread adds or saves.

    Images are encoded when added and read back from that form, so that a map answers the same
    before and after it was saved. After :meth:`load` and :meth:`save` they stay on disk.
    """

    def __init__(
        self, frame_id: str = "map", *, source: str = "", image_format: str = "jpg", feature_memory: int = MEMORY_BYTES
    ) -> None:
        """An empty map.

        Args:
            frame_id: name of the frame its poses are in.
            source: where its frames come from, for people.
            image_format: ``jpg`` (quality 95, full chroma) or ``png`` (exact).
            feature_memory: bound of the features kept in memory, bytes.
        """
        if image_format not in IMAGE_FORMATS:
            raise MapError(f"unknown image format '{image_format}': choose {' or '.join(IMAGE_FORMATS)}")
        self.frame_id = frame_id
        self.path: Path | None = None
        self.provenance = {"source": source, "created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        #: How well the keyframes' poses agree with each other, see localization.map_noise; None if not measured.
        self.pose_noise: PoseNoise | None = None
        self._image_format = image_format
        self._entries = Entries()
        self._written: storage.Written | None = None  # what the folder holds, where that is the beginning of this map
        self._added: dict[str, Entry] = {}  # what it does not hold
        self._cameras: dict[tuple[Any, ...], Camera] = {}
        self._views: KeyframeViews | None = None  # when needed
        self._cache = FeatureCache(feature_memory)
        self._indexes = Indexes(self._cache.warn_once)
        self._put_ids: list[str] = []  # what was put, in this order; an index knows how much of it it has seen
        self._lock = threading.RLock()
        self._describing = threading.Lock()  # several threads read features; a matcher describes one frame at a time
        self._saving = threading.Lock()  # held for as long as the disk takes; adding goes on meanwhile

    # -- keyframes ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: str) -> bool:
        return id in self._entries

    def __getitem__(self, id: str) -> Keyframe:
        return self._entry(id).keyframe

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All keyframes in insertion order."""
        with self._lock:
            return tuple(entry.keyframe for entry in self._entries.values())

    @property
    def measured(self) -> bool:
        """Whether a keyframe has a depth image of a sensor, more than triangulated points."""
        return any(entry.depth is not None for entry in tuple(self._entries.values()))

    @property
    def feature_memory(self) -> int:
        """Bound of the features kept in memory, bytes."""
        return self._cache.memory_bytes

    @feature_memory.setter
    def feature_memory(self, memory_bytes: int) -> None:
        self._cache.memory_bytes = memory_bytes

    @property
    def scene_depth_m(self) -> float:
        """Median distance of what the keyframes see, metres; NaN where no depth is known."""
        return self._seen_views().scene_depth_m

    @property
    def view_depth_m(self) -> float:
        """The same; where no depth is known, what the spacing of the keyframes suggests."""
        depths = self._seen_views().depths
        return float(np.median(depths)) if len(depths) else 1.0

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Every calibration of the keyframes, once."""
        return self._seen_views().cameras

    def camera_of_size(self, width: int, height: int) -> Camera | None:
        """The map's camera, where it has only one and that takes images of this size; else None."""
        cameras = self.cameras
        fits = len(cameras) == 1 and (cameras[0].width, cameras[0].height) == (width, height)
        return cameras[0] if fits else None

    def typical_depth(self, ids: Collection[str]) -> float:
        """Median of how far away what some keyframes see is, metres, each by its own depth; NaN where none is known."""
        medians = np.array([self._entry(id).depth_median_m for id in ids])
        known = medians[np.isfinite(medians)]
        return float(np.median(known)) if len(known) else self.scene_depth_m

    def add(self, posed: PosedFrame, id: str | None = None) -> Keyframe:
        """Append a keyframe.

        Args:
            posed: its frame (with a camera; with depth where there is any) and pose.
            id: unique, usable as a file name; numbered by default.

        Raises:
            MapError: for an id that is taken or unusable, a frame without a camera, or an impossible pose.
        """
        frame = posed.frame
        if frame.camera is None:
            raise MapError(f"frame {frame.name or id or len(self)}: has no camera calibration, which a keyframe needs")
        if max(frame.width, frame.height) > MAX_IMAGE_SIDE:
            raise MapError(f"frame {frame.name or id}: is {frame.width}x{frame.height}; resize it first")
        pose = rigid_pose(posed.map_T_camera, frame.name or id or str(len(self)))
        image = encode_image(frame.image, self._image_format)
        depth = None if frame.depth is None else encode_depth(frame.depth)
        median = _median_depth(frame.depth)
        with self._lock:
            id = self._free_id() if id is None else id
            if not valid_id(id):
                raise MapError(f"'{id}' cannot be a keyframe id: use letters, digits, '_', '-', '.', no leading dot")
            if id in self._entries:
                raise MapError(f"the map already has a keyframe '{id}'")
            camera = self._shared_camera(frame.camera)
            keyframe = Keyframe(id, camera, pose, int(frame.stamp_ns), depth is not None)
            self._put(Entry(keyframe, image, depth, median))
        return keyframe

    def set_points(self, id: str, xy: NDArray[np.floating], depth: NDArray[np.floating]) -> Keyframe:
        """Give a keyframe points instead of the depth that it has: pixels (N, 2) and distances (N,), metres."""
        entry, known = self._entry(id), np.asarray(depth, dtype=np.float64)
        if not len(known) or not valid_depth(known).all() or not np.isfinite(xy).all():
            raise MapError(f"keyframe '{id}': points need finite pixels and positive depths")
        keyframe = replace(entry.keyframe, has_depth=True)
        points, median = encode_points(xy, known), float(np.median(known))
        with self._lock:
            self._put(replace(entry, keyframe=keyframe, depth=None, points=points, depth_median_m=median))
        return keyframe

    def set_poses(self, poses: Mapping[str, NDArray[np.float64]]) -> None:
        """Put keyframes elsewhere, (4, 4) by id; their points go, which were triangulated with the old poses."""
        with self._lock:
            for id, pose in poses.items():
                self._put(self._entry(id).at(rigid_pose(pose, id)))

    def frame(self, id: str, points: bool = True) -> Frame:
        """Image, depth and calibration of a keyframe, read and checked; ``points`` as depth too, 0 between them.

        Raises:
            MapError: if the id is unknown, or a file is missing, changed or damaged.
        """
        entry = self._entry(id)
        camera = entry.keyframe.camera
        depth = None
        if entry.depth is not None:
            depth = decode_depth(entry.depth, camera)
        elif points and entry.points is not None:
            depth = drawn(*decode_points(entry.points), camera)
        return Frame(decode_image(entry.image, camera), camera, entry.keyframe.stamp_ns, depth, id)

    # -- what matchers know ------------------------------------------------------------------------

    def features(self, matcher: Matcher, id: str) -> Features:
        """What a matcher knows of a keyframe: cached, or computed now.

        Raises:
            MapError: if the id is unknown or its image cannot be read.
        """
        entry = self._entry(id)
        signature = _checked_signature(matcher)
        features = self._cache.get(signature, entry)
        if features is None:
            frame = self.frame(id)
            with self._describing:
                features = self._cache.put(signature, entry, matcher.describe(frame))
        return features

    def undescribed(self, matcher: Matcher) -> list[str]:
        """Ids of the keyframes whose features are not kept yet, in the map's order."""
        signature = _checked_signature(matcher)
        with self._lock:
            entries = self._entries.copy()
        missing = self._cache.missing(signature, entries)
        return [id for id in entries if id in missing]

    def keep_features(self, matcher: Matcher, id: str, features: Features) -> None:
        """Take what the matcher said of a keyframe elsewhere."""
        self._cache.put(_checked_signature(matcher), self._entry(id), features)

    def prepare(self, matcher: Matcher, progress: Progress | None = None) -> None:
        """Describe every keyframe that is not cached yet and bring the appearance index up to date."""
        missing = self.undescribed(matcher)
        described = len(self) - len(missing)
        for done, id in enumerate(missing, start=described + 1):
            self.features(matcher, id)
            if progress is not None:
                progress(done, described + len(missing))
        self._index(matcher)

    # -- finding keyframes -------------------------------------------------------------------------

    def retrieve(
        self, matcher: Matcher, query_features: Features, k: int, *, exclude: Collection[str] = ()
    ) -> list[str]:
        """Ids of the ``k`` keyframes that look most like a query, best first."""
        return [id for id, _ in self.retrieve_scored(matcher, query_features, k, exclude=exclude)]

    def retrieve_scored(
        self, matcher: Matcher, query_features: Features, k: int, *, exclude: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """Like :meth:`retrieve`, with cosine similarities in [-1, 1]."""
        return self._index(matcher).search(matcher.local_descriptors(query_features), k, exclude)

    def retrieve_near(self, map_T_camera: NDArray[np.float64], k: int) -> list[str]:
        """Ids of at most ``k`` keyframes that plausibly see what a camera at that pose (4, 4) sees, best first."""
        views = self._seen_views()
        scores = views.overlaps(map_T_camera)
        best = np.argsort(-scores, kind="stable")[: max(0, k)]
        return [views.ids[i] for i in best if scores[i] > 0]

    def overlaps(self, map_T_camera: NDArray[np.float64]) -> dict[str, float]:
        """Plausible overlap of every keyframe's view with that of a camera (4, 4), see :func:`overlap.view_overlap`."""
        views = self._seen_views()
        return dict(zip(views.ids, views.overlaps(map_T_camera).tolist(), strict=True))

    def similarities(self, matcher: Matcher, query_features: Features) -> dict[str, float]:
        """Cosine similarity of every keyframe with a query; combine with :meth:`overlaps` as needed."""
        return self._index(matcher).similarities(matcher.local_descriptors(query_features))

    # -- on disk -----------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, *, feature_memory: int = MEMORY_BYTES) -> KeyframeMap:
        """Read a map folder; images and features stay on disk until they are needed.

        Raises:
            MapError: if there is no map, or it is damaged, changed by hand, or of a newer format.
        """
        folder = Path(path).expanduser().resolve()
        written, entries = storage.open_map(folder)
        header = written.header
        keyframe_map = cls(header.frame_id, feature_memory=feature_memory)
        keyframe_map.provenance = header.provenance
        keyframe_map.pose_noise = header.pose_noise
        for camera in header.cameras.values():
            keyframe_map._cameras[_camera_key(camera)] = camera
        keyframe_map._entries = entries
        keyframe_map._written = written if header.keyframes_bytes is not None else None
        if entries:
            keyframe_map._image_format = entries[next(reversed(entries))].image.suffix
        keyframe_map.path = keyframe_map._cache.folder = folder
        return keyframe_map

    def save(self, path: str | Path) -> None:
        """Write everything to a folder in one step; a map that is there is replaced, or untouched on failure.

        Where keyframes were added to what the folder holds, and none was changed, only these are written.

        Raises:
            MapError: if the place is taken by something else or the disk refuses.
        """
        folder, header = Path(path).expanduser().resolve(), storage.Header(self.frame_id, self.provenance)
        header.pose_noise = self.pose_noise
        with self._saving:
            with self._lock:
                known, added = self._written, dict(self._added)
            if known is not None and folder == self.path:
                after = append(folder, known, header, list(added.values()))
                if after is not None:
                    self._saved(folder, added, known, after)
                    return
            with self._lock:
                known, entries = self._written, self._entries.copy()
            every = list(entries.values())
            after = storage.write_map(folder, header, every, lambda fresh: self._write_caches(fresh, entries))
            self._saved(folder, entries, known, after)

    def _saved(
        self, folder: Path, entries: Mapping[str, Entry], before: storage.Written | None, after: storage.Written
    ) -> None:
        """Take note of what a save has written, while others may have added and changed keyframes."""
        with self._lock:
            unchanged = self._written is before
            for id, entry in entries.items():
                self._added.pop(id, None)
                if self._entries[id] is entry:
                    self._entries[id] = entry.stored(folder)
                else:
                    unchanged = False
            self._written = after if unchanged else None
            self.path = self._cache.folder = folder

    def _write_caches(self, fresh: Path, entries: Entries) -> None:
        """Features and indexes are a cache: where they cannot be written, the save succeeds all the same."""
        try:
            self._cache.copy_to(fresh, entries)
            if self.path is not None:
                link_tree(self.path / "retrieval", fresh / "retrieval")  # of which only what is new is written
            self._indexes.save(fresh)
        except OSError as error:
            self._cache.warn_once(fresh, error)

    def _seen_views(self) -> KeyframeViews:
        with self._lock:
            if self._views is None:
                self._views = KeyframeViews.of(self._entries)
            return self._views

    def _index(self, matcher: Matcher) -> RetrievalIndex:
        def keys(since: int | None) -> tuple[int, dict[str, str]]:
            with self._lock:
                if since is None:
                    return len(self._put_ids), self._entries.content_keys()
                return len(self._put_ids), {id: self._entries[id].content_key for id in self._put_ids[since:]}

        def describe(id: str) -> NDArray[np.float32]:
            return matcher.local_descriptors(self.features(matcher, id))

        return self._indexes.get(_checked_signature(matcher), self.path, keys, describe)

    def _entry(self, id: str) -> Entry:
        try:
            return self._entries[id]
        except KeyError:
            raise MapError(f"the map has no keyframe '{id}'") from None

    def _put(self, entry: Entry) -> None:
        if entry.keyframe.id in self._entries and entry.keyframe.id not in self._added:
            self._written = None  # what the folder holds is no longer the beginning of this map
        else:
            self._added[entry.keyframe.id] = entry
        self._entries[entry.keyframe.id] = entry
        self._views = None
        self._put_ids.append(entry.keyframe.id)

    def _free_id(self) -> str:
        number = len(self._entries)
        while f"{number:06d}" in self._entries:
            number += 1
        return f"{number:06d}"

    def _shared_camera(self, camera: Camera) -> Camera:
        return self._cameras.setdefault(_camera_key(camera), camera)


def _camera_key(camera: Camera) -> tuple[Any, ...]:
    return camera.width, camera.height, camera.model, camera.K.tobytes(), camera.D.tobytes()


def _checked_signature(matcher: Matcher) -> str:
    signature = matcher.signature
    if not valid_id(signature):
        raise ValueError(f"matcher signature {signature!r} cannot be a folder name")
    return signature


def _median_depth(depth: NDArray[np.floating] | None) -> float:
    known = depth[valid_depth(depth)] if depth is not None else np.zeros(0)
    return float(np.median(known)) if known.size else float("nan")
