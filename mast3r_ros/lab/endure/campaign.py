"""Seeded trials by the thousand in a process of their own: what went wrong, and how to repeat it.

Trial n of a campaign depends on the seed and n alone. A trial that ends the process (a crash in a library, memory that
runs out) or does not end at all is a finding like any other; the campaign goes on behind it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mast3r_ros.errors import UserError
from mast3r_ros.io.documents import to_json, write_json
from mast3r_ros.lab.endure.watched import Watch
from mast3r_ros.lab.runs.environment import machine, versions
from mast3r_ros.memory import resident_mib

Rng = np.random.Generator
#: One trial: gives the name of its outcome, or raises: Wrong and unforeseen exceptions are findings, UserError is not.
Trial = Callable[[Rng], str]
#: Makes the trials of a campaign in a folder of its own.
Make = Callable[[Path], Trial]
#: Called with (done, total).
Progress = Callable[[int, int], None]

#: A trial that takes longer hangs, seconds; the first one waits for the imports and the making of what is mutated.
PATIENCE_S, START_S = 60.0, 600.0
#: The state is saved this often; the memory is looked at after so many trials or seconds, whichever comes first.
SAVE_EVERY_S, LOOK_EVERY, LOOK_EVERY_S = 10.0, 500, 60.0
#: What the process may grow by between the first look and the last, MiB: a leak of 100 bytes a trial is seen in a
#: million.
GROWTH_MIB = 96.0
#: A process that ends this often is not started again.
MOST_DEATHS = 1000


class Wrong(Exception):
    """What a trial found: a wrong answer, something lost or touched. ``kind`` groups those of one cause."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class State:
    """How far a campaign is; what is saved to go on with.

    Attributes:
        trials: done.
        outcomes: of trials, by name.
        kinds: findings by cause.
        findings: the first few of each cause.
        facts: what the trials have measured beside, in their last process.
    """

    seed: int = 0
    trials: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def found(self, trial: int, kind: str, text: str) -> None:
        """Take a finding."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if self.kinds[kind] <= 3:
            self.findings.append({"trial": trial, "kind": kind, "text": text[:2000]})


def run_campaign(
    name: str, make: Make, trials: int, seed: int, report: Path | None, progress: Progress, first: int = 0
) -> dict[str, Any]:
    """Run the trials of a campaign, from where its report folder says that it stands.

    Args:
        make: importable by name.
        report: folder for ``state.json``; None begins anew and keeps nothing.
        first: number of the first trial, where there is no report.
    """
    state = _resumed(report, seed, first)
    began, before = time.monotonic(), state.seconds
    counts = Counter(state.outcomes)
    saved_at = deaths = 0.0
    while state.trials < first + trials and deaths < MOST_DEATHS:
        with _Worker(make, seed, state.trials, first + trials) as worker:
            for outcome, kind, text in worker.results():
                if outcome == "facts":
                    state.facts = json.loads(text)
                    continue
                if kind:
                    state.found(state.trials, kind, text)
                if outcome == "memory":
                    continue
                deaths += outcome == "process ended"
                counts[outcome] += 1
                state.trials += 1
                if time.monotonic() - saved_at > SAVE_EVERY_S or state.trials == first + trials:
                    saved_at = time.monotonic()
                    state.seconds, state.outcomes = before + saved_at - began, dict(sorted(counts.items()))
                    _save(report, name, state)
                    progress(state.trials - first, trials)
    state.seconds, state.outcomes = before + time.monotonic() - began, dict(sorted(counts.items()))
    _save(report, name, state)
    return summary(name, state, first)


def summary(name: str, state: State, first: int = 0) -> dict[str, Any]:
    """What is known of a campaign: ``trials``, ``found``, ``seconds`` and what they were."""
    return {
        "campaign": name,
        "seed": state.seed,
        "trials": state.trials - first,
        "found": sum(state.kinds.values()),
        "seconds": round(state.seconds, 1),
        "outcomes": state.outcomes,
        "kinds": state.kinds,
        "findings": state.findings,
        "facts": state.facts,
        "machine": machine(),
        "versions": versions(),
    }


def _resumed(report: Path | None, seed: int, first: int) -> State:
    file = report / "state.json" if report is not None else None
    if file is None or not file.exists():
        return State(seed, first)
    state = State(**json.loads(file.read_text()))
    if state.seed != seed:
        raise UserError(f"{file} is of seed {state.seed}: give --seed {state.seed} to go on, or another --report")
    return state


def _save(report: Path | None, name: str, state: State) -> None:
    if report is None:
        return
    report.mkdir(parents=True, exist_ok=True)
    write_json(report / "state.json.new", vars(state))
    os.replace(report / "state.json.new", report / "state.json")  # a campaign that is killed goes on from one of them
    write_json(report / "summary.json", summary(name, state))
    lines = [f"# endure {name}", "", f"{state.trials} trials, seed {state.seed}, {state.seconds:.0f} s.", ""]
    lines += ["| outcome | trials |", "|---|---|", *(f"| {k} | {n} |" for k, n in state.outcomes.items()), ""]
    lines += ["| found | trials |", "|---|---|", *(f"| {k} | {n} |" for k, n in state.kinds.items()), ""]
    repeat = f"mast3r_ros endure {name} --seed {state.seed} --trials 1 --first"
    lines += [f"`{repeat} {f['trial']}`\n\n```\n{f['text']}\n```\n" for f in state.findings]
    (report / "report.md").write_text("\n".join(lines), encoding="utf-8")


class _Worker:
    """A process that does trials one after the other and tells of each."""

    def __init__(self, make: Make, seed: int, first: int, end: int) -> None:
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # all is tiny in a trial
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe(duplex=False)
        self._folder = TemporaryDirectory(prefix="mast3r_ros_endure_")
        work = partial(_work, make, Path(self._folder.name), seed, first, end)
        self._process = context.Process(target=work, args=(there,), daemon=False)
        self._process.start()
        there.close()

    def results(self) -> Any:
        """(outcome, kind, text) of each trial as it ends; kind is empty where nothing is wrong."""
        patience = START_S
        while True:
            try:
                if not self._here.poll(patience):
                    yield "process ended", "hangs", f"no end within {patience:.0f} s"
                    return
                result = self._here.recv()
            except EOFError:
                self._process.join(PATIENCE_S)
                yield "process ended", f"the process ended by {self._process.exitcode}", "see the log of the run"
                return
            if result is None:
                return
            patience = PATIENCE_S
            yield result

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._folder.cleanup()


def _work(make: Make, folder: Path, seed: int, first: int, end: int, told: Connection) -> None:
    watch = Watch(folder)
    trial = make(folder)
    watch.begin()
    measured = getattr(getattr(trial, "__self__", None), "facts", dict)
    memory = Memory()
    for number in range(first, end):
        told.send(_one(trial, np.random.default_rng([seed, number]), watch))
        if memory.due() or number == end - 1:
            if grown := memory.look():
                told.send(("memory", "memory grows", f"{grown} by trial {number}"))
            told.send(("facts", "", to_json({"process_mib": memory.range_mib, **measured()})))
    told.send(None)
    told.close()
    os._exit(0)  # whatever threads a trial has left


class Memory:
    """Looks now and then at the memory of this process.

    Attributes:
        range_mib: at the first look, and at the last.
    """

    def __init__(self) -> None:
        self.range_mib: list[float] = []
        self._trials, self._at = 0, time.monotonic()
        self._base: float | None = None

    def due(self) -> bool:
        """Whether it is time to look; called once for each trial."""
        self._trials += 1
        return self._trials >= LOOK_EVERY or time.monotonic() - self._at > LOOK_EVERY_S

    def look(self) -> str:
        """By how much it has grown, where that is too much since the first look or the last complaint."""
        now = round(resident_mib(), 1)
        self._trials, self._at = 0, time.monotonic()
        self.range_mib = [*self.range_mib[:1], now]
        self._base = now if self._base is None else self._base
        if now - self._base <= GROWTH_MIB:
            return ""
        before, self._base = self._base, now
        return f"from {before:.0f} to {now:.0f} MiB"


def _one(trial: Trial, rng: Rng, watch: Watch) -> tuple[str, str, str]:
    try:
        try:
            outcome = trial(rng)
        except UserError as error:
            outcome = f"refused: {type(error).__name__}"
        watch.check()
        return outcome, "", ""
    except Wrong as wrong:
        return "wrong", wrong.kind, str(wrong)
    except Exception as error:
        kind, text = watch.told(error)
        return "wrong", kind, text
