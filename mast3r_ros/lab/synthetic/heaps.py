"""What lies about: things of any shape, turned any way, on floors and walls, so that few surfaces are plain planes."""

from __future__ import annotations

from mast3r_ros.lab.synthetic import pictures, textures
from mast3r_ros.lab.synthetic.layout import WALLS, Layout
from mast3r_ros.lab.synthetic.world import Material

#: Different materials of the things of one place.
MATERIALS = 6
#: Heaps at usual clutter, and things in each.
HEAPS, THINGS = 7, (3, 9)


def strew(room: Layout, clutter: float = 1.0) -> None:
    """Heaps of boxes, balls and tins wherever the floor is free, and bumps on the walls that give them relief."""
    for _ in range(round(HEAPS * clutter)):
        reach = room.uniform(0.3, 0.8)
        if room.on_floor("heap", reach, reach, gap=0.1, margin=0.2):
            for _ in range(int(room.rng.integers(*THINGS))):
                thing(room, room.uniform(-0.5, 0.5) * reach, room.uniform(-0.5, 0.5) * reach, room.uniform(0.08, 0.45))
    for wall in WALLS:
        for _ in range(int(room.rng.integers(0, round(4 * clutter) + 1))):
            size = room.uniform(0.1, 0.5)
            if room.on_wall("relief", size, size, room.uniform(0.3, 1.6), wall=wall):
                _bump(room, size)


def material(room: Layout, scale: float = 0.5) -> Material:
    """One of the materials of things here; ``scale`` is the metres of a repeat."""
    number = int(room.rng.integers(MATERIALS))
    return room.surface(f"thing {number}", lambda rng: textures.fabric(rng, room.style.accent), scale)


def thing(room: Layout, x: float, y: float, size: float) -> None:
    """Something of about this size (metres) on the floor of the current frame: box, bag, ball, tin or book."""
    build, kind = room.builder, int(room.rng.integers(5))
    width, depth, height = (size * room.uniform(0.4, 1.2) for _ in range(3))
    shown = material(room, 2 * size)
    yaw = room.uniform(-3.2, 3.2)
    if kind == 0:
        build.box((x, y, height / 2), (width, depth, height), shown, yaw)
    elif kind == 1:
        label = room.picture(f"label {int(room.rng.integers(6))}", lambda rng: pictures.poster(rng, 256))
        build.box((x, y, height / 2), (width, depth, height), shown, yaw, room.uniform(-0.4, 0.4), {"+z": label})
    elif kind == 2:
        build.sphere((x, y, height / 2), (width, depth, height), shown)
    elif kind == 3:
        build.cylinder((x, y, height / 2), width / 2, height, shown)
    else:
        page = room.picture(f"page {int(room.rng.integers(6))}", lambda rng: pictures.notice(rng, 256))
        build.box((x, y, 0.02 + 0.2 * room.uniform(0, size)), (width, depth, 0.03), shown, yaw, faces={"+z": page})


def _bump(room: Layout, size: float) -> None:
    """A box or half a ball on a wall; the frame is at its middle, the wall at y = 0."""
    deep = size * room.uniform(0.1, 0.6)
    if room.chance(0.5):
        room.builder.box((0, deep / 2, 0), (size, deep, size), material(room), tilt=room.uniform(-0.2, 0.2))
    else:
        room.builder.sphere((0, 0, 0), (size, 2 * deep, size), material(room))
