"""A recording whose true poses are known, against a map: what the live node would have said, and how right it was.

Truth comes from TF, from a pose topic, or from a TUM trajectory; of the camera, or of anything that TF relates to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.bags import open_bag
from mast3r_ros.datasets.recorded_poses import POSE_TYPES, RecordedPoses
from mast3r_ros.errors import DatasetError, UserError
from mast3r_ros.evaluation.localization import Watch
from mast3r_ros.evaluation.replay import Replay, ReplaySettings, pose_at, recorded_truth, replay_bag
from mast3r_ros.evaluation.viewpoint import Viewpoints
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.scale import fit_similarity
from mast3r_ros.localization import Tracker

Array = NDArray[np.float64]

#: An alignment needs a way that is not a straight line: its second extent must be this share of its first one.
LEAST_EXTENT = 0.01


class Align(str, Enum):
    """How the truth is brought into the map before errors are measured."""

    NONE = "none"
    SE3 = "se3"
    SIM3 = "sim3"


@dataclass(frozen=True)
class Alignment:
    """Similarity that brings positions of the truth into the map: ``scale * R @ truth + t``.

    Attributes:
        map_T_truth: (4, 4) rotation and translation.
        scale: metres of the map for each metre of the truth.
    """

    map_T_truth: Array
    scale: float = 1.0

    def apply(self, truth_T_camera: Array) -> Array:
        """A pose of the truth in the map."""
        scaled = se3.make(truth_T_camera[:3, :3], self.scale * truth_T_camera[:3, 3])
        return self.map_T_truth @ scaled


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
    if align is not Align.NONE:
        found = _align(run, truth, align, Viewpoints(tracker.map))
        evaluation.figures["alignment"] = {"scale": found.scale, "map_T_truth": found.map_T_truth.tolist()}
    known = sum(record.truth is not None for record in evaluation.records)
    if not known:
        raise DatasetError(
            f"{ground_truth}: none of {len(evaluation.records)} frames has a pose at its time (longest gap "
            f"{settings.truth_gap_s:g} s, largest difference {settings.truth_difference_s:g} s, offset "
            f"{settings.truth_offset_s:g} s): do both share one clock?"
        )
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
    evaluation.figures["frames_with_truth"] = known
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


def _align(run: Replay, truth: RecordedPoses, align: Align, viewpoints: Viewpoints) -> Alignment:
    """Give the records their truth, brought into the map."""
    records = run.evaluation.records
    poses = [pose_at(truth, record.stamp_ns) for record in records]
    pairs = [
        (pose[:3, 3], record.map_T_camera[:3, 3])
        for pose, record in zip(poses, records, strict=True)
        if pose is not None and record.accepted and record.map_T_camera is not None
    ]
    found = fit_alignment(np.array(pairs).reshape(-1, 2, 3), with_scale=align is Align.SIM3)
    for number, (record, pose) in enumerate(zip(records, poses, strict=True)):
        if pose is not None:
            aligned = found.apply(pose)
            metres, degrees = viewpoints.nearest(aligned)
            records[number] = replace(record, truth=aligned, viewpoint_m=metres, viewpoint_deg=degrees)
    return found


def fit_alignment(pairs: Array, with_scale: bool) -> Alignment:
    """The rigid motion or similarity that brings positions closest (Umeyama, PAMI 1991).

    Args:
        pairs: (N, 2, 3) positions of the truth and in the map, metres.

    Raises:
        UserError: for fewer than three positions, or positions on one line: any turn around it would fit as well.
    """
    way = "take --align none, with the truth in the map's frame"
    if len(pairs) < 3:
        raise UserError(f"an alignment needs 3 accepted poses with a truth, there are {len(pairs)}: {way}")
    truth, found = pairs[:, 0], pairs[:, 1]
    extent = np.linalg.svd(truth - truth.mean(axis=0), compute_uv=False)
    if extent[1] < LEAST_EXTENT * extent[0] or extent[0] == 0:
        raise UserError(f"an alignment needs a way that is not a straight line: {way}")
    scale, R, t = fit_similarity(truth, found)
    if not with_scale:
        scale, t = 1.0, found.mean(axis=0) - R @ truth.mean(axis=0)
    return Alignment(se3.make(R, t), scale)
