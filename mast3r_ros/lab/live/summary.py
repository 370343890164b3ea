"""The figures of a live run: those of an evaluation, and what became of every image that was played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mast3r_ros.lab.runs.localization import Evaluation


@dataclass(frozen=True)
class Traffic:
    """What became of the images of a recording.

    Attributes:
        played: images in the recording.
        received: those that reached the node.
        dropped: those that the node received but did not look at, because a newer one was there or they were old.
    """

    played: int
    received: int
    dropped: int


def live_summary(evaluation: Evaluation, traffic: Traffic, stage_seconds: Mapping[str, float]) -> dict[str, Any]:
    """The summary of a live run, of which `make demo` writes demo_output/summary.json.

    ``frames_taken`` are the images that the node looked at, ``frames_localized`` those of them with an accepted
    pose; errors and wrong poses are counted over the accepted ones, and unknown (NaN, null in JSON) without a truth.
    ``latency_ms`` is from an image's arrival at the node to its pose.

    Args:
        stage_seconds: wall time by stage of the story, for people.
    """
    figures = evaluation.summary()
    taken, localized = figures.pop("queries"), figures.pop("answered")
    has_truth = any(record.truth is not None for record in evaluation.records)
    latency, wrong = figures.pop("latency_ms"), figures.pop("wrong_accepted")
    head = {
        "frames_played": traffic.played,
        "frames_received": traffic.received,
        "frames_dropped": traffic.dropped,
        "frames_taken": taken,
        "frames_localized": localized,
        "localized_fraction": localized / taken if taken else float("nan"),
        "wrong_accepted": wrong if has_truth else None,
        "median_translation_error_m": figures.pop("median_translation_error_m"),
        "median_rotation_error_deg": figures.pop("median_rotation_error_deg"),
        **{f"latency_ms_{rank}": value for rank, value in latency.items()},
        "stage_seconds": {name: round(seconds, 1) for name, seconds in stage_seconds.items()},
    }
    return {**head, **figures}
