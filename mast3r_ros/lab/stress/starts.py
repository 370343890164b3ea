"""What became of starts in places that look alike: how often the wrong place was committed to."""

from __future__ import annotations

import math
from typing import Any


def starts_summary(tried: int = 0, first_false: int = 0, second_false: int = 0) -> dict[str, Any]:
    """The figures of starts, as ``evaluate stress --json`` gives them under ``starts``.

    Args:
        tried: starts from nothing, each in a map that has places which look alike.
        first_false: those whose first committed pose was wrong.
        second_false: of these, those whose next answer was wrong as well.
    """
    share = second_false / first_false if first_false else math.nan
    return {"tried": tried, "false_commits": first_false, "p_second_false": share}
