"""Describing a map's keyframes by several workers: each on its own, so that who did it makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from mast3r_ros.errors import MapError
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, Matcher
from mast3r_ros.workers import Workers

#: Keyframes of one task: few enough that a worker that dies costs little.
TASK = 8


def describe(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    by: Workers,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Describe what is not described yet of a map that is saved where the workers can read it.

    Raises:
        MapError: if it was never saved.
        UserError: if the workers die again and again.
    """
    if keyframe_map.path is None:
        raise MapError("a map is described by workers after it was saved: they read it from its folder")
    missing = keyframe_map.undescribed(matcher)
    tasks = [missing[begin : begin + TASK] for begin in range(0, len(missing), TASK)]
    done = 0
    for ids, described in zip(tasks, by.run(partial(_describe, keyframe_map.path, matcher), tasks), strict=True):
        for id, features in zip(ids, described, strict=True):
            keyframe_map.keep_features(matcher, id, features)
        done += len(ids)
        progress(done, len(missing))


def _describe(folder: Path, matcher: Matcher, ids: list[str]) -> list[Features]:
    keyframe_map = _opened(folder, (folder / "map.yaml").stat().st_mtime_ns)
    described = [matcher.describe(keyframe_map.frame(id)) for id in ids]
    return [{name: np.asarray(array) for name, array in features.items()} for features in described]


@lru_cache(maxsize=1)
def _opened(folder: Path, saved_at: int) -> KeyframeMap:
    return KeyframeMap.load(folder)
