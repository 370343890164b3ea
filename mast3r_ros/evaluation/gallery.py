"""Match pictures worth looking at: some good ones, the worst, and every kind of rejection."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.evaluation.localization import Record
from mast3r_ros.frames import Frame
from mast3r_ros.localization import PoseEstimate
from mast3r_ros.localization.draw import draw_matches
from mast3r_ros.mapping.keyframe_map import KeyframeMap


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for a report.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        title, caption: what it shows.
        accepted: whether it shows an accepted pose that is not known to be wrong.
    """

    image: NDArray[np.uint8]
    title: str
    caption: str = ""
    accepted: bool = True


class Gallery:
    """Collects pictures during a run of any length; only those that stay are drawn, at most a few of each group.

    Args:
        keyframe_map: whose keyframes stand beside the queries.
        good, worst, rejected: how many of each; ``rejected`` counts for each reason.
    """

    def __init__(self, keyframe_map: KeyframeMap, good: int = 3, worst: int = 2, rejected: int = 2) -> None:
        self._map = keyframe_map
        self._limits = {"good": good, "worst": worst}
        self._rejected = rejected
        # By group: (order, number of the query, picture); the smallest orders stay.
        self._kept: dict[str, list[tuple[float, int, Picture]]] = defaultdict(list)
        self._seen = 0

    def offer(self, record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        """Show a result to the gallery, which keeps a picture of it or not."""
        self._seen += 1
        if not record.accepted:
            self._consider(record.reason, self._rejected, _shuffled(self._seen), record, frame, estimate)
            return
        metres, _ = record.error
        # Without a known truth the least certain pose counts as the worst.
        badness = metres if math.isfinite(metres) else record.evidence.get("position_sigma_m", 0.0)
        self._consider("worst", self._limits["worst"], -badness, record, frame, estimate)
        self._consider("good", self._limits["good"], _shuffled(self._seen), record, frame, estimate)

    def pictures(self) -> list[Picture]:
        """Good ones first, then the worst accepted ones, then rejections by reason; none twice."""
        shown: set[int] = set()
        found = []
        for group in ("worst", "good", *(group for group in self._kept if group not in ("good", "worst"))):
            for _, number, picture in sorted(self._kept[group], key=lambda kept: kept[:2]):
                if number not in shown:
                    shown.add(number)
                    found.append((("good", "worst").index(group) if group in ("good", "worst") else 2, picture))
        return [picture for _, picture in sorted(found, key=lambda item: item[0])]

    def _consider(
        self, group: str, limit: int, order: float, record: Record, frame: Frame, estimate: PoseEstimate
    ) -> None:
        kept = self._kept[group]
        if len(kept) >= limit and (not kept or order >= kept[-1][0]):
            return
        drawn = draw_matches(frame.image, estimate, self._map)
        picture = Picture(drawn, *_words(record), accepted=record.accepted and not record.wrong)
        kept.append((order, self._seen, picture))
        kept.sort(key=lambda item: item[:2])
        del kept[limit:]


def _shuffled(number: int) -> float:
    """A fixed pseudo-random order in [0, 1), so that samples come from the whole run and stay the same."""
    return (number * 0.6180339887498949) % 1.0


def _words(record: Record) -> tuple[str, str]:
    """Title and caption."""
    metres, degrees = record.error
    if not record.accepted:
        title = f"{record.name}: rejected, {record.reason.replace('_', ' ')}"
    elif math.isfinite(metres):
        title = f"{record.name}: {'WRONG, ' * record.wrong}off by {100 * metres:.1f} cm, {degrees:.1f} deg"
    else:
        title = f"{record.name}: +-{100 * record.evidence.get('position_sigma_m', math.nan):.1f} cm"
    caption = record.detail
    if not record.accepted and math.isfinite(metres):
        caption += f"; this pose would have been off by {metres:.2f} m, {degrees:.1f} deg"
    return title, caption
