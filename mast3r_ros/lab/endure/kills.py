"""Kill -9 at any moment, and a disk that refuses at any write: afterwards the old or the new state opens.

Every trial brings back the old state, begins to write the new one in a process of its own, and either kills that
process at a random moment, or lets its disk be full, read-only or too small from a random write on. Then the state is
opened, must be the old or the new one as a whole, and writing anew must succeed.
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
from functools import partial
from pathlib import Path
from typing import Any

from mast3r_ros.errors import UserError
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.written import JOBS, Job

#: Exit codes of the process that writes.
DONE, REFUSED, FAILED = 0, 10, 12
#: Audit events of what a disk can refuse.
WRITES = ("os.rename", "os.mkdir", "os.link", "os.symlink", "shutil.copyfile")
REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT)


def make(folder: Path) -> Trial:
    """The campaign's trials."""
    took: dict[str, float] = {}
    for job in JOBS:
        old = folder / job.name / "old"
        old.mkdir(parents=True)
        job.begin(old)
    return partial(_trial, folder, took)


def _trial(folder: Path, took: dict[str, float], rng: Rng) -> str:
    job = JOBS[rng.integers(len(JOBS))]
    place = folder / job.name / "place"
    if job.name not in took:  # how long it takes when nobody disturbs it
        _fresh(folder, job, place)
        started = time.monotonic()
        _wait(_start(job, place, {}, folder))
        took[job.name] = time.monotonic() - started
        if job.state(place) != "new":
            raise Wrong(f"{job.name} writes nothing", "even undisturbed")
    _fresh(folder, job, place)
    how = _disturbance(rng)
    process = _start(job, place, how, folder)
    if "kill" in how:
        time.sleep(float(rng.random()) * 1.3 * took[job.name])
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


def _fresh(folder: Path, job: Job, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / job.name / "old", place)


def _disturbance(rng: Rng) -> dict[str, Any]:
    kind = int(rng.integers(4))
    if kind == 0:
        return {"refuse": (int(rng.integers(1, 30)), int(rng.choice(REFUSALS)), bool(rng.integers(2)))}
    if kind == 1:
        return {"largest": int(2 ** rng.uniform(4, 18))}
    return {"kill": True}


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
        _undisturbed(folder / "failure", f"{how}\n{traceback.format_exc()}")
    os._exit(code)


def _wait(process: int) -> int:
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _undisturbed(path: Path, text: str) -> None:
    global _refuse_from
    _refuse_from = None
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    path.write_text(text)


#: In the process that writes: how many more writes the disk takes; None for a good disk.
_refuse_from: int | None = None


def _disturb(how: dict[str, Any]) -> None:
    global _refuse_from
    if "largest" in how:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (how["largest"], resource.RLIM_INFINITY))
    if "refuse" not in how:
        return
    _refuse_from, number, once = how["refuse"]

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        global _refuse_from
        opens = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if _refuse_from is None or not (opens or event in WRITES) or str(args[0]).startswith("/dev/"):
            return
        _refuse_from -= 1
        if _refuse_from <= 0:
            _refuse_from = None if once else 0
            raise OSError(number, os.strerror(number), str(args[0]))

    sys.addaudithook(refuse)
