"""Run a matcher on the Map-free benchmark: every query against the one reference of its scene, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mast3r_ros.errors import DatasetError, MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.io.datasets.base import read_depth
from mast3r_ros.lab.datasets.mapfree import REFERENCE, MapFree, MapFreeScene
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.viewpoint import Viewpoint
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate
from mast3r_ros.localization.single_reference import metric_without_depth, photo_matcher, reference_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]
#: Called after each query with the map of its scene's reference, the record, the query and the full estimate.
Watch = Callable[[KeyframeMap, Record, Frame, PoseEstimate], None]


def run_mapfree(
    dataset: MapFree,
    matcher: Matcher,
    reference_depth: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
    watch: Watch = lambda keyframe_map, record, frame, estimate: None,
) -> dict[str, list[Record]]:
    """Localize the frames of a split that the benchmark evaluates.

    Args:
        reference_depth: folder with the depth of each scene's reference: ``<scene>/seq0/frame_00000.png``, or
            with any word before the ending as the benchmark's predicted depth has; 16 bits, millimetres.
        watch: is shown every result, for pictures.

    Returns:
        records by scene, in the frames' order; without truth where it is not public.

    Raises:
        MatcherError: if the matcher cannot answer in metres with what is given.
        DatasetError: for a missing or malformed file.
    """
    if reference_depth is None and not metric_without_depth(matcher):
        raise MatcherError(
            f"Map-free has no depth, and without it matcher '{matcher.name}' knows no metres: give the --checkpoint of "
            "a metric network (mast3r), or --reference-depth with a depth image of each scene's reference"
        )
    depths = {}
    for scene in dataset:  # what is missing is told before the long part
        scene.check([REFERENCE, *scene.queries])
        depths[scene.name] = None if reference_depth is None else _depth_file(reference_depth, scene.name)
    return {
        scene.name: _run_scene(scene, matcher, depths[scene.name], partial(progress, scene.name), watch)
        for scene in dataset
    }


def _run_scene(
    scene: MapFreeScene, matcher: Matcher, depth: Path | None, progress: Callable[[int, int], None], watch: Watch
) -> list[Record]:
    reference = scene.frame(REFERENCE, None if depth is None else read_depth(depth))
    keyframe_map = reference_map(reference, matcher)
    matcher = photo_matcher(matcher, reference)
    keyframe_map.prepare(matcher)
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=1))
    truth = {pose.name: pose.world_T_camera for pose in scene.poses}
    records = []
    for done, name in enumerate(scene.queries, start=1):
        frame, pose = scene.frame(name), truth.get(name)
        viewpoint = Viewpoint() if pose is None else Viewpoint(*se3.pose_error(pose, np.eye(4)))
        estimate = localizer.localize(frame)
        records.append(Record.of(frame.name, frame.stamp_ns, estimate, pose, group=scene.name, viewpoint=viewpoint))
        watch(keyframe_map, records[-1], frame, estimate)
        progress(done, len(scene.queries))
    return records


def _depth_file(folder: Path, scene: str) -> Path:
    stem = Path(REFERENCE).with_suffix("")
    found = sorted((folder / scene / stem.parent).glob(f"{stem.name}*.png"))
    if len(found) != 1:
        expected = f"expected one depth image {folder / scene / stem}.png or {stem.name}.<any word>.png (16 bits, mm)"
        names = ", ".join(file.name for file in found) or "nothing"
        raise DatasetError(f"{folder / scene / stem.parent} has {names}: {expected}")
    return found[0]
