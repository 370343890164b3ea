"""How a camera moves through a room: smooth tours of a wheeled robot or of a hand, clear of everything.

Frames follow REP 103 and 105: base_link is x forward, y left, z up; the camera frame is optical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from mast3r_ros.errors import UserError
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic.world import World

Array = NDArray[np.float64]

#: Camera optical axes (columns) in a frame that is x forward, y left, z up.
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
#: Side of a cell of the plan in which paths are searched, metres.
CELL = 0.08


def mounted_camera(height_m: float = 0.9, forward_m: float = 0.15, tilt_deg: float = 0.0) -> Array:
    """``base_T_camera`` (4, 4) of a camera on a robot; a positive tilt looks down."""
    c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    down = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return se3.make(down @ OPTICAL, [forward_m, 0.0, height_m])


@dataclass(frozen=True)
class TourSettings:
    """A tour through a room.

    Attributes:
        mode: ``robot`` drives on the floor and looks where it drives; ``handheld`` also bobs, and looks around.
        rate_hz: poses per second.
        speed_mps, turn_rate_rps: limits of speed and of yaw rate; a hand moves a little on top of them
            (up to 0.15 m/s and 0.4 rad/s).
        stops: places of the room that the tour visits.
        look_around: share of the stops at which it turns once around on the spot.
        clearance_m: distance that is kept from everything.
        base_T_camera: camera mount; for ``handheld`` its height is where the hand is.
        duration_s: cut the tour to this length, or go round again until it is reached; None: once round.
        look_at: point (3,) in the map frame that a handheld camera keeps in view; None: it looks around.
    """

    mode: str = "robot"
    rate_hz: float = 10.0
    speed_mps: float = 0.5
    turn_rate_rps: float = 0.7
    stops: int = 5
    look_around: float = 0.6
    clearance_m: float = 0.32
    base_T_camera: Array = field(default_factory=mounted_camera)
    duration_s: float | None = None
    look_at: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("robot", "handheld"):
            raise UserError(f"unknown tour mode '{self.mode}': use robot or handheld")
        if min(self.rate_hz, self.speed_mps, self.turn_rate_rps, self.clearance_m) <= 0 or self.stops < 2:
            raise UserError("a tour needs a positive rate, speed, turn rate and clearance, and at least 2 stops")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where a robot and its camera were.

    Attributes:
        stamps_ns: (N,) int64 nanoseconds.
        map_T_base: (N, 4, 4) base_link -> map.
        base_T_camera: (4, 4) camera optical frame -> base_link.
    """

    stamps_ns: NDArray[np.int64]
    map_T_base: Array
    base_T_camera: Array

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def map_T_camera(self) -> Array:
        """(N, 4, 4) camera optical frame -> map."""
        return self.map_T_base @ self.base_T_camera

    def at(self, stamp_ns: float) -> Array:
        """``map_T_base`` (4, 4) at any time, interpolated; beyond the ends it stands still."""
        where = np.interp(stamp_ns, self.stamps_ns, np.arange(len(self)))
        before = min(int(where), len(self) - 2)
        if len(self) == 1:
            return self.map_T_base[0]
        return se3.interpolate(self.map_T_base[before], self.map_T_base[before + 1], float(where - before))


class _Plan:
    """The free floor of a world as a grid of cells, with the distance to the next obstacle."""

    def __init__(self, world: World, clearance: float, low: float, high: float) -> None:
        self.origin = np.array([-world.size[0] / 2, -world.size[1] / 2])
        shape = np.ceil(np.asarray(world.size[:2]) / CELL).astype(int)
        cells = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
        xy = self.origin + (cells + 0.5) * CELL
        self.gap = np.minimum(world.floor_clearance(xy, low, high), 10.0)
        parts, _ = label(self.gap >= clearance)
        sizes = np.bincount(parts.ravel())[1:]
        if not len(sizes) or sizes.max() * CELL**2 < 0.3:
            raise UserError(
                f"no free floor for a clearance of {clearance:g} m: use a smaller one or a room with less in it"
            )
        self.free = parts == 1 + int(np.argmax(sizes))

    def places(self, rng: np.random.Generator, count: int) -> Array:
        """Well spread free cells (count, 2), in order around the middle of the room."""
        # Not in front of a wall, where there is little to see.
        roomy = self.free & (self.gap >= 0.55 * self.gap[self.free].max())
        cells = np.argwhere(roomy)
        chosen = [cells[int(rng.integers(len(cells)))]]
        for _ in range(count - 1):
            away = np.min([np.linalg.norm(cells - c, axis=1) for c in chosen], axis=0)
            chosen.append(cells[int(np.argmax(away * rng.uniform(0.75, 1.0, len(cells))))])
        spots = np.array(chosen)
        middle = spots.mean(axis=0)
        order = np.argsort(np.arctan2(*(spots - middle).T))
        return spots[order if rng.uniform() < 0.5 else order[::-1]]

    def path(self, start: Array, goal: Array) -> Array:
        """The best path (N, 2) in metres between two free cells: short, but away from obstacles."""
        number = np.full(self.free.shape, -1)
        number[self.free] = np.arange(self.free.sum())
        rows, columns, costs = [], [], []
        price = 1 + 0.25 / np.maximum(self.gap, 0.05)
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            a = (slice(None, -dx or None), slice(None, -dy or None) if dy >= 0 else slice(1, None))
            b = (slice(dx, None), slice(dy, None) if dy >= 0 else slice(None, -1))
            both = self.free[a] & self.free[b]
            rows.append(number[a][both])
            columns.append(number[b][both])
            costs.append(np.hypot(dx, dy) * (price[a] + price[b])[both] / 2)
        n = int(self.free.sum())
        # csgraph takes no other index type from SciPy 1.11 to 1.14.
        links = (np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32))
        graph = coo_array((np.concatenate(costs), links), shape=(n, n)).tocsr()
        source, target = int(number[tuple(start)]), int(number[tuple(goal)])
        _, before = dijkstra(graph, directed=False, indices=source, return_predecessors=True)
        trail = [target]
        while trail[-1] != source:
            trail.append(int(before[trail[-1]]))
        return self.origin + (np.argwhere(self.free)[trail[::-1]] + 0.5) * CELL


def tour(world: World, seed: int, settings: TourSettings | None = None) -> Trajectory:
    """A smooth round through the free space of a world; another seed gives another round.

    Raises:
        UserError: where there is no free floor for it.
    """
    settings = settings or TourSettings()
    rng = np.random.default_rng([seed, 11])
    height = float(settings.base_T_camera[2, 3])
    hand = settings.mode == "handheld"
    plan = _Plan(world, settings.clearance_m, 0.05, height + 0.25)
    ways = _ways(plan, rng, settings)
    if settings.duration_s is not None:
        ways = ways * 8
    xy, yaw, length = _course(ways, settings, rng)
    xy, yaw = _timed(xy, yaw, length, settings)
    if settings.duration_s is not None:
        count = max(2, round(settings.duration_s * settings.rate_hz))
        xy, yaw = xy[:count], yaw[:count]
    stamps = np.round(np.arange(len(xy)) / settings.rate_hz * 1e9).astype(np.int64)
    if hand:
        return _in_hand(xy, yaw, stamps, settings, rng)
    poses = np.stack([se3.make(_yawed(a), [x, y, 0.0]) for (x, y), a in zip(xy, yaw, strict=True)])
    return Trajectory(stamps, poses, settings.base_T_camera)


def _ways(plan: _Plan, rng: np.random.Generator, settings: TourSettings) -> list[Array]:
    """Smoothed paths from stop to stop, closed to a round."""
    stops = plan.places(rng, settings.stops)
    ways = []
    for start, goal in zip(stops, np.roll(stops, -1, axis=0), strict=True):
        if (start == goal).all():
            continue
        rough = plan.path(start, goal)
        smooth = rough
        for sigma in (6.0, 3.0, 1.5):
            smooth = gaussian_filter1d(rough, sigma, axis=0, mode="nearest")
            smooth[[0, -1]] = rough[[0, -1]]
            cells = np.floor((smooth - plan.origin) / CELL).astype(int)
            if plan.free[cells[:, 0], cells[:, 1]].all():
                break
            smooth = rough
        ways.append(smooth)
    return ways


def _course(ways: Sequence[Array], settings: TourSettings, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Positions (N, 2), yaw (N,) without jumps, and effort (N,): seconds needed at the limits to get there."""
    points, headings = [], []
    last = None
    for way in ways:
        step = np.linalg.norm(np.diff(way, axis=0), axis=1)
        s = np.concatenate([[0], np.cumsum(step)])
        dense = np.linspace(0, s[-1], max(3, int(s[-1] / 0.02)))
        xy = np.stack([np.interp(dense, s, way[:, k]) for k in range(2)], axis=1)
        direction = np.unwrap(np.arctan2(*np.gradient(xy, axis=0).T[::-1]))
        direction = gaussian_filter1d(direction, 6.0, mode="nearest")
        if last is not None:
            direction += 2 * np.pi * np.round((last - direction[0]) / (2 * np.pi))
            turn = direction[0] - last
            if rng.uniform() < settings.look_around:
                once = np.copysign(2 * np.pi, turn)
                turn += once
                direction += once
            spin = np.linspace(last, last + turn, max(2, int(abs(turn) / 0.02)))
            points.append(np.repeat(xy[:1], len(spin), axis=0))
            headings.append(spin)
        points.append(xy)
        headings.append(direction)
        last = direction[-1]
    xy, yaw = np.concatenate(points), np.concatenate(headings)
    moved = np.linalg.norm(np.diff(xy, axis=0), axis=1) / settings.speed_mps
    turned = np.abs(np.diff(yaw)) / settings.turn_rate_rps
    return xy, yaw, np.concatenate([[0], np.cumsum(np.maximum(moved, turned))])


def _timed(xy: Array, yaw: Array, effort: Array, settings: TourSettings) -> tuple[Array, Array]:
    """Sample a course at the rate, with smooth starts and stops between driving and turning."""
    fine = 50.0
    t = np.arange(0, effort[-1], 1 / fine)
    # A moving average never exceeds the limits that its input keeps.
    course = np.stack([np.interp(t, effort, values) for values in (xy[:, 0], xy[:, 1], yaw)], axis=1)
    course = gaussian_filter1d(course, 0.16 * fine, axis=0, mode="nearest")
    at = np.arange(0, t[-1], 1 / settings.rate_hz)
    sampled = np.stack([np.interp(at, t, column) for column in course.T], axis=1)
    return sampled[:, :2], sampled[:, 2]


def _yawed(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Rotation (3, 3) from yaw about z, then pitch (down positive), then roll."""
    c, s = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[c[0], -s[0], 0], [s[0], c[0], 0], [0, 0, 1.0]])
    nod = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    lean = np.array([[1, 0, 0], [0, c[2], -s[2]], [0, s[2], c[2]]])
    return turn @ nod @ lean


def _waves(rng: np.random.Generator, t: Array, size: float, seconds: float) -> Array:
    """A smooth random signal (N,) of about this amplitude and period."""
    periods, phases = seconds * np.array([0.7, 1.0, 1.7]), rng.uniform(0, 2 * np.pi, 3)
    return size / 1.8 * np.sum([np.sin(2 * np.pi * t / p + f) for p, f in zip(periods, phases, strict=True)], axis=0)


def _in_hand(
    xy: Array, yaw: Array, stamps: NDArray[np.int64], settings: TourSettings, rng: np.random.Generator
) -> Trajectory:
    """A camera in a hand that walks the course: base_link is the device itself, so it moves in all six directions."""
    t = stamps / 1e9
    yaw = yaw + _waves(rng, t, 0.3, 8.0)
    z = settings.base_T_camera[2, 3] + _waves(rng, t, 0.08, 4.0)
    pitch, roll = 0.1 + _waves(rng, t, 0.16, 5.0), _waves(rng, t, 0.05, 3.0)
    poses = []
    for k in range(len(t)):
        position = np.array([*xy[k], z[k]])
        turn, nod = yaw[k], pitch[k]
        if settings.look_at is not None:
            dx, dy, dz = np.asarray(settings.look_at) - position
            turn, nod = np.arctan2(dy, dx), np.arctan2(-dz, np.hypot(dx, dy)) + 0.3 * (pitch[k] - 0.1)
        poses.append(se3.make(_yawed(float(turn), float(nod), float(roll[k])), position))
    return Trajectory(stamps, np.stack(poses), se3.make(OPTICAL, [0.0, 0.0, 0.0]))
