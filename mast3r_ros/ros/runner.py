"""Runs one node as a process: signals end it cleanly at any time, and no exception ends it without a message.

Nothing heavy is imported before the signal handlers are in place, so that Ctrl-C during start-up (importing
PyTorch takes seconds) ends the process in order, as later on.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from mast3r_ros.errors import UserError, as_run_here, missing_module
from mast3r_ros.waiting_threads import use_passive_waiting

#: Enough for a transition, a map being loaded and a waiting ~/relocalize side by side, and callbacks beside them.
THREADS = 6
#: This many signals end a process that does not end by itself.
SIGNALS_THAT_KILL = 3


class _Stop:
    """Set by SIGINT and SIGTERM. A plain flag: locks must not be taken in signal handlers."""

    def __init__(self) -> None:
        self.signals = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals >= SIGNALS_THAT_KILL:
            signal.signal(number, signal.SIG_DFL)

    def __bool__(self) -> bool:
        return self.signals > 0


def run(module: str, name: str, args: Sequence[str] | None = None) -> int:
    """Import ``module``, make its node class ``name``, and spin it until a signal comes.

    Returns:
        the node's ``exit_code`` after a signal (0 if it has none), 1 if the node could not be made (a message has
        said why).
    """
    use_passive_waiting()
    stop = _Stop()
    try:
        make_node = getattr(importlib.import_module(module), name)
        import rclpy
        from rclpy.signals import SignalHandlerOptions
    except ModuleNotFoundError as error:
        print(f"error: {missing_module(error)}", file=sys.stderr)
        return 1

    if stop:
        return 0
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _serve(make_node, stop)
    finally:
        rclpy.try_shutdown()


def _serve(make_node: Callable[[], Any], stop: _Stop) -> int:
    from rclpy.executors import MultiThreadedExecutor

    try:
        node = make_node()
    except UserError as error:
        print(f"error: {as_run_here(str(error))}", file=sys.stderr)
        return 1
    # The executor's threads and the worker share the interpreter: with Python's usual 5 ms the worker waits for its
    # turn after every call into C++, a hundred times a frame. docs/benchmarks.md has what that cost.
    sys.setswitchinterval(0.0001)
    executor = MultiThreadedExecutor(THREADS)
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor, node, stop), name="executor")
    spinning.start()
    while not stop and spinning.is_alive():
        time.sleep(0.05)
    # The order matters: a node destroyed, or an interpreter ended, under a spinning executor aborts.
    if hasattr(node, "stop_loading"):
        node.stop_loading()
    spinning.join()
    executor.shutdown()
    node.destroy_node()
    return int(getattr(node, "exit_code", 0))


def _spin(executor: Any, node: Any, stop: _Stop) -> None:
    """Spin until stopped. An exception in a callback is logged, and spinning goes on: no message ends a node."""
    import rclpy
    from rclpy.exceptions import InvalidHandle

    while not stop and rclpy.ok():
        try:
            executor.spin_once(timeout_sec=0.1)
        except InvalidHandle:
            continue  # a transition took a topic down just when a message for it came
        except Exception as error:
            node.get_logger().error(f"a callback failed: {error!r}", throttle_duration_sec=10.0)
