"""Nodes as processes that never outlive us."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from mast3r_ros.ros import fast_dds

#: How long a process has to end after SIGINT before it is killed, seconds.
STOP_S = 15.0
SPLIT = re.compile(r"^\[(?:INFO|WARN|ERROR)\] \[[\d.]+\] \[[^]]*\]: ")


class Process:
    """A node of this package as a process. Use it in a ``with`` statement: it is stopped at its end.

    Args:
        name: of the module in ``mast3r_ros.ros``, which is that of the executable. It runs on our own interpreter.
        arguments: as after ``ros2 run mast3r_ros NAME``.
        logs: folder in which NAME.log gets what it says.
    """

    def __init__(self, name: str, arguments: Sequence[str], logs: Path) -> None:
        self._log = logs / f"{name}.log"
        with self._log.open("w") as output:
            # A session of its own: Ctrl-C reaches us, and we end it in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"mast3r_ros.ros.{name}", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def said(self, text: str) -> str:
        """The last line with this text in its log; empty if there is none."""
        lines = [line for line in self._lines() if text in line]
        return SPLIT.sub("", lines[-1]) if lines else ""

    def end_of_log(self) -> str:
        """The last line of its log."""
        lines = [line for line in self._lines() if line.strip()]
        return SPLIT.sub("", lines[-1]) if lines else f"it said nothing ({self._log})"

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def stop(self) -> None:
        """SIGINT, then a wait, then SIGKILL."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def own_environment() -> Iterator[None]:
    """A ROS environment in which this process and its children talk to nobody else.

    What the user has set is kept. SIGTERM becomes an exception here, so that children are stopped then too.
    """
    ours = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    ours |= fast_dds.setting()  # without the profile, large images between processes are mostly lost (docs/ros.md)
    added = [name for name in ours if not os.environ.get(name)]
    os.environ.update({name: ours[name] for name in added})
    before = signal.signal(signal.SIGTERM, _exit)  # only possible on the main thread, which is where commands run
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for name in added:
            os.environ.pop(name, None)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
