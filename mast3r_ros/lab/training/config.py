"""A training run in a YAML file: every name has a default and a check, unknown names are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from mast3r_ros.errors import UserError
from mast3r_ros.lab.training.criterion import LossSettings
from mast3r_ros.lab.training.pairs import PairSettings
from mast3r_ros.lab.training.rooms import RoomsConfig
from mast3r_ros.network.checkpoint import read_config
from mast3r_ros.network.config import NetworkConfig


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights move.

    Attributes:
        lr, least_lr: highest learning rate, and where its cosine ends.
        warmup_pairs: pairs during which it rises from zero.
        decay: part of the training, at its end, over which the cosine falls; before, the rate stays. Below 1 the length
            of a training can still be changed before the fall begins.
        weight_decay: of matrices; vectors have none.
        betas: of AdamW.
        clip: gradients longer than this are shortened to it.
        ema: decay of the averaged weights, which are those that are validated and exported.
    """

    lr: float = 8e-4
    least_lr: float = 1e-6
    warmup_pairs: int = 2000
    decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        network: architecture, as in a checkpoint's JSON.
        pairs: how many to train on.
        batch: pairs per step, over all processes.
        rooms: what is rendered; count: how many different rooms there are at the end.
        first_rooms: rooms that the first pairs come from.
        pairs_per_room: after so many pairs one more room joins.
        seed: of weights and data.
        amp: bfloat16 for what is robust to it, on hardware that multiplies it.
        train_only: parameters whose names begin with one of these learn, the others stay as they are; empty: all learn.
        compile: fuse operations first; takes a minute or two.
        validate_every: pairs between validations on ``validation_rooms`` with ``validation_pairs`` pairs.
        log_every: steps whose losses one row of metrics averages.
        save_every_s: seconds between saved states, which are saved after rows of metrics only.
        workers: processes that load pairs; renderers: processes that render rooms ahead.
        cache: folder of rendered rooms.
        on_device: rooms and pairs stay on the device that trains, which also lights and renders the rooms; ``workers``
            have nothing to do then. For GPUs; generated rooms only.
    """

    network: NetworkConfig
    pairs: int = 60000
    batch: int = 16
    rooms: RoomsConfig = RoomsConfig()
    count: int = 1000
    first_rooms: int = 64
    pairs_per_room: int = 50
    seed: int = 0
    amp: bool = True
    train_only: tuple[str, ...] = ()
    compile: bool = False
    validate_every: int = 4000
    validation_rooms: int = 20
    validation_pairs: int = 60
    log_every: int = 20
    save_every_s: float = 60.0
    workers: int = 1
    renderers: int = 1
    cache: str = ".cache/train"
    on_device: bool = False
    pair: PairSettings = PairSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)

    def __post_init__(self) -> None:
        for name in (
            "pairs",
            "batch",
            "count",
            "first_rooms",
            "validate_every",
            "validation_rooms",
            "validation_pairs",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"training: {name} = {getattr(self, name)} must be at least 1")
        if self.rooms.width % self.network.patch_size or self.rooms.height % self.network.patch_size:
            raise UserError(
                f"training: images of {self.rooms.width}x{self.rooms.height} are no multiples of the "
                f"patch size {self.network.patch_size}"
            )
        if not self.network.has_descriptors and self.loss.matching:
            raise UserError("training: a network without descriptors needs loss.matching: 0")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return math.ceil(self.pairs / self.batch)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to ``least_lr``."""
        o, warmup = self.optimiser, min(self.optimiser.warmup_pairs / self.batch, self.steps)
        if step < warmup:
            return o.lr * (step + 1) / math.ceil(warmup)
        begin = max(warmup, self.steps * (1 - o.decay))
        fallen = max(step - begin, 0) / max(self.steps - begin, 1)
        return o.least_lr + (o.lr - o.least_lr) / 2 * (1 + math.cos(math.pi * min(fallen, 1.0)))

    def rooms_at(self, position: int) -> int:
        """Number of rooms that the pair at this position may come from."""
        return min(self.count, self.first_rooms + position // self.pairs_per_room)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in the YAML file."""
        return asdict(self) | {"network": self.network.to_json()}

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a YAML file. Raises UserError naming the file and what is wrong in it."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read as a training config: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path} holds no settings: see config/train/small.yaml")
        return cls.from_json(values, str(path))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "config") -> TrainConfig:
        """Inverse of :meth:`to_json`. Raises UserError."""
        try:
            return _built(cls, values, source)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"{source}: {error}") from error


def _built(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from nested plain values."""
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise UserError(f"{where}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    typed = {}
    for name, value in values.items():
        hint = hints[name]
        if hint is NetworkConfig:
            value = NetworkConfig.from_json(value)
        elif is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {name} should hold settings of its own, not {value!r}")
            value = _built(hint, value, f"{where}, {name}")
        else:
            value = _checked(hint, value, f"{where}: {name}")
        typed[name] = value
    return kind(**typed)


def _checked(hint: Any, value: Any, where: str) -> Any:
    """A plain value of the type of its field."""
    if str(hint).startswith("tuple"):
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} = {value!r} should be a list")
        return tuple(value)
    if hint is float or "float" in str(hint):
        if value is None and "None" in str(hint):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{where} = {value!r} should be a number")
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{where} = {value!r} should be of type {hint.__name__}")
    return value


def fine_tuning(checkpoint: Path) -> TrainConfig:
    """Settings to adapt a checkpoint to recordings: its own network and image size, small steps.

    Raises:
        CheckpointError: for a checkpoint that cannot be read.
    """
    network = read_config(checkpoint)
    height, width = network.img_size
    return TrainConfig(
        network,
        pairs=4000,
        batch=8,
        rooms=RoomsConfig(width=width, height=height),
        validate_every=800,
        loss=LossSettings(attention=0.1),
        optimiser=OptimiserSettings(lr=1e-4, warmup_pairs=400, ema=0.99),
    )
