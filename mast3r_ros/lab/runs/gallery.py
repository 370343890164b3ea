"""Match pictures worth looking at: some good ones, the worst, and every kind of rejection."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.lab.runs.localization import Record
from mast3r_ros.localization import PoseEstimate
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.pictures.matches import draw_matches

#: Groups of pictures that are not named by a reason for rejection.
GOOD, WORST, NEGATIVE = "<good>", "<worst>", "<negative>"
#: More than any error: metres.
WRONG_FIRST = 1e6


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for a report.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        title, caption: what it shows.
        accepted: whether it shows an accepted pose that is not known to be wrong.
        kind: why it was kept: "worst", "rejected" or "typical".
    """

    image: NDArray[np.uint8]
    title: str
    caption: str = ""
    accepted: bool = True
    kind: str = "typical"


_Kept = tuple[float, int, Picture]


class Gallery:
    """Collects pictures during a run of any length; only those that stay are drawn, at most a few of each group.

    The worst queries are the wrong answers first (to negatives, then by error); what is left of their places is
    shared by rejected positives, each reason in turn, and the right answers with the largest errors.

    Args:
        keyframe_map: whose keyframes stand beside the queries; ``map`` may be set to another between two offers.
        good, worst, rejected: how many of each; ``rejected`` counts for each reason.
    """

    def __init__(self, keyframe_map: KeyframeMap, good: int = 3, worst: int = 10, rejected: int = 3) -> None:
        self.map = keyframe_map
        self._good, self._worst, self._rejected = good, worst, rejected
        # By group: (order, number of the query, picture); the smallest orders stay.
        self._kept: dict[str, list[_Kept]] = defaultdict(list)
        self._seen = 0

    def offer(self, record: Record, frame: Frame, estimate: PoseEstimate) -> None:
        """Show a result to the gallery, which keeps a picture of it or not."""
        self._seen += 1
        if not record.accepted:
            # To reject a negative is right: such pictures are kept apart from those of lost queries.
            group = NEGATIVE if record.negative else record.reason
            self._consider(group, self._rejected, _shuffled(self._seen), record, frame, estimate)
            return
        metres, _ = record.error
        # Without a known truth the least certain pose counts as the worst.
        badness = metres if math.isfinite(metres) else record.evidence.get("position_sigma_m", 0.0)
        badness += WRONG_FIRST * (record.wrong + record.negative)
        self._consider(WORST, self._worst, -badness, record, frame, estimate)
        if not record.wrong:
            self._consider(GOOD, self._good, _shuffled(self._seen), record, frame, estimate)

    def pictures(self) -> list[Picture]:
        """Typical ones first, then the worst queries in their order, then other rejections; none twice."""
        worst = self._worst_queries()
        shown = {number for _, number, _ in worst}
        typical = [kept for kept in self._kept[GOOD] if kept[1] not in shown]
        lost = [kept for group in self._reasons() for kept in self._kept[group] if kept[1] not in shown]
        groups = (("typical", typical), ("worst", worst), ("rejected", [*lost, *self._kept[NEGATIVE]]))
        return [replace(picture, kind=kind) for kind, found in groups for _, _, picture in found]

    def _worst_queries(self) -> list[_Kept]:
        answered = self._kept[WORST]
        found = [kept for kept in answered if -kept[0] >= WRONG_FIRST]
        right = answered[len(found) :]
        lost = [
            kept for turn in zip_longest(*(self._kept[reason] for reason in self._reasons())) for kept in turn if kept
        ]
        places = max(self._worst - len(found), 0)
        share = max((places + 1) // 2, places - len(right))
        found += lost[:share]
        return found + right[: self._worst - len(found)]

    def _reasons(self) -> list[str]:
        return [group for group in self._kept if group not in (GOOD, WORST, NEGATIVE)]

    def _consider(
        self, group: str, limit: int, order: float, record: Record, frame: Frame, estimate: PoseEstimate
    ) -> None:
        kept = self._kept[group]
        if len(kept) >= limit and (not kept or order >= kept[-1][0]):
            return
        drawn = draw_matches(frame.image, estimate, self.map)
        good = record.negative if not record.accepted else not record.wrong
        picture = Picture(drawn, *_words(record), accepted=good)
        kept.append((order, self._seen, picture))
        kept.sort(key=lambda item: item[:2])
        del kept[limit:]


def _shuffled(number: int) -> float:
    """A fixed pseudo-random order in [0, 1), so that samples come from the whole run and stay the same."""
    return (number * 0.6180339887498949) % 1.0


def _words(record: Record) -> tuple[str, str]:
    """Title and caption."""
    metres, degrees = record.error
    name = f"{record.group}, {record.name}" if record.group else record.name
    if not record.accepted:
        rightly = "rightly " * record.negative
        title = f"{name}: {rightly}rejected, {record.reason.replace('_', ' ')}"
    elif record.negative:
        title = f"{name}: WRONG, answered though the map holds nothing of it"
    elif math.isfinite(metres):
        title = f"{name}: {'WRONG, ' * record.wrong}off by {length(metres)}, {degrees:.2g} deg"
    else:
        title = f"{name}: +-{length(record.evidence.get('position_sigma_m', math.nan))}"
    caption = record.detail
    if record.accepted:
        caption = _promise(record)
    elif math.isfinite(metres):
        caption += f"; this pose would have been off by {metres:.2f} m, {degrees:.1f} deg"
    return title, caption


def _promise(record: Record) -> str:
    """What an answer rests on, and how sure it was said to be."""
    evidence = record.evidence
    return (
        f"{evidence.get('inliers', 0):.0f} inliers, {evidence.get('agreeing_keyframes', 0):.0f} keyframes agree, "
        f"said to be sure to {length(evidence.get('position_sigma_m', math.nan))}, confidence {record.confidence:.2f}"
    )


def length(metres: float) -> str:
    """Metres for people: mm, cm or m; a dash where they are unknown."""
    if not math.isfinite(metres):
        return "-"
    if metres < 0.01:
        return f"{1000 * metres:.1f} mm"
    return f"{100 * metres:.1f} cm" if metres < 1 else f"{metres:.2f} m"
