"""How sure a figure is: bootstrap intervals of anything, exact ones of shares.

One mechanism for every figure: a function that turns columns (one row for each query) into named figures is
evaluated on rows drawn with replacement. ``intervals(lambda m, d: recall(m, d), metres, degrees)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from mast3r_ros.lab.metrics.statistics import finite, median

Array = NDArray[np.float64]
#: Lower and upper bound.
Interval = tuple[float, float]

UNKNOWN: Interval = (float("nan"), float("nan"))


def intervals(
    figures: Callable[..., Mapping[str, float]],
    *columns: ArrayLike,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of named figures (Efron, Annals of Statistics 7, 1979).

    Args:
        figures: takes the columns, gives figures by name; rows may repeat and come in any order.
        columns: (N, ...) each, one row for every query; NaN where a query was not answered.
        groups: (N,) what belongs together, e.g. the scene of each query. Whole groups are drawn then: queries of one
            recording are not independent, and drawn one by one they promise too narrow an interval (Davison and
            Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
        confidence: share of repetitions of the experiment whose interval holds the truth.
        rounds: samples drawn.

    Returns:
        lower and upper bound by name; NaN with fewer than two rows (or groups), and of figures that no sample has.
    """
    arrays = [np.asarray(column) for column in columns]
    rows = len(arrays[0])
    names = list(figures(*arrays))
    members = _members(rows, groups)
    if len(members) < 2:
        return dict.fromkeys(names, UNKNOWN)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        chosen = rng.integers(0, len(members), len(members))
        sample = chosen if groups is None else np.concatenate([members[k] for k in chosen])
        found = figures(*(array[sample] for array in arrays))
        for name in names:
            drawn[name].append(found.get(name, float("nan")))
    tail = 50 * (1 - confidence)
    return {name: _percentile_interval(finite(values), tail) for name, values in drawn.items()}


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[Array], float] = median,
    confidence: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> Interval:
    """The same for one statistic of one column, over its finite values.

    Returns:
        lower and upper bound; NaN for fewer than two finite values.
    """
    found = intervals(
        lambda drawn: {"": statistic(drawn)}, finite(values), confidence=confidence, rounds=rounds, seed=seed
    )
    return found[""]


def share_interval(count: int, of: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a share from a count (Clopper and Pearson, Biometrika 26, 1934).

    Never narrower than promised, and meaningful where nothing was counted: 0 of 3000 is (0, 0.0012) at 95 %.

    Returns:
        lower and upper bound of the share, 0 to 1; NaN of nothing.
    """
    if of == 0:
        return UNKNOWN
    low, high = binomtest(int(count), int(of)).proportion_ci(confidence, "exact")
    return float(low), float(high)


def _members(rows: int, groups: ArrayLike | None) -> list[NDArray[np.intp]]:
    if groups is None:
        return [np.array([row]) for row in range(rows)]
    labels = np.asarray(groups)
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _percentile_interval(values: Array, tail: float) -> Interval:
    if not values.size:
        return UNKNOWN
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
