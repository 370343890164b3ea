"""Kill -9 at any moment, and a disk that refuses at any write: afterwards the old or the new state opens.

Every trial brings back the old state, begins to write the new one in a process of its own (a fork: nothing is imported
anew), and either kills that process at a random moment or right before a random write, or lets its disk be full,
read-only or too small from a random write on. Then the state is opened, must be the old or the new one as a whole, and
writing anew must succeed.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mast3r_ros.errors import UserError
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.written import JOBS, Job

#: Exit codes of the process that writes.
DONE, REFUSED, FAILED = 0, 10, 12
#: Audit events of what a disk can refuse; opening for writing is another.
WRITES = ("os.rename", "os.mkdir", "os.link", "os.symlink", "os.remove", "os.rmdir", "shutil.copyfile")
REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT)
#: What still can be done on a disk that is full, but not on one that is read-only or broken.
FREES = ("os.remove", "os.rmdir")


@dataclass
class Undisturbed:
    """What a job takes when nobody disturbs it."""

    seconds: float
    writes: int


def make(folder: Path) -> Trial:
    """The campaign's trials."""
    known: dict[str, Undisturbed] = {}
    for job in JOBS:
        old = folder / job.name / "old"
        old.mkdir(parents=True)
        job.begin(old)
    return partial(_trial, folder, known)


def _trial(folder: Path, known: dict[str, Undisturbed], rng: Rng) -> str:
    job = JOBS[rng.integers(len(JOBS))]
    place = folder / job.name / "place"
    if job.name not in known:
        known[job.name] = _undisturbed(folder, job, place)
    _fresh(folder, job, place)
    how = _disturbance(rng, known[job.name])
    process = _start(job, place, how, folder)
    if "kill" in how:
        time.sleep(how["kill"])
        os.kill(process, signal.SIGKILL)
    code = _wait(process)
    if code == FAILED:
        raise Wrong(f"{job.name}: no sentence when the disk refuses", (folder / "failure").read_text())
    state = _opened(job, place, how, code)
    _wait(_start(job, place, {}, folder))
    if _opened(job, place, how, code) != "new":
        raise Wrong(f"{job.name}: cannot be written after {list(how)}", f"it was {state}")
    ended = {DONE: "done", REFUSED: "refused", -signal.SIGKILL: "killed"}.get(code, str(code))
    return f"{job.name}: {ended}, {state}"


def _undisturbed(folder: Path, job: Job, place: Path) -> Undisturbed:
    _fresh(folder, job, place)
    started, count = time.monotonic(), folder / "writes"
    _wait(_start(job, place, {"count": count}, folder))
    took = time.monotonic() - started
    if job.state(place) != "new":
        raise Wrong(f"{job.name} writes nothing", "even undisturbed")
    return Undisturbed(took, int(count.read_text()))


def _fresh(folder: Path, job: Job, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / job.name / "old", place)


def _disturbance(rng: Rng, usual: Undisturbed) -> dict[str, Any]:
    """``kill`` after seconds, ``kill_at`` or ``refuse`` at a write, or the ``largest`` file that the disk takes."""
    kind, write = int(rng.integers(5)), int(rng.integers(1, usual.writes + 1))
    if kind == 0:
        return {"refuse": (write, int(rng.choice(REFUSALS)), bool(rng.integers(2)))}
    if kind == 1:
        return {"largest": int(2 ** rng.uniform(4, 18))}
    if kind == 2:
        return {"kill": float(rng.random()) * 1.3 * usual.seconds}
    return {"kill_at": write}


def _opened(job: Job, place: Path, how: dict[str, Any], code: int) -> str:
    try:
        return job.state(place)
    except Exception as error:
        text = "".join(traceback.format_exception(error)[-6:])
        raise Wrong(f"{job.name}: neither old nor new after {list(how)}", f"{how}, exit {code}\n{text}") from error


def _start(job: Job, place: Path, how: dict[str, Any], folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    code = DONE
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _disturb(how)
        job.write(place)
    except (UserError, OSError):
        code = REFUSED
    except BaseException:
        code = FAILED
        _say(folder / "failure", f"{how}\n{traceback.format_exc()}")
    if "count" in how:
        _say(how["count"], str(_writes))
    os._exit(code)


def _wait(process: int) -> int:
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _say(path: Path, text: str) -> None:
    """Write to a disk that is good again."""
    global _at_write
    _at_write = lambda event: None  # noqa: E731
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    path.write_text(text)


#: In the process that writes: how often it has written, and what happens then.
_writes = 0
_at_write: Callable[[str], None] = lambda event: None  # noqa: E731


def _disturb(how: dict[str, Any]) -> None:
    global _at_write
    if "largest" in how:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (how["largest"], resource.RLIM_INFINITY))
    elif "kill_at" in how:
        _at_write = partial(_killed, how["kill_at"])
    elif "refuse" in how:
        _at_write = partial(_refused, *how["refuse"])
    if "kill" not in how:
        sys.addaudithook(_heard)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    global _writes
    opens = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if (opens or event in WRITES) and not str(args[0]).startswith("/dev/"):
        _writes += 1
        _at_write(event)


def _killed(write: int, event: str) -> None:
    if _writes == write:
        os.kill(os.getpid(), signal.SIGKILL)


def _refused(write: int, number: int, once: bool, event: str) -> None:
    full = number in (errno.ENOSPC, errno.EDQUOT)
    if (_writes == write if once else _writes >= write) and not (full and event in FREES):
        raise OSError(number, os.strerror(number))
