"""A recording whose true poses are known, against a map: what the live node would have said, and how right it was.

Truth comes from TF, from a pose topic, or from a TUM trajectory; of the camera, or of anything that TF relates to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError, UserError
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import open_bag
from mast3r_ros.io.datasets.recorded_poses import POSE_TYPES, RecordedPoses
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.localization import Record, Watch
from mast3r_ros.lab.runs.replay import Replay, ReplaySettings, pose_at, recorded_truth, replay_bag
from mast3r_ros.lab.runs.viewpoint import Viewpoints
from mast3r_ros.localization import Tracker

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

#: An alignment needs a way that is not a straight line: its second extent must be this share of its first one.
LEAST_EXTENT = 0.01


class Align(str, Enum):
    """How the truth is brought into the map before errors are measured."""

    NONE = "none"
    SE3 = "se3"
    SIM3 = "sim3"


def evaluate_bag(
    path: Path,
    tracker: Tracker,
    ground_truth: str,
    align: Align = Align.NONE,
    settings: ReplaySettings = ReplaySettings(),
    watch: Watch | None = None,
    about: dict[str, Any] | None = None,
) -> Replay:
    """Replay a recording and hold its poses against the truth.

    Args:
        ground_truth: ``/tf``, a pose topic, or the path of a TUM trajectory.
        align: NONE measures metric errors in the map; the others first fit the truth to the accepted positions, which
            takes away what is wrong with the map as a whole, and a part of what is wrong with the poses.
        settings: topics and frames; ``truth_frame`` and ``truth_body`` say what the truth's frames are.
        watch: is shown every result, with its error only where nothing is aligned.

    Raises:
        BagError, DatasetError: if the recording or its truth cannot be read.
        UserError: if the truth is in another frame than the map, or the alignment is not determined.
    """
    settings = truth_settings(path, ground_truth, tracker.map.frame_id, settings)
    truth = recorded_truth(path, settings)
    assert truth is not None
    if align is Align.NONE:
        _check_frames(truth, settings, tracker.map.frame_id)
    run = replay_bag(path, tracker, settings, watch, about, truth=truth if align is Align.NONE else None)
    evaluation = run.evaluation
    evaluation.name = f"Replay of {path.resolve().name} against {ground_truth}"
    known = sum(pose_at(truth, record.stamp_ns) is not None for record in evaluation.records)
    if not known:
        raise DatasetError(
            f"{ground_truth}: none of {len(evaluation.records)} frames has a pose at its time (longest gap "
            f"{settings.truth_gap_s:g} s, largest difference {settings.truth_difference_s:g} s, offset "
            f"{settings.truth_offset_s:g} s): do both share one clock?"
        )
    if known < len(evaluation.records):
        log.warning(
            "%s: %d of %d frames have no pose at their time: their answers are not judged",
            ground_truth,
            len(evaluation.records) - known,
            len(evaluation.records),
        )
    if align is not Align.NONE:
        evaluation.figures["alignment"] = _align(run, truth, align, Viewpoints(tracker.map))
    evaluation.settings |= {
        "ground_truth": ground_truth,
        "ground_truth_frame": truth.fixed_frame,
        "ground_truth_of": truth.body_frame,
        "align": align.value,
        "longest_gap_s": settings.truth_gap_s,
        "largest_difference_s": settings.truth_difference_s,
        "time_offset_s": settings.truth_offset_s,
        "every": settings.every,
    }
    evaluation.figures |= {"frames_with_truth": known, "trajectory": trajectory_figures(evaluation.records)}
    return run


def truth_settings(path: Path, ground_truth: str, map_frame: str, settings: ReplaySettings) -> ReplaySettings:
    """The settings with the source of the truth in them.

    Raises:
        UserError: where it is neither a topic of the recording nor a file.
    """
    if ground_truth.strip("/") == "tf":
        return replace(settings, truth_frame=settings.truth_frame or map_frame)
    with open_bag(path) as bag:
        if ground_truth in bag.topics:
            return replace(settings, truth_topic=ground_truth)
        topics = [name for name, topic in bag.topics.items() if topic.type in POSE_TYPES]
    if Path(ground_truth).is_file():
        return replace(settings, truth_file=Path(ground_truth), truth_frame=settings.truth_frame or map_frame)
    raise UserError(
        f"ground truth '{ground_truth}' is neither a topic of {path} nor a file: give /tf, a TUM trajectory, or a "
        f"pose topic (the recording has {', '.join(topics) or 'none'})"
    )


def _check_frames(truth: RecordedPoses, settings: ReplaySettings, map_frame: str) -> None:
    """Errors in metres mean something only between poses in one frame."""
    if truth.fixed_frame != map_frame and settings.truth_frame is None:
        raise UserError(
            f"the poses on {settings.truth_topic} are in '{truth.fixed_frame}', those of the map in '{map_frame}': "
            f"say --truth-frame {truth.fixed_frame} if the two are the same, or --align se3 if they are not"
        )


def _align(run: Replay, truth: RecordedPoses, align: Align, viewpoints: Viewpoints) -> dict[str, Any]:
    """Give the records their truth, brought into the map; tell the similarity that did it."""
    records = run.evaluation.records
    poses = [pose_at(truth, record.stamp_ns) for record in records]
    true, found = _stacked(poses), _stacked([r.map_T_camera if r.accepted else None for r in records])
    _check_shape(true[np.isfinite(true + found).all(axis=(1, 2))])
    aligned = metrics.align_trajectory(true, found, align.value)
    for number in np.flatnonzero(np.isfinite(aligned).all(axis=(1, 2))):
        metres, degrees, overlap = viewpoints.nearest(aligned[number])
        records[number] = replace(
            records[number],
            truth=aligned[number],
            viewpoint_m=metres,
            viewpoint_deg=degrees,
            view_overlap=overlap,
        )
    scale = _extents(aligned)[0] / _extents(true)[0]
    first = next(number for number, pose in enumerate(poses) if pose is not None)
    R = aligned[first, :3, :3] @ true[first, :3, :3].T
    map_T_truth = se3.make(R, aligned[first, :3, 3] - scale * R @ true[first, :3, 3])
    return {"scale": float(scale), "map_T_truth": map_T_truth.tolist()}


def _check_shape(poses: Array) -> None:
    """An alignment of positions needs three that are not on one line: else any turn around it fits as well."""
    way = "take --align none, with the truth in the map's frame"
    if len(poses) < 3:
        raise UserError(f"an alignment needs 3 accepted poses with a truth, there are {len(poses)}: {way}")
    extents = _extents(poses)
    if extents[1] <= LEAST_EXTENT * extents[0]:
        raise UserError(f"an alignment needs a way that is not a straight line: {way}")


def _extents(poses: Array) -> Array:
    """Extents (3,) of positions along their principal axes, largest first; of the known ones."""
    positions = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
    found: Array = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return found


def _stacked(poses: Sequence[Array | None]) -> Array:
    """(N, 4, 4), NaN where a pose is unknown."""
    return np.array([np.full((4, 4), np.nan) if pose is None else pose for pose in poses])


def trajectory_figures(records: Sequence[Record]) -> dict[str, Any]:
    """ATE and RPE of the accepted poses, as RMSE with 95 % intervals; RPE between neighbours and over a second."""
    truth = _stacked([record.truth for record in records])
    found = _stacked([record.map_T_camera if record.accepted else None for record in records])
    metres, degrees = metrics.absolute_errors(found, truth)
    stamps = np.array([record.stamp_ns for record in records])
    spacing_s = float(np.median(np.diff(stamps))) * 1e-9 if len(stamps) > 1 else math.nan
    figures: dict[str, Any] = {"poses": int(np.isfinite(metres).sum()), **_rmse("ate", metres, degrees)}
    if spacing_s > 0:
        for name, step in (("rpe_frame", 1), ("rpe_second", max(round(1 / spacing_s), 1))):
            figures[f"{name}_s"] = step * spacing_s
            figures |= _rmse(name, *metrics.relative_errors(found, truth, step))
    return figures


def _rmse(name: str, metres: Array, degrees: Array) -> dict[str, Any]:
    return {
        f"{name}_rmse_m": metrics.rmse(metres),
        f"{name}_rmse_interval_m": metrics.bootstrap_interval(metres, metrics.rmse),
        f"{name}_rmse_deg": metrics.rmse(degrees),
        f"{name}_rmse_interval_deg": metrics.bootstrap_interval(degrees, metrics.rmse),
    }
