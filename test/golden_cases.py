"""Golden numbers: all of them in ../shared/golden where that exists, a compact part in test/golden in any clone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

COMPACT = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden"
SPEC = SHARED.parent / "spec"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder 'shared' beside the repository")


def case(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def joined(stem: Path, folder: Path) -> Path:
    """A file that is kept in parts, put together in ``folder``."""
    parts = sorted(stem.parent.glob(f"{stem.name}.part*"))
    whole = folder / stem.name
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    return whole
