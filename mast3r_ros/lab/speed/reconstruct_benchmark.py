"""Time, memory and error of a reconstruction by the number of images: an oracle's pointmaps of a hall."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mast3r_ros.frames import Camera
from mast3r_ros.geometry.similarity import fit_similarity
from mast3r_ros.lab.metrics.clouds import cloud_distances, cloud_figures
from mast3r_ros.lab.metrics.trajectories import absolute_errors, align_trajectory
from mast3r_ros.lab.runs.cloud import thinned
from mast3r_ros.lab.synthetic.pointmap_oracle import Hall, PointmapOracle
from mast3r_ros.memory import peak_mib
from mast3r_ros.multiview.photos import open_photos
from mast3r_ros.multiview.reconstruct import Reconstruction, ReconstructSettings, reconstruct
from mast3r_ros.multiview.write_dense import dense_cloud


@dataclass(frozen=True)
class ReconstructBenchmark:
    """What is reconstructed.

    Attributes:
        width: of the images, pixels; they are 4:3.
        neighbours: images that each is matched with.
        noise, wrong: see :class:`PointmapOracle`.
        mapper, memory: see :class:`ReconstructSettings`.
        dense: a cloud by multi-view stereo as well, held against the true one.
    """

    width: int = 96
    neighbours: int = 6
    noise: float = 0.01
    wrong: float = 0.1
    mapper: str = "sparse"
    memory: int = 1 << 30
    dense: bool = False


def benchmark_reconstruct(
    counts: Sequence[int], settings: ReconstructBenchmark = ReconstructBenchmark()
) -> Iterator[dict[str, Any]]:
    """A row for each number of images, each in a process of its own, so that memory is that row's."""
    for count in counts:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            yield pool.submit(reconstruct_hall, count, settings).result()


def reconstruct_hall(count: int, settings: ReconstructBenchmark) -> dict[str, Any]:
    """Seconds, memory, and errors after a similarity of one hall; NaN where fewer than three images are placed."""
    width, height = settings.width, settings.width * 3 // 4
    camera = Camera.pinhole(width, height, 0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2)
    hall = Hall.of(count, camera=camera)
    oracle = PointmapOracle(hall, settings.noise, settings.wrong, spacing=2 if settings.dense else 8)
    with tempfile.TemporaryDirectory(prefix="mast3r_ros_") as folder:
        for number in range(count):
            Image.fromarray(hall.image(number)).save(Path(folder) / f"image_{number:05d}.png")
        photos = replace(open_photos(Path(folder)), cameras={"": camera})
        stages, tell = _stage_clock()
        began, worked = time.monotonic(), time.process_time()
        how = ReconstructSettings(settings.neighbours, 0, settings.mapper, settings.memory, settings.dense)
        result = reconstruct(photos, oracle, how, tell, work=Path(folder) / "work")
        seconds, cpu = time.monotonic() - began, time.process_time() - worked
        tell("", 0, 0)
        peak, surface = peak_mib(), _surface(result, hall) if settings.dense else {}
    model = result.models[0]
    true = hall.poses[[int(Path(result.photos[n].name).stem.split("_")[1]) for n in model.images]]
    found = np.array([model.world_T_camera[n] for n in model.images])
    unknown = len(found) < 3  # a similarity would fit whatever was found
    nowhere = np.full(len(found), np.nan)
    metres, degrees = (nowhere, nowhere) if unknown else absolute_errors(align_trajectory(found, true, "sim3"), true)
    return {
        "images": count,
        "registered": sum(len(part) for part in result.models),
        "components": len(result.models),
        "rejected_pairs": len(result.rejected),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory_mib": peak,
        "median_m": float(np.median(metres)),
        "worst_m": float(metres.max()),
        "median_deg": float(np.median(degrees)),
        "hall_m": float(2 * hall.half[0]),
        "stages": stages,
        **surface,
    }


def _surface(result: Reconstruction, hall: Hall) -> dict[str, Any]:
    """Accuracy and completeness of the largest component's cloud (DTU's protocol), metres."""
    model = result.models[0]
    numbers = [int(Path(result.photos[n].name).stem.split("_")[1]) for n in model.images]
    here = np.array([model.world_T_camera[n][:3, 3] for n in model.images])
    moved = model.moved(fit_similarity(here, hall.poses[numbers][:, :3, 3]))
    estimate = dense_cloud(moved, result.photos).points
    truth = thinned(np.concatenate([hall.surface(number).reshape(-1, 3) for number in numbers]), 0.02)
    figures = cloud_figures(cloud_distances(estimate, truth, max_distance=0.5), threshold=0.05)
    return {"points": len(estimate), **figures}


def _stage_clock() -> tuple[dict[str, float], Callable[[str, int, int], None]]:
    """CPU seconds by stage, and what is told of the stages."""
    spent: dict[str, float] = {}
    now, since = "", time.process_time()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal now, since
        if stage != now:
            clock = time.process_time()
            if now:
                spent[now] = spent.get(now, 0.0) + clock - since
            now, since = stage, clock

    return spent, tell
