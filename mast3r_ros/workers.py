"""Work that is done side by side: on this machine's processes, or on a Ray cluster. Same results, whoever does it.

    with workers("2") as several:                  # or "ray://head:10001", or "ray" for a Ray of this machine
        for result in several.run(task, items):    # in the order of the items

Tasks must not depend on each other, nor on who did one before. A worker is sent a task once, however many items there
are. A worker that dies is replaced, and what it had in work is done again.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from mast3r_ros.errors import UserError
from mast3r_ros.waiting_threads import use_passive_waiting

Item = TypeVar("Item")
Result = TypeVar("Result")

#: A task whose workers have died so often is given up.
DEATHS = 3
#: Tasks handed out ahead, for each worker: all of them would be kept in memory.
AHEAD = 3


class Workers(Protocol):
    """Whoever does tasks."""

    def run(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results of a task, importable by name, for each item, in the order of the items.

        Raises:
            UserError: if the workers die again and again.
        """


@contextmanager
def workers(where: str = "1") -> Iterator[Workers]:
    """Workers: a number of processes (1: none but this one), ``ray://HOST:PORT`` or ``ray``.

    Raises:
        UserError: for anything else, and where Ray is not installed or does not answer.
    """
    if where == "1":
        yield Here()
    elif where.isdigit() and int(where) > 0:
        with TemporaryDirectory(prefix="mast3r_ros_") as folder:
            several = Processes(int(where), Path(folder))
            try:
                yield several
            finally:
                several.stop()
    elif where == "ray" or where.startswith("ray://"):
        with _ray(where) as cluster:
            yield cluster
    else:
        raise UserError(f"workers '{where}' are unknown: give a number of processes, ray://HOST:PORT, or ray")


class Here:
    """No one but the process itself."""

    def run(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See :meth:`Workers.run`."""
        return map(task, items)


class Processes:
    """Processes of this machine, started when they are first needed.

    Args:
        folder: where tasks are laid down for them.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._count, self._folder = count, folder
        self._pool: ProcessPoolExecutor | None = None

    def run(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See :meth:`Workers.run`."""
        source, deaths = iter(items), 0
        waiting: deque[Item] = deque()  # handed out, oldest first
        sent = self._folder / uuid4().hex
        sent.write_bytes(pickle.dumps(task))
        while True:
            pool = self._started()
            futures: deque[Future[Result]] = deque(pool.submit(_do, sent, item) for item in waiting)
            try:
                while True:
                    for item in islice(source, AHEAD * self._count - len(waiting)):
                        waiting.append(item)
                        futures.append(pool.submit(_do, sent, item))
                    if not futures:
                        return
                    result = futures.popleft().result()
                    waiting.popleft()
                    deaths = 0
                    yield result
            except BrokenProcessPool as error:
                self.stop()
                deaths += 1
                if deaths >= DEATHS:
                    raise UserError(
                        f"worker processes have died {deaths} times at the same task: is there memory enough? "
                        "Take fewer of them (--workers)"
                    ) from error
            finally:
                for future in futures:
                    future.cancel()

    def stop(self) -> None:
        """Let the processes go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._count, get_context("spawn"), use_passive_waiting)
        return self._pool


class _Ray:
    """Tasks of a Ray cluster, which itself starts a task again whose worker has died."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See :meth:`Workers.run`."""
        remote = self._ray.remote(max_retries=DEATHS)(_do_remotely)
        source, waiting = iter(items), deque[Any]()
        kept = self._ray.put(pickle.dumps(task))
        while True:
            waiting.extend(remote.remote([kept], item) for item in islice(source, self._ahead - len(waiting)))
            if not waiting:
                return
            try:
                yield self._ray.get(waiting.popleft())
            except self._ray.exceptions.WorkerCrashedError as error:
                raise UserError(f"Ray's workers have died {DEATHS} times at the same task ({error})") from error


#: In a worker: the task that it does, unpickled once (it may hold a network, or open a map), and where it came from.
_task: Callable[[Any], Any] | None = None
_sent: Any = None


def _do(sent: Path, item: Any) -> Any:
    return _called(sent, sent.read_bytes, item)


def _do_remotely(sent: list[Any], item: Any) -> Any:
    import ray  # type: ignore[import-not-found,unused-ignore]

    return _called(sent[0], lambda: ray.get(sent[0]), item)


def _called(sent: Any, read: Callable[[], bytes], item: Any) -> Any:
    global _sent, _task
    if _task is None or _sent != sent:
        _sent, _task = sent, pickle.loads(read())
    return _task(item)


@contextmanager
def _ray(where: str) -> Iterator[Workers]:
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        raise UserError("Ray is not installed: pip install 'mast3r_ros[ray]', or give a number of processes") from None
    try:
        ray.init(
            None if where == "ray" else where, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True
        )
    except Exception as error:  # Ray has no kind of its own for one that does not start in time
        raise UserError(f"{where}: no Ray cluster answers there ({error})") from error
    try:
        yield _Ray(ray)
    finally:
        ray.shutdown()
