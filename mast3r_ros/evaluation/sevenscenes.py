"""The 7-Scenes protocol: a map of the train split, queries of the test split (Shotton et al., CVPR 2013)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mast3r_ros.datasets.sevenscenes import SevenScenes
from mast3r_ros.evaluation.gallery import Gallery, Picture
from mast3r_ros.evaluation.localization import Evaluation, Record, evaluate_localization
from mast3r_ros.frames import Frame
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate, Tracker
from mast3r_ros.localization.map_noise import save_ready
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KEEP_ALL, SelectionSettings
from mast3r_ros.matching.base import Matcher

#: A train split of up to this many frames is taken as the list of keyframes; of a longer one keyframes are selected.
MOST_KEPT = 1000
#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SevenScenesSettings:
    """How a scene is evaluated.

    Attributes:
        keyframes: keyframes matched with every query.
        query_depth: let verification see the queries' own depth; a plain colour camera has none.
        tracking: localize the queries in their order with a Tracker instead of each on its own.
    """

    keyframes: int = 5
    query_depth: bool = False
    tracking: bool = False


def evaluate_sevenscenes(
    path: Path,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    settings: SevenScenesSettings = SevenScenesSettings(),
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Evaluation, list[Picture]]:
    """Localize the test split in a map.

    Raises:
        DatasetError: if the folder has no test split.
    """
    queries = SevenScenes(path, split="test", use_depth=settings.query_depth)
    keyframe_map.prepare(matcher, lambda done, total: progress("describing keyframes", done, total))
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=settings.keyframes))
    gallery = Gallery(keyframe_map)
    done = 0

    def watch(record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        nonlocal done
        done += 1
        gallery.offer(record, frame, estimate)
        progress("localizing", done, len(queries))

    evaluation = evaluate_localization(
        Tracker(localizer) if settings.tracking else localizer,
        queries,
        name=f"7-Scenes {path.resolve().name}",
        settings={
            "data": str(path),
            "map": keyframe_map.provenance.get("source") or str(keyframe_map.path),
            "map_keyframes": len(keyframe_map),
            "matcher": matcher.name,
            "features": matcher.signature,
            **asdict(settings),
        },
        watch=watch,
    )
    return evaluation, gallery.pictures()


@contextmanager
def map_of_train_split(
    path: Path, matcher: Matcher, progress: Progress = lambda stage, done, total: None
) -> Iterator[KeyframeMap]:
    """A map of the train split on disk, its pose noise measured; removed again afterwards.

    Raises:
        DatasetError: if the folder has no train split.
    """
    frames = SevenScenes(path, split="train")
    selection = KEEP_ALL if len(frames) <= MOST_KEPT else SelectionSettings()
    keyframe_map, _ = build_map(
        frames,
        selection=selection,
        source_name=f"{path} (train)",
        progress=lambda seen, kept: progress("building the map", seen, len(frames)),
    )
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        save_ready(keyframe_map, matcher, Path(folder) / "map", progress)
        yield keyframe_map
