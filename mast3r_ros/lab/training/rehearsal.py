"""A training in miniature that leaves nothing behind: how fast it would be, and what it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from mast3r_ros.lab.training import loop, processes
from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.data import TrainingData
from mast3r_ros.lab.training.rooms import RenderedRooms
from mast3r_ros.memory import peak_mib

#: Steps before and while time is taken.
WARM_UP, TIMED = 1, 3


def rehearse(config: TrainConfig, data: TrainingData, init: Path | None) -> dict[str, Any]:
    """Figures of a few steps: ``pairs_per_s`` of training, ``loading_pairs_per_s`` of one worker, memory, sizes."""
    _, count = processes.join()
    device = loop.training_device(0)
    run = loop.start(config, device, init)
    begin = time.perf_counter()
    batches = data.batches(0, count, device)
    batch = batches[0]
    render_s = time.perf_counter() - begin
    begin = time.perf_counter()
    batch = batches[0]
    loading_s = time.perf_counter() - begin
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            begin = time.perf_counter()
        loop.one_step(config, run, batch, 1)
    training_s = (time.perf_counter() - begin) / TIMED
    figures: dict[str, Any] = {
        "network": f"{sum(p.numel() for p in run.network.parameters()) / 1e6:.1f} M parameters",
        "device": f"{device.type}, {torch.get_num_threads()} threads, {count} processes",
        "pairs": config.pairs,
        "steps": config.steps,
        "pairs_per_s": round(config.batch / training_s, 2),
        "loading_pairs_per_s": round(config.batch / loading_s, 1),
        "first_batch_s": round(render_s, 1),
        "memory_mib": round(peak_mib(device)),
    }
    if isinstance(data.training, RenderedRooms):
        there = sum(data.training.path(number).exists() for number in range(config.count))
        figures["rooms"] = f"{there} of {config.count} rendered already"
    return figures
