"""A MASt3R network on one device, stage by stage for several K: by CUDA graphs beside plain PyTorch, in one run.

The network knows the painted room (:mod:`known_truth`), so that matches and poses mean something: every row says what
its speed costs against float32.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mast3r_ros.frames import PosedFrame
from mast3r_ros.lab.runs.environment import machine
from mast3r_ros.lab.speed import known_truth
from mast3r_ros.lab.speed.network_benchmark import (
    CONFIGS,
    Progress,
    Run,
    deviation_of_matches,
    deviation_of_poses,
    localized,
    pose_of,
)
from mast3r_ros.localization import Localizer
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, KeyframeFeatures, Matches
from mast3r_ros.matching.mast3r import Mast3rMatcher
from mast3r_ros.matching.network_view import view_of
from mast3r_ros.memory import forget_peak, peak_mib
from mast3r_ros.network import PointmapNetwork
from mast3r_ros.settings import LocalizerSettings

#: Stages as they are shown, in order; each is charged with all that the device does in it.
STAGES = ("image in", "encode", "decode", "descriptors", "matching", "pose")
#: Called with each row as soon as it is measured.
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class GpuTable:
    """What is measured.

    Attributes:
        config: a network of ``network_benchmark.CONFIGS``.
        keyframes: each K of the table.
        rounds: timed, after two that warm up.
        queries: whose matches and poses are held against float32.
        size: of the network's images, 0 for what it knows.
        dtype, device: of the fast paths.
        compiled: whether a row with compiled blocks follows, with what compiling takes.
        held: keyframes of a map whose tokens lie in the host's memory, where a row of it is wanted.
        seconds: no further row is begun after so long.
    """

    config: str = "vitl"
    keyframes: tuple[int, ...] = (1, 4, 8, 10)
    rounds: int = 15
    queries: int = 3
    size: int = 0
    dtype: str = "auto"
    device: str = "auto"
    compiled: bool = True
    held: int = 0
    seconds: float = 1e9


@dataclass(frozen=True, eq=False)
class _Scene:
    """The painted room: keyframes as a map and in order, queries, and the clock that ends the measurement."""

    keyframes: list[PosedFrame]
    queries: list[PosedFrame]
    map: KeyframeMap
    until: float

    @property
    def late(self) -> bool:
        return time.monotonic() > self.until

    def references(self, matcher: Mast3rMatcher) -> list[Features]:
        """Features of the keyframes as the map keeps them."""
        return [self.map.features(matcher, keyframe.id) for keyframe in self.map.keyframes]


def gpu_table(settings: GpuTable, tell: Tell, progress: Progress = lambda stage, done, total: None) -> None:
    """Measure and tell row by row: of float32 first, then for each K by graphs and plainly, then compiled.

    Raises:
        MatcherError: for a device or type that is not here.
    """
    start = time.monotonic()
    progress("making the network", 0, 1)
    scene = _scene(settings, start + settings.seconds)
    network = known_truth.knowing_network(CONFIGS[settings.config])
    tell({"row": "set-up", "network": settings.config, "seconds": time.monotonic() - start, "machine": machine()})
    exact = Mast3rMatcher(copy.deepcopy(network), settings.size, "float32", settings.device)
    float32, most = _float32(exact, scene), max(settings.keyframes)
    float32_row = _timed(exact, scene, most, min(3, settings.rounds))
    tell({"row": f"float32 K={most}", "keyframes": most, **float32_row})
    del exact
    gc.collect()
    if settings.device != "cpu" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    matcher = _started(network, settings, scene, tell, compile=False)
    for keyframes in settings.keyframes:
        for name in ("graphs", "plain"):
            if scene.late:
                tell({"row": f"{name} K={keyframes}", "skipped": f"after {settings.seconds:.0f} s"})
                continue
            with _plainly(matcher, name == "plain"):
                row = _timed(
                    matcher, scene, keyframes, settings.rounds if name == "graphs" else min(5, settings.rounds)
                )
                deviation = _deviation(matcher, scene, keyframes, float32) if name == "graphs" else {}
            tell({"row": f"{name} K={keyframes}", "keyframes": keyframes, **row, **deviation})
    if settings.held and not scene.late:
        few = min(4, max(settings.keyframes))
        tell({"row": f"{settings.held} keyframes", **_from_host(matcher, scene, few, settings.held, settings.rounds)})
    del matcher
    gc.collect()
    if settings.compiled and not scene.late:
        compiled = _started(network, settings, scene, tell, compile=True)
        keyframes = settings.keyframes[min(1, len(settings.keyframes) - 1)]
        tell(
            {
                "row": f"compiled K={keyframes}",
                "keyframes": keyframes,
                **_timed(compiled, scene, keyframes, settings.rounds),
            }
        )


def _scene(settings: GpuTable, until: float) -> _Scene:
    keyframes, queries = known_truth.views(max(settings.keyframes), settings.queries)
    keyframe_map = KeyframeMap()
    for number, keyframe in enumerate(keyframes):
        keyframe_map.add(keyframe, id=f"{number:02d}")
    return _Scene(keyframes, queries, keyframe_map, until)


def _float32(matcher: Mast3rMatcher, scene: _Scene) -> list[list[Matches]]:
    """Matches of every query with every keyframe."""
    references = scene.references(matcher)
    return [localized(matcher, scene.keyframes, references, query)[1] for query in scene.queries]


def _started(
    network: PointmapNetwork, settings: GpuTable, scene: _Scene, tell: Tell, *, compile: bool
) -> Mast3rMatcher:
    """A matcher after its first query, and what this took."""
    start = time.perf_counter()
    matcher = Mast3rMatcher(network, settings.size, settings.dtype, settings.device, compile=compile)
    loaded_s = time.perf_counter() - start
    start = time.perf_counter()
    few = settings.keyframes[min(1, len(settings.keyframes) - 1)]
    localized(matcher, scene.keyframes[:few], scene.references(matcher)[:few], scene.queries[0])
    first_s = time.perf_counter() - start
    name = "start with compile" if compile else "start"
    tell({"row": name, "seconds": loaded_s + first_s, "first_query_s": first_s, "network_to_device_s": loaded_s})
    return matcher


@contextmanager
def _plainly(matcher: Mast3rMatcher, plainly: bool) -> Iterator[None]:
    """The matcher's network without graphs, while inside."""
    stages = matcher.stages
    if plainly:
        matcher.stages = matcher.network
    try:
        yield
    finally:
        matcher.stages = stages


def _timed(matcher: Mast3rMatcher, scene: _Scene, keyframes: int, rounds: int) -> dict[str, Any]:
    """Medians of the first query: milliseconds by stage, of all stages without a wait between them, of a Localizer."""
    query, references = scene.queries[0], scene.references(matcher)[:keyframes]
    forget_peak(matcher.device)

    def asked() -> dict[str, float]:
        return localized(matcher, scene.keyframes[:keyframes], references, query)[0]

    asked(), asked()
    matcher.stopwatch.exact = True
    taken = [asked() | {"image in": _image_in_ms(matcher, query)} for _ in range(rounds)]
    matcher.stopwatch.exact = False
    stages = {name: statistics.median(ms.get(name, float("nan")) for ms in taken) for name in taken[0]}
    whole = [_wall_ms(asked) for _ in range(rounds)]
    localizer = Localizer(scene.map, matcher, LocalizerSettings(keyframes=keyframes, keyframes_on_track=keyframes))
    frame = replace(query.frame, depth=None)
    localizer.localize(frame)
    answers = [localizer.localize(frame).timings_ms for _ in range(rounds)]
    return {
        "stages_ms": {
            "image in": stages["image in"],
            "encode": stages["encode"] - stages["image in"],
            "decode": stages["decode"],
            "descriptors": stages["heads"],
            "matching": stages["match"],
            "pose": stages["pose"],
        },
        "total_ms": statistics.median(whole),
        "queries_per_second": 1e3 / statistics.median(whole),
        "localizer_ms": {name: statistics.median(one.get(name, 0.0) for one in answers) for name in answers[0]},
        "peak_memory_mib": peak_mib(matcher.device),
        "dtype": str(matcher.dtype).removeprefix("torch."),
        "device": _device_name(matcher.device),
        "rounds": rounds,
    }


def _from_host(matcher: Mast3rMatcher, scene: _Scene, keyframes: int, held: int, rounds: int) -> dict[str, Any]:
    """Queries of a map that the device has no room for: always the same keyframes, then others for every query."""
    originals, query = scene.references(matcher), scene.queries[0]
    features = [
        KeyframeFeatures({name: np.array(a) for name, a in originals[n % len(originals)].items()}, ("held", n))
        for n in range(held)
    ]
    rng = np.random.default_rng(0)

    def asked(rows: Sequence[int]) -> float:
        chosen = [features[n] for n in rows]

        def work() -> None:
            matcher.prefetch(chosen)
            localized(matcher, [scene.keyframes[n % len(originals)] for n in rows], chosen, query)

        return _wall_ms(work)

    def drawn() -> list[int]:
        return [int(n) for n in rng.choice(held, min(keyframes, held), replace=False)]

    same = drawn()
    asked(same), asked(same)
    resident, others = [asked(same) for _ in range(rounds)], [asked(drawn()) for _ in range(4 * rounds)]
    return {
        "keyframes": keyframes,
        "held_mib": sum(a.nbytes for one in features for a in one.values()) / 2**20,
        "resident_ms": statistics.median(resident),
        "from_host_ms": statistics.median(others),
        "from_host_p95_ms": float(np.percentile(others, 95)),
    }


def _image_in_ms(matcher: Mast3rMatcher, query: PosedFrame) -> float:
    """From a frame's pixels to the network's input on the device."""

    def work() -> None:
        view_of(replace(query.frame, depth=None), matcher.size, matcher.device)
        if matcher.device.type == "cuda":
            torch.cuda.synchronize(matcher.device)

    return _wall_ms(work)


def _wall_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def _deviation(
    matcher: Mast3rMatcher, scene: _Scene, keyframes: int, float32: Sequence[Sequence[Matches]]
) -> dict[str, Any]:
    """Matches and poses of all queries beside those of float32."""
    references, frames = scene.references(matcher)[:keyframes], scene.keyframes[:keyframes]
    fast_matches, fast_poses = [], []
    for query in scene.queries:
        _, found, pose = localized(matcher, frames, references, query)
        fast_matches.append(found)
        fast_poses.append(pose)
    exact_matches = [list(found[:keyframes]) for found in float32]
    exact_poses = [pose_of(frames, found, query) for found, query in zip(exact_matches, scene.queries, strict=True)]
    exact, fast = Run({}, exact_matches, exact_poses, 0.0), Run({}, fast_matches, fast_poses, 0.0)
    return {
        "deviation": {**deviation_of_matches(exact, fast, frames, scene.queries), **deviation_of_poses(exact, fast)}
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def lines(row: dict[str, Any]) -> Iterator[str]:
    """One line for each figure of a row."""
    name = row["row"]
    for key in ("seconds", "first_query_s", "network_to_device_s", "skipped"):
        if key in row:
            value = row[key]
            yield f"{name}: {key} {value if isinstance(value, str) else f'{value:.1f}'}"
    for stage in STAGES if "stages_ms" in row else ():
        yield f"{name}: {stage} {row['stages_ms'][stage]:.2f} ms"
    if "total_ms" in row:
        yield f"{name}: total {row['total_ms']:.2f} ms, {row['queries_per_second']:.1f} queries/s"
        parts = ", ".join(f"{stage} {ms:.2f}" for stage, ms in row["localizer_ms"].items())
        yield f"{name}: localizer {parts} ms"
        yield f"{name}: peak memory {row['peak_memory_mib']:.0f} MiB, {row['dtype']} on {row['device']}"
    if "held_mib" in row:
        yield f"{name}: {row['held_mib']:.0f} MiB on the host, K={row['keyframes']}, query {row['resident_ms']:.2f} ms"
        yield f"{name}: others for every query {row['from_host_ms']:.2f} ms, p95 {row['from_host_p95_ms']:.2f} ms"
    if "deviation" in row:
        d = row["deviation"]
        pose, change = d["pose_error"], d["match_error_change"]
        yield (
            f"{name}: matches as float32 {100 * d['match_agreement']:.1f} %, error of a match {100 * change:+.2f} %, "
            f"pose {_millimetres(pose['fast'])}, float32 {_millimetres(pose['float32'])}"
        )


def _millimetres(error: dict[str, Any]) -> str:
    if error["position_m"] is None:
        return "none"
    return f"{1e3 * error['position_m']:.2f} mm {error['rotation_deg']:.4f} deg"
