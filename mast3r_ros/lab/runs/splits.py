"""A map of one part of a data set, queries from another: how single-scene benchmarks are run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.io.datasets import FrameList
from mast3r_ros.lab.runs.gallery import Gallery, Picture
from mast3r_ros.lab.runs.localization import Evaluation, evaluate_localization
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate, Tracker
from mast3r_ros.localization.map_noise import save_ready
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KEEP_ALL, SelectionSettings
from mast3r_ros.matching.base import Matcher
from mast3r_ros.workers import Here, Workers

log = logging.getLogger(__name__)

#: A mapping part of up to this many frames is taken as the list of keyframes; of a longer one keyframes are selected.
MOST_KEPT = 1000
#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]


class Queries(Protocol):
    """Frames to be localized: with their true pose, or without where nobody knows it."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[PosedFrame | Frame]: ...


@dataclass(frozen=True)
class QuerySettings:
    """How queries are localized.

    Attributes:
        keyframes: keyframes matched with every query.
        query_depth: let verification see the queries' own depth; a plain colour camera has none.
        tracking: localize the queries in their order with a Tracker instead of each on its own.
    """

    keyframes: int = 5
    query_depth: bool = False
    tracking: bool = False


def evaluate_split(
    queries: Queries,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    settings: QuerySettings = QuerySettings(),
    progress: Progress = lambda stage, done, total: None,
    *,
    name: str,
    about: dict[str, Any] | None = None,
    negatives: Queries | None = None,
    unit_m: float = 1.0,
    by: Workers = Here(),
) -> tuple[Evaluation, list[Picture]]:
    """Localize queries in a map.

    Args:
        queries: opened with depth only where ``settings.query_depth`` says so.
        name: what is evaluated, for people.
        about: goes into the evaluation's settings.
        negatives: frames that show nothing of the map, asked after the queries.
        unit_m: metres of the map for each metre that limits are stated in.
        by: who localizes queries that do not follow each other; the map must be where they can read it.

    Raises:
        DatasetError: for a query that cannot be read.
    """
    keyframe_map.prepare(matcher, lambda done, total: progress("describing keyframes", done, total))
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=settings.keyframes))
    gallery = Gallery(keyframe_map)
    done, total = 0, len(queries) + (len(negatives) if negatives is not None else 0)

    def watch(record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        nonlocal done
        done += 1
        gallery.offer(record, frame, estimate)
        progress("localizing", done, total)

    evaluation = evaluate_localization(
        Tracker(localizer) if settings.tracking else localizer,
        queries,
        name=name,
        settings={
            **(about or {}),
            "map": keyframe_map.provenance.get("source") or str(keyframe_map.path),
            "map_keyframes": len(keyframe_map),
            "matcher": matcher.name,
            "features": matcher.signature,
            **asdict(settings),
        },
        watch=watch,
        negatives=(frame_of(query) for query in negatives or ()),
        unit_m=unit_m,
        by=by,
    )
    return evaluation, gallery.pictures()


def frame_of(query: PosedFrame | Frame) -> Frame:
    """A query without its pose."""
    return query.frame if isinstance(query, PosedFrame) else query


@contextmanager
def temporary_map(
    frames: FrameList,
    matcher: Matcher,
    source_name: str,
    progress: Progress = lambda stage, done, total: None,
    selection: SelectionSettings | None = None,
    by: Workers = Here(),
) -> Iterator[KeyframeMap]:
    """A map of frames on disk, its pose noise measured; removed again afterwards.

    Args:
        selection: which frames become keyframes; None keeps all of up to MOST_KEPT.
        by: who describes them and measures the noise; of another machine they must see this one's temporary folder.

    Raises:
        DatasetError: for a frame that cannot be read.
    """
    if selection is None:
        selection = KEEP_ALL if len(frames) <= MOST_KEPT else SelectionSettings()
    keyframe_map, _ = build_map(
        frames,
        selection=selection,
        matcher=matcher,  # as `map build` does it: points of frames without depth are where it finds something
        describe=False,
        source_name=source_name,
        progress=lambda seen, kept: progress("building the map", seen, len(frames)),
    )
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        for doubt in save_ready(keyframe_map, matcher, Path(folder) / "map", progress, by):
            log.warning("%s", doubt)
        yield keyframe_map
