"""Everything a training needs to go on, in one safetensors file that is replaced as a whole."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mast3r_ros.errors import CheckpointError
from mast3r_ros.mapping.atomic import sync


class Averaged:
    """Exponential moving average of a module's parameters.

    Args:
        decay: of the average; in the first steps it is faster, so that it forgets the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the parameters after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            current = [p.detach() for p in module.parameters()]
            torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)


def save_state(
    path: Path,
    step: int,
    network: nn.Module,
    criterion: nn.Module,
    average: Averaged,
    optimiser: torch.optim.Optimizer,
    extra: dict[str, Any],
) -> None:
    """Write the state after ``step`` steps; a reader finds the old file or the new one, never a part.

    Raises:
        CheckpointError: where the disk refuses; the old file is as it was.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("network", network), ("criterion", criterion)):
        tensors |= {f"{prefix}.{name}": p.detach().contiguous() for name, p in module.named_parameters()}
    tensors |= {f"average.{name}": value.contiguous() for name, value in average.values.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value.contiguous() for name, value in state.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(tensors, partial, metadata={"training": json.dumps({"step": step} | extra)})
        sync(partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # safetensors says by its own error that the disk is full
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        kept = "the state before is unchanged: make room, and start the same command again to go on"
        raise CheckpointError(f"{path}: the training's state could not be written ({error}); {kept}") from error


def load_state(
    path: Path, network: nn.Module, criterion: nn.Module, average: Averaged, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Read a state into fresh objects of the same kind; returns what was saved beside the tensors.

    Raises:
        CheckpointError: for a damaged file, or one of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record: dict[str, Any] = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        with torch.no_grad():
            for prefix, module in (("network", network), ("criterion", criterion)):
                for name, parameter in module.named_parameters():
                    parameter.copy_(tensors[f"{prefix}.{name}"])
            for name, value in average.values.items():
                value.copy_(tensors[f"average.{name}"])
    except (OSError, SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not continue this training ({error}): use another output folder, or delete this one"
        ) from error
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, kind = name.split(".")
            # The fused optimiser walks through memory: moments need the strides of their parameter.
            like = parameters[int(number)]
            aligned = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(number), {})[kind] = aligned
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return record


def saved_step(path: Path) -> int:
    """Steps done in a saved state; 0 where there is none. Raises CheckpointError for a damaged file."""
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["training"])["step"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no state of a training, or damaged: {error}") from error
