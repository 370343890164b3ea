"""Two runs on the same queries: differences with intervals that know about the pairing, and McNemar's test.

Both runs saw the same easy and the same hard queries, so most of the scatter is shared, and cancels when queries are
drawn in pairs. Neighbouring frames are alike: whole blocks of n^(1/3) consecutive queries are drawn (Carlstein,
Annals of Statistics 14, 1986).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.localization import Record
from mast3r_ros.lab.runs.summary import errors_of

Array = NDArray[np.float64]

#: Differences that chance alone makes less often than this count as shown.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """One figure of two runs.

    Attributes:
        figure: its name.
        a, b: its values.
        interval: 95 % interval of b - a.
        better: 1 where more is better, -1 where less is, 0 where neither.
        verdict: "a", "b", "differs", or "" where no difference is shown.
        only_a, only_b: queries that only one of the runs answered (rightly, wrongly) as the figure counts them.
        p_mcnemar: how often chance makes such a difference of these two counts; None where nothing is counted.
    """

    figure: str
    a: float
    b: float
    interval: tuple[float, float]
    better: int
    verdict: str
    only_a: int | None = None
    only_b: int | None = None
    p_mcnemar: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the difference."""
        return {**asdict(self), "difference": self.b - self.a}


def verdict_of(interval: tuple[float, float], better: int) -> str:
    """Which run is better, if zero is outside of the interval of b - a."""
    low, high = interval
    if not (low > 0 or high < 0):
        return ""
    return "differs" if better == 0 else "b" if (low > 0) == (better > 0) else "a"


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact p-value of McNemar's test (Psychometrika 12, 1947): heads and tails of the queries that differ."""
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def compare_paired(a: Sequence[Record], b: Sequence[Record]) -> list[Difference]:
    """Differences of two runs, whose records are of the same queries in the same order."""
    judged = [(x, y) for x, y in zip(a, b, strict=True) if x.judged]
    known = [(x, y) for x, y in judged if not x.negative]
    found = [_share("answered_fraction", _column(a, "accepted"), _column(b, "accepted"), 1)]
    if known:
        found += _recalls([x for x, _ in known], [y for _, y in known])
        found += _errors([x for x, _ in known], [y for _, y in known])
    if judged:
        mine, other = [x for x, _ in judged], [y for _, y in judged]
        found.append(_share("wrong_accepted_fraction", _column(mine, "wrong"), _column(other, "wrong"), -1))
        # Where nobody was wrong no sample is, and the bootstrap would be sure that nobody ever will be.
        if any(record.wrong for record in (*mine, *other)):
            found.append(measured("risk_coverage_area", _area, _trust(mine), _trust(other), -1))
    found.append(measured("median_latency_ms", metrics.median, _latency(a), _latency(b), -1))
    return found


def disagreements(a: Sequence[Record], b: Sequence[Record]) -> dict[str, list[str]]:
    """Names of the queries that the runs judge differently, by what only one of them did."""
    found: dict[str, list[str]] = {"only A right": [], "only B right": [], "only A wrong": [], "only B wrong": []}
    for x, y in zip(a, b, strict=True):
        for which, mine, other in (("A", x, y), ("B", y, x)):
            if _right(mine) and not _right(other):
                found[f"only {which} right"].append(x.name)
            if mine.wrong and not other.wrong:
                found[f"only {which} wrong"].append(x.name)
    return found


def _right(record: Record) -> bool:
    """Answered, known to be right."""
    return record.accepted and record.judged and not record.wrong


def _recalls(a: Sequence[Record], b: Sequence[Record]) -> list[Difference]:
    good_a, good_b = _within(a), _within(b)
    return [_share(f"recall {name}", good_a[name], good_b[name], 1) for name in good_a]


def _errors(a: Sequence[Record], b: Sequence[Record]) -> list[Difference]:
    """Medians over what each run answered, over what both answered (who answers more takes on harder ones), and
    how many errors the 90 % ellipsoids hold."""
    both = _column(a, "accepted") & _column(b, "accepted")
    found = []
    errors_a, errors_b = _answered_errors(a), _answered_errors(b)
    for column, name in enumerate(("translation_error_m", "rotation_error_deg")):
        x, y = errors_a[:, column], errors_b[:, column]
        found.append(measured(f"median_{name}", metrics.median, x, y, -1))
        shared = (np.where(both, x, math.nan), np.where(both, y, math.nan))
        found.append(measured(f"median_{name} where both answer", metrics.median, *shared, -1))
    found.append(measured("calibration 0.90", _inside, _normalised(a), _normalised(b), 0))
    return found


def _answered_errors(records: Sequence[Record]) -> Array:
    """(N, 2) metres and degrees; NaN where nothing was answered."""
    return np.array([record.error if record.accepted else (math.nan, math.nan) for record in records])


def _normalised(records: Sequence[Record]) -> Array:
    return np.array([record.normalised_error if record.accepted else math.nan for record in records])


def _inside(normalised: Array) -> float:
    return metrics.coverage(normalised, 0.9)


def _latency(records: Sequence[Record]) -> Array:
    return np.array([record.timings_ms.get("total", math.nan) for record in records])


def _within(records: Sequence[Record]) -> dict[str, NDArray[np.bool_]]:
    metres, degrees = errors_of(records)
    accepted = _column(records, "accepted")
    return {
        metrics.threshold_name(m, deg): accepted & (metres <= m) & (degrees <= deg) for m, deg in metrics.THRESHOLDS
    }


def _column(records: Sequence[Record], name: str) -> NDArray[np.bool_]:
    return np.array([getattr(record, name) for record in records], dtype=bool)


def _trust(records: Sequence[Record]) -> Array:
    """(N, 2) confidence, NaN where nothing was answered, and whether the answer is wrong."""
    return np.array([(r.confidence if r.accepted else math.nan, r.wrong) for r in records], dtype=np.float64)


def _area(rows: Array) -> float:
    answered = rows[np.isfinite(rows[:, 0])]
    return metrics.risk_coverage(answered[:, 0], answered[:, 1]).area


def _share(name: str, a: NDArray[np.bool_], b: NDArray[np.bool_], better: int) -> Difference:
    """A share of all queries. Shown is what the bootstrap and McNemar's test both show."""
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    difference = measured(name, lambda column: float(np.mean(column)), a, b, better)
    interval, p = difference.interval, mcnemar(only_a, only_b)
    if not only_a + only_b:
        # Samples of a difference that never occurred have none: how often it may occur is bounded by the count.
        most = metrics.share_interval(0, len(a))[1]
        interval = (-most, most)
    verdict = verdict_of(interval, better) if p < SIGNIFICANCE else ""
    return Difference(name, difference.a, difference.b, interval, better, verdict, only_a, only_b, p)


def measured(name: str, statistic: Callable[[Any], float], a: NDArray[Any], b: NDArray[Any], better: int) -> Difference:
    """The difference of any figure of a column with a row (N, ...) for each query, NaN where nothing is known."""
    blocks = np.arange(len(a)) // math.ceil(len(a) ** (1 / 3))
    found = metrics.intervals(lambda x, y: {"": statistic(y) - statistic(x)}, a, b, groups=blocks)
    interval = found[""]
    return Difference(name, statistic(a), statistic(b), interval, better, verdict_of(interval, better))
