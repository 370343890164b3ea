"""Times in text files: seconds as the formats say, or the milli-, micro- and nanoseconds that people write."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from mast3r_ros.errors import DatasetError

log = logging.getLogger(__name__)

#: Units that a second is counted in, by name.
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
#: Seconds since 1970 between the years 2000 and 2100: what clocks show.
CLOCK_S = (9.4e8, 4.2e9)
#: Seconds beyond every clock, and steps between two images that no recording has.
IMPOSSIBLE_S, IMPOSSIBLE_STEP_S = 1e11, 1e3
#: The usual step between two images, seconds: decides where nothing else does.
USUAL_STEP_S = 0.1


def stamps_ns(path: Path, rows: Sequence[tuple[int, str]]) -> list[int]:
    """The stamps of a file in nanoseconds, exactly as they are written.

    They are seconds, unless these would be impossible; then the unit is the one that makes them a clock's time or
    usual steps, and that is told.

    Args:
        rows: number of the line and the word that stands there.

    Raises:
        DatasetError: for a word that is no finite number.
    """
    values = [_value(path, line, word) for line, word in rows]
    name, per_second = _unit([float(value) for value in values])
    if per_second != 1:
        log.warning("%s: its stamps cannot be seconds (%s): taken as %s", path, rows[0][1], name)
    return [round(value * 10**9 / per_second) for value in values]


def _value(path: Path, line: int, word: str) -> Decimal:
    try:
        value = Decimal(word)  # seconds since 1970 with nanoseconds have more digits than a float
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise DatasetError(f"{path}, line {line}: expected a timestamp in seconds, got '{word}'")
    return value


def _unit(values: list[float]) -> tuple[str, int]:
    """Name of the unit, and how many of them are a second."""
    if not values:
        return "seconds", 1
    largest = max(abs(value) for value in values)
    steps = np.diff(np.unique(values))
    step = float(np.median(steps)) if len(steps) else 0.0
    if largest < IMPOSSIBLE_S and step <= IMPOSSIBLE_STEP_S:
        return "seconds", 1
    of_clocks = {name: unit for name, unit in UNITS.items() if CLOCK_S[0] <= largest / unit <= CLOCK_S[1]}
    possible = [(name, unit) for name, unit in of_clocks.items() if step <= IMPOSSIBLE_STEP_S * unit]
    if not step:
        return possible[0] if possible else ("nanoseconds", UNITS["nanoseconds"])
    return min(possible or UNITS.items(), key=lambda unit: abs(math.log(step / unit[1] / USUAL_STEP_S)))
