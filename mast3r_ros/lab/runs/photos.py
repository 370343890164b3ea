"""Photographs with poses: some of a folder's images become the map, the others are localized one by one.

A set is a folder of :mod:`mast3r_ros.io.datasets.posed_images` with a file ``split.txt``:

    map|query name ...

What follows the name (nearest map image, angle, distance, tags) is for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mast3r_ros.errors import DatasetError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.io.datasets.base import Part, read_table
from mast3r_ros.io.datasets.posed_images import PosedImages
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.gallery import Picture
from mast3r_ros.lab.runs.localization import Evaluation, Record
from mast3r_ros.lab.runs.splits import Progress, QuerySettings, evaluate_split, temporary_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.workers import Here, Workers

ROLES = ("map", "query")


class Photos(Part):
    """The images of one role in a set, all lengths multiplied by a factor.

    Args:
        path: folder of the set.
        role: ``map`` or ``query``; None takes every image of the set, with a split.txt or without.
        use_depth: False leaves depth away.
        scale: what positions and depths are multiplied with, as if the scene were that much larger.

    Raises:
        DatasetError: for a missing or malformed file, or a set without images of that role.
    """

    def __init__(self, path: Path, role: str | None = None, use_depth: bool = True, scale: float = 1.0) -> None:
        if not path.is_dir():
            raise DatasetError(f"{path}: is no folder of photographs (images/, poses.txt, intrinsics.txt, split.txt)")
        images = PosedImages(path, use_depth=use_depth)
        self.scale = scale
        names = list(images.names)
        wanted = names if role is None else read_split(path / "split.txt", names)[role]
        place = {name: index for index, name in enumerate(names)}
        super().__init__(images, [place[name] for name in wanted], path.resolve().name)

    def read(self, index: int) -> PosedFrame:
        """One of the images."""
        posed = super().read(index)
        if posed.frame.camera is None:
            raise DatasetError(f"{self.name}: {posed.frame.name} has no calibration: add intrinsics.txt or camera.yaml")
        if self.scale == 1:
            return posed
        pose = posed.map_T_camera.copy()
        pose[:3, 3] *= self.scale
        depth = None if posed.frame.depth is None else posed.frame.depth * np.float32(self.scale)
        return PosedFrame(replace(posed.frame, depth=depth), pose)


def read_split(file: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Image names by role, in the order of the file.

    Args:
        names: those that have a pose.

    Raises:
        DatasetError: for a missing or malformed file, an image without a pose, or a role without images.
    """
    split: dict[str, list[str]] = {role: [] for role in ROLES}
    known, seen = set(names), set()
    for line, words in read_table(file):
        if len(words) < 2 or words[0] not in ROLES:
            raise DatasetError(f"{file}, line {line}: expected 'map|query name ...', got '{' '.join(words)[:80]}'")
        role, name = words[:2]
        if name not in known:
            raise DatasetError(f"{file}, line {line}: poses.txt has no pose of '{name}'")
        if name in seen:
            raise DatasetError(f"{file}, line {line}: '{name}' is listed twice")
        seen.add(name)
        split[role].append(name)
    for role, listed in split.items():
        if not listed:
            raise DatasetError(f"{file}: lists no {role} image: expected lines 'map name ...' and 'query name ...'")
    return split


def map_of_photos(
    path: Path,
    matcher: Matcher,
    progress: Progress = lambda stage, done, total: None,
    use_depth: bool = True,
    scale: float = 1.0,
    by: Workers = Here(),
) -> AbstractContextManager[KeyframeMap]:
    """A map of the set's map images on disk, removed again afterwards.

    Raises:
        DatasetError: if the set cannot be read.
    """
    return temporary_map(Photos(path, "map", use_depth, scale), matcher, f"{path} (map)", progress, by=by)


def evaluate_photos(
    path: Path,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    settings: QuerySettings = QuerySettings(),
    progress: Progress = lambda stage, done, total: None,
    *,
    negatives: Path | None = None,
    scale: float = 1.0,
    about: dict[str, Any] | None = None,
    by: Workers = Here(),
) -> tuple[Evaluation, list[Picture]]:
    """Localize the set's query images in a map, each on its own.

    Recall and what counts as wrong are stated in the metres of the set as it is on disk; errors in those of the map.

    Args:
        negatives: another set; its images, all of them, are asked as well, and every answer to one is false.
        scale: of all lengths, the one that the map was made with.

    Raises:
        DatasetError: if a set cannot be read.
    """
    queries = Photos(path, "query", settings.query_depth, scale)
    others = None if negatives is None else Photos(negatives, None, settings.query_depth, scale)
    evaluation, pictures = evaluate_split(
        queries,
        keyframe_map,
        matcher,
        settings,
        progress,
        name=f"photos {queries.name}",
        about={"data": str(path), "negatives": None if negatives is None else str(negatives), "scale": scale}
        | (about or {}),
        negatives=others,
        unit_m=scale,
        by=by,
    )
    evaluation.figures |= figures(evaluation.records, keyframe_map)
    return evaluation, pictures


def figures(records: Sequence[Record], keyframe_map: KeyframeMap) -> dict[str, Any]:
    """What this kind of run reports beside the usual: recall before any gate, and how the queries were protected."""
    asked = [record for record in records if record.truth is not None and not record.negative]
    errors = np.array([record.stated_error for record in asked], dtype=np.float64).reshape(-1, 2)
    return {
        "ungated_recall": metrics.recall(errors[:, 0], errors[:, 1], len(asked)),
        "scene_depth_m": keyframe_map.scene_depth_m,
    }
