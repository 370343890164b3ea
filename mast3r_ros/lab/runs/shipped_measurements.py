"""What was measured of the small network that ships with the package: written and read for its model card.

``weights/measured.json`` and ``weights/MODEL_CARD.md`` are written by ``scripts/model_card.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mast3r_ros.errors import CheckpointError
from mast3r_ros.network import shipped


@dataclass(frozen=True)
class QueryCounts:
    """What became of the queries of one run.

    Attributes:
        queries: how many; good: poses within the limits of the measurement; wrong: accepted, but wrong.
    """

    queries: int
    good: int
    wrong: int

    @property
    def success(self) -> float:
        """Share of good poses, 0 without queries."""
        return self.good / self.queries if self.queries else 0.0


@dataclass(frozen=True)
class Measurement:
    """The same queries by the shipped network and by sift.

    Attributes:
        name: of the data, for people.
        real: whether a real camera took it.
        limit: what a good pose is.
        date: ISO day; command: that was run, for each matcher in turn.
        weights_sha256: of the network.
        mast3r, sift: outcomes; one without queries could not be had.
        figures: more of the summaries, by matcher, for the model card.
    """

    name: str
    real: bool
    limit: str
    date: str
    command: str
    weights_sha256: str
    mast3r: QueryCounts
    sift: QueryCounts
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measurement:
        """Inverse of ``dataclasses.asdict``. Raises KeyError, TypeError."""
        outcomes = {name: QueryCounts(**values[name]) for name in ("mast3r", "sift")}
        return cls(**{**values, **outcomes})


def measurements() -> list[Measurement]:
    """What was measured of the shipped weights; measurements of others are not among them.

    Raises:
        CheckpointError: for a damaged file.
    """
    path = shipped.WEIGHTS / "measured.json"
    if not path.is_file():
        return []
    try:
        found = [Measurement.from_json(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}): write it again with scripts/model_card.py") from error
    return [measurement for measurement in found if measurement.weights_sha256 == shipped.weights_digest()]


def save_measurements(found: Sequence[Measurement]) -> None:
    """Replace what was measured."""
    text = json.dumps([asdict(measurement) for measurement in found], indent=2, ensure_ascii=False)
    (shipped.WEIGHTS / "measured.json").write_text(text + "\n", encoding="utf-8")
