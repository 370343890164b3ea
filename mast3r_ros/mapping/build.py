"""From a recording with known poses to a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mast3r_ros.frames import PosedFrame
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KeyframeSelector, SelectionSettings
from mast3r_ros.mapping.triangulate import triangulate_missing_depth
from mast3r_ros.matching.base import Matcher

#: Called with (frames seen, keyframes kept) while reading.
BuildProgress = Callable[[int, int], None]


@dataclass
class BuildReport:
    """What became of the frames of a recording.

    Attributes:
        frames: frames seen.
        kept: frames that became keyframes.
        skipped: frames that did not, counted by reason (see :class:`selection.Skip`).
        triangulated: points found by triangulation, by keyframe without sensor depth.
    """

    frames: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    triangulated: dict[str, int] = field(default_factory=dict)

    @property
    def without_points(self) -> list[str]:
        """Keyframes that know no surface at all: only matchers that bring their own geometry can use them."""
        return [id for id, points in self.triangulated.items() if points == 0]


def build_map(
    source: Iterable[PosedFrame],
    *,
    frame_id: str = "map",
    selection: SelectionSettings | None = None,
    matcher: Matcher | None = None,
    describe: bool = True,
    progress: BuildProgress | None = None,
    source_name: str = "",
    image_format: str = "jpg",
    refine: Callable[[KeyframeMap], object] | None = None,
) -> tuple[KeyframeMap, BuildReport]:
    """Select keyframes, give those without depth triangulated points, and describe them all.

    Args:
        source: frames with poses in the map frame, in the order of recording; read once.
        frame_id: name of the map frame.
        selection: when a frame becomes a keyframe.
        matcher: what to triangulate (where it can do that, else SIFT does) and describe the keyframes with.
        describe: describe them now; otherwise that is left to the first use.
        source_name: where the frames come from, kept in the map for people.
        image_format: ``jpg`` or ``png``, see :class:`KeyframeMap`.
        refine: makes the poses of a map without depth images better, before anything is triangulated with them.

    Raises:
        MapError: if a pose of the source is not a rigid motion.
    """
    keyframe_map = KeyframeMap(frame_id, source=source_name, image_format=image_format)
    selector, report = KeyframeSelector(selection), BuildReport()
    for posed in source:
        report.frames += 1
        skip = selector.judge(posed)
        if skip is None:
            keyframe_map.add(posed)
            report.kept += 1
        else:
            report.skipped[skip.value] += 1
        if progress is not None:
            progress(report.frames, report.kept)
    if refine is not None and len(keyframe_map) and not keyframe_map.measured:
        refine(keyframe_map)
    report.triangulated = triangulate_missing_depth(keyframe_map, matcher)
    if matcher is not None and describe:
        keyframe_map.prepare(matcher)
    return keyframe_map, report
