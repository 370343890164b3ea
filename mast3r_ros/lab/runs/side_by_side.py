"""One recording through several matchers, offline: what each of them makes of the same frames of the same map."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mast3r_ros.frames import Frame
from mast3r_ros.io.datasets.recorded_poses import RecordedPoses
from mast3r_ros.lab.runs.localization import Record
from mast3r_ros.lab.runs.replay import ReplaySettings, count_frames, recorded_truth, replay_bag
from mast3r_ros.localization import Localizer, PoseEstimate, Tracker
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]
#: About so many frames of the recording are looked at.
FRAMES = 25


def side_by_side(
    bag: Path,
    keyframe_map: KeyframeMap,
    matchers: Sequence[Matcher],
    settings: ReplaySettings,
    *,
    frames: int = FRAMES,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Every n-th frame of a recording, localized with each matcher.

    Returns:
        by name of the matcher ``frames``, ``frames_localized``, ``wrong_accepted`` (None without a truth), median
        errors and latency. The latency is of this process alone, without a node around it.

    Raises:
        BagError, DatasetError: for a recording that cannot be read.
    """
    every = max(1, round(count_frames(bag, settings) / frames))
    settings = replace(settings, every=every)
    truth = recorded_truth(bag, settings)
    return {matcher.name: _replayed(bag, keyframe_map, matcher, settings, truth, progress) for matcher in matchers}


def _replayed(
    bag: Path,
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    settings: ReplaySettings,
    truth: RecordedPoses | None,
    progress: Progress,
) -> dict[str, Any]:
    """The row of one matcher."""
    keyframe_map.prepare(matcher, lambda done, of: progress(f"{matcher.name}: keyframes", done, of))
    looked_at, total = itertools.count(1), count_frames(bag, settings)

    def watch(record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        progress(f"{matcher.name}: frames", next(looked_at), total)

    run = replay_bag(bag, Tracker(Localizer(keyframe_map, matcher)), settings, watch, truth=truth)
    summary = run.evaluation.summary()
    return {
        "frames": summary["queries"],
        "every": settings.every,
        "frames_localized": summary["answered"],
        "wrong_accepted": summary["wrong_accepted"] if truth is not None else None,
        "median_translation_error_m": summary["median_translation_error_m"],
        "median_rotation_error_deg": summary["median_rotation_error_deg"],
        "latency_ms_p50": summary["latency_ms"]["p50"],
    }
