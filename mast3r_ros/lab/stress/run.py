"""Stress runs: ray-cast worlds, a map of each, queries under one condition after the other, and negatives.

    run = run_stress([create("sift")], StressSettings(seed=0, rooms=10, localizer=LocalizerSettings(gates=...)))
    for attempt in run.attempts:
        attempt.condition, attempt.record.evidence, attempt.record.error, attempt.record.accepted

Rooms are made from the seeds ``seed`` ... ``seed + rooms - 1``, and everything is a function of them: a range of seeds
is a split. The gates and the scale of the covariance are set on the rooms from :data:`TUNING_SEED` on; what is
reported comes from :data:`HELD_OUT_SEED` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.lab.runs.described_once import DescribedOnce
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.viewpoint import Viewpoints
from mast3r_ros.lab.stress.conditions import CONDITIONS, Condition, chosen
from mast3r_ros.lab.stress.in_turn import asked_in_turn
from mast3r_ros.lab.stress.negatives import negatives
from mast3r_ros.lab.stress.scenes import Scene, scenes_of
from mast3r_ros.lab.stress.starts import FILM, Kidnapping, Start, StartSettings, run_starts
from mast3r_ros.lab.synthetic import take
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate
from mast3r_ros.localization.map_noise import measure_pose_noise
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.selection import KEEP_ALL
from mast3r_ros.matching.base import Matcher

#: First seeds of the split that gates and covariances are set on, and of the one that is reported.
TUNING_SEED, HELD_OUT_SEED = 0, 1000
#: Rooms whose queries and maps are in memory at once; negatives are drawn among them.
BLOCK = 2
#: Keyframes of a map that are localized in the rest of it to measure its noise.
NOISE_SAMPLES = 20
#: Queries of a room of the same make, for each query of a condition.
MORE_ALIKE = 3

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StressSettings:
    """A stress run.

    Attributes:
        seed: of the first room.
        rooms: how many seeds; each gives one world of every kind that the conditions need.
        conditions: by name, see stress_conditions.
        queries: of each condition in each room.
        negatives: in all, see :mod:`negatives`; 0 for none.
        start_conditions: by name, see :mod:`starts`.
        starts: on each film of a start condition, at most.
        keyframes: about how many a map has.
        width, height: of the images, pixels; the camera sees 67 degrees.
        localizer: how queries are localized, gates included.
    """

    seed: int = HELD_OUT_SEED
    rooms: int = 2
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    queries: int = 12
    negatives: int = 3000
    start_conditions: tuple[str, ...] = ()
    starts: int = 80
    keyframes: int = 40
    width: int = 320
    height: int = 240
    localizer: LocalizerSettings = field(default_factory=LocalizerSettings)

    def __post_init__(self) -> None:
        if min(self.rooms, self.queries, self.keyframes) < 1 or min(self.negatives, self.seed) < 0:
            raise UserError("a stress run needs at least one room, query and keyframe, and no negative numbers")

    @property
    def camera(self) -> Camera:
        """The camera that maps, and asks unless the condition is another camera."""
        focal = 0.75 * self.width
        return Camera.pinhole(self.width, self.height, focal, focal, (self.width - 1) / 2, (self.height - 1) / 2)


@dataclass(frozen=True, eq=False)
class StressQuery:
    """A picture taken under a condition; ``level`` says how hard it is there."""

    condition: str
    level: str
    scene: int
    posed: PosedFrame


@dataclass(frozen=True, eq=False)
class Attempt:
    """What became of one query, or one negative.

    Attributes:
        matcher: by name.
        condition: of the query, or the kind of negative.
        level: how hard the condition is there; empty where it has no levels.
        scene: name of the scene whose map was asked.
        record: pose, verdict, evidence and error; accepted or not.
    """

    matcher: str
    condition: str
    level: str
    scene: str
    record: Record


@dataclass(eq=False)
class StressRun:
    """Everything that was tried.

    Attributes:
        settings: of the run.
        attempts: in the order they were made.
        in_turn: by matcher, the queries of every condition once more with odometry between them, see :mod:`in_turn`.
        examples: condition or kind of negative, level, and a picture of it, for people.
        matchers: by name.
        starts, kidnappings: of the first matcher, see :mod:`starts`.
    """

    settings: StressSettings
    attempts: list[Attempt] = field(default_factory=list)
    in_turn: dict[str, list[Record]] = field(default_factory=dict)
    examples: list[tuple[str, str, NDArray[np.uint8]]] = field(default_factory=list)
    matchers: list[str] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    kidnappings: list[Kidnapping] = field(default_factory=list)

    def show(self, name: str, level: str, frame: Frame) -> None:
        """Keep a picture as the example of its kind unless there is one."""
        if name not in (known for known, _, _ in self.examples):
            self.examples.append((name, level, frame.image))


#: Is shown every attempt with its query, the full estimate, and the map that was asked.
Watch = Callable[[Attempt, Frame, PoseEstimate, KeyframeMap], None]


def ignore(attempt: Attempt, frame: Frame, estimate: PoseEstimate, keyframe_map: KeyframeMap) -> None:
    """Watches nothing."""


def run_stress(
    matchers: Sequence[Matcher],
    settings: StressSettings | None = None,
    *,
    progress: Progress = lambda stage, done, total: None,
    watch: Watch = ignore,
) -> StressRun:
    """Try every condition and the negatives with every matcher; all see the same pictures.

    Raises:
        UserError: for a condition that does not exist.
    """
    run = StressRun(settings or StressSettings(), matchers=[matcher.name for matcher in matchers])
    s = run.settings
    if s.start_conditions:
        asked = StartSettings(s.seed, s.rooms, s.start_conditions, FILM, s.starts, s.keyframes, s.localizer)
        run.starts, run.kidnappings = run_starts(matchers[0], asked, s.camera, progress)
    if not s.conditions:
        return run
    seeds = range(run.settings.seed, run.settings.seed + run.settings.rooms)
    blocks = [seeds[k : k + BLOCK] for k in range(0, len(seeds), BLOCK)]
    for number, block in enumerate(blocks):
        share = _share(run.settings.negatives, number, len(blocks))
        _Block(run, block, _numbered(progress, number, len(blocks))).attempt(matchers, share, watch)
    return run


def _numbered(progress: Progress, number: int, parts: int) -> Progress:
    """Progress that says which part it belongs to."""
    where = f" ({number + 1} of {parts})" if parts > 1 else ""
    return lambda stage, done, total: progress(stage + where, done, total)


def _share(count: int, number: int, parts: int) -> int:
    """The part's share of a count, such that all shares add up to it."""
    return count * (number + 1) // parts - count * number // parts


class _Block:
    """Some rooms of a run: their scenes, maps and queries."""

    def __init__(self, run: StressRun, seeds: Sequence[int], progress: Progress) -> None:
        self._run, self._settings, self._progress = run, run.settings, progress
        self._conditions = chosen(run.settings.conditions)
        kinds = [condition.scene for condition in self._conditions]
        if run.settings.negatives:
            kinds += ["room", "same_make"]
        self._seeds: list[int] = []
        self._scenes: list[Scene] = []
        self._maps: list[KeyframeMap] = []
        self._queries: list[StressQuery] = []
        self._others: list[StressQuery] = []
        for done, seed in enumerate(seeds):
            progress("making worlds and maps", done, len(seeds))
            self._map(seed, kinds)
            progress("taking pictures", done, len(seeds))
            self._ask(seed)

    def attempt(self, matchers: Sequence[Matcher], count: int, watch: Watch) -> None:
        """Localize all queries and this number of negatives with every matcher."""
        asked = [(self._scenes[q.scene].place, q.posed.frame) for q in (*self._queries, *self._others)]
        places = [scene.place for scene in self._scenes]
        wrong = negatives(asked, places, self._settings.camera, count, np.random.default_rng([self._seeds[0], 4]))
        for negative in wrong:
            self._run.show(negative.kind, "negative", negative.frame)
        for matcher in matchers:
            remembering = DescribedOnce(matcher)
            localizers = [self._localizer(number, remembering) for number in range(len(self._maps))]
            views = [Viewpoints(keyframe_map) for keyframe_map in self._maps]
            total = len(self._queries) + len(wrong)
            for done, query in enumerate(self._queries, 1):
                truth = query.posed.map_T_camera
                estimate = localizers[query.scene].localize(query.posed.frame)
                name, seen = query.posed.frame.name, views[query.scene].nearest(truth)
                record = Record.of(name, self._stamp(), estimate, truth, group=query.condition, viewpoint=seen)
                self._keep(matcher.name, query.condition, query.level, query.scene, record)
                watch(self._run.attempts[-1], query.posed.frame, estimate, self._maps[query.scene])
                self._progress(f"localizing with {matcher.name}", done, total)
            self._run.in_turn.setdefault(matcher.name, []).extend(self._in_turn(localizers))
            for done, negative in enumerate(wrong, 1 + len(self._queries)):
                estimate = localizers[negative.scene].localize(negative.frame)
                name = f"{negative.frame.name} in {self._scenes[negative.scene].name}"
                record = Record.of(name, self._stamp(), estimate, group=negative.kind, negative=True)
                self._keep(matcher.name, negative.kind, "", negative.scene, record)
                watch(self._run.attempts[-1], negative.frame, estimate, self._maps[negative.scene])
                self._progress(f"negatives with {matcher.name}", done, total)

    def _in_turn(self, localizers: Sequence[Localizer]) -> Iterator[Record]:
        for (scene, condition), asked in groupby(self._queries, key=lambda query: (query.scene, query.condition)):
            self._progress("one after the other", scene, len(localizers))
            yield from asked_in_turn(localizers[scene], [q.posed for q in asked], condition, self._seeds[scene])

    def _map(self, seed: int, kinds: Sequence[str]) -> None:
        for scene in scenes_of(seed, kinds, self._settings.camera, self._settings.keyframes):
            self._seeds.append(seed)
            self._scenes.append(scene)
            keyframe_map, _ = build_map(take(scene.mapping, seed), selection=KEEP_ALL, source_name=scene.name)
            self._maps.append(keyframe_map)

    def _ask(self, seed: int) -> None:
        """Take the queries of every condition, and more pictures of the room of the same make."""
        number = {s.name: k for k, s in enumerate(self._scenes)}
        for condition in self._conditions:
            scene = number[f"{condition.scene} {seed}"]
            self._queries += self._taken(condition, scene, seed, self._settings.queries)
        if (alike := number.get(f"same_make {seed}")) is not None:
            more = MORE_ALIKE * self._settings.queries
            self._others += self._taken(CONDITIONS["nominal"], alike, seed, more)

    def _taken(self, condition: Condition, scene: int, seed: int, count: int) -> Iterator[StressQuery]:
        rng = np.random.default_rng([seed, *condition.name.encode()])
        shots = condition.shots(self._scenes[scene], count, rng)
        for k, (shot, posed) in enumerate(zip(shots, take(shots, seed + 1), strict=True)):
            name = " ".join(part for part in (self._scenes[scene].name, condition.name, shot.name, str(k)) if part)
            frame = Frame(posed.frame.image, posed.frame.camera, name=name)
            if k == len(shots) // 2:
                self._run.show(condition.name, shot.name, frame)
            yield StressQuery(condition.name, shot.name, scene, PosedFrame(frame, posed.map_T_camera))

    def _localizer(self, number: int, matcher: Matcher) -> Localizer:
        self._progress(f"describing maps with {matcher.name}", number, len(self._maps))
        keyframe_map = self._maps[number]
        keyframe_map.prepare(matcher)
        keyframe_map.pose_noise = measure_pose_noise(keyframe_map, matcher, NOISE_SAMPLES)
        return Localizer(keyframe_map, matcher, self._settings.localizer)

    def _stamp(self) -> int:
        """Attempts are seconds apart: they are no sequence."""
        return 2 * 10**9 * len(self._run.attempts)

    def _keep(self, matcher: str, condition: str, level: str, scene: int, record: Record) -> None:
        self._run.attempts.append(Attempt(matcher, condition, level, self._scenes[scene].name, record))
