"""Trials of a campaign that go wrong in every way; light to import, because each process of a campaign does."""

from __future__ import annotations

import os
from pathlib import Path

from mast3r_ros.errors import UserError
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong


def make_faulty(folder: Path) -> Trial:
    """Trials of which every third is wrong, one crashes the process, and one writes where it must not."""

    def trial(rng: Rng) -> str:
        number = int(rng.integers(2**31))
        if number % 3 == 0:
            raise Wrong("divisible", str(number))
        if number % 7 == 0:
            os._exit(3)
        if number % 5 == 0:
            (folder.parent / f"{folder.name}.outside").write_text("")
        if number % 2:
            raise UserError("odd")
        return "even"

    return trial
