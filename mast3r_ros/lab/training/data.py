"""Where training pairs come from: rooms rendered ahead by processes of their own, or real recordings."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mast3r_ros.lab.training.config import TrainConfig
from mast3r_ros.lab.training.pairs import PairBatches, Scenes
from mast3r_ros.lab.training.recordings import open_recordings
from mast3r_ros.lab.training.rooms import VALIDATION_SEEDS, RenderedRooms, render_ahead
from mast3r_ros.lab.training.validation import HeldOutPair, held_out_pairs

#: Rooms that are rendered before they are needed.
AHEAD = 24


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
        held_out = RenderedRooms(config.rooms, cache, VALIDATION_SEEDS)
        return cls(config, RenderedRooms(config.rooms, cache), held_out, config.validation_rooms)

    @classmethod
    def recorded(cls, config: TrainConfig, recordings: list[Path]) -> TrainingData:
        """Real recordings; their last parts are held out. Raises DatasetError."""
        size = max(config.rooms.width, config.rooms.height)
        training, held_out = open_recordings(recordings, Path(config.cache).expanduser(), size)
        return cls(config, training, held_out, len(held_out), len(training))

    def scene_of(self, position: int, rng: np.random.Generator) -> int:
        """Which scene the pair at a position of the training comes from."""
        return int(rng.integers(self.count if self.count is not None else self.config.rooms_at(position)))

    def batches(self, rank: int, processes: int) -> PairBatches:
        """Batches of one process."""
        c = self.config
        return PairBatches(self.training, self.scene_of, c.pair, c.seed, c.batch, rank, processes)

    def held_out(self) -> list[HeldOutPair]:
        """The pairs that are validated on, always the same."""
        return held_out_pairs(self.validation, self.validation_scenes, self.config.validation_pairs)

    @contextmanager
    def rendering(self, here: bool) -> Iterator[Callable[[int], None]]:
        """While inside, other processes render the rooms that will soon be asked for.

        Gives a function that is told the position that training has reached.
        """
        # A fresh interpreter: threads of this one do not survive being copied.
        context = multiprocessing.get_context("spawn")
        wanted = context.Value("l", 0)

        def reached(position: int) -> None:
            wanted.value = self.config.rooms_at(position) + AHEAD

        started = []
        if here and isinstance(self.training, RenderedRooms):
            for number in range(self.config.renderers):
                arguments = (self.training, number, self.config.count, self.config.renderers, wanted)
                started.append(context.Process(target=render_ahead, args=arguments, daemon=True))
        for process in started:
            process.start()
        try:
            yield reached
        finally:
            for process in started:
                process.terminate()
                process.join()
