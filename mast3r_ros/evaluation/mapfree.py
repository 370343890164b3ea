"""Run a matcher on the Map-free benchmark: every query against the one reference of its scene, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mast3r_ros.datasets.mapfree import REFERENCE, MapFree, MapFreeScene
from mast3r_ros.errors import DatasetError, MatcherError
from mast3r_ros.evaluation.localization import Record
from mast3r_ros.evaluation.mapfree_score import MapFreeScore
from mast3r_ros.geometry import se3
from mast3r_ros.localization import Localizer, LocalizerSettings
from mast3r_ros.localization.single_reference import SINGLE_REFERENCE_GATES, reference_map
from mast3r_ros.matching.base import DepthPredictor, Matcher

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]


def run_mapfree(
    dataset: MapFree,
    matcher: Matcher,
    reference_depth: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, list[Record]]:
    """Localize the frames of a split that the benchmark evaluates.

    Args:
        reference_depth: folder with the depth of each scene's reference: ``<scene>/seq0/frame_00000.png``, or
            with any word before the ending as the benchmark's predicted depth has; 16 bits, millimetres.

    Returns:
        records by scene, in the frames' order; without truth where it is not public.

    Raises:
        MatcherError: if the matcher cannot answer in metres with what is given.
        DatasetError: for a missing or malformed file.
    """
    if reference_depth is None and not (isinstance(matcher, DepthPredictor) and getattr(matcher, "metric", True)):
        raise MatcherError(
            f"Map-free has no depth, and without it matcher '{matcher.name}' knows no metres: give the --checkpoint of "
            "a metric network (mast3r), or --reference-depth with a depth image of each scene's reference"
        )
    return {scene.name: _run_scene(scene, matcher, reference_depth, partial(progress, scene.name)) for scene in dataset}


def _run_scene(
    scene: MapFreeScene, matcher: Matcher, depth: Path | None, progress: Callable[[int, int], None]
) -> list[Record]:
    reference = scene.frame(REFERENCE, None if depth is None else _depth_file(depth, scene.name))
    keyframe_map = reference_map(reference, matcher)
    keyframe_map.prepare(matcher)
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=1, gates=SINGLE_REFERENCE_GATES))
    truth = {pose.name: pose.world_T_camera for pose in scene.poses}
    # Where no query has number 0 the reference has it alone, and it is no query.
    names = [name for name in scene.evaluated.values() if name != REFERENCE]
    records = []
    for done, name in enumerate(names, start=1):
        frame, pose = scene.frame(name), truth.get(name)
        viewpoint = (math.nan, math.nan) if pose is None else se3.pose_error(pose, np.eye(4))
        estimate = localizer.localize(frame)
        records.append(Record.of(frame.name, frame.stamp_ns, estimate, pose, group=scene.name, viewpoint=viewpoint))
        progress(done, len(names))
    return records


def _depth_file(folder: Path, scene: str) -> Path:
    stem = Path(REFERENCE).with_suffix("")
    found = sorted((folder / scene / stem.parent).glob(f"{stem.name}*.png"))
    if len(found) != 1:
        expected = f"expected one depth image {folder / scene / stem}.png or {stem.name}.<any word>.png (16 bits, mm)"
        names = ", ".join(file.name for file in found) or "nothing"
        raise DatasetError(f"{folder / scene / stem.parent} has {names}: {expected}")
    return found[0]


def benchmark_summary(score: MapFreeScore | None) -> dict[str, Any]:
    """Figures for :class:`Evaluation`: ``metrics`` are the benchmark's own by its names, None where there are none.

    Args:
        score: of the submission; None where the ground truth is not public.
    """
    figures = None if score is None else score.figures()
    return {
        "metrics": figures,
        "metrics_interval": None if score is None or figures is None else score.intervals(),
        "metrics_at_45px": None if score is None or figures is None else score.strict_figures(),
        "complaints": [] if score is None else score.complaints,
    }
