"""The worlds of a stress run and how they are mapped: keyframes with depth and exact poses.

One place of each kind belongs to a seed. Places of different kinds or seeds share nothing, so that the queries of one
are negatives to the map of another; scenes of one place are different maps of the same world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic import (
    LightingSettings,
    RoomSettings,
    Shot,
    TourSettings,
    Trajectory,
    World,
    make_room,
    tour,
)
from mast3r_ros.lab.synthetic.recording import single_threaded
from mast3r_ros.lab.synthetic.sensors import DepthNoise
from mast3r_ros.lab.synthetic.trajectory import OPTICAL

Array = NDArray[np.float64]

#: Furnished rooms, in turn by seed.
FURNISHED = ("office", "living", "kitchen", "corridor", "warehouse")
#: People who stand nowhere until a condition brings them in.
VISITORS = 3
#: Coarser light than elsewhere: a run makes many worlds.
LIGHTING = LightingSettings(light_samples=2, sky_samples=12)
#: Seed of the other room of the same make, and of the tours that map.
OTHER_ROOM, MAPPING = 500_000, 1000
#: Height of a hand-held camera, and what it keeps from everything, metres.
EYE_M, CLEARANCE_M = 1.4, 0.3
#: Angle to either side from which the map of an orbit looks at its target, degrees.
ORBIT_DEG = 20.0


@dataclass(frozen=True, eq=False)
class Place:
    """A world that can be mapped.

    Attributes:
        name: unique among the places of a run.
        make: places of one make look alike in many details, see RoomSettings.
        furnished: the world with its visitors, see ``world``.
        seed: of the tours in it.
        look_at: what everything worth seeing is at, where that is so.
    """

    name: str
    make: str
    furnished: World
    seed: int
    look_at: tuple[float, float, float] | None = None

    @cached_property
    def world(self) -> World:
        """The world as it is mapped."""
        return self.furnished.without(*visitors(self.furnished))

    def walk(self, number: int) -> Trajectory:
        """A walk through the place with a camera in the hand; another number gives another one."""
        return tour(self.world, self.seed + number, TourSettings("handheld", look_around=1.0, look_at=self.look_at))

    def poses(self, number: int, count: int) -> Array:
        """Camera poses (count, 4, 4) of a walk, evenly spread over it."""
        walked = self.walk(number).map_T_camera
        return walked[np.linspace(0, len(walked) - 1, count).round().astype(int)]

    @cached_property
    def spot(self) -> Array:
        """The roomiest point (3,) of the mapping walk."""
        points = self.walk(MAPPING).map_T_camera[:, :3, 3]
        return np.asarray(points[int(np.argmax(self.world.clearance(points)))])

    def orbit(self, angle: float, reach_m: float = 1.8, height_m: float = EYE_M) -> Array | None:
        """Camera (4, 4) at an angle (radians) around the middle of the place, looking at it; None in a wall.

        Angle 0 is the side with the most room, see ``_orbited``.
        """
        (x, y), front = self._orbited
        return self._view(np.array([x, y]), front + angle, reach_m, height_m)

    @cached_property
    def _orbited(self) -> tuple[tuple[float, float], float]:
        """What orbits go around, and where they begin: the room's middle, or the spot where racks fill the middle."""
        begins = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        reach = np.radians(ORBIT_DEG)
        best: tuple[int, tuple[float, float], float] = (-1, (0.0, 0.0), 0.0)
        for middle in (np.zeros(2), self.spot[:2]):
            for begin in begins:
                angles = begin + np.linspace(-reach, reach, 5)
                free = sum(self._view(middle, float(angle), 1.8, EYE_M) is not None for angle in angles)
                if free > best[0]:
                    best = free, (float(middle[0]), float(middle[1])), float(begin)
        return best[1], best[2]

    def _view(self, middle: Array, angle: float, reach_m: float, height_m: float) -> Array | None:
        for radius in np.arange(reach_m, 0.4, -0.1):
            eye = np.array([*(middle + radius * np.array([np.cos(angle), np.sin(angle)])), height_m])
            if self.world.clearance(eye) > CLEARANCE_M:
                return looking_at(eye, np.array([*middle, 0.4]))
        return None


@dataclass(frozen=True, eq=False)
class Scene:
    """A place and the pictures that its map is made of.

    Attributes:
        name: unique among the scenes of a run.
        place: where.
        mapping: shots with depth.
    """

    name: str
    place: Place
    mapping: tuple[Shot, ...]


def scenes_of(seed: int, kinds: Sequence[str], camera: Camera, keyframes: int) -> Iterator[Scene]:
    """The scenes of some kinds for one seed; worlds are made once for all scenes in them.

    Args:
        kinds: names of :data:`KINDS`.
        camera: that maps.
        keyframes: about how many a map has.
    """
    places: dict[str, Place] = {}
    for kind in dict.fromkeys(kinds):
        if kind not in KINDS:
            raise UserError(f"there is no kind of scene called '{kind}': use one of {', '.join(KINDS)}")
        where, mapping = KINDS[kind]
        if where not in places:
            with single_threaded():
                places[where] = PLACES[where](seed)
        place = places[where]
        name = f"{kind} {seed}"
        shots = [
            Shot(place.world, pose, camera, f"{name} keyframe {k}", depth_noise=DepthNoise())
            for k, pose in enumerate(mapping(place, keyframes))
        ]
        yield Scene(name, place, tuple(shots))


def visitors(world: World) -> list[str]:
    """Names of the people in a world."""
    return [name for name in world.names if name.startswith("visitor ")]


def looking_at(eye: Array, target: Array) -> Array:
    """Camera pose (4, 4) at ``eye`` (3,) that looks at ``target`` (3,), upright."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return se3.make(np.stack([right, np.cross(forward, right), forward], axis=1), eye)


def turned(eye: Array, yaw: float, pitch: float) -> Array:
    """Camera pose (4, 4) at ``eye`` (3,) with yaw about z and pitch, down positive, in radians."""
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    nod = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    return se3.make(turn @ nod @ OPTICAL, eye)


def _walked(place: Place, keyframes: int) -> Array:
    return place.poses(MAPPING, keyframes)


def _on_the_spot(place: Place, keyframes: int) -> Array:
    """All around from one point: no two keyframes have a baseline."""
    turns = np.linspace(0, 2 * np.pi, max(keyframes // 2, 12), endpoint=False)
    return np.stack([turned(place.spot, yaw, pitch) for pitch in (0.0, 0.35) for yaw in turns])


def _from_one_side(place: Place, keyframes: int) -> Array:
    """The middle of the place from one side only."""
    angles = np.radians(np.linspace(-ORBIT_DEG, ORBIT_DEG, max(keyframes // 4, 5)))
    views = [place.orbit(a, reach, height) for reach in (1.2, 1.8) for height in (1.2, 1.6) for a in angles]
    free = [view for view in views if view is not None]
    # A room so full that nobody can stand before its middle is mapped from where one can stand.
    return np.stack(free) if free else _on_the_spot(place, keyframes)


def _room(seed: int) -> Place:
    family = FURNISHED[seed % len(FURNISHED)]
    settings = RoomSettings(lighting=LIGHTING, make=seed, visitors=VISITORS)
    return Place(f"{family} {seed}", f"{family} {seed}", make_room(family, seed, settings), seed)


def _same_make(seed: int) -> Place:
    """Another room with the same colours, wallpapers, floors, doors and furniture."""
    family = FURNISHED[seed % len(FURNISHED)]
    world = make_room(family, seed + OTHER_ROOM, RoomSettings(lighting=LIGHTING, make=seed))
    return Place(f"{family} {seed} b", f"{family} {seed}", world, seed)


def _stress_room(family: str, seed: int) -> Place:
    world = make_room(family, seed, RoomSettings(lighting=LIGHTING))
    look_at = (0.0, 2.5, 1.4) if family == "planar" else None
    # The shelves of all repeated rooms come from one factory.
    make = family if family == "repeated" else f"{family} {seed}"
    return Place(f"{family} {seed}", make, world, seed, look_at)


STRESS_FAMILIES = ("planar", "repeated", "textureless", "glass")
#: What can be mapped, by seed.
PLACES: dict[str, Callable[[int], Place]] = {
    "furnished": _room,
    "same_make": _same_make,
    **{family: partial(_stress_room, family) for family in STRESS_FAMILIES},
}
#: Kinds of scenes: which place, and how it is mapped.
KINDS: dict[str, tuple[str, Callable[[Place, int], Array]]] = {
    "room": ("furnished", _walked),
    "spot": ("furnished", _on_the_spot),
    "orbit": ("furnished", _from_one_side),
    "same_make": ("same_make", _walked),
    **{family: (family, _walked) for family in STRESS_FAMILIES},
}
