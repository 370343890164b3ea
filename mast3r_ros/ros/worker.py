"""A thread that works on the newest item only, so that an executor never waits for a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Hands items to ``work`` one after the other; an item that is not taken yet is replaced by a newer one.

    Args:
        work: called on the worker's thread.
        on_error: told about exceptions of ``work``; they never end the thread.
        name: of the thread, for debuggers.
    """

    def __init__(self, work: Callable[[Item], None], on_error: Callable[[Exception], None], name: str) -> None:
        self._work = work
        self._on_error = on_error
        self._name = name
        self._condition = threading.Condition()
        self._waiting: list[Item] = []
        self._running = False
        self._thread: threading.Thread | None = None
        self._replaced = 0

    @property
    def replaced(self) -> int:
        """How many items were replaced by newer ones before they were worked on, since the beginning."""
        return self._replaced

    def start(self) -> None:
        """Begin to work. Does nothing if it is running."""
        with self._condition:
            if self._running:
                return
            self._running = True
        # A daemon, so that work that hangs in a driver cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Offer an item; never blocks. It is forgotten if the worker does not run."""
        with self._condition:
            if not self._running:
                return
            self._replaced += len(self._waiting)
            self._waiting[:] = [item]
            self._condition.notify_all()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Finish the item in work and end the thread.

        Returns:
            whether the thread ended within the time.
        """
        with self._condition:
            self._running = False
            self._waiting.clear()
            self._condition.notify_all()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or not self._running or self._thread is not me)
                if not self._running or self._thread is not me:
                    return
                item = self._waiting.pop()
            try:
                self._work(item)
            except Exception as error:
                self._on_error(error)
