"""``ros2 run mast3r_ros relocalizer``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mast3r_ros.ros.runner import run


def main(args: Sequence[str] | None = None) -> int:
    """Run the relocalizer until SIGINT or SIGTERM; returns the process's exit code."""
    return run("mast3r_ros.ros.relocalizer_node", "RelocalizerNode", args)


if __name__ == "__main__":
    sys.exit(main())
