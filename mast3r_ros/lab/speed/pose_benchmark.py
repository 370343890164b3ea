"""The pose alone: from matches with several keyframes to the refined pose, beside PoseLib on all of the matches.

It is work of one processor core whatever computes the matches, so it is timed in milliseconds of the processor, on
matches whose truth is known: a query of the painted room (:mod:`known_truth`) with as many matches a keyframe as the
published network gives, noise in pixels, and a share that is wrong.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.environment import machine
from mast3r_ros.lab.speed import known_truth
from mast3r_ros.lab.speed.network_benchmark import solved
from mast3r_ros.matching.base import Matches
from mast3r_ros.settings import SolverSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PoseBenchmark:
    """What is timed.

    Attributes:
        keyframes: K, whose matches are solved together.
        noise_px: standard deviations of right matches, a row each.
        matches: with each keyframe, before the most trusted are taken.
        wrong: share of the matches that lie anywhere.
        queries, rounds: each query is solved once to warm up, and so often.
    """

    keyframes: int = 4
    noise_px: tuple[float, ...] = (1.0, 3.0, 6.0)
    matches: int = 3000
    wrong: float = 0.3
    queries: int = 10
    rounds: int = 9


def benchmark_pose(
    settings: PoseBenchmark, progress: Callable[[str, int, int], None] = lambda stage, done, total: None
) -> dict[str, Any]:
    """Milliseconds of one core and error by noise, each answer right after the baseline's to the same matches.

    Raises:
        UserError: where no answer was found.
    """
    _, queries = known_truth.views(1, settings.queries)
    rows = []
    for number, noise_px in enumerate(settings.noise_px):
        taken: dict[str, list[float]] = {"mast3r_ros": [], "poselib": []}
        errors: dict[str, list[tuple[float, float]]] = {name: [] for name in taken}
        for seed, query in enumerate(queries):
            matches = _matches(query, settings, noise_px, seed)
            for name, way in (("mast3r_ros", _ours), ("poselib", _poselib)):
                milliseconds, map_T_camera = _timed(way, matches, query, settings.rounds)
                taken[name].append(milliseconds)
                if map_T_camera is not None:
                    errors[name].append(se3.pose_error(map_T_camera, query.map_T_camera))
            progress(
                f"noise of {noise_px:g} px", number * len(queries) + seed + 1, len(settings.noise_px) * len(queries)
            )
        rows.append(_row(noise_px, taken, errors))
    return {
        "benchmark": "pose",
        "keyframes": settings.keyframes,
        "matches": settings.matches,
        "wrong": settings.wrong,
        "queries": settings.queries,
        "rounds": settings.rounds,
        "rows": rows,
        "machine": machine(),
    }


def _matches(query: PosedFrame, settings: PoseBenchmark, noise_px: float, seed: int) -> list[Matches]:
    """Matches with each keyframe; points are in the map's frame, and what is trusted less is wrong more often."""
    rng = np.random.default_rng(seed)
    frame = query.frame
    assert frame.camera is not None and frame.depth is not None
    points = se3.apply(query.map_T_camera, frame.camera.backproject(frame.depth).reshape(-1, 3))
    found = []
    for _ in range(settings.keyframes):
        rows = rng.choice(len(points), settings.matches, replace=False)
        xy = np.stack([rows % frame.width, rows // frame.width], axis=1) + rng.normal(0, noise_px, (len(rows), 2))
        wrong = rng.random(len(rows)) < settings.wrong
        xy[wrong] = rng.uniform(0, (frame.width, frame.height), (int(wrong.sum()), 2))
        weights = np.clip(rng.normal(np.where(wrong, 0.5, 0.7), 0.15), 0.05, 1.0)
        found.append(Matches(query_xy=xy, reference_xy=xy, points=points[rows], weights=weights))
    return found


def _ours(matches: Sequence[Matches], query: PosedFrame) -> Array | None:
    pose = solved([np.eye(4)] * len(matches), matches, query)
    return None if pose is None else pose.map_T_camera


def _poselib(matches: Sequence[Matches], query: PosedFrame) -> Array | None:
    """What a person writes first with PoseLib: all matches, its own settings but for the threshold, its refinement."""
    camera = query.frame.camera
    assert camera is not None
    xy, points = np.concatenate([m.query_xy for m in matches]), np.concatenate([m.points for m in matches])
    model = {
        "model": "PINHOLE",
        "width": camera.width,
        "height": camera.height,
        "params": [camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]],
    }
    options = {"max_reproj_error": SolverSettings().threshold_px}
    pose, found = poselib.estimate_absolute_pose(xy, points, model, options)
    return se3.inverse(se3.make(pose.R, pose.t)) if found["num_inliers"] else None


def _timed(
    way: Callable[[Sequence[Matches], PosedFrame], Array | None],
    matches: Sequence[Matches],
    query: PosedFrame,
    rounds: int,
) -> tuple[float, Array | None]:
    """Median milliseconds of this thread, and the answer."""
    answer, taken = way(matches, query), []
    for _ in range(rounds):
        began = time.thread_time()
        answer = way(matches, query)
        taken.append(1e3 * (time.thread_time() - began))
    return statistics.median(taken), answer


def _row(
    noise_px: float, taken: dict[str, list[float]], errors: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"noise_px": noise_px}
    for name, milliseconds in taken.items():
        if not errors[name]:
            raise UserError(
                f"{name} found no pose at {noise_px:g} px of noise: ask for less, or for fewer wrong matches"
            )
        position, rotation = np.median(np.array(errors[name]), axis=0)
        row[name] = {
            "processor_ms": statistics.median(milliseconds),
            "slowest_ms": max(milliseconds),
            "poses_found": len(errors[name]),
            "position_mm": 1e3 * float(position),
            "rotation_deg": float(rotation),
        }
    row["speed_up"] = row["poselib"]["processor_ms"] / row["mast3r_ros"]["processor_ms"]
    return row
