"""The protocol of 7-Scenes and 12-Scenes: a map of the train split, queries of the test split.

Shotton et al., CVPR 2013; Valentin et al., 3DV 2016.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from mast3r_ros.io.datasets import FrameList
from mast3r_ros.io.datasets.sevenscenes import SevenScenes
from mast3r_ros.io.datasets.twelvescenes import TwelveScenes, is_twelvescenes
from mast3r_ros.lab.runs.gallery import Picture
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.splits import Progress, QuerySettings, evaluate_split, temporary_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.workers import Here, Workers


def open_scene(path: Path, split: str, use_depth: bool = True) -> FrameList:
    """The train or test split of a scene, whichever of the two data sets it is from.

    Raises:
        DatasetError: if the folder has no such split.
    """
    reader = TwelveScenes if is_twelvescenes(path) else SevenScenes
    return reader(path, split=split, use_depth=use_depth)


def evaluate_scene(
    path: Path,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    settings: QuerySettings = QuerySettings(),
    progress: Progress = lambda stage, done, total: None,
    by: Workers = Here(),
) -> tuple[Evaluation, list[Picture]]:
    """Localize the test split in a map.

    Raises:
        DatasetError: if the folder has no test split.
    """
    queries = open_scene(path, "test", settings.query_depth)
    kind = "12-Scenes" if isinstance(queries, TwelveScenes) else "7-Scenes"
    name = f"{kind} {path.resolve().name}"
    about = {"data": str(path)}
    return evaluate_split(queries, keyframe_map, matcher, settings, progress, name=name, about=about, by=by)


def map_of_train_split(
    path: Path, matcher: Matcher, progress: Progress = lambda stage, done, total: None, by: Workers = Here()
) -> AbstractContextManager[KeyframeMap]:
    """A map of the train split on disk, removed again afterwards.

    Raises:
        DatasetError: if the folder has no train split.
    """
    return temporary_map(open_scene(path, "train"), matcher, f"{path} (train)", progress, by=by)
