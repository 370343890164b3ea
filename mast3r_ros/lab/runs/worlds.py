"""Pairs of pictures of unseen rooms: the second localized against the first alone, and how many matches were right.

evaluations = evaluate_worlds([create("sift")], WorldsSettings(seed=1, rooms=50, pairs=500))
evaluations["sift"].summary()["success_5deg_0.25m"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MatcherError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.runs.localization import Evaluation
from mast3r_ros.lab.runs.processor_time import with_processor_time
from mast3r_ros.lab.runs.record import Record
from mast3r_ros.lab.runs.viewpoint import Viewpoint
from mast3r_ros.lab.runs.world_pairs import WorldPair, first_room, world_pairs
from mast3r_ros.lab.runs.worlds_summary import RIGHT_PX, worlds_figures
from mast3r_ros.lab.training.rooms import TRAINING_SEEDS, VALIDATION_SEEDS, RoomsConfig
from mast3r_ros.localization import Localizer, LocalizerSettings, PoseEstimate
from mast3r_ros.localization.single_reference import metric_without_depth, reference_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Features, Matcher, Matches, PixelMatches, matches_pixels
from mast3r_ros.matching.two_views import TwoViewMatcher
from mast3r_ros.matching.wrapped import WrappedMatcher
from mast3r_ros.surface import surface_depth

Array = NDArray[np.float64]

HOW_UNSEEN = (
    f"rooms of training have numbers from {TRAINING_SEEDS} on, those of its validation from {VALIDATION_SEEDS} on; "
    "rooms of an evaluation lie below both, whatever its seed is"
)


@dataclass(frozen=True)
class WorldsSettings:
    """An evaluation on pairs of pictures of rooms.

    Attributes:
        seed: any; every seed has rooms of its own.
        rooms, pairs: how many.
        depth: whether the reference's depth is known; without it only networks can answer.
        width, height: of the pictures, pixels; by default twice those that the small network sees.
        localizer: how queries are localized, as `localize --reference` does it: there is one reference.
    """

    seed: int = 0
    rooms: int = 50
    pairs: int = 500
    depth: bool = True
    width: int = 384
    height: int = 288
    localizer: LocalizerSettings = field(default_factory=LocalizerSettings)


#: Called with (pairs done, of how many).
Progress = Callable[[int, int], None]
#: Is shown every result: matcher, record, query, full estimate, and the map of the reference.
Watch = Callable[[str, Record, Frame, PoseEstimate, KeyframeMap], None]


def evaluate_worlds(
    matchers: Sequence[Matcher],
    settings: WorldsSettings | None = None,
    *,
    progress: Progress = lambda done, total: None,
    watch: Watch = lambda matcher, record, frame, estimate, keyframe_map: None,
) -> dict[str, Evaluation]:
    """Every pair by every matcher; all see the same pictures.

    Returns:
        an evaluation by name of each matcher. Records are of group ``family``, and their evidence has ``room``,
        ``overlap``, ``viewpoint_gap_deg`` and ``match_precision_3px`` as well.

    Raises:
        UserError: for numbers of rooms and pairs that cannot be had.
        MatcherError: for a matcher that needs depth where there is none.
    """
    settings = settings or WorldsSettings()
    solvers = [_Solver(matcher, settings) for matcher in matchers]
    rooms = RoomsConfig(width=settings.width, height=settings.height)
    for done, pair in enumerate(world_pairs(settings.seed, settings.rooms, settings.pairs, rooms), start=1):
        for solver in solvers:
            solver.solve(pair, done, watch)
        progress(done, settings.pairs)
    return {solver.name: solver.evaluation() for solver in solvers}


class _Solver:
    """One matcher and what became of its pairs."""

    def __init__(self, matcher: Matcher, settings: WorldsSettings) -> None:
        self.name, self._plain, self._settings = matcher.name, matcher, settings
        self._heard = _Overheard(matcher)
        self._matcher: Matcher = self._heard
        if not settings.depth:
            if not (metric_without_depth(matcher) and matches_pixels(matcher)):
                raise MatcherError(
                    f"matcher '{matcher.name}' does not know the scale of a reference without depth: use a metric "
                    "network (mast3r), or leave --no-depth out"
                )
            self._matcher = TwoViewMatcher(self._heard)
        self._records: list[Record] = []

    def solve(self, pair: WorldPair, number: int, watch: Watch) -> None:
        """Localize the query against a map of nothing but the reference."""
        reference = pair.reference if self._settings.depth else replace(pair.reference, depth=None)
        keyframe_map = reference_map(reference, self._plain)
        keyframe_map.prepare(self._matcher)
        self._heard.forget()
        localizer = Localizer(keyframe_map, self._matcher, self._settings.localizer)
        estimate = with_processor_time(lambda: localizer.localize(pair.query))
        truth = pair.reference_T_query
        seen = Viewpoint(*se3.pose_error(np.eye(4), truth), pair.overlap)
        stamp = number * 10**9  # pairs are seconds apart: they are no sequence
        record = Record.of(pair.query.name, stamp, estimate, truth, group=pair.family, viewpoint=seen)
        found = {
            "room": float(pair.room),
            "overlap": pair.overlap,
            "viewpoint_gap_deg": pair.gap_deg,
            **match_precision(pair, *self._heard.pixels),
        }
        self._records.append(replace(record, evidence={**record.evidence, **found}))
        watch(self.name, self._records[-1], pair.query, estimate, keyframe_map)

    def evaluation(self) -> Evaluation:
        """The records so far."""
        s = self._settings
        first = first_room(s.seed)
        settings = {
            "matcher": self.name,
            "features": self._plain.signature,
            **asdict(s),
            "pose": "matches and the reference's depth, PnP"
            if s.depth
            else "essential matrix of matches, length by the pointmap",
            "rooms_numbered": [first, first + s.rooms - 1],
            "unseen_because": HOW_UNSEEN,
            "right_match_px": f"pixels of the {s.width}x{s.height} pictures",
        }
        name = f"unseen rooms, {self.name}" + ("" if s.depth else ", no depth")
        return Evaluation(name, self._records, settings, worlds_figures(self._records))


class _Overheard(WrappedMatcher):
    """A matcher that remembers the pixels it matched first: those of the frame as it is, before any turned look."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__(matcher)
        self.forget()

    def forget(self) -> None:
        """Nothing was matched yet."""
        self._heard: tuple[Array, Array] | None = None

    @property
    def pixels(self) -> tuple[Array, Array]:
        """(N, 2) of the reference and of the query."""
        return self._heard or (np.zeros((0, 2)), np.zeros((0, 2)))

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Of the matcher within; the one reference's pixels are remembered."""
        found = super().match(query, references)
        self._heard = self._heard or (found[0].reference_xy, found[0].query_xy)
        return found

    def match_pixels(self, query: Features, references: Sequence[Features]) -> list[PixelMatches]:
        """The same without any points."""
        assert matches_pixels(self.inner)
        found = self.inner.match_pixels(query, references)
        self._heard = self._heard or (found[0].reference_xy, found[0].query_xy)
        return found


def match_precision(pair: WorldPair, reference_xy: Array, query_xy: Array) -> dict[str, float]:
    """Share of the matches that lie near the truth: where the query's camera has the reference pixel's surface.

    Matches at edges of the depth have no sure truth and are left out; a pair without any match has precision 0.

    Returns:
        ``match_precision_1px`` and so on, pixels of the query, and ``matches``.
    """
    assert pair.reference.depth is not None and pair.reference.camera is not None and pair.query.camera is not None
    z = surface_depth(pair.reference.depth, reference_xy).astype(np.float64)
    known = np.isfinite(z)
    points = pair.reference.camera.points(reference_xy[known], z[known])
    truth = pair.query.camera.project(se3.apply(se3.inverse(pair.reference_T_query), points))
    off = np.linalg.norm(truth - query_xy[known], axis=1)  # NaN behind the camera
    shares = {f"match_precision_{px}px": float(np.mean(off <= px)) if len(off) else 0.0 for px in RIGHT_PX}
    return {**shares, "matches": float(len(reference_xy)), "median_match_error_px": _median(off)}


def _median(values: Array) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan
