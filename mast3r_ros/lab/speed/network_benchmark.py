"""How fast a MASt3R network localizes, stage by stage, beside the plain path, and what the speed costs in accuracy."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.geometry.absolute_pose import AbsolutePose, solve_pose
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.lab.speed import known_truth
from mast3r_ros.lab.speed.plain_path import PlainPair, plain_pair, plain_prediction
from mast3r_ros.localization.correspondences import most_trusted
from mast3r_ros.matching.base import Features, Matches
from mast3r_ros.matching.mast3r import Mast3rMatcher
from mast3r_ros.matching.network_view import NetworkView
from mast3r_ros.matching.stopwatch import Stopwatch
from mast3r_ros.memory import forget_peak, peak_mib
from mast3r_ros.network import PUBLISHED, NetworkConfig, PointmapNetwork, Tokens
from mast3r_ros.network.checkpoint import load_model
from mast3r_ros.settings import LocalizerSettings

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]
Array = NDArray[np.float64]

STAGES = ("encode", "decode", "heads", "match", "pose")
#: Networks to measure without a checkpoint. The small one has the layers of the large one, but one of each.
CONFIGS: dict[str, NetworkConfig] = {
    "vitl": PUBLISHED["MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"],
    "small": NetworkConfig(enc_depth=1, dec_depth=1, head_type="catconv", desc_dim=24, two_confs=True),
}
#: Matches of a keyframe that a pose is solved from, as everywhere.
MATCHES = LocalizerSettings().matches_per_keyframe
#: Matches agree when they are this close in both images, in network pixels.
AGREEMENT_PX = 2.0


@dataclass(frozen=True)
class NetworkBenchmark:
    """What is measured.

    Attributes:
        checkpoint: of a MASt3R network; None for random weights that know the painted room.
        config: a name in ``CONFIGS``, where there is no checkpoint.
        keyframes: K, matched with every query.
        queries: for accuracy; the first of them is timed.
        rounds: of the fast path, after one that warms up.
        plain_pairs: measured of the plain path's K; 0 for all. With fewer, the time of the others is inferred.
        dtype, device, compile: of the fast path.
    """

    checkpoint: Path | None = None
    config: str = "vitl"
    keyframes: int = 5
    queries: int = 3
    rounds: int = 5
    plain_pairs: int = 0
    dtype: str = "auto"
    device: str = "auto"
    compile: bool = False


@dataclass(frozen=True, eq=False)
class Pose:
    """Errors of a pose, and the standard deviation of its position that its matches' residuals explain."""

    position_m: float
    rotation_deg: float
    expected_m: float


@dataclass(frozen=True, eq=False)
class Run:
    """One path's result: milliseconds by stage of the timed query, matches and poses of all, peak memory."""

    stages_ms: dict[str, float]
    matches: list[list[Matches]]
    poses: list[Pose | None]
    peak_mib: float


def benchmark_network(
    settings: NetworkBenchmark, progress: Progress = lambda stage, done, total: None
) -> dict[str, Any]:
    """Time the plain path, then the fast one on the same network, frames and device.

    Raises:
        CheckpointError: for a checkpoint that cannot be used.
        MatcherError: for a DUSt3R network, or a device or type that is not here.
    """
    network = _network(settings)
    keyframes, queries = known_truth.views(settings.keyframes, settings.queries)
    reference = Mast3rMatcher(network, dtype="float32", device=settings.device)
    pairs = settings.plain_pairs or settings.keyframes
    plain, first = _plain(reference, keyframes[:pairs], queries[0], progress)
    exact = _fast(reference, keyframes, queries, 0, progress, "float32")
    size = NetworkView.from_features(reference.describe(queries[0].frame)).size
    plain_ms = {stage: ms * settings.keyframes / pairs for stage, ms in plain.stages_ms.items()}
    plain_ms["pose"] = exact.stages_ms["pose"]
    del reference
    matcher = Mast3rMatcher(network, dtype=settings.dtype, device=settings.device, compile=settings.compile)
    gc.collect()
    fast = _fast(matcher, keyframes, queries, settings.rounds, progress, "fast path")
    total, plain_total = sum(fast.stages_ms.values()), sum(plain_ms.values())
    return {
        "benchmark": "network",
        "network": settings.config if settings.checkpoint is None else str(settings.checkpoint),
        "weights": "random, but descriptors know the room" if settings.checkpoint is None else "of the checkpoint",
        "image": f"{size[1]}x{size[0]}",
        "keyframes": settings.keyframes,
        "rounds": settings.rounds,
        "device": str(matcher.device),
        "dtype": str(matcher.dtype).removeprefix("torch."),
        "compiled": settings.compile,
        "speedup_over_plain": plain_total / total,
        "total_ms": total,
        "queries_per_second": 1e3 / total,
        "stages_ms": fast.stages_ms,
        "peak_memory_mib": fast.peak_mib,
        "plain": {
            "total_ms": plain_total,
            "stages_ms": plain_ms,
            "pairs_measured": pairs,
            "peak_memory_mib": plain.peak_mib,
        },
        "deviation": {
            **_deviation_of_maps(matcher, keyframes[0], queries[0], first),
            **deviation_of_matches(exact, fast, keyframes, queries),
            **deviation_of_poses(exact, fast),
        },
        "machine": machine(),
        "versions": versions(),
    }


def _network(settings: NetworkBenchmark) -> PointmapNetwork:
    """In float32 on the CPU."""
    if settings.checkpoint is not None:
        network = load_model(settings.checkpoint)
        if not network.config.has_descriptors:
            raise MatcherError(f"{settings.checkpoint} is a DUSt3R network: this benchmark needs descriptors")
        return network
    if settings.config not in CONFIGS:
        raise MatcherError(f"network '{settings.config}' is not one of {', '.join(CONFIGS)}")
    return known_truth.knowing_network(CONFIGS[settings.config])


def _plain(
    reference: Mast3rMatcher, keyframes: Sequence[PosedFrame], query: PosedFrame, progress: Progress
) -> tuple[Run, PlainPair]:
    """Milliseconds by stage over the given keyframes, and what came of the first."""
    stopwatch = Stopwatch(reference.device)
    stopwatch.exact = True
    plain_prediction(reference.network, keyframes[0], query, Stopwatch(reference.device))  # warms up
    forget_peak(reference.device)
    found = []
    for number, keyframe in enumerate(keyframes):
        progress("plain path, pairs", number, len(keyframes))
        found.append(plain_pair(reference.network, keyframe, query, stopwatch))
        del found[1:]
    return Run(stopwatch.ms, [], [], peak_mib(reference.device)), found[0]


def _fast(
    matcher: Mast3rMatcher,
    keyframes: Sequence[PosedFrame],
    queries: Sequence[PosedFrame],
    rounds: int,
    progress: Progress,
    name: str,
) -> Run:
    """Describe keyframes once, time the first query for some rounds, localize all."""
    matcher.stopwatch.exact = True
    references: list[Features] = []
    for number, keyframe in enumerate(keyframes):
        progress(f"{name}: keyframes", number, len(keyframes))
        references.append(matcher.describe(keyframe.frame))
    forget_peak(matcher.device)
    taken, matches, poses = [], [], []
    for number, query in enumerate([queries[0]] * rounds + list(queries)):
        progress(f"{name}: queries", number, rounds + len(queries))
        ms, found, pose = localized(matcher, keyframes, references, query)
        taken.append(ms)
        if number >= rounds:
            matches.append(found)
            poses.append(pose)
    # The first answer warms up; with rounds, later ones of the first query are counted.
    counted = taken[1 : rounds + 1] if rounds else taken[:1]
    medians = {stage: statistics.median(ms[stage] for ms in counted) for stage in STAGES}
    return Run(medians, matches, poses, peak_mib(matcher.device))


def localized(
    matcher: Mast3rMatcher, keyframes: Sequence[PosedFrame], references: Sequence[Features], query: PosedFrame
) -> tuple[dict[str, float], list[Matches], Pose | None]:
    """Milliseconds by stage, matches with each keyframe, and how good the pose is."""
    features = matcher.describe(replace(query.frame, depth=None))
    ms = dict(matcher.stopwatch.ms)
    found = matcher.match(features, references)
    ms |= matcher.stopwatch.ms
    start = time.perf_counter()
    pose = pose_of(keyframes, found, query)
    ms["pose"] = 1e3 * (time.perf_counter() - start)
    return ms, found, pose


def pose_of(keyframes: Sequence[PosedFrame], found: Sequence[Matches], query: PosedFrame) -> Pose | None:
    """A query's pose from its matches with the keyframes, held against the truth."""
    pose = solved([keyframe.map_T_camera for keyframe in keyframes], found, query)
    if pose is None:
        return None
    covariance = np.linalg.inv(pose.information) * pose.variance_factor
    errors = se3.pose_error(pose.map_T_camera, query.map_T_camera)
    return Pose(*errors, float(np.sqrt(np.trace(covariance[:3, :3]))))


def solved(poses: Sequence[Array], found: Sequence[Matches], query: PosedFrame) -> AbsolutePose | None:
    """A query's pose from the most trusted of its matches with keyframes at these poses (4, 4)."""
    camera = query.frame.camera
    assert camera is not None
    kept = [most_trusted(m, MATCHES, query.frame.width, query.frame.height) for m in found]
    ideal = np.concatenate([camera.rays(m.query_xy) for m in kept])
    points = np.concatenate([se3.apply(pose, m.points) for pose, m in zip(poses, kept, strict=True)])
    return solve_pose(ideal, points, np.concatenate([m.weights for m in kept]), camera.focal)


@torch.inference_mode()
def _deviation_of_maps(
    matcher: Mast3rMatcher, keyframe: PosedFrame, query: PosedFrame, plain: PlainPair
) -> dict[str, float]:
    """Points and descriptors of one pair, from cached tokens in the fast type, beside those of the plain path."""
    views = []
    for posed in (keyframe, query):
        features = matcher.describe(posed.frame)
        size = NetworkView.from_features(features).size
        tokens = torch.from_numpy(np.asarray(features["tokens"]))[None].to(matcher.device, matcher.dtype)
        views.append(Tokens.upright(tokens, size, matcher.network.config.patch_size))
    layers = matcher.network.decode(views[0], views[1])
    points = matcher.network.points(1, layers[0], views[0]).pts3d
    with torch.autocast(matcher.device.type, matcher.dtype, enabled=matcher.dtype is not torch.float32):
        desc = matcher.network.descriptors(2, layers[1], views[1]).desc
    assert plain.query.desc is not None
    cosine = (desc * plain.query.desc).sum(dim=-1).clamp(-1, 1)
    away = (points - plain.reference.pts3d).norm(dim=-1) / plain.reference.pts3d.norm(dim=-1).clamp_min(1e-6)
    return {
        "points_relative_error": float(away.float().median()),
        "descriptor_angle_deg": float(torch.rad2deg(torch.acos(cosine)).median()),
    }


def deviation_of_matches(
    exact: Run, fast: Run, keyframes: Sequence[PosedFrame], queries: Sequence[PosedFrame]
) -> dict[str, Any]:
    """Which matches both paths have, and how far matches are from the truth in each."""
    shared, count = 0.0, 0
    errors: dict[str, list[Array]] = {"float32": [], "fast": []}
    for number, query in enumerate(queries):
        for k, keyframe in enumerate(keyframes):
            one, other = exact.matches[number][k], fast.matches[number][k]
            shared += _agreeing(other, one, query)
            count += len(other)
            for name, matches in (("float32", one), ("fast", other)):
                errors[name].append(_true_error_px(matches, keyframe, query))
    medians = {name: float(np.median(np.concatenate(values))) for name, values in errors.items()}
    return {
        "match_agreement": shared / max(count, 1),
        "match_error_px": medians,
        "match_error_change": _change(medians["float32"], medians["fast"]),
    }


def _agreeing(matches: Matches, others: Matches, query: PosedFrame) -> int:
    """How many matches are among the others, to within AGREEMENT_PX network pixels in both images."""
    if len(matches) == 0 or len(others) == 0:
        return 0
    tree = cKDTree(np.hstack([others.reference_xy, others.query_xy]))
    reach = AGREEMENT_PX * max(query.frame.width, query.frame.height) / 512
    distance, _ = tree.query(np.hstack([matches.reference_xy, matches.query_xy]), p=np.inf)
    return int((distance <= reach).sum())


def _true_error_px(matches: Matches, keyframe: PosedFrame, query: PosedFrame) -> Array:
    """Distance (N,) of matched query pixels from where the keyframe's points really are."""
    camera = query.frame.camera
    assert camera is not None
    query_T_keyframe = se3.inverse(query.map_T_camera) @ keyframe.map_T_camera
    return np.linalg.norm(camera.project(se3.apply(query_T_keyframe, matches.points)) - matches.query_xy, axis=1)


def deviation_of_poses(exact: Run, fast: Run) -> dict[str, Any]:
    """Median pose errors of both paths, and the change of the error to expect.

    The errors of few queries are mostly chance. What matches leave uncertain, given how far they are off and where they
    are, is known from thousands of them: ``expected_change`` is the mean relative change of that standard deviation.
    """
    values: dict[str, Any] = {}
    for name, run in (("float32", exact), ("fast", fast)):
        found = [pose for pose in run.poses if pose is not None]
        values[name] = {
            "found": len(found),
            "position_m": statistics.median(pose.position_m for pose in found) if found else None,
            "rotation_deg": statistics.median(pose.rotation_deg for pose in found) if found else None,
            "expected_position_m": statistics.median(pose.expected_m for pose in found) if found else None,
        }
    changes = [_change(a.expected_m, b.expected_m) for a, b in zip(exact.poses, fast.poses) if a and b]
    values["expected_change"] = statistics.mean(changes) if changes else None
    return {"pose_error": {"queries": len(exact.poses), **values}}


def _change(before: float, after: float) -> float:
    """Relative, positive where it got worse."""
    return after / before - 1 if before > 0 else float("nan")
