"""Pairs of pictures of ray-cast rooms that no network was trained on, with exact depth and poses.

Room k of seed S is made from the number ``first_room(S) + k``, which lies between ``FIRST_ROOM`` and
``training.rooms.VALIDATION_SEEDS`` whatever S is. Rooms of training and validation lie above, those that gates are
set on (``stress.TUNING_SEED``) below: any seed may be asked for, and its rooms are unseen by construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic import CameraNoise, LightingSettings, Renderer, RoomSettings, exposed, make_room
from mast3r_ros.lab.synthetic.recording import cores, single_threaded
from mast3r_ros.lab.training.pairs import choose_pair
from mast3r_ros.lab.training.rooms import RoomsConfig, camera_noise, clear_places, looking_about, pinhole
from mast3r_ros.lab.training.views import View, axis_gaps, overlaps

Array = NDArray[np.float64]

#: Numbers of the rooms: of all seeds they lie in [FIRST_ROOM, FIRST_ROOM + ROOMS), below those of training.
FIRST_ROOM, ROOMS = 1 << 20, 1 << 29
#: Seeds are so many rooms apart, so that two of them share none.
MOST_ROOMS = 1000
#: Small pictures of a room (width and height) among which pairs are looked for: half of them are taken from random
#: places, as in training, the others from near one of these, so that views of all degrees of overlap are found.
CANDIDATES, CANDIDATE_SIZE = 48, (96, 72)
#: How far a neighbour is: metres (log-normal: median and factor), degrees (standard deviation).
NEAR_M, NEAR_FACTOR, TURN_DEG = 0.7, 2.0, 35.0
#: Pairs whose axes differ by more than this show the surface from such different sides that no matcher is asked.
MOST_GAP_DEG = 90.0
#: A view of nothing but a surface nearer than this (median, metres) says nothing.
NEAREST_M = 0.7
#: Draws of a pair before one is taken again.
PATIENCE = 50


@dataclass(frozen=True, eq=False)
class WorldPair:
    """A reference and a query that look at the same room.

    Attributes:
        reference: with exact depth.
        query: without depth.
        reference_T_query: (4, 4) the true pose.
        overlap: smaller share of one view's surface that the other sees, occlusion considered.
        gap_deg: between the optical axes.
        family: kind of room; room: its number.
    """

    reference: Frame
    query: Frame
    reference_T_query: Array
    overlap: float
    gap_deg: float
    family: str
    room: int


@dataclass(frozen=True)
class _Looks:
    """Which views of a room overlap, as :func:`training.pairs.choose_pair` reads it."""

    overlap: Array
    gap: Array


def first_room(seed: int) -> int:
    """Number of a seed's first room."""
    return FIRST_ROOM + seed * MOST_ROOMS % ROOMS


def world_pairs(seed: int, rooms: int, pairs: int, config: RoomsConfig) -> Iterator[WorldPair]:
    """Pairs of the rooms of a seed, room by room, drawn as pairs of training are: all overlaps in equal parts.

    Args:
        config: size of the pictures and what is varied.

    Raises:
        UserError: for more rooms than a seed has, or fewer pairs than rooms.
    """
    if not 1 <= rooms <= MOST_ROOMS or pairs < rooms or seed < 0:
        raise UserError(f"{pairs} pairs of {rooms} rooms: there may be 1 to {MOST_ROOMS} rooms, and a pair of each")
    done = 0
    for number in range(rooms):
        # What one room does not have, the next ones make up for.
        for pair in _pairs_of_room(first_room(seed) + number, pairs * (number + 1) // rooms - done, config):
            done += 1
            yield pair


def _pairs_of_room(room: int, count: int, config: RoomsConfig) -> Iterator[WorldPair]:
    rng = np.random.default_rng([room, 11])
    family = config.families[room % len(config.families)]
    lights = LightingSettings(light_samples=2, sky_samples=12)
    world = make_room(family, room, RoomSettings(float(rng.uniform(0.6, 1.5)), lights))
    renderer, noise = Renderer(world), camera_noise(rng)
    poses, angles = _candidates(clear_places(world, config, rng), config, rng)
    small = _taken(renderer, poses, [pinhole(*CANDIDATE_SIZE, angle) for angle in angles], CameraNoise.none(), room)
    chosen = _chosen(small, count, rng)
    kept = sorted({index for pair in chosen for index in pair})
    cameras = [pinhole(config.width, config.height, angles[index]) for index in kept]
    views = dict(zip(kept, _taken(renderer, poses[kept], cameras, noise, room), strict=True))
    named = {index: camera for index, camera in zip(kept, cameras, strict=True)}
    for first, second in chosen:
        view1, view2 = views[first], views[second]
        names = [f"{family} {room} view {index}" for index in (first, second)]
        yield WorldPair(
            Frame(view1.image, named[first], depth=view1.depth, name=names[0]),
            Frame(view2.image, named[second], name=f"{names[1]} at {first}"),
            se3.inverse(view1.map_T_camera) @ view2.map_T_camera,
            _smaller(overlaps([view1, view2]))[0, 1],
            float(axis_gaps(np.stack([view1.map_T_camera, view2.map_T_camera]))[0, 1]),
            family,
            room,
        )


def _candidates(places: Array, config: RoomsConfig, rng: np.random.Generator) -> tuple[Array, list[float]]:
    """Poses (N, 4, 4), and horizontal fields of view in degrees, of one camera or of many."""
    away = [looking_about(places[int(rng.integers(len(places)))], rng) for _ in range(CANDIDATES // 2)]
    near = [_neighbour(away[k], places, rng) for k in rng.integers(0, len(away), CANDIDATES - len(away))]
    low, high = config.field_of_view_deg
    angles = rng.uniform(low, high, CANDIDATES)
    if rng.uniform() < 0.7:
        angles[:] = angles[0]
    return np.stack([*away, *near]), [float(angle) for angle in angles]


def _neighbour(pose: Array, places: Array, rng: np.random.Generator) -> Array:
    """A view from the free place nearest to a random one near a view, turned."""
    step = rng.normal(size=3) * [1, 1, 0.3]
    step *= NEAR_M * np.exp(rng.normal() * np.log(NEAR_FACTOR)) / max(np.linalg.norm(step), 1e-9)
    centre = places[np.argmin(np.linalg.norm(places - (pose[:3, 3] + step), axis=1))]
    yaw, tilt = np.radians(TURN_DEG) * rng.normal(), rng.normal(0, 0.1, 2)
    turn, lean = se3.exp(np.array([0, 0, 0, 0, 0, yaw])), se3.exp(np.array([0, 0, 0, tilt[0], 0, tilt[1]]))
    return se3.make(turn[:3, :3] @ pose[:3, :3] @ lean[:3, :3], centre)


def _taken(renderer: Renderer, poses: Array, cameras: Sequence[Camera], noise: CameraNoise, seed: int) -> list[View]:
    """Views with exact depth, one on each core."""
    for camera in cameras:
        camera.pixel_rays  # noqa: B018  # computed before threads share it

    def one(number: int) -> View:
        torch.set_num_threads(1)
        rendered = renderer.render(poses[number][None], cameras[number])
        image = exposed(rendered.radiance[0], noise, np.random.default_rng([seed, 12, number]))
        return View(image, rendered.depth[0].numpy(), poses[number], cameras[number].K)

    with single_threaded(), ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, range(len(poses))))


def _chosen(views: Sequence[View], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Different pairs, as long as the room has some."""
    overlap, gap = _smaller(overlaps(list(views))), axis_gaps(np.stack([view.map_T_camera for view in views]))
    useless = np.array([np.median(view.depth) < NEAREST_M for view in views])
    overlap[useless], overlap[:, useless], overlap[gap > MOST_GAP_DEG] = 0, 0, 0
    found: list[tuple[int, int]] = []
    for _ in range(PATIENCE * count):
        pair = choose_pair(_Looks(overlap, gap), rng, wide_share=0.3)
        if pair not in found:
            found.append(pair)
        if len(found) == count:
            break
    return found


def _smaller(overlap: Array) -> Array:
    return np.minimum(overlap, overlap.T)
