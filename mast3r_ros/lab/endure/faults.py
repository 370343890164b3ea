"""Twelve faults of a robot, injected into a recording: detected, harmless or dangerous, and how long that took.

A trial is a stretch of the recording: the track is committed on its first frames, then the fault begins. A fault is
*dangerous* where an accepted pose of the robot is off by more than 25 cm or 10 degrees (a finding), *detected* where
the accepted poses stay right but fewer come, or the track is withdrawn, and *harmless* where nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io.bags import open_bag
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.injected import FAULTS, Fault, Moment
from mast3r_ros.lab.endure.scene import WRONG_DEG, WRONG_M
from mast3r_ros.lab.runs.described_once import DescribedOnce
from mast3r_ros.lab.runs.replay import ReplaySettings, pose_at, recorded_truth
from mast3r_ros.lab.synthetic import SequenceSettings, TourSettings, make_room, mounted_camera, render_sequence, tour
from mast3r_ros.localization.estimate import PoseEstimate, Track
from mast3r_ros.mapping.build import build_map
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching import Matcher, create
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.transforms import TransformUnavailable

Array = NDArray[np.float64]

#: Frames before the fault, on which the track is to be committed, and frames with it; frames a second.
CLEAN, FAULTY, HZ = 6, 10, 4
#: A fault counts as detected where less than this share of the poses that a good stretch gives comes through.
FEWER = 0.5
CAMERA = Camera.pinhole(320, 240, 240.0, 240.0, 159.5, 119.5)


@dataclass
class Bench:
    """A film with its truth, maps of its place and of another floor, and what each start gives without a fault."""

    film: list[Moment]
    relocalizer: Relocalizer
    elsewhere: Relocalizer
    expected: dict[int, int] = field(default_factory=dict)

    def trial(self, rng: Rng) -> str:
        """One stretch with one fault."""
        name = list(FAULTS)[rng.integers(len(FAULTS))]
        start = int(rng.integers(max(1, len(self.film) - CLEAN - FAULTY + 1)))
        stretch = self.film[start : start + CLEAN + FAULTY]
        fault, seed = FAULTS[name], int(rng.integers(2**31))
        if start not in self.expected:  # many trials begin at the same frame
            self.expected[start] = self._accepted(stretch)
        expected = self.expected[start]
        bad, accepted, first_refused = self._judged(stretch, fault, name == "other_floor", np.random.default_rng(seed))
        if bad is not None:
            number, off = bad
            raise Wrong(f"{name}: dangerous", f"pose {number} after the fault, frames from {start}: {off}")
        if expected == 0:
            return f"{name}: not found without the fault either"
        if accepted < FEWER * expected or first_refused == 0:
            within = (first_refused or 0) / HZ
            return f"{name}: detected {'at once' if within == 0 else f'within {int(np.ceil(within))} s'}"
        return f"{name}: harmless"

    def _accepted(self, stretch: list[Moment]) -> int:
        """Poses that the stretch gives without a fault, after its first frames."""
        return sum(e.localized for e in self._run(self.relocalizer, stretch)[CLEAN:])

    def _judged(
        self, stretch: list[Moment], fault: Fault, other: bool, rng: Rng
    ) -> tuple[tuple[int, str] | None, int, int | None]:
        """The first wrong pose with how far it is off, accepted poses, and the number of the first refused frame."""
        spoiled = stretch[:CLEAN] + fault(stretch[CLEAN:], rng)
        before = self._run(self.elsewhere if other else self.relocalizer, spoiled)
        bad, accepted, first_refused = None, 0, None
        for number, (moment, estimate) in enumerate(zip(spoiled[CLEAN:], before[CLEAN:], strict=True)):
            accepted += estimate.localized
            lost = not estimate.localized or estimate.track is Track.LOST
            if lost and first_refused is None:
                first_refused = number
            off = "" if not estimate.localized else _off(moment, estimate)
            if off and bad is None:
                bad = number, off
        return bad, accepted, first_refused

    def _run(self, relocalizer: Relocalizer, moments: list[Moment]) -> list[PoseEstimate]:
        relocalizer.reset()
        return [relocalizer.track(moment.frame, moment.odom_T_camera) for moment in moments]


def _off(moment: Moment, estimate: PoseEstimate) -> str:
    """How far the robot's pose is off, in words; empty where it is right."""
    assert estimate.map_T_camera is not None
    map_T_base = estimate.map_T_camera @ se3.inverse(moment.base_T_camera)
    off = se3.inverse(moment.map_T_base) @ map_T_base
    metres, degrees = float(np.linalg.norm(off[:3, 3])), float(np.degrees(np.linalg.norm(se3.log(off)[3:])))
    return "" if metres <= WRONG_M and degrees <= WRONG_DEG else f"{metres:.2f} m, {degrees:.1f} deg"


def make(folder: Path, matcher: str = "sift", bag: Path | None = None, map: Path | None = None) -> Trial:
    """The campaign's trials: on a recording and its map, or on a generated room."""
    chosen = DescribedOnce(create(matcher))
    if bag is not None and map is not None:
        film, keyframes = recorded_film(bag), KeyframeMap.load(map)
    else:
        film, keyframes = _generated(chosen, "office", 3, queries=True)
    _, other = _generated(chosen, "living", 4, queries=False)
    if len(film) < CLEAN + FAULTY:
        raise UserError(f"the recording has {len(film)} frames with truth: {CLEAN + FAULTY} are needed")
    return Bench(film, Relocalizer(keyframes, chosen), Relocalizer(other, chosen)).trial


def with_recording(bag: Path | None, map: Path | None, matcher: str) -> partial[Trial]:
    """:func:`make` for a recording."""
    if (bag is None) != (map is None):
        raise UserError("a recording needs the map of its place: give both BAG and --map, or neither")
    return partial(make, matcher=matcher, bag=bag, map=map)


def recorded_film(bag: Path) -> list[Moment]:
    """The frames of a recording whose true pose it holds, with odometry, at most HZ a second."""
    settings = ReplaySettings(truth_topic="/ground_truth")
    with open_bag(bag) as reader:
        if settings.truth_topic not in reader.topics:
            raise UserError(
                f"{bag} has no topic {settings.truth_topic} with the true pose: record one, as the demo does"
            )
        truth = recorded_truth(bag, settings)
        transforms = reader.transforms()
        camera = reader.first(settings.find_topics(reader).image).header.frame_id.lstrip("/")
        film: list[Moment] = []
        for frame in reader.frames(use_depth=False):
            true = pose_at(truth, frame.stamp_ns)
            if true is None or (film and frame.stamp_ns - film[-1].frame.stamp_ns < 0.9e9 / HZ):
                continue
            try:
                odom = transforms.lookup("odom", camera, frame.stamp_ns)
                mount = transforms.lookup("base_link", camera, frame.stamp_ns)
            except TransformUnavailable:
                continue
            film.append(Moment(frame, odom, true @ se3.inverse(mount), mount))
    return film


def _generated(matcher: Matcher, family: str, seed: int, queries: bool) -> tuple[list[Moment], KeyframeMap]:
    """A drive through a room, and a map of it made on another drive."""
    mount = mounted_camera(height_m=1.2, tilt_deg=10.0)
    world = make_room(family, seed)
    mapping = TourSettings(rate_hz=1.5, base_T_camera=mount, clearance_m=0.45, duration_s=50.0 if queries else 20.0)
    frames = render_sequence(world, tour(world, seed, mapping), CAMERA, SequenceSettings(seed=seed))
    keyframes, _ = build_map((moment.posed for moment in frames), matcher=matcher)
    film: list[Moment] = []
    if queries:
        drive = TourSettings(rate_hz=HZ, base_T_camera=mount, clearance_m=0.45, duration_s=18.0)
        asking = SequenceSettings(seed=seed + 1, with_depth=False, start_ns=10**12)
        for moment in render_sequence(world, tour(world, seed + 1, drive), CAMERA, asking):
            film.append(Moment(moment.posed.frame, moment.odom_T_base @ mount, moment.map_T_base, mount))
    return film, keyframes
