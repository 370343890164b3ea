"""What was measured of the matchers, and which of them `auto` takes because of it.

``measured.json`` beside this file is written by ``scripts/measure_matchers.py``; no figure is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from mast3r_ros.errors import MatcherError

TABLE = Path(__file__).with_name("measured.json")
#: What is taken where nothing is known, and what no other may answer more wrongly than.
FALLBACK = "sift"
#: Shares of good poses that differ by less are the same: of two such matchers the faster one is the better.
SAME = 0.01


@dataclass(frozen=True)
class Measured:
    """One matcher on one data set.

    Attributes:
        matcher, data: their names; ``device``: ``cpu`` or ``cuda``.
        real: whether cameras took the images.
        queries, answered, good, wrong: how many; good ones are answered and within ``limit``.
        latency_ms: median time of an image by the wall clock, everything included; 0 where it was not taken.
        machine: that it ran on; ``date``: ISO day; ``command``: that prints these figures.
        weights: digest of the weights that computed it, empty without any.
        processor_ms: median time of an image by the processor's clock, of all threads; 0 where it was not taken.
        median_error_m, median_error_deg: over answers; 0 metres where only directions are known, degrees are then
            those of the direction.
        task: ``localization`` in a map, or ``relative pose`` of two images, which says nothing for `auto`.
    """

    matcher: str
    data: str
    device: str
    real: bool
    queries: int
    answered: int
    good: int
    wrong: int
    limit: str
    latency_ms: float
    machine: str
    date: str
    command: str
    weights: str = ""
    processor_ms: float = 0.0
    median_error_m: float = 0.0
    median_error_deg: float = 0.0
    task: str = "localization"

    @property
    def time_ms(self) -> float:
        """What an image takes where nothing else runs: on a CPU the processor's time, unless the wall clock says less.

        A wall clock beside other work counts that as well.
        """
        return min(self.latency_ms, self.processor_ms or self.latency_ms) if self.device == "cpu" else self.latency_ms

    @property
    def success(self) -> float:
        """Share of good poses."""
        return self.good / self.queries if self.queries else 0.0

    @property
    def wrong_share(self) -> float:
        """Share of the queries that were answered wrongly."""
        return self.wrong / self.queries if self.queries else 0.0


class Choice(NamedTuple):
    """A matcher, and why in a clause."""

    name: str
    why: str


def read_table() -> list[Measured]:
    """All rows; none where there is no table.

    Raises:
        MatcherError: for a damaged one.
    """
    if not TABLE.is_file():
        return []
    try:
        return [Measured(**row) for row in json.loads(TABLE.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise MatcherError(
            f"{TABLE} is damaged ({error!r}): write it again with scripts/measure_matchers.py"
        ) from error


def save_rows(rows: Sequence[Measured]) -> None:
    """Add rows to the table; they replace those of the same matcher, data and device."""
    table = {(row.data, row.matcher, row.device): row for row in [*read_table(), *rows]}
    text = json.dumps([asdict(table[key]) for key in sorted(table)], indent=1)
    TABLE.write_text(text + "\n", encoding="utf-8")


def choose(table: Sequence[Measured], here: Mapping[str, str], device: str, max_latency_ms: float) -> Choice:
    """The best matcher by its real data, among those that answer no more wrongly than the fallback, in time.

    On real data no wrong answer at all is borne, on generated data no larger share than the fallback's. A matcher that
    was not measured on the device counts as it was on a CPU.

    Args:
        here: matchers that can run here, with the digest of their weights.
        device: ``cpu`` or ``cuda``.
        max_latency_ms: that an image may take; 0: any.
    """
    rows = [row for row in table if row.task == "localization" and here.get(row.matcher) == row.weights]
    by_matcher = {name: _on_device([row for row in rows if row.matcher == name], device) for name in here}
    fallback = by_matcher.pop(FALLBACK, {})
    real = {data for data, row in fallback.items() if row.real}
    if not real:
        return Choice(FALLBACK, "no matcher was measured on real images")
    said, best = [], _Candidate.of(FALLBACK, fallback, real)
    for name, of in sorted(by_matcher.items()):
        if not real <= of.keys():
            continue
        candidate = _Candidate.of(name, of, real)
        worse = [row for data, row in of.items() if row.wrong_share > (0 if row.real else _share(fallback, data))]
        if worse:
            said.append(f"{name} answered {worse[0].wrong} of {worse[0].queries} wrongly on {worse[0].data}")
        elif max_latency_ms and candidate.latency_ms > max_latency_ms:
            said.append(f"{candidate}, which is more than max_latency_ms ({max_latency_ms:g})")
        elif candidate.better_than(best):
            said.append(str(best))
            best = candidate
        else:
            said.append(str(candidate))
    queries = sum(fallback[data].queries for data in real)
    return Choice(best.name, "; ".join([f"{best} of {queries} real images on {best.machine}", *said]))


class _Candidate(NamedTuple):
    name: str
    success: float
    latency_ms: float
    machine: str

    @classmethod
    def of(cls, name: str, rows: Mapping[str, Measured], data: Collection[str]) -> _Candidate:
        """Over the same data for everybody, each data set counting as much as any other."""
        mine = [rows[one] for one in sorted(data)]
        success = sum(row.success for row in mine) / len(mine)
        return cls(name, success, max(row.time_ms for row in mine), mine[0].machine)

    def better_than(self, other: _Candidate) -> bool:
        if abs(self.success - other.success) < SAME:
            return self.latency_ms < other.latency_ms
        return self.success > other.success

    def __str__(self) -> str:
        return f"{self.name} finds {self.success:.1%} in {self.latency_ms:.0f} ms"


def _on_device(rows: Sequence[Measured], device: str) -> dict[str, Measured]:
    """The row of each data set, a CPU's where there is none of the device."""
    found = {row.data: row for row in rows if row.device == "cpu"}
    return found | {row.data: row for row in rows if row.device == device}


def _share(rows: Mapping[str, Measured], data: str) -> float:
    """Wrong answers of the fallback on some data; none where it was not asked."""
    return rows[data].wrong_share if data in rows else 0.0
