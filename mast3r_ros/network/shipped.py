"""The small network that ships with the package.

``weights/small.safetensors`` and its ``.json`` are what `mast3r_ros train config/train/small.yaml` exports. Without
the weights everything else works as before.
"""

from __future__ import annotations

import json
from pathlib import Path

#: Folder of the weights and of everything that is known of them.
WEIGHTS = Path(__file__).with_name("weights")
NAME = "small"


def shipped_checkpoint() -> Path | None:
    """The weights that ship with the package, None where they do not."""
    path = WEIGHTS / f"{NAME}.safetensors"
    return path if path.is_file() else None


def weights_digest() -> str:
    """SHA-256 of the shipped weights as their record has it; empty without one."""
    try:
        return str(json.loads((WEIGHTS / f"{NAME}.json").read_text(encoding="utf-8")).get("weights_sha256", ""))
    except (OSError, ValueError):
        return ""
