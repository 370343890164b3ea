"""Each keyframe of a map held against the others: is it where they see it, or found somewhere else?

A keyframe is localized twice: in the map without itself, and without its neighbours in time as well, which share the
errors of a stretch of the way. Where most keyframes come back to centimetres, one that does not has a wrong pose; one
that comes back at another place looks like that place, or belongs there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.localization.estimate import PoseEstimate
from mast3r_ros.localization.localizer import Localizer
from mast3r_ros.localization.map_noise import LEFT_OUT
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.overlap import view_overlap
from mast3r_ros.mapping.rescale import is_metric
from mast3r_ros.matching.base import Matcher
from mast3r_ros.settings import Gates, LocalizerSettings

Array = NDArray[np.float64]

#: A pose disagrees when it is off by this many times the map's median, and by more than these (scene depths, degrees).
TIMES, LEAST_OFF, LEAST_TURN_DEG = 5.0, 0.03, 1.5
#: Keyframes that are named for what a keyframe was found by.
NAMED = 3
#: Each keyframe is judged by itself: a map that mistakes its places is looked at all the same.
CHECKING = LocalizerSettings(second_look=0, gates=Gates(max_found_elsewhere=1.0))


@dataclass(frozen=True)
class OddKeyframe:
    """A keyframe that is not found where it should be.

    Attributes:
        position: from its own to the found position, in units of the map; rotation_deg: the same of the rotation.
        by: keyframes that it was found by, most matches first.
        also_here: of one found elsewhere, whether its neighbours confirm its own pose, too: then the two places look
            alike. Else its pose is probably wrong.
    """

    id: str
    position: float
    rotation_deg: float
    by: list[str]
    also_here: bool | None = None


@dataclass(frozen=True)
class Spread:
    """How far keyframes come back from their own poses, in units of the map.

    Attributes:
        found: keyframes that were found at all.
        median_position, median_rotation_deg: of those found at their place.
        limit_position, limit_rotation_deg: beyond which a pose disagrees.
    """

    found: int
    median_position: float
    median_rotation_deg: float
    limit_position: float
    limit_rotation_deg: float


@dataclass
class MapCheck:
    """What came out; lengths in units of the map.

    Attributes:
        metric: whether these are metres.
        checked: keyframes that were looked for; found: those that were found anywhere.
        spread: when each is left out alone (``itself``), and with its neighbours in time (``neighbours``).
        pose_disagrees: keyframes whose neighbours see them elsewhere, not far away.
        found_elsewhere: keyframes that are found where they see nothing of what their poses say.
        not_found: reason by id; nothing is known of their poses.
    """

    metric: bool
    checked: int = 0
    found: int = 0
    spread: dict[str, Spread] = field(default_factory=dict)
    pose_disagrees: list[OddKeyframe] = field(default_factory=list)
    found_elsewhere: list[OddKeyframe] = field(default_factory=list)
    not_found: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The same, representable in JSON."""
        return asdict(self)


def check_keyframes(
    keyframe_map: KeyframeMap,
    matcher: Matcher,
    most: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MapCheck:
    """Hold keyframes against the rest of their map.

    Args:
        most: keyframes to check, evenly chosen; 0 for all.
    """
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    chosen = np.arange(len(ids))
    if most and most < len(ids):
        chosen = np.unique(np.linspace(0, len(ids) - 1, most).round().astype(int))
    keyframe_map.prepare(matcher)
    localizer = Localizer(keyframe_map, matcher, CHECKING)
    report = MapCheck(is_metric(keyframe_map), checked=len(chosen))
    found: dict[str, dict[str, PoseEstimate]] = {"itself": {}, "neighbours": {}}
    reach = max(1, round(LEFT_OUT * len(ids)))
    for done, place in enumerate(chosen.tolist(), start=1):
        id, frame = ids[place], keyframe_map.frame(ids[place], points=False)
        around = ids[max(0, place - reach) : place + reach + 1]
        for left_out, kind in (([id], "itself"), (around, "neighbours")):
            estimate = localizer.localize(frame, exclude=left_out)
            if estimate.localized:
                found[kind][id] = estimate
            elif kind == "itself":
                report.not_found[id] = estimate.reason.value
        progress(done, len(chosen))
    report.not_found = {id: why for id, why in report.not_found.items() if id not in found["neighbours"]}
    report.found = report.checked - len(report.not_found)
    for kind, estimates in found.items():
        _judge(report, localizer, kind, estimates)
    return report


def _judge(report: MapCheck, localizer: Localizer, kind: str, found: dict[str, PoseEstimate]) -> None:
    """Sort what was found by whether it is where it should be."""
    keyframes = localizer.map
    errors, near = dict[str, tuple[float, float]](), dict[str, bool]()
    for id, estimate in found.items():
        assert estimate.map_T_camera is not None
        own = keyframes[id].map_T_camera
        errors[id] = se3.pose_error(estimate.map_T_camera, own)
        depth = keyframes.typical_depth([id])
        depth = depth if depth > 0 else keyframes.view_depth_m
        near[id] = bool(view_overlap(estimate.map_T_camera, own[None], depth)[0] > 0)
    here = np.array([errors[id] for id in found if near[id]]).reshape(-1, 2)
    median, median_turn = map(float, np.median(here, axis=0) if len(here) else np.full(2, np.nan))
    off = float(np.fmax(LEAST_OFF * keyframes.view_depth_m, TIMES * median))
    turn = float(np.fmax(LEAST_TURN_DEG, TIMES * median_turn))
    report.spread[kind] = Spread(len(found), median, median_turn, off, turn)
    known = {odd.id for odd in (*report.pose_disagrees, *report.found_elsewhere)}
    for id, (position, rotation) in errors.items():
        by = list(found[id].keyframes[:NAMED])
        # Who is found by keyframes alone whose own poses are wrong is where they say: nothing is known of it.
        if id in known or known.issuperset(found[id].keyframes):
            continue
        if not near[id]:
            also = _also_here(localizer, id, off, turn)
            report.found_elsewhere.append(OddKeyframe(id, position, rotation, by, also))
        elif position > off or rotation > turn:
            report.pose_disagrees.append(OddKeyframe(id, position, rotation, by))


def _also_here(localizer: Localizer, id: str, off: float, turn_deg: float) -> bool:
    """Whether those that look where a keyframe looks find it at its own pose."""
    own = localizer.map[id].map_T_camera
    elsewhere = [other for other, overlap in localizer.map.overlaps(own).items() if overlap == 0]
    estimate = localizer.localize(localizer.map.frame(id, points=False), exclude=[id, *elsewhere])
    if not estimate.localized or estimate.map_T_camera is None:
        return False
    position, rotation = se3.pose_error(estimate.map_T_camera, own)
    return position <= off and rotation <= turn_deg
