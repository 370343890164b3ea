"""Starts and kidnappings: does a tracker believe a place that is merely alike, and does it notice that it was carried?

A start is a tracker that knows nothing, on a film from some picture on, forwards or backwards, until its track is
committed. Starts on one film share its pictures: they are not independent. What single pictures say while nothing is
committed depends on nothing else, so each is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab import metrics
from mast3r_ros.lab.runs.described_once import DescribedOnce
from mast3r_ros.lab.stress.films import APART_S, Film, Stage, carried, joined, part, stages
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate, PosePrior, Tracker, TrackerSettings
from mast3r_ros.localization.estimate import Track
from mast3r_ros.localization.map_noise import measure_pose_noise
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.selection import KEEP_ALL
from mast3r_ros.matching.base import Matcher

Array = NDArray[np.float64]

#: Conditions of starts, by name.
CONDITIONS = {
    "twin_rooms": "a room that is another to the last chair, of other pieces of wood and cloth, with other pictures",
    "mirrored_rooms": "the room's mirror image",
    "equal_doors": "a corridor of equal doors, half of it mapped",
    "kidnapped": "carried elsewhere in the room, or into its twin",
}
#: Pictures of a film, two a second.
FILM = 50
#: A start is given up after this long, and one needs this many pictures at least.
LONGEST_S, FEWEST = 15.0, 10
#: A robot counts as carried away from these on, metres and degrees; and is to notice within this.
AWAY_M, AWAY_DEG, NOTICE_S = 1.0, 45.0, 5.0
#: Keyframes that are localized in the rest of a map to measure its noise.
NOISE_SAMPLES = 20


@dataclass(frozen=True)
class StartSettings:
    """A run of starts.

    Attributes:
        seed, rooms: rooms and corridors are made from the seeds ``seed`` ... ``seed + rooms - 1``.
        pictures: of a film, two a second.
        starts: on each film at most, evenly chosen.
    """

    seed: int = 1000
    rooms: int = 1
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    pictures: int = FILM
    starts: int = 80
    keyframes: int = 40
    localizer: LocalizerSettings = field(default_factory=LocalizerSettings)
    #: Frames that are solved together are no evidence for a commitment, and would take most of the time.
    tracking: TrackerSettings = field(default_factory=lambda: TrackerSettings(joint_frames=1))


@dataclass(frozen=True)
class Start:
    """How one start went.

    Attributes:
        inside: whether the robot is in the map.
        seconds: until the track was committed; NaN where it was not.
        false: whether what was committed is wrong.
        first_false: whether the first answer was; None without an answer.
        second_false: whether the next view after a false first answer gave a false answer too.
    """

    condition: str
    place: str
    inside: bool
    seconds: float
    false: bool
    first_false: bool | None
    second_false: bool | None


@dataclass(frozen=True)
class Kidnapping:
    """A robot that was carried away: seconds until map -> odom was withdrawn; NaN where the film ended before."""

    place: str
    seconds: float


class _Remembered:
    """A localizer that is asked about each picture once, as long as nothing guides it."""

    def __init__(self, localizer: Localizer) -> None:
        self._localizer = localizer
        self._said: dict[int, PoseEstimate] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._localizer, name)

    def localize(self, frame: Frame, prior: PosePrior | None = None) -> PoseEstimate:
        """The answer of the localizer within."""
        if prior is not None:
            return self._localizer.localize(frame, prior)
        key = id(frame.image)
        if key not in self._said:
            self._said[key] = self._localizer.localize(frame)
        return self._said[key]


def run_starts(
    matcher: Matcher, settings: StartSettings, camera: Camera, progress: Callable[[str, int, int], None]
) -> tuple[list[Start], list[Kidnapping]]:
    """Every start and kidnapping of a run."""
    starts: list[Start] = []
    kidnappings: list[Kidnapping] = []
    for number in range(settings.rooms):
        progress("starts in places that look alike", number, settings.rooms)
        seed = settings.seed + number
        for stage in stages(seed, settings.conditions, camera, settings.keyframes, settings.pictures):
            localizer = stage_localizer(stage, matcher, settings.localizer)
            for (condition, where), film in stage.films.items():
                starts += starts_on(film, localizer, settings, condition, where)
            for before, after in stage.carried:
                name = "elsewhere in the room" if before == after else "into the twin"
                kidnappings += kidnapped(stage.films[before], stage.films[after], localizer, settings, name)
    return starts, kidnappings


def stage_localizer(stage: Stage, matcher: Matcher, settings: LocalizerSettings) -> Localizer:
    """What localizes in a stage's map, whose noise is measured as ``map build`` does it."""
    keyframes, _ = build_map(stage.mapping, selection=KEEP_ALL, source_name="stage")
    once = DescribedOnce(matcher)
    keyframes.prepare(once)
    keyframes.pose_noise = measure_pose_noise(keyframes, once, NOISE_SAMPLES)
    return cast(Localizer, _Remembered(Localizer(keyframes, once, settings)))


def starts_on(film: Film, localizer: Localizer, settings: StartSettings, condition: str, where: str) -> Iterator[Start]:
    """Starts from pictures all along a film, on the way there and on the way back."""
    count = len(film.frames)
    orders = [range(k, count) for k in range(count - FEWEST)] + [range(k, -1, -1) for k in range(FEWEST, count)]
    chosen = np.unique(np.linspace(0, len(orders) - 1, min(settings.starts, len(orders))).round().astype(int))
    for index in chosen:
        yield _start(part(film, orders[index]), Tracker(localizer, settings.tracking), condition, where)


def _start(film: Film, tracker: Tracker, condition: str, where: str) -> Start:
    answers: list[tuple[Array, bool | None]] = []  # odometry, and whether an answer there was false
    seconds, false = np.nan, False
    for number, frame in enumerate(film.frames[: round(LONGEST_S / APART_S)]):
        odometry = film.odom_T_camera[number]
        estimate = tracker.localize(frame, odometry)
        wrong = _is_false(estimate.map_T_camera, film, number) if estimate.localized else None
        if not answers or wrong is not None or answers[0][1] is not None:
            answers.append((odometry, wrong))
        if estimate.track is Track.COMMITTED:
            map_T_odom = tracker.map_T_odom
            assert map_T_odom is not None
            seconds, false = number * APART_S, _is_false(map_T_odom @ odometry, film, number)
            break
    first, second = _first_two(answers, tracker)
    return Start(condition, where, film.truth is not None, seconds, false, first, second)


def _first_two(answers: list[tuple[Array, bool | None]], tracker: Tracker) -> tuple[bool | None, bool | None]:
    """Whether the first answer was false, and if so whether that of the next different view was."""
    answered = [k for k, (_, wrong) in enumerate(answers) if wrong is not None]
    if not answered:
        return None, None
    odometry, first = answers[answered[0]]
    settings, apart_m = tracker.settings, tracker.settings.commit_distance * tracker.map.view_depth_m
    for later, wrong in answers[answered[0] + 1 :]:
        metres, degrees = se3.pose_error(later, odometry)
        if first and (metres >= apart_m or np.radians(degrees) >= settings.commit_turn):
            return first, bool(wrong)
    return first, None


def _is_false(map_T_camera: Array | None, film: Film, number: int) -> bool:
    """Whether a pose is off by more than 25 cm or 10 degrees, or given in a place that is not in the map."""
    if map_T_camera is None or film.truth is None:
        return True
    return bool(metrics.is_wrong(*se3.pose_error(map_T_camera, film.truth[number])))


def kidnapped(
    before: Film, after: Film, localizer: Localizer, settings: StartSettings, place: str
) -> Iterator[Kidnapping]:
    """A few robots that are carried away as soon as their track is committed."""
    count = len(before.frames)
    for begin in np.linspace(0, count // 2, max(1, settings.starts // 20)).round().astype(int):
        way = part(before, range(int(begin), count))
        tracker = Tracker(localizer, settings.tracking)
        at = next((k for k, f in enumerate(way.frames) if _committed(tracker, way, k)), None)
        if at is None:
            continue
        if before is after:
            assert way.truth is not None
            far = [k for k in range(len(way.frames)) if _is_away(way.truth[k], way.truth[at])]
            onward = [k for k in far if k > at + 1]
            if not onward:
                continue
            film = carried(way, at + 1, onward[0])
        else:
            film = joined(way, part(after, range(len(after.frames))), at + 1)
        if (len(film.frames) - at - 1) * APART_S >= NOTICE_S:  # a shorter rest says nothing
            yield Kidnapping(place, _noticed(tracker, film, at + 1))


def _committed(tracker: Tracker, film: Film, number: int) -> bool:
    return tracker.localize(film.frames[number], film.odom_T_camera[number]).track is Track.COMMITTED


def _is_away(pose: Array, other: Array) -> bool:
    metres, degrees = se3.pose_error(pose, other)
    return metres > AWAY_M or degrees > AWAY_DEG


def _noticed(tracker: Tracker, film: Film, since: int) -> float:
    """Seconds from the last picture before the robot was carried away until its track is given up."""
    for number in range(since, len(film.frames)):
        if not _committed(tracker, film, number):
            return (number - since + 1) * APART_S
    return float("nan")


def summarise_starts(starts: Sequence[Start], kidnappings: Sequence[Kidnapping]) -> dict[str, Any]:
    """The figures of ``starts`` in `evaluate stress --json`."""
    false = sum(start.false for start in starts)
    known = [start for start in starts if start.second_false is not None]
    second = sum(bool(start.second_false) for start in known)
    inside = [start for start in starts if start.inside and start.condition == "in the map"]
    rate = metrics.false_accepts(false, len(starts))
    noticed = np.array([kidnapping.seconds for kidnapping in kidnappings])
    in_time = int(np.sum(noticed <= NOTICE_S))
    return {
        "tried": len(starts),
        "false_commits": false,
        "false_commits_per_1000": rate.per_1000,
        "false_commits_per_1000_interval": (rate.low, rate.high),
        "first_false": sum(bool(start.first_false) for start in starts),
        "p_second_false": second / len(known) if known else float("nan"),
        "p_second_false_interval": metrics.share_interval(second, len(known)),
        "committed_in_the_map": _share([start.seconds for start in inside]),
        "seconds_to_commit": _percentiles([start.seconds for start in inside]),
        "kidnappings": len(noticed),
        "noticed_within_5_s": in_time,
        "seconds_to_notice": _percentiles(noticed),
        "by_place": [_of_place(starts, *key) for key in dict.fromkeys((s.condition, s.place) for s in starts)],
    }


def _of_place(starts: Sequence[Start], condition: str, place: str) -> dict[str, Any]:
    here = [start for start in starts if (start.condition, start.place) == (condition, place)]
    return {
        "condition": condition,
        "place": place,
        "tried": len(here),
        "answered": sum(start.first_false is not None for start in here),
        "first_false": sum(bool(start.first_false) for start in here),
        "second_false": sum(bool(start.second_false) for start in here),
        "committed": sum(bool(np.isfinite(start.seconds)) for start in here),
        "false_commits": sum(start.false for start in here),
    }


def _share(seconds: Sequence[float]) -> float:
    return float(np.mean(np.isfinite(seconds))) if len(seconds) else float("nan")


def _percentiles(seconds: Any) -> dict[str, float]:
    known = np.asarray(seconds, dtype=float)
    known = known[np.isfinite(known)]
    return {f"p{p}": float(np.percentile(known, p)) if len(known) else float("nan") for p in (50, 95, 100)}
