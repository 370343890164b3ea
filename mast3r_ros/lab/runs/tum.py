"""TUM RGB-D sequences for relocalization: a map of one, queries from another or from stretches held out of the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mast3r_ros.errors import DatasetError
from mast3r_ros.io.datasets.base import FrameList, Part
from mast3r_ros.io.datasets.tum import TumRgbd


@dataclass(frozen=True)
class TumSplit:
    """Which frames make the map and which are looked for.

    Attributes:
        mapping: folder of the sequence that is mapped.
        queries: folder of the queries' sequence, with ground truth in the same frame; None holds stretches out of
            the mapped one.
        hold_out_s: length of the stretches, seconds: the first is mapped, the second looked for, and so on.
        every: each n-th frame of the queries is looked for.
        options: of the reader, see :class:`TumRgbd`.
    """

    mapping: Path
    queries: Path | None = None
    hold_out_s: float = 5.0
    every: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it."""
        first = self.mapping.resolve().name
        return f"TUM {first}" if self.queries is None else f"TUM {self.queries.resolve().name} in {first}"

    def map_frames(self) -> FrameList:
        """Frames of the map. Raises DatasetError."""
        whole = TumRgbd(self.mapping, **self.options)
        return whole if self.queries is not None else self._stretches(whole, 0)

    def query_frames(self, use_depth: bool) -> FrameList:
        """Frames to look for. Raises DatasetError."""
        whole = TumRgbd(self.queries or self.mapping, **self.options, use_depth=use_depth)
        part = whole if self.queries is not None else self._stretches(whole, 1)
        return Part(part, range(0, len(part), self.every), part.name)

    def _stretches(self, whole: TumRgbd, which: int) -> Part:
        times = np.array(whole.stamps_s)
        number = ((times - times[0]) // self.hold_out_s).astype(int)
        places = np.flatnonzero(number % 2 == which).tolist()
        if not places:
            raise DatasetError(
                f"{self.mapping}: the sequence is {times[-1] - times[0]:.1f} s long, too short to hold out every "
                f"second stretch of {self.hold_out_s:g} s: use shorter ones, or another sequence for the queries"
            )
        return Part(whole, places, f"{whole.name} ({'held out' if which else 'mapped'} stretches)")
