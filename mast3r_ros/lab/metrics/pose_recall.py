"""Which share of all queries was localized well enough, and which answers are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: (metres, degrees) that recall is reported at: those of indoor data sets (7-Scenes, 12-Scenes, Map-free) and of
#: long-term visual localization (Sattler et al., CVPR 2018, section 5).
THRESHOLDS: tuple[tuple[float, float], ...] = (
    (0.05, 5.0),
    (0.10, 5.0),
    (0.25, 2.0),
    (0.25, 10.0),
    (0.50, 5.0),
    (5.0, 10.0),
)
#: An accepted pose further off than this is wrong: metres, degrees.
WRONG_M, WRONG_DEG = 0.25, 10.0


def threshold_name(metres: float, degrees: float) -> str:
    """Key of a recall figure: (0.1, 5) -> ``0.10m_5deg``."""
    return f"{metres:.2f}m_{degrees:g}deg"


def recall(
    metres: ArrayLike,
    degrees: ArrayLike,
    queries: int | None = None,
    thresholds: Sequence[tuple[float, float]] = THRESHOLDS,
) -> dict[str, float]:
    """Share of all queries whose pose is within both limits (Shotton et al., CVPR 2013, section 5.1).

    Args:
        metres, degrees: errors of the accepted poses, in the same order; NaN is a miss.
        queries: number of all queries, rejected ones included; what was not answered is missed. None where every
            query has its entry among the errors.
    """
    metres, degrees = np.asarray(metres, dtype=np.float64), np.asarray(degrees, dtype=np.float64)
    queries = metres.size if queries is None else queries
    return {
        threshold_name(m, d): float(np.sum((metres <= m) & (degrees <= d)) / queries) if queries else float("nan")
        for m, d in thresholds
    }


def is_wrong(metres: ArrayLike, degrees: ArrayLike) -> NDArray[np.bool_]:
    """Which poses are off by more than 25 cm or 10 degrees; an unknown error is not called wrong."""
    return (np.asarray(metres, dtype=np.float64) > WRONG_M) | (np.asarray(degrees, dtype=np.float64) > WRONG_DEG)
