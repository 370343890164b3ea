"""How fast: queries in stages beside a plain baseline, and maps of thousands of keyframes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.lab.speed.baseline import Baseline
from mast3r_ros.lab.speed.tile import tile_map
from mast3r_ros.localization import Localizer, LocalizerSettings
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.memory import peak_mib, resident_mib

#: Keyframes that are added to a large map, each saved on its own.
SAVES = 5
#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]


def benchmark_localization(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    frames: Sequence[Frame],
    *,
    keyframes: int = 5,
    rounds: int = 5,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Time queries, each right after the baseline's answer to the same one, so that both see the same machine.

    One round warms up and is not counted. The baseline exists for local features only.

    Returns:
        medians over the rounds: milliseconds by stage, queries per second, and the ratio of both baseline / ours.
    """
    if not frames:
        raise UserError("a benchmark needs at least one query image")
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=keyframes))
    keyframe_map.prepare(matcher, lambda done, total: progress("describing keyframes", done, total))
    ways: dict[str, Any] = {"mast3r_ros": localizer}
    if isinstance(matcher, SiftMatcher):
        ways["baseline"] = Baseline(keyframe_map, matcher, keyframes)
    totals: dict[str, list[list[dict[str, float]]]] = {name: [] for name in ways}
    answered: dict[str, int] = defaultdict(int)
    for turn in range(rounds + 1):
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for number, frame in enumerate(frames):
            for name, way in ways.items():
                result = way.localize(frame)
                taken[name].append(result.timings_ms)
                if turn == 0:
                    answered[name] += result.map_T_camera is not None
            progress("timing", turn * len(frames) + number + 1, (rounds + 1) * len(frames))
        if turn > 0:
            for name in ways:
                totals[name].append(taken[name])
    figures = {name: {**_figures(totals[name]), "poses_found": answered[name]} for name in ways}
    return {
        "benchmark": "localize",
        "matcher": matcher.name,
        "features": matcher.signature,
        "keyframes": keyframes,
        "map_keyframes": len(keyframe_map),
        "queries": len(frames),
        "image": f"{frames[0].width}x{frames[0].height}",
        "rounds": rounds,
        **figures,
        "speed_up": _speed_up(figures),
        "peak_memory_mib": peak_mib(),
        "machine": machine(),
        "versions": versions(),
    }


def benchmark_large_map(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    frames: Sequence[Frame],
    count: int,
    *,
    keyframes: int = 5,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Repeat a saved map until it has ``count`` keyframes, and time loading it and asking it.

    Copies look alike, so poses are not judged here; retrieval, matching and memory cost what they cost.
    """
    assert keyframe_map.path is not None
    keyframe_map.prepare(matcher, lambda done, total: progress("describing keyframes", done, total))
    with TemporaryDirectory(prefix="mast3r_ros_") as folder:
        progress("repeating the map", 0, count)
        tiled = tile_map(keyframe_map.path, Path(folder) / "map", count)
        started, computed = time.perf_counter(), time.process_time()
        progress("building the index", 0, count)
        tiled.prepare(matcher)
        index_s, index_processor_s = time.perf_counter() - started, time.process_time() - computed
        saves = _saves_of_one_more(tiled, frames[0])
        progress("loading and asking", 0, len(frames))
        # In a process of its own: this one has memory left over from building.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            asked = fresh.submit(_load_and_ask, Path(folder) / "map", matcher, list(frames), keyframes).result()
    return {
        "benchmark": "map",
        "matcher": matcher.name,
        "features": matcher.signature,
        "keyframes": keyframes,
        "map_keyframes": count,
        "queries": len(frames),
        "build_index_s": index_s,
        "build_index_processor_s": index_processor_s,
        "save_one_more_ms": saves,
        **asked,
        "machine": machine(),
        "versions": versions(),
    }


def _saves_of_one_more(keyframe_map: KeyframeMap, frame: Frame) -> dict[str, float]:
    """Milliseconds of adding one keyframe to a map and saving it."""
    assert keyframe_map.path is not None
    camera = frame.camera or keyframe_map.keyframes[-1].camera
    taken = []
    for _ in range(SAVES):
        started = time.perf_counter()
        keyframe_map.add(PosedFrame(replace(frame, camera=camera, depth=None), np.eye(4)))
        keyframe_map.save(keyframe_map.path)
        taken.append(1e3 * (time.perf_counter() - started))
    return metrics.percentiles(taken, (50, 95))


def _load_and_ask(folder: Path, matcher: Matcher, frames: Sequence[Frame], keyframes: int) -> dict[str, Any]:
    """Load a prepared map and localize frames in it; what a robot's process goes through."""
    memory, started = resident_mib(), time.perf_counter()
    keyframe_map = KeyframeMap.load(folder)
    load_s = time.perf_counter() - started
    localizer = Localizer(keyframe_map, matcher, LocalizerSettings(keyframes=keyframes))
    started = time.perf_counter()
    localizer.localize(frames[0])
    first_s = time.perf_counter() - started
    timings = [localizer.localize(frame).timings_ms for frame in frames]
    return {
        "load_s": load_s,
        "first_query_s": first_s,
        "retrieval_ms": metrics.percentiles([timing.get("retrieve", np.nan) for timing in timings], (50, 95)),
        "query_ms": metrics.percentiles([timing["total"] for timing in timings], (50, 95)),
        "memory_mib": resident_mib() - memory,
        "peak_memory_mib": peak_mib(),
    }


def generated_room(keyframes: int, queries: int) -> tuple[KeyframeMap, list[Frame]]:
    """A map of a ray-cast living room and other frames of it, 640x480, for machines without a recording."""
    from mast3r_ros.lab.synthetic import SequenceSettings, make_room, render_sequence, tour

    world, camera = make_room("living", seed=1), Camera.pinhole(640, 480, 525, 525, 319.5, 239.5)
    mapping = _thinned(tour(world, seed=1), keyframes)
    keyframe_map, _ = build_map(
        (moment.posed for moment in render_sequence(world, mapping, camera)), source_name="world"
    )
    asking = _thinned(tour(world, seed=2), queries)
    settings = SequenceSettings(seed=1, with_depth=False)
    return keyframe_map, [moment.posed.frame for moment in render_sequence(world, asking, camera, settings)]


def first_frames(frames: Iterable[Frame], count: int) -> list[Frame]:
    """At most ``count`` frames, in memory, so that reading files is not timed."""
    return list(islice(frames, count))


def _thinned(trajectory: Any, count: int) -> Any:
    """About ``count`` moments of a trajectory, evenly spread."""
    from mast3r_ros.lab.synthetic import Trajectory

    rows = np.unique(np.linspace(0, len(trajectory) - 1, count).astype(int))
    return Trajectory(trajectory.stamps_ns[rows], trajectory.map_T_base[rows], trajectory.base_T_camera)


def _figures(rounds: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds of each round's medians, and of its throughput."""
    stages = dict.fromkeys(stage for taken in rounds for timing in taken for stage in timing)
    medians = {
        stage: metrics.median([metrics.median([timing.get(stage, np.nan) for timing in taken]) for taken in rounds])
        for stage in stages
    }
    per_second = metrics.median([1e3 * len(taken) / sum(timing["total"] for timing in taken) for taken in rounds])
    return {"queries_per_second": per_second, "stages_ms": medians}


def _speed_up(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Baseline / ours by stage; empty without a baseline."""
    if "baseline" not in figures:
        return {}
    ours, plain = figures["mast3r_ros"]["stages_ms"], figures["baseline"]["stages_ms"]
    return {stage: plain[stage] / ours[stage] for stage in ("match", "solve", "total") if ours.get(stage)}
