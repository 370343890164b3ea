"""The training loop: deterministic, killed and resumed at any moment without a trace in the curve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from mast3r_ros.errors import CheckpointError, UserError
from mast3r_ros.lab.training import processes
from mast3r_ros.lab.training.config import OptimiserSettings, TrainConfig
from mast3r_ros.lab.training.criterion import Criterion
from mast3r_ros.lab.training.data import OutOfTime, Renderers, TrainingData
from mast3r_ros.lab.training.device_pairs import DeviceBatches
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.lab.training.metrics import MetricsFile
from mast3r_ros.lab.training.pairs import Batch
from mast3r_ros.lab.training.state import Averaged, load_state, save_state
from mast3r_ros.lab.training.validation import HeldOutPair, validate
from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.matching.hardware import dtype_named
from mast3r_ros.network import PointmapNetwork
from mast3r_ros.network.checkpoint import load_model

Watch = Callable[[int, int, str], None]


@dataclass
class Run:
    """What changes while training."""

    network: PointmapNetwork
    criterion: Criterion
    average: Averaged
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    #: ``time.monotonic()`` after which it stops.
    deadline: float = math.inf

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.patch_embed.proj.weight.device


def train(
    config: TrainConfig,
    folder: Path,
    data: TrainingData | None = None,
    init: Path | None = None,
    watch: Watch | None = None,
    stop_after: int | None = None,
    minutes: float | None = None,
) -> Path:
    """Train, or go on with what was begun in a folder.

    Args:
        folder: gets ``state.safetensors``, ``metrics.csv``, ``metrics.png``, ``config.json`` and at the end
            ``model.safetensors`` with its ``model.json``.
        data: training and held-out pairs; by default rendered rooms.
        init: checkpoint whose weights a new training starts from.
        watch: told (step, steps, a line about it).
        stop_after: stop, resumable, when this many steps are done in all (a multiple of ``log_every``).
        minutes: stop, resumable, after so long, start included; what is learned by then is exported.

    Returns:
        the exported checkpoint, or the state where it stopped after some steps.

    Raises:
        UserError: for minutes of several processes, a folder of another training, or a loss that is not finite.
    """
    deadline = time.monotonic() + 60 * minutes if minutes is not None else math.inf
    rank, count = processes.join()
    if minutes is not None and count > 1:
        raise UserError("a training of several processes is stopped by pairs, not by minutes")
    if config.batch % count:
        raise UserError(f"a batch of {config.batch} pairs cannot be shared by {count} processes")
    device = training_device(rank)
    data = data or TrainingData.rendered(config)
    begin(folder, config)
    run = start(config, device, init)
    run.deadline = deadline
    state = folder / "state.safetensors"
    if state.exists():
        record = load_state(state, run.network, run.criterion, run.average, run.optimiser)
        run.step, run.seconds = record["step"], record["seconds"]
    end = min(config.steps, stop_after or config.steps)
    metrics = MetricsFile(folder / "metrics.csv", keep_below=run.step) if rank == 0 else None
    with data.rendering(rank == 0, deadline) as renderers:
        renderers.reached(run.step * config.batch)
        _steps(config, run, data, metrics, end, state, watch, renderers, (rank, count))
    if run.step == 0:
        raise UserError(
            f"no step was made in {minutes:g} minutes: the first {config.first_rooms} rooms were not ready. Those that "
            f"were made stay in {config.cache}: start again, or give it more time"
        )
    if run.step < config.steps and minutes is None:
        return state
    if rank == 0:
        export(config, run, folder / "model.safetensors")
    return folder / "model.safetensors"


def training_device(rank: int) -> torch.device:
    """The GPU of a process, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def begin(folder: Path, config: TrainConfig) -> None:
    """Note the config in a new folder; refuse a folder of another training."""
    folder.mkdir(parents=True, exist_ok=True)
    noted, values = folder / "config.json", json.loads(json.dumps(config.to_json()))
    #: What may change between slices of one training.
    free = ("pairs", "workers", "renderers", "save_every_s", "compile", "cache")
    if (folder / "state.safetensors").exists() and noted.exists():
        # By way of the class, so that a setting which is newer than the folder has its default there.
        before = json.loads(json.dumps(TrainConfig.from_json(json.loads(noted.read_text()), str(noted)).to_json()))
        different = [name for name in values if name not in free and before[name] != values[name]]
        if different:
            raise UserError(
                f"{folder} holds a training with other settings ({', '.join(different)}): "
                "use another output folder, or delete it"
            )
    # As a whole: other processes of this training read it at the same time.
    write_replacing(noted, json.dumps(values, indent=1).encode())


def start(config: TrainConfig, device: torch.device, init: Path | None) -> Run:
    """Everything at step 0."""
    network = random_network(config.network, config.seed)
    if init is not None:
        given = load_model(init)
        # Weights do not depend on the size of images, which may be another one than before.
        if replace(given.config, img_size=config.network.img_size) != config.network:
            raise CheckpointError(f"{init} is of another architecture than this training's network")
        network.load_state_dict(given.state_dict())
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(config.train_only or ("",)))
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = Criterion(config.loss).to(device)
    return Run(
        network,
        criterion,
        Averaged(network, config.optimiser.ema),
        make_optimiser(network, criterion, config.optimiser),
    )


def make_optimiser(network: PointmapNetwork, criterion: Criterion, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW; vectors (biases, gains, the temperature) do not decay."""
    parameters = [p for module in (network, criterion) for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _steps(
    config: TrainConfig,
    run: Run,
    data: TrainingData,
    metrics: MetricsFile | None,
    end: int,
    state: Path,
    watch: Watch | None,
    renderers: Renderers,
    place: tuple[int, int],
) -> None:
    """Steps up to ``end``, with rows of metrics, validation and saved states between them."""
    log, held_out = _Log(config, run), _HeldOut(data, renderers)
    saved = time.monotonic()
    if config.compile:
        compiled(run.network)
    batches, last = _batches(config, data, run.step, end, place, renderers), run.step >= end
    while not last:
        try:
            batch = next(batches)
        except OutOfTime:
            last = True
            if not log.steps:
                break
        else:
            log.waited()
            log.stepped(one_step(config, run, batch, place[1]))
            run.step += 1
            # At every step: what the next ones need may be more than is rendered ahead in a row of metrics.
            renderers.reached(run.step * config.batch)
            last = run.step == end or (run.step % config.log_every == 0 and time.monotonic() > run.deadline)
        validates = run.step % max(config.validate_every // config.batch, 1) == 0 or last
        validated = _validated(config, run, held_out.pairs) if validates and metrics is not None else {}
        # All processes come to the same decision: they average their losses together.
        if not (validates or last or run.step % config.log_every == 0):
            continue
        # States are saved after rows only: a resumed training averages over the same steps.
        row = log.row(processes.average(log.totals(), place[1])) | validated
        if metrics is None:
            continue
        metrics.add(row)
        if watch is not None:
            watch(run.step, config.steps, metrics.line())
        if last or time.monotonic() - saved >= config.save_every_s:
            save(run, state)
            metrics.draw(state.with_name("metrics.png"))
            saved = time.monotonic()


def compiled(network: PointmapNetwork) -> None:
    """Fuse the operations of the parts that most time goes into; the first steps take a minute or two longer."""
    for part in (*network.enc_blocks, *network.dec_blocks, *network.dec_blocks2, network.patch_embed):
        part.compile()
    for view in (1, 2):
        head = network.head(view)
        head.raw = torch.compile(head.raw)  # type: ignore[method-assign]


def _batches(
    config: TrainConfig, data: TrainingData, first: int, end: int, place: tuple[int, int], renderers: Renderers
) -> Iterator[Batch]:
    """Batches of this process, loaded ahead by workers."""
    wait = renderers.wait if config.renderers else None
    batches = data.batches(*place, training_device(place[0]), wait)
    if isinstance(batches, DeviceBatches):
        return batches.between(first, end)
    options: dict[str, Any] = {}
    if config.workers:
        # A fresh interpreter: threads of this one, of OpenMP and OpenCV, do not survive being copied.
        options = {"prefetch_factor": 6, "worker_init_fn": _single_threaded, "multiprocessing_context": "spawn"}
    loader = DataLoader(batches, batch_size=None, sampler=range(first, end), num_workers=config.workers, **options)
    return iter(loader)


def _single_threaded(worker: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def half_precision(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """bfloat16, where it is wanted and the hardware multiplies it: emulated it takes more than ten times as long."""
    return torch.bfloat16 if config.amp and dtype_named("auto", device) == torch.bfloat16 else None


def one_step(config: TrainConfig, run: Run, batch: Batch, count: int) -> dict[str, Tensor]:
    """One optimiser step; the parts of the loss and the length of the gradient."""
    for group in run.optimiser.param_groups:
        group["lr"] = config.learning_rate(run.step)
    run.optimiser.zero_grad(set_to_none=True)
    with _attention(run.device):
        total, parts = run.criterion(run.network, batch, half_precision(config, run.device))
        total.backward()
    if not math.isfinite(total.item()):
        raise UserError(f"the loss is {total.item()} at step {run.step}: lower optimiser.lr, or set amp: false")
    processes.average_gradients((run.network, run.criterion), count)
    parameters = [p for group in run.optimiser.param_groups for p in group["params"]]
    length = torch.nn.utils.clip_grad_norm_(parameters, config.optimiser.clip)
    run.optimiser.step()
    run.average.update(run.network, run.step)
    return {"loss": total.detach(), **parts, "gradient": length.detach()}


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """A CPU's fused attention is several times slower backwards than plain products for a few hundred tokens."""
    if device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class _HeldOut:
    """The pairs that are validated on, made when they are first asked for: training does not wait for them."""

    def __init__(self, data: TrainingData, renderers: Renderers) -> None:
        self._data, self._renderers = data, renderers
        self._pairs: list[HeldOutPair] = []

    @property
    def pairs(self) -> list[HeldOutPair]:
        """None of them where their rooms were not ready in time."""
        if not self._pairs:
            try:
                self._pairs = self._data.held_out(self._renderers.wait)
            except OutOfTime:
                return []
        return self._pairs


def _validated(config: TrainConfig, run: Run, held_out: list[HeldOutPair]) -> dict[str, float]:
    """Validation of the averaged weights; nothing without pairs."""
    if not held_out:
        return {}
    current = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    _load(run.network, run.average.values)
    with torch.compiler.set_stance("force_eager"):  # what was compiled for training is of no use here
        amp, by_points = half_precision(config, run.device), not config.loss.matching
        figures = validate(run.network.eval(), held_out, amp, by_points)
    _load(run.network.train(), current)
    return {f"val_{name}": value for name, value in figures.items()}


def _load(network: PointmapNetwork, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(values[name])


def save(run: Run, path: Path) -> None:
    """The state of a run."""
    extra = {"seconds": run.seconds}
    save_state(path, run.step, run.network, run.criterion, run.average, run.optimiser, extra)


def export(config: TrainConfig, run: Run, path: Path) -> None:
    """The averaged weights in half precision, as a checkpoint of this package."""
    from mast3r_ros.network.checkpoint import save_network

    _load(run.network, run.average.values)
    record = {"training": config.to_json() | {"steps": run.step, "seconds": round(run.seconds)}}
    save_network(run.network, path, torch.float16, record)


class _Log:
    """Sums of the losses since the last row, and where the time went."""

    def __init__(self, config: TrainConfig, run: Run) -> None:
        self.config, self.run = config, run
        self.names: list[str] = []
        self._reset()
        self.before = time.monotonic()

    def _reset(self) -> None:
        self.sums: Tensor | None = None
        self.steps, self.wait_s, self.work_s = 0, 0.0, 0.0

    def waited(self) -> None:
        """A batch has come."""
        now = time.monotonic()
        self.wait_s += now - self.before
        self.before = now

    def stepped(self, parts: dict[str, Tensor]) -> None:
        """A step is done."""
        self.names = list(parts)
        values = torch.stack([parts[name].float() for name in self.names])
        self.sums = values if self.sums is None else self.sums + values
        self.steps += 1
        now = time.monotonic()
        self.work_s += now - self.before
        self.before = now

    def totals(self) -> Tensor:
        """Means since the last row."""
        assert self.sums is not None
        return self.sums / max(self.steps, 1)

    def row(self, means: Tensor) -> dict[str, float]:
        """One row of metrics."""
        elapsed = self.wait_s + self.work_s
        self.run.seconds += elapsed
        pairs = self.steps * self.config.batch
        row = {
            "step": self.run.step,
            "pairs": self.run.step * self.config.batch,
            **{name: float(value) for name, value in zip(self.names, means.tolist())},
            "lr": self.config.learning_rate(self.run.step - 1),
            "temperature": float(self.run.criterion.temperature.detach()),
            "seconds": round(self.run.seconds, 1),
            "pairs_per_s": round(pairs / max(elapsed, 1e-9), 2),
            "waiting": round(self.wait_s / max(elapsed, 1e-9), 3),
        }
        self._reset()
        self.before = time.monotonic()
        return row
