"""Starts an installed node executable, waits until its lifecycle service answers, and stops it with SIGINT.

Usage: node_check.py PATH/TO/relocalizer
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import rclpy
from lifecycle_msgs.srv import GetState

NODE = "relocalizer"
ANSWER_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0


def lifecycle_state(process: subprocess.Popen[bytes]) -> str:
    """Ask the running node for its lifecycle state.

    Raises:
        RuntimeError: when the node ended, or does not answer in time.
    """
    deadline = time.monotonic() + ANSWER_WITHIN_S
    rclpy.init()
    try:
        asker = rclpy.create_node("node_check")
        client = asker.create_client(GetState, f"/{NODE}/get_state")
        while not client.wait_for_service(timeout_sec=0.5):
            if process.poll() is not None:
                raise RuntimeError(f"{NODE} ended with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"/{NODE}/get_state did not appear within {ANSWER_WITHIN_S:g} s")
        answer = client.call_async(GetState.Request())
        rclpy.spin_until_future_complete(asker, answer, timeout_sec=ANSWER_WITHIN_S)
        if not answer.done():
            raise RuntimeError(f"/{NODE}/get_state did not answer within {ANSWER_WITHIN_S:g} s")
        return str(answer.result().current_state.label)
    finally:
        rclpy.shutdown()


def main() -> int:
    """Exit code 0 when the node answered and stopped cleanly."""
    node = subprocess.Popen([sys.argv[1]])
    try:
        state = lifecycle_state(node)
        node.send_signal(signal.SIGINT)
        code = node.wait(STOP_WITHIN_S)
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()
    print(f"{NODE}: answered '{state}', stopped with exit code {code}")
    return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
