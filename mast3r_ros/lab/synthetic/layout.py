"""Where things stand in a room: along walls, on the floor, on walls, without standing in each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.lab.synthetic import textures
from mast3r_ros.lab.synthetic.photographs import PICTURES, SURFACES, Photographs
from mast3r_ros.lab.synthetic.world import Material, WorldBuilder

#: Inward yaw of each wall: local +y points into the room, local x runs along the wall.
WALLS = {"south": 0.0, "east": np.pi / 2, "north": np.pi, "west": -np.pi / 2}

Image = NDArray[np.uint8]
#: Textures of what people bring in, and of the view outside: every room has its own, also among those of one make.
OWN = ("picture", "mural", "board", "window", "spines", "screen", "label", "page", "note", "rug", "shirt")
#: Textures of which every piece is like every other; no two pieces of wood, carpet or plaster are.
FACTORY_MADE = ("door", "drawers", "kitchen", "fridge", "fronts", "keyboard")


@dataclass(frozen=True)
class Style:
    """Colours (RGB 0..255) that one room is kept in.

    Attributes:
        wall, floor, wood, front, accent: of the walls, the floor, wooden things, painted fronts, cloth and details.
    """

    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    wood: tuple[float, float, float]
    front: tuple[float, float, float]
    accent: tuple[float, float, float]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Style:
        """A plausible set of colours."""
        walls = [(222, 216, 204), (206, 214, 214), (226, 222, 216), (212, 204, 186), (188, 200, 190), (214, 196, 184)]
        woods = [(176, 128, 82), (140, 94, 58), (206, 168, 120), (104, 70, 48), (190, 150, 104)]
        fronts = [(226, 226, 222), (86, 104, 110), (170, 180, 172), (62, 76, 96), (200, 190, 176), (120, 134, 118)]
        accents = [(178, 70, 58), (52, 96, 130), (212, 160, 60), (70, 110, 84), (126, 84, 112), (60, 64, 74)]

        def pick(colours: list[tuple[int, int, int]]) -> tuple[float, float, float]:
            chosen = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.92, 1.05)
            return float(chosen[0]), float(chosen[1]), float(chosen[2])

        return cls(pick(walls), pick(woods), pick(woods), pick(fronts), pick(accents))


class Layout:
    """A room under construction: its builder, style, materials, and which floor and wall is taken."""

    def __init__(
        self,
        rng: np.random.Generator,
        size: tuple[float, float, float],
        plain: bool = False,
        make: int | None = None,
        twin: int = 0,
        photographs: Photographs | None = None,
    ) -> None:
        """An empty room.

        Args:
            rng: decides where things stand and, without a ``make``, how they look.
            plain: no textures.
            make: rooms of one make have the same colours, wallpapers, floors, doors and furniture, at other places;
                what people bring in is their own.
            twin: another number gives the same room to the last chair, made of other pieces of wood, plaster and cloth,
                in which other people live.
            photographs: textures that take the place of drawn ones.
        """
        self.rng, self.size, self.plain, self.make, self.twin = rng, size, plain, make, twin
        self.photographs = photographs
        self.style = Style.random(rng if make is None else np.random.default_rng([make, 1]))
        self.builder = WorldBuilder(rng, textures.grain())
        self._materials: dict[str, int] = {}
        self._floor: list[tuple[float, float, float, float]] = []
        self._walls: dict[str, list[tuple[float, float, float, float]]] = {wall: [] for wall in WALLS}

    def chance(self, probability: float) -> bool:
        """True that often."""
        return bool(self.rng.uniform() < probability)

    def uniform(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def texture(self, key: str, make: Callable[[np.random.Generator], Image]) -> int:
        """The texture called ``key``, made when first asked for. A plain room gets its mean colour only."""
        if key not in self._materials:
            own = self.make is None or key.startswith(OWN)
            image = make(self.rng if own else np.random.default_rng([self.make, 2, *key.encode()]))
            if self.twin and not key.startswith(FACTORY_MADE):
                image = make(np.random.default_rng([self.twin, 3, *key.encode()]))
            if self.plain:
                image = textures.flat(image.reshape(-1, 3).mean(axis=0))
            self._materials[key] = self.builder.atlas.add(image)
        return self._materials[key]

    def surface(
        self, key: str, make: Callable[[np.random.Generator], Image], metres: float, grain: float = 0.3
    ) -> Material:
        """A repeating material."""
        if self.photographs is not None:
            make = self.photographs.maker(SURFACES, make)
        return Material(self.texture(key, make), metres, grain=0.0 if self.plain else grain)

    def picture(self, key: str, make: Callable[[np.random.Generator], Image], emission: float = 0.0) -> Material:
        """A material that is stretched over a face once."""
        if self.photographs is not None:
            make = self.photographs.maker(PICTURES, make)
        return Material(self.texture(key, make), None, emission=emission, grain=0.0 if self.plain else 0.04)

    def wood(self, vertical: bool = False) -> Material:
        """The wood of this room."""
        kind = int(self.rng.integers(2))
        return Material(
            self.texture(
                f"wood {kind}", lambda rng: textures.wood(rng, np.asarray(self.style.wood) * (1 - 0.12 * kind))
            ),
            0.9,
            turned=vertical,
            grain=0.0 if self.plain else 0.1,
        )

    def colour(self, rgb: tuple[float, float, float], grain: float = 0.14) -> Material:
        """Smooth paint or plastic."""
        linear = np.square(np.asarray(rgb) / 255.0)
        white = self.texture("white", lambda rng: textures.metal(rng, (246, 246, 246), 256))
        tint = (float(linear[0]), float(linear[1]), float(linear[2]))
        return Material(white, 0.8, tint=tint, grain=0.0 if self.plain else grain)

    def wall_length(self, wall: str) -> float:
        """Length of a wall in metres."""
        return self.size[0] if wall in ("south", "north") else self.size[1]

    def wall_frame(self, wall: str, along: float, z: float = 0.0) -> tuple[float, float, float, float]:
        """x, y, z, yaw of a place at a wall; ``along`` runs from -length/2 to length/2 along local x."""
        yaw = WALLS[wall]
        across = -(self.size[1] if wall in ("south", "north") else self.size[0]) / 2
        x, y = np.cos(yaw) * along - np.sin(yaw) * across, np.sin(yaw) * along + np.cos(yaw) * across
        return float(x), float(y), z, yaw

    def reserve_floor(self, x: float, y: float, width: float, depth: float, yaw: float = 0.0, gap: float = 0.0) -> bool:
        """Take a rectangle of floor, centred at x, y, if it is free and inside the room."""
        c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
        half_x, half_y = (c * width + s * depth) / 2, (s * width + c * depth) / 2
        if abs(x) + half_x > self.size[0] / 2 + 1e-6 or abs(y) + half_y > self.size[1] / 2 + 1e-6:
            return False
        mine = (x - half_x - gap, y - half_y - gap, x + half_x + gap, y + half_y + gap)
        if any(mine[0] < b[2] and b[0] < mine[2] and mine[1] < b[3] and b[1] < mine[3] for b in self._floor):
            return False
        self._floor.append((x - half_x, y - half_y, x + half_x, y + half_y))
        return True

    def reserve_wall(self, wall: str, along: float, low: float, width: float, height: float) -> bool:
        """Take a rectangle of wall if it is free and inside the wall."""
        if abs(along) + width / 2 > self.wall_length(wall) / 2 - 0.05 or low + height > self.size[2] - 0.03:
            return False
        mine = (along - width / 2, low, along + width / 2, low + height)
        if any(mine[0] < b[2] and b[0] < mine[2] and mine[1] < b[3] and b[1] < mine[3] for b in self._walls[wall]):
            return False
        self._walls[wall].append(mine)
        return True

    def at_wall(self, name: str, width: float, depth: float, height: float, tries: int = 40, gap: float = 0.05) -> bool:
        """Find a free place at any wall for a thing and move the builder's frame there."""
        for _ in range(tries):
            wall = list(WALLS)[int(self.rng.integers(4))]
            reach = self.wall_length(wall) / 2 - width / 2 - 0.06
            if reach > 0 and self.put_at_wall(name, wall, self.uniform(-reach, reach), width, depth, height, gap):
                return True
        return False

    def put_at_wall(
        self, name: str, wall: str, along: float, width: float, depth: float, height: float, gap: float = 0.05
    ) -> bool:
        """Put a thing at this place of a wall if it is free, and move the builder's frame there."""
        x, y, z, yaw = self.wall_frame(wall, along)
        middle = (x - np.sin(yaw) * depth / 2, y + np.cos(yaw) * depth / 2)
        taken = list(self._walls[wall])
        if not self.reserve_wall(wall, along, 0.0, width + gap, height):
            return False
        if not self.reserve_floor(*middle, width, depth, yaw, gap):
            self._walls[wall] = taken
            return False
        self.builder.at(x, y, z, yaw, name)
        return True

    def on_wall(
        self, name: str, width: float, height: float, low: float, tries: int = 30, wall: str | None = None
    ) -> bool:
        """Find a free place on the walls for something flat; the builder's frame is at its middle."""
        for _ in range(tries):
            chosen = wall or list(WALLS)[int(self.rng.integers(4))]
            reach = self.wall_length(chosen) / 2 - width / 2 - 0.1
            if reach <= 0:
                continue
            along = self.uniform(-reach, reach)
            if self.reserve_wall(chosen, along, low, width, height):
                self.builder.at(*self.wall_frame(chosen, along, low + height / 2), name)
                return True
        return False

    def on_floor(
        self, name: str, width: float, depth: float, gap: float = 0.5, tries: int = 40, margin: float = 0.6
    ) -> bool:
        """Find a free place in the middle of the room; the builder's frame is at its centre."""
        for _ in range(tries):
            yaw = float(self.rng.choice([0.0, np.pi / 2])) + self.uniform(-0.12, 0.12)
            x = self.uniform(-1, 1) * max(self.size[0] / 2 - margin - width / 2, 0)
            y = self.uniform(-1, 1) * max(self.size[1] / 2 - margin - depth / 2, 0)
            if self.reserve_floor(x, y, width, depth, yaw, gap):
                self.builder.at(x, y, 0.0, yaw, name)
                return True
        return False
