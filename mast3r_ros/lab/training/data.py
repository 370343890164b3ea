"""Where training pairs come from: rooms rendered ahead by processes of their own, or real recordings."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from mast3r_ros.errors import UserError
from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.device_pairs import DeviceBatches
from mast3r_ros.lab.training.pairs import PairBatches, Scenes
from mast3r_ros.lab.training.recordings import open_recordings
from mast3r_ros.lab.training.rooms import TRAINING_SEEDS, VALIDATION_SEEDS, RenderedRooms, render_ahead
from mast3r_ros.lab.training.validation import HeldOutPair, held_out_pairs

#: Rooms that are rendered before they are needed.
AHEAD = 24


class OutOfTime(Exception):
    """A room was not ready when the time of this slice was over."""


@dataclass(frozen=True)
class Renderers:
    """The processes that render rooms.

    Attributes:
        reached: is told the position that training has reached.
        deadline: ``time.monotonic()`` after which nobody waits for a room.
    """

    processes: Sequence[BaseProcess]
    reached: Callable[[int], None]
    deadline: float

    def wait(self, path: Path) -> None:
        """Return when a room is there.

        Raises:
            OutOfTime: if it was not by the deadline.
            UserError: if a process that makes rooms has died.
        """
        while not path.exists():
            for number, process in enumerate(self.processes):
                if process.exitcode:
                    raise UserError(
                        f"room process {number} of {len(self.processes)} ended with exit code {process.exitcode} while "
                        f"{path.name} was waited for: what it printed says why; {path.parent} keeps what is made"
                    )
            if time.monotonic() > self.deadline:
                raise OutOfTime
            time.sleep(0.02)


@dataclass(frozen=True)
class TrainingData:
    """Scenes to train on and scenes held out.

    Attributes:
        training, validation: scenes by number.
        count: of training scenes; None: as many as have joined by then, rendered on the way.
    """

    config: TrainConfig
    training: Scenes
    validation: Scenes
    validation_scenes: int
    count: int | None = None

    @classmethod
    def rendered(cls, config: TrainConfig) -> TrainingData:
        """Rooms that nobody has to have beforehand."""
        cache = Path(config.cache).expanduser()
        device = "cuda" if config.on_device and torch.cuda.is_available() else "cpu"
        training, held_out = (RenderedRooms(config.rooms, cache, s, device) for s in (TRAINING_SEEDS, VALIDATION_SEEDS))
        return cls(config, training, held_out, config.validation_rooms)

    @classmethod
    def recorded(cls, config: TrainConfig, recordings: list[Path]) -> TrainingData:
        """Real recordings; their last parts are held out. Raises DatasetError."""
        size = max(config.rooms.width, config.rooms.height)
        training, held_out = open_recordings(recordings, Path(config.cache).expanduser(), size)
        return cls(config, training, held_out, len(held_out), len(training))

    def scene_of(self, position: int, rng: np.random.Generator) -> int:
        """Which scene the pair at a position of the training comes from."""
        return int(rng.integers(self.count if self.count is not None else self.config.rooms_at(position)))

    @property
    def _renderers_make_all(self) -> bool:
        """Whether held-out rooms come from the renderers too: on a GPU nobody should wait for one after the other."""
        return self.config.on_device and self.config.renderers > 0

    def batches(
        self, rank: int, processes: int, device: torch.device, wait: Callable[[Path], None] | None = None
    ) -> PairBatches | DeviceBatches:
        """Batches of one process; those made on its device where the config says so.

        Args:
            wait: returns when a file that other processes make is there; None: what is missing is made here.

        Raises:
            UserError: for recordings, which are not made there.
        """
        c = self.config
        if not c.on_device:
            return PairBatches(self.training, self.scene_of, c.pair, c.seed, c.batch, rank, processes)
        if not isinstance(self.training, RenderedRooms):
            raise UserError("training: on_device is for generated rooms: leave it out for recordings")
        return DeviceBatches(self.training, self.scene_of, c.pair, c.seed, c.batch, device, rank, processes, wait)

    def held_out(self, wait: Callable[[Path], None]) -> list[HeldOutPair]:
        """The pairs that are validated on, always the same."""
        if self._renderers_make_all and isinstance(self.validation, RenderedRooms):
            for number in range(self.validation_scenes):
                wait(self.validation.path(number))
        return held_out_pairs(self.validation, self.validation_scenes, self.config.validation_pairs)

    @contextmanager
    def rendering(self, here: bool, deadline: float = math.inf) -> Iterator[Renderers]:
        """While inside, other processes render the rooms that will soon be asked for.

        Args:
            here: whether this process starts them.
            deadline: ``time.monotonic()`` after which nobody waits for a room.
        """
        # A fresh interpreter: threads of this one do not survive being copied.
        context = multiprocessing.get_context("spawn")
        wanted = context.Value("l", 0)

        def wanted_at(rooms: int) -> None:
            wanted.value = rooms + AHEAD

        started = []
        if here and isinstance(self.training, RenderedRooms):
            for number in range(self.config.renderers):
                rooms = self.validation
                first = self._renderers_make_all and isinstance(rooms, RenderedRooms)
                held_out = (rooms, self.validation_scenes, self.config.first_rooms) if first else None
                arguments = (self.training, number, self.config.count, self.config.renderers, wanted, held_out)
                started.append(context.Process(target=render_ahead, args=arguments, daemon=True))
        for process in started:
            process.start()
        try:
            yield Renderers(started, lambda at: wanted_at(self.config.rooms_at(at)), deadline)
        finally:
            for process in started:
                process.terminate()
                process.join()
