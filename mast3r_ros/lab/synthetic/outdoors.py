"""Streets and yards: facades with relief, trees, cars and people under a sky that shines."""

from __future__ import annotations

import numpy as np

from mast3r_ros.lab.synthetic import fronts, heaps, people, pictures, textures
from mast3r_ros.lab.synthetic.layout import WALLS, Layout
from mast3r_ros.lab.synthetic.world import Material

#: Metres of a storey, and of a bay of a facade.
STOREY, BAY = (2.8, 3.8), (2.4, 4.5)
SKY = "sky"


def build_street(street: Layout, clutter: float = 1.0) -> None:
    """Houses along all four sides, with gaps at the corners, and what stands between them."""
    ground = street.surface("ground", lambda rng: textures.concrete(rng), street.uniform(2.0, 5.0))
    faces = {
        name: street.picture(f"{SKY} {name}", lambda rng: pictures.landscape(rng, 512, False), 0.9)
        for name in ("+x", "-x", "+y", "-y", "+z")
    }
    street.builder.shell(street.size, {**faces, "-z": ground})
    for wall in WALLS:
        _row_of_houses(street, wall)
    count = round(clutter * street.size[0] * street.size[1] / 90)
    for _ in range(min(count, 16)):
        build = (_tree, _car, _bush, _post, people.visitor, _heap)[int(street.rng.integers(6))]
        if street.on_floor("thing", 1.6, 1.6, gap=0.3, margin=4.0):
            build(street)
    _sun(street)


def _row_of_houses(street: Layout, wall: str) -> None:
    """Houses of different width, depth and height along one side."""
    along, end = -street.wall_length(wall) / 2, street.wall_length(wall) / 2
    while along < end - 4.0:
        width = min(street.uniform(6.0, 16.0), end - along)
        if street.chance(0.85):
            height = street.uniform(0.25, 0.75) * street.size[2]
            x, y, _, yaw = street.wall_frame(wall, along + width / 2)
            street.builder.at(x, y, 0.0, yaw, "house")
            _house(street, width, street.uniform(1.5, 4.0), height)
        along += width + (street.uniform(0.5, 3.0) if street.chance(0.3) else 0.0)


def _house(street: Layout, width: float, depth: float, height: float) -> None:
    """A box with windows in or before the wall, ledges, a door, perhaps a shop sign; its front looks to +y."""
    build, kind = street.builder, int(street.rng.integers(4))
    front = street.surface(f"facade {kind}", lambda rng: textures.bricks(rng, (168, 120, 96)), street.uniform(1.5, 4.0))
    trim = street.surface(f"trim {kind % 2}", lambda rng: textures.concrete(rng), 1.5)
    build.box((0, depth / 2, height / 2), (width, depth, height), front)
    build.box((0, depth / 2, height + 0.1), (width + 0.3, depth + 0.6, 0.25), trim)
    storey, bays = street.uniform(*STOREY), max(1, int(width / street.uniform(*BAY)))
    pane = street.picture(f"window {kind}", fronts.window)
    size = (street.uniform(0.8, 1.4), street.uniform(1.1, 1.9))
    out = street.uniform(-0.02, 0.12)
    for level in range(max(1, int(height / storey))):
        middle = (level + 0.5) * storey + 0.2
        if middle + size[1] / 2 > height:
            break
        for bay in range(bays):
            x = ((bay + 0.5) / bays - 0.5) * width
            if level == 0 and bay == bays // 2:
                door = street.picture(
                    f"door {kind}", lambda rng: fronts.fronts(rng, textures.wood(rng, (120, 80, 50)), 1, 1)
                )
                build.box((x, depth + 0.02, 1.1), (1.1, 0.1, 2.2), trim, faces={"+y": door})
            elif street.chance(0.9):
                build.box((x, depth + out, middle), (size[0], 0.1, size[1]), trim, faces={"+y": pane})
                build.box((x, depth + 0.1, middle - size[1] / 2 - 0.05), (size[0] + 0.2, 0.25, 0.08), trim)
        if street.chance(0.4):
            build.box((0, depth + 0.08, (level + 1) * storey), (width, 0.2, 0.15), trim)
    if street.chance(0.5):
        sign = street.picture(f"picture {int(street.rng.integers(5))}", pictures.poster)
        at = street.uniform(-0.3, 0.3) * width
        build.box((at, depth + 0.15, 2.7), (street.uniform(1.0, 3.0), 0.15, 0.8), trim, faces={"+y": sign})


def _tree(street: Layout) -> None:
    height = street.uniform(3.0, 9.0)
    bark = street.surface("bark", lambda rng: textures.wood(rng, (96, 76, 60)), 0.6)
    foliage = street.surface("leaves", textures.leaves, street.uniform(0.5, 1.5))
    street.builder.cylinder((0, 0, height * 0.25), height * 0.03, height * 0.5, bark)
    for _ in range(int(street.rng.integers(5, 10))):
        size = height * street.uniform(0.15, 0.35)
        x, y = (street.uniform(-0.18, 0.18) * height for _ in range(2))
        street.builder.sphere((x, y, height * street.uniform(0.45, 0.9)), (size, size, size * 0.9), foliage)


def _bush(street: Layout) -> None:
    foliage = street.surface("leaves", textures.leaves, 0.8)
    for _ in range(int(street.rng.integers(3, 8))):
        size = street.uniform(0.4, 1.2)
        place = (street.uniform(-0.8, 0.8), street.uniform(-0.8, 0.8), size * 0.35)
        street.builder.sphere(place, (size, size, size), foliage)


def _car(street: Layout) -> None:
    paint: Material = street.colour(street.style.accent, 0.05)
    glass = street.colour((50, 60, 70), 0.02)
    length, width = street.uniform(3.4, 4.6), street.uniform(1.6, 1.9)
    street.builder.box((0, 0, 0.6), (length, width, 0.65), paint)
    street.builder.box((-0.2, 0, 1.15), (length * 0.55, width * 0.9, 0.5), glass, faces={"+z": paint})
    for x in (-0.33, 0.33):
        street.builder.box((x * length, 0, 0.3), (0.6, width + 0.04, 0.6), street.colour((30, 30, 32)))


def _post(street: Layout) -> None:
    height = street.uniform(2.5, 6.0)
    street.builder.cylinder((0, 0, height / 2), 0.06, height, street.colour((90, 94, 96)))
    sign = street.picture(f"picture {int(street.rng.integers(5))}", pictures.poster)
    street.builder.box((0, 0, height * 0.8), (0.8, 0.05, 0.8), street.colour((200, 200, 200)), faces={"+y": sign})


def _heap(street: Layout) -> None:
    for _ in range(int(street.rng.integers(2, 7))):
        heaps.thing(street, street.uniform(-0.7, 0.7), street.uniform(-0.7, 0.7), street.uniform(0.3, 1.1))


def _sun(street: Layout) -> None:
    """Light from one side of the sky, from low to high; a small lamp for sharp shadows, a wide one for clouds."""
    length, width, height = street.size
    turn, wide = street.uniform(-np.pi, np.pi), street.uniform(0.5, 6.0)
    place = np.array([0.4 * length * np.cos(turn), 0.4 * width * np.sin(turn), height * street.uniform(1.2, 2.5)])
    towards = -place / np.linalg.norm(place)
    side = np.cross(towards, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side)
    up = np.cross(side, towards)
    street.builder.at(0.0, 0.0)
    power = 2.0 * float(place @ place) * np.array([1.0, street.uniform(0.8, 1.0), street.uniform(0.6, 1.0)])
    street.builder.light(place, wide * side, wide * up, towards, power)
