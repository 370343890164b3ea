"""What a robot sees from the moment it is switched on, in places that are easily taken for others.

A film is two pictures a second of a walk, with odometry that drifts. Each is asked of one map, in which the robot is,
or is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Camera, Frame, PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.stress.scenes import FURNISHED, LIGHTING, MAPPING, Place
from mast3r_ros.lab.synthetic import OdometryNoise, RoomSettings, Shot, drifting, make_room, take
from mast3r_ros.lab.synthetic.recording import single_threaded
from mast3r_ros.lab.synthetic.sensors import DepthNoise

Array = NDArray[np.float64]

#: Number of the walk that is filmed, and seconds between two pictures.
FILMED, APART_S = 3000, 0.5
#: Stamp of the first picture: no time is 0.
START_NS = 10**9
#: How far from the first room its twin's part of the map lies, metres along x.
NEXT_DOOR_M = 30.0
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Film:
    """A walk as its camera and odometry see it.

    Attributes:
        frames: colour only, calibrated, with stamps.
        odom_T_camera: (N, 4, 4).
        truth: (N, 4, 4) in the map that is asked; None where the robot is not in it.
    """

    frames: tuple[Frame, ...]
    odom_T_camera: Array
    truth: Array | None


@dataclass(frozen=True, eq=False)
class Stage:
    """A map's pictures, and the films that are asked of it.

    Attributes:
        films: by condition and what is seen.
        carried: pairs of such keys: of a robot that is carried from the one film into the other.
    """

    mapping: list[PosedFrame]
    films: dict[tuple[str, str], Film]
    carried: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = ()


def film(place: Place, camera: Camera, pictures: int, map_T_place: Array | None = None) -> Film:
    """The first pictures of a walk; ``map_T_place`` None: the place is not in the map."""
    walk = place.walk(FILMED)
    chosen = np.arange(pictures) * round(APART_S * 1e9 / float(np.diff(walk.stamps_ns[:2])[0]))
    chosen = chosen[chosen < len(walk)]
    rng = np.random.default_rng([place.seed, 5])
    odometry = drifting(walk.map_T_base, OdometryNoise(), rng)[chosen] @ walk.base_T_camera
    taken = take([Shot(place.world, walk.map_T_camera[k], camera) for k in chosen], place.seed + 2)
    frames = tuple(
        replace(posed.frame, stamp_ns=int(walk.stamps_ns[k]) + START_NS, name=f"{place.name} {k}")
        for k, posed in zip(chosen, taken, strict=True)
    )
    truth = None if map_T_place is None else map_T_place @ walk.map_T_camera[chosen]
    return Film(frames, odometry, truth)


def mirrored(seen: Film) -> Film:
    """The same walk in the room's mirror image, which is in no map."""
    return Film(tuple(map(_mirrored, seen.frames)), MIRROR @ seen.odom_T_camera @ MIRROR, None)


def _mirrored(frame: Frame) -> Frame:
    """The picture that a camera of the same kind takes in the mirror image: its middle is where it was, mirrored."""
    assert frame.camera is not None
    K = frame.camera.K.copy()
    K[0, 2] = frame.width - 1 - K[0, 2]
    return replace(frame, image=np.ascontiguousarray(frame.image[:, ::-1]), camera=replace(frame.camera, K=K))


def carried(seen: Film, at: int, to: int) -> Film:
    """The film of a robot that is picked up before picture ``at`` and set down where picture ``to`` was taken.

    Its odometry notices nothing.
    """
    kept = [*range(at), *range(to, len(seen.frames))]
    shift = seen.odom_T_camera[at - 1] @ se3.inverse(seen.odom_T_camera[to])
    odometry = np.concatenate([seen.odom_T_camera[:at], shift @ seen.odom_T_camera[to:]])
    return _retimed(
        Film(tuple(seen.frames[k] for k in kept), odometry, None if seen.truth is None else seen.truth[kept])
    )


def joined(before: Film, after: Film, at: int) -> Film:
    """The film of a robot that is carried into another place, which is in no map, before picture ``at``."""
    shift = before.odom_T_camera[at - 1] @ se3.inverse(after.odom_T_camera[0])
    odometry = np.concatenate([before.odom_T_camera[:at], shift @ after.odom_T_camera])
    return _retimed(Film((*before.frames[:at], *after.frames), odometry, before.truth))


def part(seen: Film, order: Sequence[int]) -> Film:
    """The film of these pictures, in this order: from somewhere on, or backwards as the robot drives back."""
    chosen = list(order)
    cut = Film(
        tuple(seen.frames[k] for k in chosen),
        seen.odom_T_camera[chosen],
        None if seen.truth is None else seen.truth[chosen],
    )
    return _retimed(cut)


def _retimed(seen: Film) -> Film:
    stamps = START_NS + np.arange(len(seen.frames)) * round(APART_S * 1e9)
    frames = tuple(replace(frame, stamp_ns=int(t)) for frame, t in zip(seen.frames, stamps, strict=True))
    return replace(seen, frames=frames)


def _mapped(place: Place, camera: Camera, poses: Array, map_T_place: Array) -> list[PosedFrame]:
    shots = [Shot(place.world, pose, camera, f"keyframe {k}", depth_noise=DepthNoise()) for k, pose in enumerate(poses)]
    return [PosedFrame(p.frame, map_T_place @ p.map_T_camera) for p in take(shots, place.seed)]


def room(seed: int, twin: int = 0) -> Place:
    """A furnished room, or the same with other pictures, books, screens and rugs."""
    family = FURNISHED[seed % len(FURNISHED)]
    with single_threaded():
        world = make_room(family, seed, RoomSettings(lighting=LIGHTING, make=seed, twin=twin))
    return Place(f"{family} {seed}{' twin' * (twin > 0)}", f"{family} {seed}", world, seed)


def rooms_stage(seed: int, conditions: Sequence[str], camera: Camera, keyframes: int, pictures: int) -> Iterator[Stage]:
    """A mapped room: the robot starts in it, in its twin, in its mirror image; and once more with both twins mapped."""
    mapped, here = room(seed), np.eye(4)
    mapping = _mapped(mapped, camera, mapped.poses(MAPPING, keyframes), here)
    home = ("in the map", "")
    films = {home: film(mapped, camera, pictures, here)}
    carried = [(home, home)] if "kidnapped" in conditions else []
    if "mirrored_rooms" in conditions:
        films["mirrored_rooms", "in the mirror image"] = mirrored(films[home])
    if "twin_rooms" not in conditions:
        yield Stage(mapping, films, tuple(carried))
        return
    twin, there = room(seed, twin=1), se3.make(np.eye(3), [NEXT_DOOR_M, 0.0, 0.0])
    seen = film(twin, camera, pictures)
    inside = ("twin_rooms", "in the twin")
    if carried:
        carried.append((home, inside))
    yield Stage(mapping, {**films, inside: seen}, tuple(carried))
    both = [*mapping, *_mapped(twin, camera, twin.poses(MAPPING + 1, keyframes), there)]
    walked = there @ _walked(twin, seen)
    yield Stage(both, {("twin_rooms", "both twins mapped"): replace(seen, truth=walked)})


def _walked(place: Place, seen: Film) -> Array:
    """Where the camera of a film of a place was in it."""
    walk = place.walk(FILMED)
    return np.stack([walk.at(frame.stamp_ns - START_NS) @ walk.base_T_camera for frame in seen.frames])


def doors_stage(seed: int, conditions: Sequence[str], camera: Camera, keyframes: int, pictures: int) -> Iterator[Stage]:
    """One half of a corridor of equal doors is mapped; the robot starts anywhere in it."""
    if "equal_doors" not in conditions:
        return
    with single_threaded():
        world = make_room("doors", seed, RoomSettings(lighting=LIGHTING))
    place = Place(f"doors {seed}", f"doors {seed}", world, seed)
    poses = place.walk(MAPPING).map_T_camera
    half = poses[poses[:, 0, 3] < 0]
    chosen = half[np.linspace(0, len(half) - 1, keyframes).round().astype(int)]
    films = {("equal_doors", "corridor"): film(place, camera, pictures, np.eye(4))}
    yield Stage(_mapped(place, camera, chosen, np.eye(4)), films)


def stages(seed: int, conditions: Sequence[str], camera: Camera, keyframes: int, pictures: int) -> Iterator[Stage]:
    """Everything that the conditions need of one seed."""
    if set(conditions) & {"twin_rooms", "mirrored_rooms", "kidnapped"}:
        yield from rooms_stage(seed, conditions, camera, keyframes, pictures)
    yield from doors_stage(seed, conditions, camera, keyframes, pictures)
